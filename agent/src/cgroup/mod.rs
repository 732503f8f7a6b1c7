//! Pod cgroups: a pure plan by QoS class, and the thin writer for cgroup v1 and v2.
