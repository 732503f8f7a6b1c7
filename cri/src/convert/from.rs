//! Wire messages to domain types: answers, and (for the fake runtime) requests.

use super::{Result, bad, quoted};
use crate::pb;
use crate::types::*;
use std::net::IpAddr;

pub(crate) fn id(field: &str, id: String) -> Result<String> {
    if id.is_empty() { Err(bad(field, "is empty")) } else { Ok(id) }
}

pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| bad(field, "is missing"))
}

/// Converts all, naming the entry that is bad.
pub(super) fn each<P, T>(field: &str, items: Vec<P>, convert: impl Fn(P) -> Result<T>) -> Result<Vec<T>> {
    let one = |(index, item)| convert(item).map_err(|bad| bad.within(&format!("{field}[{index}]")));
    items.into_iter().enumerate().map(one).collect()
}

pub(super) fn address(field: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| bad(field, format!("{} is no IP address", quoted(text))))
}

fn mode(field: &str, value: i32, target: &str) -> Result<NamespaceMode> {
    Ok(match pb::NamespaceMode::try_from(value) {
        Ok(pb::NamespaceMode::Pod) => NamespaceMode::Pod,
        Ok(pb::NamespaceMode::Container) => NamespaceMode::Container,
        Ok(pb::NamespaceMode::Node) => NamespaceMode::Node,
        Ok(pb::NamespaceMode::Target) => NamespaceMode::Target(target.to_owned()),
        Err(_) => return Err(bad(field, format!("{value} is no namespace mode"))),
    })
}

fn id_mappings(mappings: Vec<pb::IdMapping>) -> Vec<IdMapping> {
    let one = |m: pb::IdMapping| IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length };
    mappings.into_iter().map(one).collect()
}

pub(crate) fn namespaces(options: pb::NamespaceOption) -> Result<NamespaceOptions> {
    let user = match options.userns_options {
        None => None,
        Some(user) => Some(UserNamespace {
            mode: mode("userns_options.mode", user.mode, "")?,
            uids: id_mappings(user.uids),
            gids: id_mappings(user.gids),
        }),
    };
    Ok(NamespaceOptions {
        network: mode("network", options.network, "")?,
        pid: mode("pid", options.pid, &options.target_id)?,
        ipc: mode("ipc", options.ipc, "")?,
        user,
    })
}

/// Zero stands for "not given".
fn given(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

pub(crate) fn resources(resources: pb::LinuxContainerResources) -> LinuxResources {
    LinuxResources {
        cpu_period: given(resources.cpu_period),
        cpu_quota: given(resources.cpu_quota),
        cpu_shares: given(resources.cpu_shares),
        memory_limit_bytes: given(resources.memory_limit_in_bytes),
        memory_swap_limit_bytes: given(resources.memory_swap_limit_in_bytes),
        oom_score_adj: given(resources.oom_score_adj),
        cpuset_cpus: resources.cpuset_cpus,
        cpuset_mems: resources.cpuset_mems,
        hugepage_limits: resources
            .hugepage_limits
            .into_iter()
            .map(|limit| HugepageLimit { page_size: limit.page_size, limit_bytes: limit.limit })
            .collect(),
        unified: resources.unified,
    }
}

pub(super) fn image_spec(image: pb::ImageSpec) -> ImageSpec {
    ImageSpec {
        image: image.image,
        annotations: image.annotations,
        user_specified_image: image.user_specified_image,
        runtime_handler: image.runtime_handler,
        image_ref: image.image_ref,
    }
}

// ---------------------------------------------------------------- the runtime

pub(crate) fn version(reply: pb::VersionResponse) -> Result<Version> {
    Ok(Version {
        runtime_name: id("runtime_name", reply.runtime_name)?,
        runtime_version: reply.runtime_version,
        runtime_api_version: reply.runtime_api_version,
    })
}

pub(crate) fn runtime_status(reply: pb::StatusResponse) -> Result<RuntimeStatus> {
    let mut conditions = std::collections::BTreeMap::new();
    for condition in required("status", reply.status)?.conditions {
        let (ok, reason, message) = (condition.status, condition.reason, condition.message);
        conditions.insert(condition.r#type, Condition { ok, reason, message });
    }
    let mut take = |kind: &str| {
        conditions.remove(kind).unwrap_or_else(|| Condition {
            ok: false,
            reason: "ConditionMissing".into(),
            message: format!("the container runtime does not report the condition {kind}"),
        })
    };
    let (runtime_ready, network_ready) = (take("RuntimeReady"), take("NetworkReady"));
    let handler = |handler: pb::RuntimeHandler| {
        let features = handler.features.unwrap_or_default();
        let features = HandlerFeatures {
            recursive_read_only_mounts: features.recursive_read_only_mounts,
            user_namespaces: features.user_namespaces,
        };
        (handler.name, features)
    };
    let features = reply.features.unwrap_or_default();
    Ok(RuntimeStatus {
        runtime_ready,
        network_ready,
        other: conditions,
        handlers: reply.runtime_handlers.into_iter().map(handler).collect(),
        supplemental_groups_policy: features.supplemental_groups_policy,
        user_namespaces_host_network: features.user_namespaces_host_network,
        info: reply.info,
    })
}

pub(crate) fn runtime_config(reply: pb::RuntimeConfigResponse) -> Result<Option<CgroupDriver>> {
    let Some(linux) = reply.linux else { return Ok(None) };
    match pb::CgroupDriver::try_from(linux.cgroup_driver) {
        Ok(pb::CgroupDriver::Systemd) => Ok(Some(CgroupDriver::Systemd)),
        Ok(pb::CgroupDriver::Cgroupfs) => Ok(Some(CgroupDriver::Cgroupfs)),
        Err(_) => Err(bad("linux.cgroup_driver", format!("{} is no cgroup driver", linux.cgroup_driver))),
    }
}

pub(crate) fn container_event(event: pb::ContainerEventResponse) -> Result<ContainerEvent> {
    use pb::ContainerEventType as Wire;
    Ok(ContainerEvent {
        container_id: id("container_id", event.container_id)?,
        kind: match Wire::try_from(event.container_event_type) {
            Ok(Wire::ContainerCreatedEvent) => ContainerEventKind::Created,
            Ok(Wire::ContainerStartedEvent) => ContainerEventKind::Started,
            Ok(Wire::ContainerStoppedEvent) => ContainerEventKind::Stopped,
            Ok(Wire::ContainerDeletedEvent) => ContainerEventKind::Deleted,
            Err(_) => return Err(bad("container_event_type", format!("{} is no event", event.container_event_type))),
        },
        created_at: event.created_at,
        sandbox_status: match event.pod_sandbox_status {
            Some(status) => Some(sandbox_status(status).map_err(|bad| bad.within("pod_sandbox_status"))?),
            None => None,
        },
        container_statuses: each("containers_statuses", event.containers_statuses, container_status)?,
    })
}

// ---------------------------------------------------------------- sandboxes

pub(super) fn sandbox_metadata(metadata: Option<pb::PodSandboxMetadata>) -> Result<SandboxMetadata> {
    let metadata = required("metadata", metadata)?;
    Ok(SandboxMetadata {
        name: id("metadata.name", metadata.name)?,
        namespace: id("metadata.namespace", metadata.namespace)?,
        uid: id("metadata.uid", metadata.uid)?,
        attempt: metadata.attempt,
    })
}

fn sandbox_state(value: i32) -> Result<SandboxState> {
    match pb::PodSandboxState::try_from(value) {
        Ok(pb::PodSandboxState::SandboxReady) => Ok(SandboxState::Ready),
        Ok(pb::PodSandboxState::SandboxNotready) => Ok(SandboxState::NotReady),
        Err(_) => Err(bad("state", format!("{value} is no sandbox state"))),
    }
}

fn ips(network: Option<pb::PodSandboxNetworkStatus>) -> Result<Vec<IpAddr>> {
    let network = network.unwrap_or_default();
    // Without a first address there are no others: so it is on the host's network.
    if network.ip.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = vec![address("network.ip", &network.ip)?];
    for more in network.additional_ips {
        all.push(address("network.additional_ips", &more.ip)?);
    }
    Ok(all)
}

pub(crate) fn sandbox_status(status: pb::PodSandboxStatus) -> Result<PodSandboxStatus> {
    let namespaces = match status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options) {
        Some(options) => Some(namespaces(options).map_err(|bad| bad.within("linux.namespaces.options"))?),
        None => None,
    };
    Ok(PodSandboxStatus {
        id: id("id", status.id)?,
        metadata: sandbox_metadata(status.metadata)?,
        state: sandbox_state(status.state)?,
        created_at: status.created_at,
        ips: ips(status.network)?,
        namespaces,
        labels: status.labels,
        annotations: status.annotations,
        runtime_handler: status.runtime_handler,
    })
}

pub(crate) fn sandbox_inspection(reply: pb::PodSandboxStatusResponse) -> Result<SandboxInspection> {
    Ok(SandboxInspection {
        status: sandbox_status(required("status", reply.status)?).map_err(|bad| bad.within("status"))?,
        containers: each("containers_statuses", reply.containers_statuses, container_status)?,
        timestamp: reply.timestamp,
        info: reply.info,
    })
}

pub(crate) fn sandboxes(items: Vec<pb::PodSandbox>) -> Result<Vec<SandboxSummary>> {
    each("items", items, |sandbox| {
        Ok(SandboxSummary {
            id: id("id", sandbox.id)?,
            metadata: sandbox_metadata(sandbox.metadata)?,
            state: sandbox_state(sandbox.state)?,
            created_at: sandbox.created_at,
            labels: sandbox.labels,
            annotations: sandbox.annotations,
            runtime_handler: sandbox.runtime_handler,
        })
    })
}

// ---------------------------------------------------------------- containers

fn container_state(value: i32) -> ContainerState {
    match pb::ContainerState::try_from(value) {
        Ok(pb::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(pb::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(pb::ContainerState::ContainerExited) => ContainerState::Exited,
        Ok(pb::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

fn container_metadata(metadata: Option<pb::ContainerMetadata>) -> Result<(String, u32)> {
    let metadata = required("metadata", metadata)?;
    Ok((id("metadata.name", metadata.name)?, metadata.attempt))
}

pub(crate) fn containers(items: Vec<pb::Container>) -> Result<Vec<ContainerSummary>> {
    each("containers", items, |container| {
        let (name, attempt) = container_metadata(container.metadata)?;
        Ok(ContainerSummary {
            id: id("id", container.id)?,
            sandbox_id: id("pod_sandbox_id", container.pod_sandbox_id)?,
            name,
            attempt,
            image: image_spec(container.image.unwrap_or_default()),
            image_ref: container.image_ref,
            image_id: container.image_id,
            state: container_state(container.state),
            created_at: container.created_at,
            labels: container.labels,
            annotations: container.annotations,
        })
    })
}

pub(crate) fn container_status_reply(reply: pb::ContainerStatusResponse) -> Result<ContainerStatus> {
    let mut status = container_status(required("status", reply.status)?).map_err(|bad| bad.within("status"))?;
    status.info = reply.info;
    Ok(status)
}

pub(crate) fn container_status(status: pb::ContainerStatus) -> Result<ContainerStatus> {
    let (name, attempt) = container_metadata(status.metadata)?;
    Ok(ContainerStatus {
        id: id("id", status.id)?,
        name,
        attempt,
        state: container_state(status.state),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: image_spec(status.image.unwrap_or_default()),
        image_ref: status.image_ref,
        image_id: status.image_id,
        labels: status.labels,
        annotations: status.annotations,
        mounts: each("mounts", status.mounts, mount)?,
        log_path: status.log_path,
        resources: status.resources.and_then(|resources| resources.linux).map(resources),
        user: status.user.and_then(|user| user.linux).map(|user| ContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        }),
        stop_signal: signal(status.stop_signal),
        info: Labels::new(),
    })
}

pub(crate) fn mount(mount: pb::Mount) -> Result<Mount> {
    Ok(Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation: match pb::MountPropagation::try_from(mount.propagation) {
            Ok(pb::MountPropagation::PropagationPrivate) => MountPropagation::Private,
            Ok(pb::MountPropagation::PropagationHostToContainer) => MountPropagation::HostToContainer,
            Ok(pb::MountPropagation::PropagationBidirectional) => MountPropagation::Bidirectional,
            Err(_) => return Err(bad("propagation", format!("{} is no mount propagation", mount.propagation))),
        },
        uid_mappings: id_mappings(mount.uid_mappings),
        gid_mappings: id_mappings(mount.gid_mappings),
        image: mount.image.map(image_spec),
        image_sub_path: mount.image_sub_path,
    })
}

/// As the Pod API writes it. What the interface does not have is as good as unsaid.
pub(crate) fn signal(value: i32) -> Option<String> {
    match pb::Signal::try_from(value) {
        Ok(pb::Signal::RuntimeDefault) | Err(_) => None,
        Ok(signal) => Some(signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-")),
    }
}

pub(crate) fn exec_output(reply: pb::ExecSyncResponse) -> ExecOutput {
    ExecOutput { stdout: reply.stdout, stderr: reply.stderr, exit_code: reply.exit_code }
}

// ---------------------------------------------------------------- images

fn image(image: pb::Image) -> Result<Image> {
    Ok(Image {
        id: id("id", image.id)?,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size_bytes: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        spec: image_spec(image.spec.unwrap_or_default()),
        pinned: image.pinned,
    })
}

pub(crate) fn image_status(reply: pb::ImageStatusResponse) -> Result<Option<Image>> {
    reply.image.map(image).transpose().map_err(|bad| bad.within("image"))
}

pub(crate) fn images(items: Vec<pb::Image>) -> Result<Vec<Image>> {
    each("images", items, image)
}

pub(crate) fn image_fs_info(reply: pb::ImageFsInfoResponse) -> ImageFsInfo {
    ImageFsInfo {
        image_filesystems: reply.image_filesystems.into_iter().map(super::stats::filesystem).collect(),
        container_filesystems: reply.container_filesystems.into_iter().map(super::stats::filesystem).collect(),
    }
}
