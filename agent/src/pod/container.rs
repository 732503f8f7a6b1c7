//! What the runtime is told to make: sandbox and container configurations from the pod's spec. Pure.

mod security;

use crate::cgroup::{self, Asked, cpu_quota, cpu_shares};
use crate::pod::desired::{Container as Wanted, Desired};
use crate::pod::resize::Amounts;
use crate::pod::resources::Resources;
use crate::pod::{dns, env, hosts, labels, qos};
use ferrolet_cri::types as cri;
use k8s_openapi::api::core::v1 as api;
pub use security::in_user_namespace;
use security::{groups, groups_policy, selinux};
use std::time::Duration;

/// What is the same for all pods of the node.
#[derive(Debug, Clone, Default)]
pub struct NodeLimits {
    pub memory_bytes: i64,
    pub cfs_quota: bool,
    pub cfs_period_us: u64,
    /// Containers that name no seccomp profile get the runtime's default instead of none.
    pub seccomp_default: bool,
    /// What else of this host's /sys containers are not to see.
    pub throttle_paths: Vec<String>,
}

/// What is known of an image that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// What containers are made from.
    pub image_ref: String,
    pub uid: Option<i64>,
    pub username: String,
    /// The runtime's ids of the images that the container mounts, by volume.
    pub volumes: std::collections::BTreeMap<String, String>,
}

/// Why a container cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{why} (pod: {pod:?}, container: {container})")]
    Root { why: security::Root, pod: String, container: String },
    #[error("{field}: {value:?} is not a known value")]
    Value { field: &'static str, value: String },
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    NoSeccompFile,
    #[error("{0}")]
    AppArmor(String),
    #[error("{0}")]
    UserNamespace(String),
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    Volume { volume: String, container: String },
    #[error("failed to resolve recursive read-only mode: {0}")]
    Recursive(String),
    #[error(transparent)]
    Hostname(#[from] hosts::TooLong),
    #[error("open {path}: {why}")]
    ResolvConf { path: std::path::PathBuf, why: String },
    #[error(transparent)]
    HostFile(#[from] dns::HostFileError),
}

fn pod_security(pod: &api::Pod) -> api::PodSecurityContext {
    pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default()
}

fn namespaces(spec: &api::PodSpec) -> cri::NamespaceOptions {
    let host = |on: Option<bool>, otherwise| if on == Some(true) { cri::NamespaceMode::Node } else { otherwise };
    let pid = if spec.share_process_namespace == Some(true) { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOptions {
        network: host(spec.host_network, cri::NamespaceMode::Pod),
        pid: host(spec.host_pid, pid),
        ipc: host(spec.host_ipc, cri::NamespaceMode::Pod),
        user: None,
    }
}

/// A pod whose containers share their processes, or the host's, has nothing more to share.
fn target_pids(mut namespaces: cri::NamespaceOptions, target: Option<&str>) -> cri::NamespaceOptions {
    if let Some(id) = target.filter(|_| namespaces.pid == cri::NamespaceMode::Container) {
        namespaces.pid = cri::NamespaceMode::Target(id.to_owned());
    }
    namespaces
}

/// The pod's folder of logs, given the root of all.
pub fn pod_logs(logs: &std::path::Path, id: &crate::pod::PodId) -> std::path::PathBuf {
    logs.join(format!("{}_{}_{}", id.namespace, id.name, id.uid))
}

fn pod_labels(d: &Desired) -> cri::Labels {
    [(labels::POD_NAME, &d.id.name), (labels::POD_NAMESPACE, &d.id.namespace), (labels::POD_UID, &d.id.uid)]
        .map(|(k, v)| (k.to_owned(), v.clone()))
        .into()
}

/// The sandbox, without its resolv.conf and cgroup parent: those come from elsewhere.
pub fn sandbox(
    d: &Desired,
    attempt: u32,
    cluster_domain: &str,
    logs: &std::path::Path,
    node: &NodeLimits,
) -> Result<cri::SandboxConfig, ConfigError> {
    let empty = api::PodSpec::default();
    let spec = d.pod.spec.as_ref().unwrap_or(&empty);
    let sc = pod_security(&d.pod);
    let mut all_labels = d.pod.metadata.labels.clone().unwrap_or_default();
    all_labels.extend(pod_labels(d));
    let hostname = if d.host_network { String::new() } else { hosts::name(&d.pod, cluster_domain)?.kernel };
    // Runtimes hold a privileged container against the sandbox as it is described when the container is made.
    let privileged = super::containers(spec).chain(&d.looking);
    let privileged = privileged.into_iter().any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    Ok(cri::SandboxConfig {
        metadata: cri::SandboxMetadata {
            name: d.id.name.clone(),
            namespace: d.id.namespace.clone(),
            uid: d.id.uid.clone(),
            attempt,
        },
        hostname,
        log_directory: pod_logs(logs, &d.id).to_string_lossy().into_owned(),
        port_mappings: serving(spec).flat_map(|c| ports(c, d.host_network)).collect(),
        labels: all_labels,
        annotations: pod_annotations(&d.pod),
        security: cri::SandboxSecurity {
            namespaces: namespaces(spec),
            selinux: sc.se_linux_options.as_ref().map(selinux),
            run_as_user: sc.run_as_user,
            run_as_group: sc.run_as_user.and(sc.run_as_group),
            supplemental_groups: groups(&sc),
            supplemental_groups_policy: groups_policy(&sc),
            privileged,
            // The pause process needs nothing special, whatever the pod asks for.
            seccomp: Some(cri::SecurityProfile::RuntimeDefault),
            ..Default::default()
        },
        // For runtimes that make a machine for the pod, and need its size at once.
        resources: Some(sandbox_resources(cgroup::asked(spec), node)),
        overhead: cgroup::overhead(spec).map(|o| sandbox_resources(o, node)),
        sysctls: sc.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
        ..Default::default()
    })
}

/// What can serve: not the init containers, which are over by then.
fn serving(spec: &api::PodSpec) -> impl Iterator<Item = &api::Container> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

/// Ports that the runtime is to forward from the host, each once. On the host's network there is nothing to forward.
fn ports(c: &api::Container, host_network: bool) -> Vec<cri::PortMapping> {
    let wanted = c.ports.iter().flatten().filter(|p| !host_network && p.host_port.is_some_and(|h| h > 0));
    let mapping = |p: &api::ContainerPort| cri::PortMapping {
        protocol: match p.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        },
        container_port: u16::try_from(p.container_port).unwrap_or(0),
        host_port: u16::try_from(p.host_port.unwrap_or(0)).unwrap_or(0),
        host_ip: p.host_ip.as_ref().and_then(|ip| ip.parse().ok()),
    };
    let mut all: Vec<cri::PortMapping> = Vec::new();
    for mapping in wanted.map(mapping) {
        if !all.contains(&mapping) {
            all.push(mapping);
        }
    }
    all
}

/// The log of one instance, relative to the pod's folder.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

pub struct ContainerInput<'a> {
    pub desired: &'a Desired,
    pub wanted: &'a Wanted,
    pub spec: &'a api::Container,
    pub attempt: u32,
    pub backoff: Duration,
    pub round: u32,
    pub image: &'a ImageFacts,
    pub env: Vec<cri::EnvVar>,
    pub mounts: Vec<cri::Mount>,
    pub devices: Vec<cri::Device>,
    /// The id of the container whose processes it is to see.
    pub target: Option<&'a str>,
    pub node: &'a NodeLimits,
}

pub fn container(i: ContainerInput<'_>) -> Result<cri::ContainerConfig, ConfigError> {
    let lookup = |name: &str| i.env.iter().find(|e| e.name == name).map(|e| e.value.as_str());
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|text| env::expand(text, lookup)).collect::<Vec<_>>();
    let (command, args) = (expanded(&i.spec.command), expanded(&i.spec.args));
    let mut own_labels = pod_labels(i.desired);
    own_labels.insert(labels::CONTAINER_NAME.to_owned(), i.spec.name.clone());
    Ok(cri::ContainerConfig {
        name: i.spec.name.clone(),
        attempt: i.attempt,
        image: cri::ImageSpec {
            image: i.image.image_ref.clone(),
            user_specified_image: i.wanted.image.clone(),
            ..Default::default()
        },
        command,
        args,
        working_dir: i.spec.working_dir.clone().unwrap_or_default(),
        labels: own_labels,
        annotations: annotations(&i),
        stop_signal: i.spec.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
        log_path: log_path(&i.spec.name, i.attempt),
        stdin: i.spec.stdin == Some(true),
        stdin_once: i.spec.stdin_once == Some(true),
        tty: i.spec.tty == Some(true),
        resources: Some(resources(&i)),
        security: security::of(&i)?,
        env: i.env,
        mounts: i.mounts,
        devices: i.devices,
        ..Default::default()
    })
}

/// What the runtime is told of the pod. An object of the API may say that it is a static pod, which it is not.
fn pod_annotations(pod: &api::Pod) -> cri::Labels {
    let mut all = pod.metadata.annotations.clone().unwrap_or_default();
    if !crate::admission::is_static(pod)
        && let Some(source) = all.get_mut(labels::SOURCE)
    {
        *source = "api".to_owned();
    }
    all
}

/// All that must be known to end and judge the container after a restart of the agent, even with the pod gone.
fn annotations(i: &ContainerInput<'_>) -> cri::Labels {
    let mut out = cri::Labels::new();
    let mut put = |key: &str, value: String| {
        out.insert(key.to_owned(), value);
    };
    put(labels::HASH, i.wanted.hash.clone());
    put(labels::OWN_HASH, i.wanted.hash.clone());
    put(labels::OWN_BACKOFF, i.backoff.as_millis().to_string());
    if i.round > 0 {
        put(labels::OWN_ROUND, i.round.to_string());
    }
    put(labels::RESTART_COUNT, i.attempt.to_string());
    put(labels::MESSAGE_PATH, message_path(i.spec).to_owned());
    put(labels::MESSAGE_POLICY, i.spec.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()));
    put(labels::TERMINATION_GRACE, i.desired.grace.as_secs().to_string());
    let resources = Resources { limits: limits_with(i.spec, i.wanted), ..Resources::of(i.spec) };
    if let Ok(text) = serde_json::to_string(&resources) {
        put(labels::OWN_RESOURCES, text);
    }
    if let Some(deletion) = i.desired.deletion {
        put(labels::DELETION_GRACE, deletion.grace.as_secs().to_string());
    }
    if let Some(hook) = i.spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
        && let Ok(text) = serde_json::to_string(hook)
    {
        put(labels::PRE_STOP, text);
    }
    if let Some(ports) = i.spec.ports.as_ref().filter(|p| !p.is_empty())
        && let Ok(text) = serde_json::to_string(ports)
    {
        put(labels::PORTS, text);
    }
    out
}

/// Its own, and the pod's where it has none.
fn limits_with(spec: &api::Container, wanted: &Wanted) -> std::collections::BTreeMap<String, String> {
    let mut limits = Resources::of(spec).limits;
    limits.extend(wanted.resize.resources.limits.clone());
    limits
}

pub fn message_path(spec: &api::Container) -> &str {
    spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

pub fn sandbox_resources(asked: Asked, node: &NodeLimits) -> cri::LinuxResources {
    let quota = cpu_quota(asked.cpu_limit_milli, node.cfs_period_us);
    cri::LinuxResources {
        cpu_shares: i64::try_from(cpu_shares(asked.cpu_request_milli)).ok(),
        cpu_quota: (node.cfs_quota && quota > 0).then_some(quota),
        cpu_period: i64::try_from(node.cfs_period_us).ok().filter(|_| node.cfs_quota),
        memory_limit_bytes: Some(asked.memory_limit_bytes).filter(|m| *m > 0),
        ..Default::default()
    }
}

fn resources(i: &ContainerInput<'_>) -> cri::LinuxResources {
    cri::LinuxResources {
        oom_score_adj: Some(qos::oom_score_adj(&i.desired.pod, i.spec, i.node.memory_bytes)),
        ..limits(&Amounts::of(&i.wanted.resize.resources), i.wanted, i.node)
    }
}

/// Adds what goes beyond cpu and memory limits.
pub fn extend(resources: &mut cri::LinuxResources, extras: cgroup::Extras) {
    let page = |(page_size, limit_bytes)| cri::HugepageLimit { page_size, limit_bytes };
    resources.hugepage_limits = extras.hugepages.into_iter().map(page).collect();
    resources.unified = extras.unified;
    resources.memory_swap_limit_bytes = extras.memory_and_swap;
}

/// Cpu and memory of these amounts for a container. What has no limit is left out.
pub fn limits(amounts: &Amounts, wanted: &Wanted, node: &NodeLimits) -> cri::LinuxResources {
    let said = wanted.resize.resources.requests.contains_key("cpu");
    let cpu_request = if said { amounts.cpu_request } else { amounts.cpu_limit };
    let quota = cpu_quota(amounts.cpu_limit, node.cfs_period_us);
    cri::LinuxResources {
        cpu_shares: i64::try_from(cpu_shares(cpu_request)).ok(),
        cpu_quota: (node.cfs_quota && quota > 0).then_some(quota),
        cpu_period: i64::try_from(node.cfs_period_us).ok().filter(|_| node.cfs_quota),
        memory_limit_bytes: Some(amounts.memory_limit).filter(|m| *m > 0),
        ..Default::default()
    }
}

/// Whether what is mounted below a read-only mount is to be read-only too.
pub fn recursive_read_only(m: &api::VolumeMount, supported: bool) -> Result<bool, ConfigError> {
    let refused = |why: String| {
        let why = format!("volume {:?} requested recursive read-only mode, but it is not {why}", m.name);
        Err(ConfigError::Recursive(why))
    };
    let Some(mode) = m.recursive_read_only.as_deref().filter(|mode| *mode != "Disabled") else { return Ok(false) };
    if m.read_only != Some(true) {
        return refused("read-only".to_owned());
    }
    if let Some(propagation) = m.mount_propagation.as_deref().filter(|p| *p != "None") {
        return refused(format!("compatible with propagation {propagation:?}"));
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => refused("supported by the runtime".to_owned()),
        other => Err(ConfigError::Recursive(format!("unknown recursive read-only mode {other:?}"))),
    }
}

/// What is mounted of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    Path(String),
    /// An image, by the runtime's id and by the pod's name for it.
    Image {
        id: String,
        reference: String,
    },
}

/// Where each of the container's volumes goes; `found` finds what a volume is, `recursive` says what the runtime can do.
pub fn volume_mounts(
    spec: &api::Container,
    recursive: bool,
    found: impl Fn(&str) -> Option<Mounted>,
) -> Result<Vec<cri::Mount>, ConfigError> {
    let each = spec.volume_mounts.iter().flatten().map(|m| {
        let found = found(&m.name).ok_or_else(|| ConfigError::Volume { volume: m.name.clone(), container: spec.name.clone() })?;
        let (host_path, image) = match found {
            Mounted::Path(path) => (path, None),
            Mounted::Image { id, reference } => {
                (String::new(), Some(cri::ImageSpec { image: id, user_specified_image: reference, ..Default::default() }))
            }
        };
        let propagation = match m.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::HostToContainer,
            Some("Bidirectional") => cri::MountPropagation::Bidirectional,
            _ => cri::MountPropagation::Private,
        };
        let path = if m.mount_path.starts_with('/') { m.mount_path.clone() } else { format!("/{}", m.mount_path) };
        Ok(cri::Mount {
            container_path: path,
            host_path,
            readonly: m.read_only == Some(true),
            recursive_read_only: recursive_read_only(m, recursive)?,
            propagation,
            image,
            ..Default::default()
        })
    });
    each.collect()
}

/// Why a runtime of this version cannot mount images, or a part of one, if that is known of it. One that does not know the field
/// for the part would mount the whole.
pub fn no_image_volumes(name: &str, version: &str, part: bool) -> Option<String> {
    let first = match (name, part) {
        ("containerd", false) => (2, 1),
        ("containerd", true) => (2, 2),
        ("cri-o", false) => (1, 31),
        ("cri-o", true) => (1, 33),
        _ => return None,
    };
    let mut parts = version.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return None };
    let what = if part { "mounts of a part of an image" } else { "image volumes" };
    let text = || format!("{what} need {name} {}.{}, and this node runs {version}", first.0, first.1);
    ((major, minor) < first).then(text)
}

/// The block devices that the container names; `device` finds the host's, and whether it may only be read.
pub fn volume_devices(
    spec: &api::Container,
    device: impl Fn(&str) -> Option<(String, bool)>,
) -> Result<Vec<cri::Device>, ConfigError> {
    let each = spec.volume_devices.iter().flatten().map(|d| {
        let found = device(&d.name);
        let (host_path, read_only) =
            found.ok_or_else(|| ConfigError::Volume { volume: d.name.clone(), container: spec.name.clone() })?;
        let permissions = if read_only { "r" } else { "mrw" }.to_owned();
        Ok(cri::Device { container_path: d.device_path.clone(), host_path, permissions })
    });
    each.collect()
}

#[cfg(test)]
mod tests;
