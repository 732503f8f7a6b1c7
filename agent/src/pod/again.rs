//! Whether a container that has ended runs again. The plan, the phase, the waiting reason and the explanation all ask here: a pod
//! whose container is about to run again must never be reported as over. Pure.

use crate::pod::desired::{Container as Spec, RestartPolicy, Role};
use crate::pod::observed::{Container, Observed, Verdicts};
use crate::pod::resize;

pub fn runs_again(c: &Spec, n: &Container, o: &Observed, v: &Verdicts) -> bool {
    let Some(code) = n.exit_code() else { return false };
    if c.role == Role::Init {
        // Once it has succeeded nothing asks its rules any more.
        return code != 0 && c.restarts(code);
    }
    // Ended by this agent to run again, it does so however it took the signal, and also under the policy Never.
    if c.restarts(code) || o.local.replaced.contains(&n.id) || resize::brings_back(c, n, o) {
        return true;
    }
    let unhealthy = v.of(n).is_some_and(|v| v.liveness == Some(false) || v.startup == Some(false));
    unhealthy && c.restart != RestartPolicy::Never
}
