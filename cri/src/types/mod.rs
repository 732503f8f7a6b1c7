//! The domain types at the edge of this crate: what the agent gives to and gets from a container runtime.
//!
//! Owns: the shapes, and nothing else. No protobuf type appears here and nothing here does I/O. Wire messages become
//! these types, and the other way round, only in `convert`.
//!
//! Times are nanoseconds since the epoch as the interface has them, zero for "never". Whatever can hold a secret
//! (registry credentials, environment values) has a `Debug` that leaves it out.

mod container;
mod image;
mod runtime;
mod sandbox;
mod stats;

pub use container::*;
pub use image::*;
pub use runtime::*;
pub use sandbox::*;
pub use stats::*;

use std::collections::BTreeMap;

/// Labels and annotations, ordered.
pub type Labels = BTreeMap<String, String>;

/// A range of user or group ids, seen from the host and from within.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdMapping {
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

/// Whose namespace a sandbox or container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// Shared by the containers of the pod.
    #[default]
    Pod,
    /// Each container its own. Not meaningful for the network.
    Container,
    /// The host's.
    Node,
    /// That of another container, by its id. Only meaningful for processes.
    Target(String),
}

/// A user namespace for the pod, and how ids are mapped in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNamespace {
    pub mode: NamespaceMode,
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// The default is "everything shared in the pod"; Kubernetes' own default has `pid: Container`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceOptions {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    pub user: Option<UserNamespace>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelinuxOptions {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityProfile {
    RuntimeDefault,
    Unconfined,
    /// A file (seccomp) or a loaded profile's name (AppArmor) on the host.
    Localhost(String),
}

/// How the image's own group list counts for `supplemental_groups`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SupplementalGroupsPolicy {
    #[default]
    Merge,
    Strict,
}

/// Limits in the kernel's terms. `None` leaves the runtime's default, except that an update keeps what was.
///
/// The interface has no way to say "set to zero": zero is sent as `None` is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinuxResources {
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds in each period; -1 takes the limit away.
    pub cpu_quota: Option<i64>,
    pub cpu_shares: Option<i64>,
    pub memory_limit_bytes: Option<i64>,
    pub memory_swap_limit_bytes: Option<i64>,
    pub oom_score_adj: Option<i64>,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub hugepage_limits: Vec<HugepageLimit>,
    /// cgroup v2 files and what to write in them.
    pub unified: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugepageLimit {
    /// As the kernel names it, for example `2MB`.
    pub page_size: String,
    pub limit_bytes: u64,
}
