//! AppArmor profiles of pods: which one a container gets, and why a pod that names some cannot be admitted. Pure.
//!
//! Pods may still name profiles in annotations, and static pods have nothing else that would turn those into fields. Facts from
//! kubelet's `pkg/security/apparmor`.

use ferrolet_cri::types::SecurityProfile;
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod, PodSpec, SecurityContext};

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The profile of a container: its own, its annotation's, or the pod's.
pub fn profile(pod: &Pod, container: &str, own: Option<&SecurityContext>) -> Option<AppArmorProfile> {
    let of_pod = || pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.app_armor_profile.clone());
    own.and_then(|s| s.app_armor_profile.clone()).or_else(|| annotated(pod, container)).or_else(of_pod)
}

fn annotated(pod: &Pod, container: &str) -> Option<AppArmorProfile> {
    let value = pod.metadata.annotations.as_ref()?.get(&format!("{ANNOTATION}{container}"))?;
    let (kind, name) = match value.as_str() {
        "runtime/default" => ("RuntimeDefault", None),
        "unconfined" => ("Unconfined", None),
        other => ("Localhost", Some(other.strip_prefix("localhost/")?.to_owned())),
    };
    Some(AppArmorProfile { type_: kind.to_owned(), localhost_profile: name })
}

/// As the runtime is told; `None` leaves it to the runtime's default.
pub fn told(profile: Option<&AppArmorProfile>) -> Result<Option<SecurityProfile>, String> {
    let Some(profile) = profile else { return Ok(None) };
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Ok(Some(SecurityProfile::RuntimeDefault)),
        ("Unconfined", _) => Ok(Some(SecurityProfile::Unconfined)),
        ("Localhost", Some(name)) => Ok(Some(SecurityProfile::Localhost(name.clone()))),
        ("Localhost", None) => Err("missing localhost apparmor profile name".to_owned()),
        (other, _) => Err(format!("unknown apparmor profile type: {other:?}")),
    }
}

/// Every container's name with what it says itself.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (&str, Option<&SecurityContext>)> {
    let usual = spec.init_containers.iter().flatten().chain(&spec.containers);
    let looking = spec.ephemeral_containers.iter().flatten();
    usual
        .map(|c| (c.name.as_str(), c.security_context.as_ref()))
        .chain(looking.map(|c| (c.name.as_str(), c.security_context.as_ref())))
}

/// Whether anything but no confinement is asked for.
fn required(pod: &Pod, spec: &PodSpec) -> bool {
    let confines = |p: Option<&AppArmorProfile>| p.is_some_and(|p| p.type_ != "Unconfined");
    let annotations = pod.metadata.annotations.iter().flatten();
    confines(spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref()))
        || containers(spec).any(|(_, own)| confines(own.and_then(|s| s.app_armor_profile.as_ref())))
        || annotations.into_iter().any(|(key, value)| key.starts_with(ANNOTATION) && value != "unconfined")
}

/// Why the pod's profiles cannot be enforced; `enabled` says whether the host has AppArmor.
pub(super) fn refusal(pod: &Pod, spec: &PodSpec, enabled: bool) -> Option<String> {
    if !required(pod, spec) {
        return None;
    }
    if !enabled {
        return Some("AppArmor is not enabled on the host".to_owned());
    }
    containers(spec).filter_map(|(name, own)| profile(pod, name, own)).find_map(|p| {
        let name = p.localhost_profile.as_deref();
        let empty = p.type_ == "Localhost" && name.is_none_or(|n| n.trim().is_empty());
        let shown = name.map_or_else(|| "nil".to_owned(), |n| format!("*{n}"));
        empty.then(|| {
            let text = format!("&AppArmorProfile{{Type:{},LocalhostProfile:{shown},}}", p.type_);
            format!("invalid empty AppArmor profile name: {text:?}")
        })
    })
}

#[cfg(test)]
mod tests;
