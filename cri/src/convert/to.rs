//! Domain types to wire messages, for requests.

use super::{Bad, Result, bad};
use crate::pb;
use crate::types::*;

pub(crate) fn id(field: &str, id: &str) -> Result<String> {
    if id.is_empty() { Err(bad(field, "must not be empty")) } else { Ok(id.to_owned()) }
}

pub(crate) fn command(command: &[String]) -> Result<Vec<String>> {
    if command.is_empty() { Err(bad("cmd", "must not be empty")) } else { Ok(command.to_vec()) }
}

fn mode(mode: &NamespaceMode) -> i32 {
    (match mode {
        NamespaceMode::Pod => pb::NamespaceMode::Pod,
        NamespaceMode::Container => pb::NamespaceMode::Container,
        NamespaceMode::Node => pb::NamespaceMode::Node,
        NamespaceMode::Target(_) => pb::NamespaceMode::Target,
    }) as i32
}

fn id_mappings(mappings: &[IdMapping]) -> Vec<pb::IdMapping> {
    mappings.iter().map(|m| pb::IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length }).collect()
}

fn namespaces(options: &NamespaceOptions) -> Result<pb::NamespaceOption> {
    for (field, mode) in [("network", &options.network), ("ipc", &options.ipc)] {
        if let NamespaceMode::Target(_) = mode {
            return Err(bad(format!("namespace_options.{field}"), "only the process namespace can be another container's"));
        }
    }
    Ok(pb::NamespaceOption {
        network: mode(&options.network),
        pid: mode(&options.pid),
        ipc: mode(&options.ipc),
        target_id: match &options.pid {
            NamespaceMode::Target(target) => id("namespace_options.target_id", target)?,
            _ => String::new(),
        },
        userns_options: options.user.as_ref().map(|user| pb::UserNamespace {
            mode: mode(&user.mode),
            uids: id_mappings(&user.uids),
            gids: id_mappings(&user.gids),
        }),
    })
}

fn selinux(options: &SelinuxOptions) -> pb::SeLinuxOption {
    pb::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.kind.clone(),
        level: options.level.clone(),
    }
}

fn profile(profile: &SecurityProfile) -> pb::SecurityProfile {
    use pb::security_profile::ProfileType;
    let (profile_type, localhost_ref) = match profile {
        SecurityProfile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        SecurityProfile::Unconfined => (ProfileType::Unconfined, String::new()),
        SecurityProfile::Localhost(name) => (ProfileType::Localhost, name.clone()),
    };
    pb::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

fn groups_policy(policy: SupplementalGroupsPolicy) -> i32 {
    (match policy {
        SupplementalGroupsPolicy::Merge => pb::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => pb::SupplementalGroupsPolicy::Strict,
    }) as i32
}

fn number(value: Option<i64>) -> Option<pb::Int64Value> {
    value.map(|value| pb::Int64Value { value })
}

pub(crate) fn resources(resources: &LinuxResources) -> pb::LinuxContainerResources {
    pb::LinuxContainerResources {
        cpu_period: resources.cpu_period.unwrap_or(0),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpu_shares: resources.cpu_shares.unwrap_or(0),
        memory_limit_in_bytes: resources.memory_limit_bytes.unwrap_or(0),
        memory_swap_limit_in_bytes: resources.memory_swap_limit_bytes.unwrap_or(0),
        oom_score_adj: resources.oom_score_adj.unwrap_or(0),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|limit| pb::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit_bytes })
            .collect(),
        unified: resources.unified.clone(),
    }
}

fn sandbox_metadata(metadata: &SandboxMetadata) -> Result<pb::PodSandboxMetadata> {
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if value.is_empty() {
            return Err(bad(format!("config.metadata.{field}"), "must not be empty"));
        }
    }
    Ok(pb::PodSandboxMetadata {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        attempt: metadata.attempt,
    })
}

pub(crate) fn sandbox_config(config: &SandboxConfig) -> Result<pb::PodSandboxConfig> {
    Ok(pb::PodSandboxConfig {
        metadata: Some(sandbox_metadata(&config.metadata)?),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.clone(),
        dns_config: config.dns.as_ref().map(|dns| pb::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        linux: Some(pb::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(sandbox_security(&config.security)?),
            sysctls: config.sysctls.clone(),
            overhead: config.overhead.as_ref().map(resources),
            resources: config.resources.as_ref().map(resources),
        }),
    })
}

fn port_mapping(mapping: &PortMapping) -> pb::PortMapping {
    pb::PortMapping {
        protocol: (match mapping.protocol {
            Protocol::Tcp => pb::Protocol::Tcp,
            Protocol::Udp => pb::Protocol::Udp,
            Protocol::Sctp => pb::Protocol::Sctp,
        }) as i32,
        container_port: i32::from(mapping.container_port),
        host_port: i32::from(mapping.host_port),
        host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

#[allow(deprecated)] // the deprecated fields are left empty
fn sandbox_security(security: &SandboxSecurity) -> Result<pb::LinuxSandboxSecurityContext> {
    Ok(pb::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&security.namespaces)?),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(security.supplemental_groups_policy),
        readonly_rootfs: security.readonly_rootfs,
        privileged: security.privileged,
        seccomp: security.seccomp.as_ref().map(profile),
        apparmor: security.apparmor.as_ref().map(profile),
        seccomp_profile_path: String::new(),
    })
}

fn selector(id: &Option<String>) -> String {
    id.clone().unwrap_or_default()
}

pub(crate) fn sandbox_filter(filter: &SandboxFilter) -> pb::PodSandboxFilter {
    pb::PodSandboxFilter {
        id: selector(&filter.id),
        state: filter.state.map(|state| pb::PodSandboxStateValue {
            state: (match state {
                SandboxState::Ready => pb::PodSandboxState::SandboxReady,
                SandboxState::NotReady => pb::PodSandboxState::SandboxNotready,
            }) as i32,
        }),
        label_selector: filter.labels.clone(),
    }
}

pub(crate) fn container_filter(filter: &ContainerFilter) -> pb::ContainerFilter {
    pb::ContainerFilter {
        id: selector(&filter.id),
        pod_sandbox_id: selector(&filter.sandbox_id),
        state: filter.state.map(|state| pb::ContainerStateValue {
            state: (match state {
                ContainerState::Created => pb::ContainerState::ContainerCreated,
                ContainerState::Running => pb::ContainerState::ContainerRunning,
                ContainerState::Exited => pb::ContainerState::ContainerExited,
                ContainerState::Unknown => pb::ContainerState::ContainerUnknown,
            }) as i32,
        }),
        label_selector: filter.labels.clone(),
    }
}

pub(crate) fn container_stats_filter(filter: &ContainerStatsFilter) -> pb::ContainerStatsFilter {
    pb::ContainerStatsFilter {
        id: selector(&filter.id),
        pod_sandbox_id: selector(&filter.sandbox_id),
        label_selector: filter.labels.clone(),
    }
}

pub(crate) fn sandbox_stats_filter(filter: &SandboxStatsFilter) -> pb::PodSandboxStatsFilter {
    pb::PodSandboxStatsFilter { id: selector(&filter.id), label_selector: filter.labels.clone() }
}

fn image(image: &ImageSpec) -> pb::ImageSpec {
    pb::ImageSpec {
        image: image.image.clone(),
        annotations: image.annotations.clone(),
        user_specified_image: image.user_specified_image.clone(),
        runtime_handler: image.runtime_handler.clone(),
        image_ref: image.image_ref.clone(),
    }
}

pub(crate) fn image_required(spec: &ImageSpec) -> Result<pb::ImageSpec> {
    id("image.image", &spec.image)?;
    Ok(image(spec))
}

pub(crate) fn auth(auth: &AuthConfig) -> pb::AuthConfig {
    pb::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}

pub(crate) fn container_config(config: &ContainerConfig) -> Result<pb::ContainerConfig> {
    id("config.metadata.name", &config.name)?;
    let image = image_required(&config.image).map_err(|bad| bad.within("config"))?;
    let stop_signal = match &config.stop_signal {
        Some(name) => signal(name)?,
        None => pb::Signal::RuntimeDefault,
    };
    Ok(pb::ContainerConfig {
        metadata: Some(pb::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(image),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.env.iter().enumerate().map(env_var).collect::<Result<_>>()?,
        mounts: config.mounts.iter().enumerate().map(mount).collect::<Result<_>>()?,
        devices: config
            .devices
            .iter()
            .map(|device| pb::Device {
                container_path: device.container_path.clone(),
                host_path: device.host_path.clone(),
                permissions: device.permissions.clone(),
            })
            .collect(),
        cdi_devices: config.cdi_devices.iter().map(|name| pb::CdiDevice { name: name.clone() }).collect(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_path: config.log_path.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(pb::LinuxContainerConfig {
            resources: config.resources.as_ref().map(resources),
            security_context: Some(container_security(&config.security)?),
        }),
        stop_signal: stop_signal as i32,
    })
}

fn env_var((index, env): (usize, &EnvVar)) -> Result<pb::KeyValue> {
    let field = || format!("config.envs[{index}]");
    if env.name.is_empty() || env.name.contains(['=', '\0']) {
        return Err(bad(field(), "the name of a variable must not be empty nor hold '=' or a zero byte"));
    }
    if env.value.contains('\0') {
        return Err(bad(field(), format!("the value of {:?} must not hold a zero byte", env.name)));
    }
    Ok(pb::KeyValue { key: env.name.clone(), value: env.value.clone().into_bytes() })
}

fn mount((index, mount): (usize, &Mount)) -> Result<pb::Mount> {
    let field = |name| format!("config.mounts[{index}].{name}");
    if mount.container_path.is_empty() {
        return Err(bad(field("container_path"), "must not be empty"));
    }
    if mount.host_path.is_empty() && mount.image.is_none() {
        return Err(bad(field("host_path"), "must not be empty unless an image is mounted"));
    }
    Ok(wire_mount(mount))
}

pub(crate) fn wire_mount(mount: &Mount) -> pb::Mount {
    pb::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation: (match mount.propagation {
            MountPropagation::Private => pb::MountPropagation::PropagationPrivate,
            MountPropagation::HostToContainer => pb::MountPropagation::PropagationHostToContainer,
            MountPropagation::Bidirectional => pb::MountPropagation::PropagationBidirectional,
        }) as i32,
        uid_mappings: id_mappings(&mount.uid_mappings),
        gid_mappings: id_mappings(&mount.gid_mappings),
        image: mount.image.as_ref().map(image),
        image_sub_path: mount.image_sub_path.clone(),
    }
}

#[allow(deprecated)] // the deprecated fields are left empty
fn container_security(security: &ContainerSecurity) -> Result<pb::LinuxContainerSecurityContext> {
    let (run_as_user, run_as_username) = match &security.run_as {
        None => (None, String::new()),
        Some(RunAs::Uid(uid)) => (Some(*uid), String::new()),
        Some(RunAs::Username(name)) => (None, id("config.linux.security_context.run_as_username", name)?),
    };
    Ok(pb::LinuxContainerSecurityContext {
        capabilities: Some(pb::Capability {
            add_capabilities: security.capabilities.add.clone(),
            drop_capabilities: security.capabilities.drop.clone(),
            add_ambient_capabilities: security.capabilities.add_ambient.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(namespaces(&security.namespaces)?),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: number(run_as_user),
        run_as_username,
        run_as_group: number(security.run_as_group),
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(security.supplemental_groups_policy),
        readonly_rootfs: security.readonly_rootfs,
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: security.seccomp.as_ref().map(profile),
        apparmor: security.apparmor.as_ref().map(profile),
        apparmor_profile: String::new(),
        seccomp_profile_path: String::new(),
    })
}

/// The Pod API writes `SIGRTMIN+1` where the interface writes `SIGRTMINPLUS1`.
fn signal(name: &str) -> Result<pb::Signal> {
    let wire = name.replace('+', "PLUS").replace('-', "MINUS");
    match pb::Signal::from_str_name(&wire) {
        Some(signal) if signal != pb::Signal::RuntimeDefault => Ok(signal),
        _ => Err(Bad { field: "config.stop_signal".into(), problem: format!("there is no signal {}", super::quoted(name)) }),
    }
}
