//! Sandboxes: what a pod's containers share.

use super::{Labels, LinuxResources, NamespaceOptions, SecurityProfile, SelinuxOptions, SupplementalGroupsPolicy};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Which pod, and the how-manieth sandbox of it. Runtimes refuse a second sandbox of the same name, namespace, uid and attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxMetadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxConfig {
    pub metadata: SandboxMetadata,
    /// Empty for a sandbox on the host's network.
    pub hostname: String,
    /// Containers' log paths are relative to it.
    pub log_directory: String,
    /// `None` gives the containers the host's resolv.conf.
    pub dns: Option<DnsConfig>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: Labels,
    pub annotations: Labels,
    /// `/kubepods/..` with cgroupfs naming, `kubepods-...slice` with systemd naming.
    pub cgroup_parent: String,
    pub security: SandboxSecurity,
    pub sysctls: BTreeMap<String, String>,
    /// What the sandbox itself may use (a RuntimeClass's overhead).
    pub overhead: Option<LinuxResources>,
    /// The sum over the containers.
    pub resources: Option<LinuxResources>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxSecurity {
    pub namespaces: NamespaceOptions,
    pub selinux: Option<SelinuxOptions>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    pub readonly_rootfs: bool,
    /// Whether any container of the pod will be privileged.
    pub privileged: bool,
    pub seccomp: Option<SecurityProfile>,
    pub apparmor: Option<SecurityProfile>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    /// Zero: no port on the host.
    pub host_port: u16,
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SandboxState {
    Ready,
    NotReady,
}

/// All given parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    pub id: Option<String>,
    pub state: Option<SandboxState>,
    pub labels: Labels,
}

/// A sandbox as lists have it: without addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSummary {
    pub id: String,
    pub metadata: SandboxMetadata,
    pub state: SandboxState,
    pub created_at: i64,
    pub labels: Labels,
    pub annotations: Labels,
    pub runtime_handler: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSandboxStatus {
    pub id: String,
    pub metadata: SandboxMetadata,
    pub state: SandboxState,
    pub created_at: i64,
    /// The primary address first. Empty on the host's network, and once the network is torn down.
    pub ips: Vec<IpAddr>,
    pub namespaces: Option<NamespaceOptions>,
    pub labels: Labels,
    pub annotations: Labels,
    pub runtime_handler: String,
}

/// A sandbox with what some runtimes add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxInspection {
    pub status: PodSandboxStatus,
    /// Only from runtimes that have events; else empty.
    pub containers: Vec<super::ContainerStatus>,
    /// When this was true; zero from runtimes that have no events.
    pub timestamp: i64,
    /// The runtime's own words about the sandbox.
    pub info: BTreeMap<String, String>,
}
