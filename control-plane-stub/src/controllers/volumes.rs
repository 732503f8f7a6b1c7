//! Which PersistentVolume a claim gets, and the claims that pods bring with them. Pure.
//!
//! Volumes are made by somebody else beforehand: nothing is provisioned, resized or reclaimed here, and a claim is bound at once, not
//! when its first pod is scheduled.

use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{EphemeralVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::{self, Key};

#[cfg(test)]
mod tests;

/// The volume for a claim that has none: the one it names or that names it, else the smallest that will do.
pub fn choose<'a>(
    claim: &PersistentVolumeClaim,
    all: impl Iterator<Item = &'a PersistentVolume>,
) -> Option<&'a PersistentVolume> {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty());
    let free = all.filter(|v| !meta::is_deleting(&v.metadata) && (is_free(v) || is_of(v, claim)));
    if let Some(name) = named {
        return free.filter(|v| meta::name(&v.metadata) == name).find(|v| will_do(claim, v));
    }
    let fitting = free.filter(|v| will_do(claim, v) && is_selected(claim, v));
    // One that is kept for this claim first.
    fitting.min_by_key(|v| (is_free(v), capacity(v).unwrap_or(Quantity::ZERO), meta::name(&v.metadata).to_owned()))
}

/// No claim has it or is to have it.
pub fn is_free(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none())
}

/// It points to the claim, by name where nobody has bound it yet.
fn is_of(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let back = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let uid = |r: &ObjectReference| r.uid.as_deref().unwrap_or_default().to_owned();
    back.is_some_and(|r| key(r) == Key::of(&claim.metadata) && (uid(r).is_empty() || uid(r) == meta::uid(&claim.metadata)))
}

/// The claim that a volume points to.
pub fn key(back: &ObjectReference) -> Key {
    Key::new(back.namespace.as_deref().unwrap_or_default(), back.name.as_deref().unwrap_or_default())
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?.0.parse().ok()
}

fn will_do(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(wants), Some(has)) = (&claim.spec, &volume.spec) else { return false };
    let size = wants.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")?.0.parse::<Quantity>().ok());
    let modes = has.access_modes.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let class = |class: &Option<String>| class.clone().unwrap_or_default();
    wants.access_modes.iter().flatten().all(|m| modes.contains(m))
        && mode(&wants.volume_mode) == mode(&has.volume_mode)
        && class(&wants.storage_class_name) == class(&has.storage_class_name)
        && capacity(volume) >= size
}

fn is_selected(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_none() || meta::selects(selector, volume.metadata.labels.as_ref())
}

/// The keys of the claims that a pod brings with it.
pub fn own_claims(pod: &Pod) -> impl Iterator<Item = Key> {
    ephemeral(pod).map(|(name, _)| Key::new(meta::namespace(&pod.metadata), &name))
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = (String, &EphemeralVolumeSource)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| Some((format!("{}-{}", meta::name(&pod.metadata), v.name), v.ephemeral.as_ref()?)))
}

/// A claim as the pod describes it; it goes when the pod goes.
pub fn own_claim(pod: &Pod, name: &str) -> Option<PersistentVolumeClaim> {
    let (_, source) = ephemeral(pod).find(|(own, _)| own == name)?;
    let template = source.volume_claim_template.as_ref()?;
    let given = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: pod.metadata.namespace.clone(),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![meta::controller_ref("v1", "Pod", &pod.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}
