//! Who a container runs as and what it may do: its own settings over the pod's, over the image's. Pure.
//!
//! Facts from kubelet's `kuberuntime/security_context*.go` and `pkg/securitycontext`.

use super::{ConfigError, ContainerInput, ImageFacts, namespaces, pod_security, target_pids};
use crate::admission::apparmor;
use ferrolet_cri::types as cri;
use k8s_openapi::api::core::v1 as api;

/// Why a container that must not run as root may not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Root {
    #[error("container's runAsUser breaks non-root policy")]
    Asked,
    #[error("container has runAsNonRoot and image will run as root")]
    Image,
    #[error("container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user is non-root")]
    Named(String),
    #[error(
        "container has runAsNonRoot and image has an invalid user id ({0}). (Must be 1-(2147483647)): must be between 0 and 2147483647, inclusive"
    )]
    Invalid(i64),
}

pub(super) fn groups(sc: &api::PodSecurityContext) -> Vec<i64> {
    sc.fs_group.into_iter().chain(sc.supplemental_groups.iter().flatten().copied()).collect()
}

pub(super) fn groups_policy(sc: &api::PodSecurityContext) -> cri::SupplementalGroupsPolicy {
    match sc.supplemental_groups_policy.as_deref() {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    }
}

pub(super) fn selinux(o: &api::SELinuxOptions) -> cri::SelinuxOptions {
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    cri::SelinuxOptions { user: part(&o.user), role: part(&o.role), kind: part(&o.type_), level: part(&o.level) }
}

pub(super) fn of(i: &ContainerInput<'_>) -> Result<cri::ContainerSecurity, ConfigError> {
    let empty = api::PodSpec::default();
    let pod_spec = i.desired.pod.spec.as_ref().unwrap_or(&empty);
    let pod = pod_security(&i.desired.pod);
    let own = i.spec.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user);
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        let told = |why| ConfigError::Root { why, pod: i.desired.id.to_string(), container: i.spec.name.clone() };
        non_root(user, i.image).map_err(told)?;
    }
    let profile = apparmor::profile(&i.desired.pod, &i.spec.name, i.spec.security_context.as_ref());
    let capabilities = own.capabilities.unwrap_or_default();
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let heat = i.node.throttle_paths.iter().map(String::as_str);
    let paths = |list: &mut dyn Iterator<Item = &str>| if unmasked { Vec::new() } else { list.map(str::to_owned).collect() };
    Ok(cri::ContainerSecurity {
        capabilities: cri::Capabilities {
            add: capabilities.add.unwrap_or_default(),
            drop: capabilities.drop.unwrap_or_default(),
            add_ambient: Vec::new(),
        },
        privileged: own.privileged == Some(true),
        namespaces: target_pids(namespaces(pod_spec), i.target),
        selinux: own.se_linux_options.as_ref().or(pod.se_linux_options.as_ref()).map(selinux),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as: Some(run_as(user, i.image)),
        supplemental_groups: groups(&pod),
        supplemental_groups_policy: groups_policy(&pod),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&mut MASKED.iter().copied().chain(heat)),
        readonly_paths: paths(&mut READONLY.iter().copied()),
        seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()), i.node.seccomp_default)?),
        apparmor: apparmor::told(profile.as_ref()).map_err(ConfigError::AppArmor)?,
    })
}

/// An image that says nothing runs as root.
fn run_as(asked: Option<i64>, image: &ImageFacts) -> cri::RunAs {
    match asked.or(image.uid) {
        Some(uid) => cri::RunAs::Uid(uid),
        None if !image.username.is_empty() => cri::RunAs::Username(image.username.clone()),
        None => cri::RunAs::Uid(0),
    }
}

/// What the image says counts only where nobody asks for a user. Its names could stand for anyone.
fn non_root(asked: Option<i64>, image: &ImageFacts) -> Result<(), Root> {
    match (asked, run_as(None, image)) {
        (Some(0), _) => Err(Root::Asked),
        (Some(_), _) => Ok(()),
        (None, cri::RunAs::Username(name)) => Err(Root::Named(name)),
        (None, cri::RunAs::Uid(0)) => Err(Root::Image),
        (None, cri::RunAs::Uid(uid)) if !(0..=i64::from(i32::MAX)).contains(&uid) => Err(Root::Invalid(uid)),
        (None, cri::RunAs::Uid(_)) => Ok(()),
    }
}

/// A file is named below the folder of profiles, and must stay there.
fn seccomp(profile: Option<&api::SeccompProfile>, default: bool) -> Result<cri::SecurityProfile, ConfigError> {
    let Some(profile) = profile else {
        return Ok(if default { cri::SecurityProfile::RuntimeDefault } else { cri::SecurityProfile::Unconfined });
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(cri::SecurityProfile::RuntimeDefault),
        "Unconfined" => Ok(cri::SecurityProfile::Unconfined),
        "Localhost" => {
            let file = profile.localhost_profile.clone().unwrap_or_default();
            if file.is_empty() {
                return Err(ConfigError::NoSeccompFile);
            }
            if file.starts_with('/') || file.contains('\0') || file.split('/').any(|part| part == "..") {
                return Err(ConfigError::Value { field: "seccompProfile.localhostProfile", value: file });
            }
            Ok(cri::SecurityProfile::Localhost(file))
        }
        other => Err(ConfigError::Value { field: "seccompProfile.type", value: other.to_owned() }),
    }
}

/// Each mount shows its files as owned by the ids inside. In the host's own namespace there is nothing to map.
pub fn in_user_namespace(config: &mut cri::ContainerConfig, user: Option<&cri::UserNamespace>) {
    config.security.namespaces.user = user.cloned();
    let Some(user) = user else { return };
    for mount in &mut config.mounts {
        mount.uid_mappings.clone_from(&user.uids);
        mount.gid_mappings.clone_from(&user.gids);
    }
}

/// What no container sees of /proc and /sys unless it asks for `procMount: Unmasked`.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests;
