//! Pods: the pure core (desired, observed, lifecycle, plan, status, backoff) and the actor that carries it out.
