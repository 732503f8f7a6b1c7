//! Wire messages to domain types: requests, as the fake runtime reads them.

use super::from::{address, each, id, image_spec, mount, namespaces, required, resources, sandbox_metadata, signal};
use super::{Result, bad};
use crate::pb;
use crate::types::*;

fn selinux(options: pb::SeLinuxOption) -> SelinuxOptions {
    SelinuxOptions { user: options.user, role: options.role, kind: options.r#type, level: options.level }
}

fn profile(profile: pb::SecurityProfile) -> Result<SecurityProfile> {
    use pb::security_profile::ProfileType;
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(SecurityProfile::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(SecurityProfile::Unconfined),
        Ok(ProfileType::Localhost) => Ok(SecurityProfile::Localhost(profile.localhost_ref)),
        Err(_) => Err(bad("profile_type", format!("{} is no profile type", profile.profile_type))),
    }
}

fn groups_policy(value: i32) -> Result<SupplementalGroupsPolicy> {
    match pb::SupplementalGroupsPolicy::try_from(value) {
        Ok(pb::SupplementalGroupsPolicy::Merge) => Ok(SupplementalGroupsPolicy::Merge),
        Ok(pb::SupplementalGroupsPolicy::Strict) => Ok(SupplementalGroupsPolicy::Strict),
        Err(_) => Err(bad("supplemental_groups_policy", format!("{value} is no policy"))),
    }
}

fn port(field: &str, value: i32) -> Result<u16> {
    u16::try_from(value).map_err(|_| bad(field, format!("{value} is no port")))
}

fn port_mapping(mapping: pb::PortMapping) -> Result<PortMapping> {
    Ok(PortMapping {
        protocol: match pb::Protocol::try_from(mapping.protocol) {
            Ok(pb::Protocol::Tcp) => Protocol::Tcp,
            Ok(pb::Protocol::Udp) => Protocol::Udp,
            Ok(pb::Protocol::Sctp) => Protocol::Sctp,
            Err(_) => return Err(bad("protocol", format!("{} is no protocol", mapping.protocol))),
        },
        container_port: port("container_port", mapping.container_port)?,
        host_port: port("host_port", mapping.host_port)?,
        host_ip: if mapping.host_ip.is_empty() { None } else { Some(address("host_ip", &mapping.host_ip)?) },
    })
}

pub(crate) fn sandbox_config(config: pb::PodSandboxConfig) -> Result<SandboxConfig> {
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    Ok(SandboxConfig {
        metadata: sandbox_metadata(config.metadata)?,
        hostname: config.hostname,
        log_directory: config.log_directory,
        dns: config.dns_config.map(|dns| DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }),
        port_mappings: each("port_mappings", config.port_mappings, port_mapping)?,
        labels: config.labels,
        annotations: config.annotations,
        cgroup_parent: linux.cgroup_parent,
        sysctls: linux.sysctls,
        overhead: linux.overhead.map(resources),
        resources: linux.resources.map(resources),
        security: SandboxSecurity {
            namespaces: namespaces(security.namespace_options.unwrap_or_default())?,
            selinux: security.selinux_options.map(selinux),
            run_as_user: security.run_as_user.map(|v| v.value),
            run_as_group: security.run_as_group.map(|v| v.value),
            supplemental_groups: security.supplemental_groups,
            supplemental_groups_policy: groups_policy(security.supplemental_groups_policy)?,
            readonly_rootfs: security.readonly_rootfs,
            privileged: security.privileged,
            seccomp: security.seccomp.map(profile).transpose()?,
            apparmor: security.apparmor.map(profile).transpose()?,
        },
    })
}

pub(crate) fn container_config(config: pb::ContainerConfig) -> Result<ContainerConfig> {
    let metadata = required("metadata", config.metadata)?;
    let linux = config.linux.unwrap_or_default();
    Ok(ContainerConfig {
        name: id("metadata.name", metadata.name)?,
        attempt: metadata.attempt,
        image: image_spec(required("image", config.image)?),
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        env: each("envs", config.envs, |env| {
            let value = String::from_utf8(env.value).map_err(|_| bad("value", format!("that of {:?} is not UTF-8", env.key)))?;
            Ok(EnvVar { name: env.key, value })
        })?,
        mounts: each("mounts", config.mounts, mount)?,
        devices: config
            .devices
            .into_iter()
            .map(|d| Device { container_path: d.container_path, host_path: d.host_path, permissions: d.permissions })
            .collect(),
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        labels: config.labels,
        annotations: config.annotations,
        log_path: config.log_path,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: linux.resources.map(resources),
        security: container_security(linux.security_context.unwrap_or_default())?,
        stop_signal: signal(config.stop_signal),
    })
}

fn container_security(security: pb::LinuxContainerSecurityContext) -> Result<ContainerSecurity> {
    let capabilities = security.capabilities.unwrap_or_default();
    let run_as = match (security.run_as_user, security.run_as_username) {
        (Some(uid), _) => Some(RunAs::Uid(uid.value)),
        (None, name) if !name.is_empty() => Some(RunAs::Username(name)),
        (None, _) => None,
    };
    Ok(ContainerSecurity {
        capabilities: Capabilities {
            add: capabilities.add_capabilities,
            drop: capabilities.drop_capabilities,
            add_ambient: capabilities.add_ambient_capabilities,
        },
        privileged: security.privileged,
        namespaces: namespaces(security.namespace_options.unwrap_or_default())?,
        selinux: security.selinux_options.map(selinux),
        run_as,
        run_as_group: security.run_as_group.map(|v| v.value),
        supplemental_groups: security.supplemental_groups,
        supplemental_groups_policy: groups_policy(security.supplemental_groups_policy)?,
        readonly_rootfs: security.readonly_rootfs,
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths,
        readonly_paths: security.readonly_paths,
        seccomp: security.seccomp.map(profile).transpose()?,
        apparmor: security.apparmor.map(profile).transpose()?,
    })
}
