//! The runtime itself: version, condition, and what it lacks.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// `containerd`, `cri-o`, ..
    pub runtime_name: String,
    pub runtime_version: String,
    pub runtime_api_version: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    pub ok: bool,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Not `ok`, with a reason of ours, if the runtime does not say.
    pub runtime_ready: Condition,
    pub network_ready: Condition,
    /// Further conditions by type.
    pub other: BTreeMap<String, Condition>,
    /// By name; the default handler's name is empty. No entries from runtimes that do not say.
    pub handlers: BTreeMap<String, HandlerFeatures>,
    pub supplemental_groups_policy: bool,
    pub user_namespaces_host_network: bool,
    /// The runtime's own words; only when asked for.
    pub info: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandlerFeatures {
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    Systemd,
    Cgroupfs,
}

/// What this runtime has been found to lack. Everything counts as present until it has answered "unimplemented", and again
/// once a runtime of another version answers at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// GetContainerEvents. Without it: list once a second.
    pub events: bool,
    /// RuntimeConfig. Without it: the cgroup driver comes from the agent's own configuration.
    pub runtime_config: bool,
    /// The lists that stream. Without them the unary ones are used.
    pub streaming_lists: bool,
    /// PodSandboxStats and its list.
    pub sandbox_stats: bool,
    /// ListMetricDescriptors and ListPodSandboxMetrics.
    pub metrics: bool,
    /// UpdatePodSandboxResources.
    pub update_sandbox_resources: bool,
    /// CheckpointContainer.
    pub checkpoint: bool,
}

impl Features {
    pub const ALL: Self = Self {
        events: true,
        runtime_config: true,
        streaming_lists: true,
        sandbox_stats: true,
        metrics: true,
        update_sandbox_resources: true,
        checkpoint: true,
    };
}
