//! Containers, commands run in them, and events about them.

use super::{
    IdMapping, ImageSpec, Labels, LinuxResources, NamespaceOptions, PodSandboxStatus, SecurityProfile, SelinuxOptions,
    SupplementalGroupsPolicy,
};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    pub name: String,
    /// Counts the restarts. Runtimes refuse a second container of the same name and attempt in one sandbox.
    pub attempt: u32,
    /// `image.image` is what the runtime resolves: give the id or digest that a pull or a status answered.
    pub image: ImageSpec,
    /// Replaces the image's entry point; empty keeps it.
    pub command: Vec<String>,
    /// Replaces the image's arguments; empty keeps them unless `command` is given.
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<EnvVar>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Fully qualified names of Container Device Interface devices.
    pub cdi_devices: Vec<String>,
    pub labels: Labels,
    pub annotations: Labels,
    /// Relative to the sandbox's log directory; empty: no log file.
    pub log_path: String,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Option<LinuxResources>,
    pub security: ContainerSecurity,
    /// A name as in the Pod API (`SIGTERM`, `SIGRTMIN+1`); `None` leaves it to the image and the runtime.
    pub stop_signal: Option<String>,
}

/// Values come from Secrets as well: `Debug` leaves them out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EnvVar {
    pub name: String,
    pub value: String,
}

impl EnvVar {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=<{} bytes>", self.name, self.value.len())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    pub container_path: String,
    /// Empty for an image volume.
    pub host_path: String,
    pub readonly: bool,
    /// Needs `readonly` and private propagation, and a handler that has the feature.
    pub recursive_read_only: bool,
    pub selinux_relabel: bool,
    pub propagation: MountPropagation,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    /// The content of an image instead of a path of the host.
    pub image: Option<ImageSpec>,
    pub image_sub_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub container_path: String,
    pub host_path: String,
    /// Of `rwm`: read, write, mknod.
    pub permissions: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
    pub add_ambient: Vec<String>,
}

/// Who a container's first process is: at most one of the two ways to say it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    Uid(i64),
    Username(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    pub capabilities: Capabilities,
    pub privileged: bool,
    pub namespaces: NamespaceOptions,
    pub selinux: Option<SelinuxOptions>,
    /// `None`: the image's user.
    pub run_as: Option<RunAs>,
    /// Only with `run_as`.
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub seccomp: Option<SecurityProfile>,
    pub apparmor: Option<SecurityProfile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    /// The runtime has lost it, or answered with a state that is not in the interface.
    Unknown,
}

/// All given parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    pub id: Option<String>,
    pub sandbox_id: Option<String>,
    pub state: Option<ContainerState>,
    pub labels: Labels,
}

/// A container as lists have it: without exit code and times of start and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub image: ImageSpec,
    pub image_ref: String,
    pub image_id: String,
    pub state: ContainerState,
    pub created_at: i64,
    pub labels: Labels,
    pub annotations: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at: i64,
    /// Zero until it is started.
    pub started_at: i64,
    /// Zero until it has ended.
    pub finished_at: i64,
    /// Only meaningful once it has ended.
    pub exit_code: i32,
    /// One CamelCase word: `Completed`, `Error`, `OOMKilled`, `StartError`, ..
    pub reason: String,
    pub message: String,
    /// As it was asked for.
    pub image: ImageSpec,
    /// As it was resolved: a digest, or an id.
    pub image_ref: String,
    /// The id; empty from runtimes that do not say it apart from `image_ref`.
    pub image_id: String,
    pub labels: Labels,
    pub annotations: Labels,
    pub mounts: Vec<Mount>,
    /// Absolute.
    pub log_path: String,
    /// What is in force; `None` from runtimes that do not say.
    pub resources: Option<LinuxResources>,
    /// `None` from runtimes that do not say.
    pub user: Option<ContainerUser>,
    pub stop_signal: Option<String>,
    /// The runtime's own words; only when asked for.
    pub info: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUser {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}

/// What a command printed can hold secrets: `Debug` shows lengths only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

impl fmt::Debug for ExecOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, err) = (self.stdout.len(), self.stderr.len());
        write!(f, "ExecOutput {{ exit_code: {}, stdout: <{out} bytes>, stderr: <{err} bytes> }}", self.exit_code)
    }
}

/// Which of a command's streams are wanted. With `tty` there is no separate stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerEventKind {
    Created,
    Started,
    Stopped,
    Deleted,
}

/// A hint that something has changed. Sandboxes have events too: then `container_id` is the sandbox's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    pub container_id: String,
    pub kind: ContainerEventKind,
    pub created_at: i64,
    /// How the pod was when the event was sent; absent once the sandbox is gone.
    pub sandbox_status: Option<PodSandboxStatus>,
    pub container_statuses: Vec<ContainerStatus>,
}
