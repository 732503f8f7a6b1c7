//! Which PersistentVolume a claim of a pod stands for, and whether the pod may have it here. Pure.

use super::Used;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod};
use serde::{Deserialize, Serialize};

/// With it a claim that is being deleted stays for as long as pods use it.
const PROTECTED: &str = "kubernetes.io/pvc-protection";

/// Why there is no volume for a claim yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("failed to fetch PVC from API server: {0}")]
    Claim(String),
    #[error("PVC is being deleted")]
    Deleted,
    #[error("PVC is not bound")]
    Unbound,
    #[error("PVC has empty pvc.Spec.VolumeName")]
    Unnamed,
    #[error("PVC was not created for the pod (pod is not owner)")]
    NotOwned,
    #[error("failed to fetch PV {name} from API server: {why}")]
    Volume { name: String, why: String },
    #[error("found PV object {0} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim")]
    Free(String),
    #[error("found PV object {name} but its pv.Spec.ClaimRef.UID {found} does not point to claim.UID {wanted}")]
    Others { name: String, found: String, wanted: String },
    #[error("volume {volume} has volumeMode {mode}, but is specified in {list}")]
    Mode { volume: String, mode: &'static str, list: &'static str },
    #[error("PersistentVolume {name}: volumes of type {kind} are not supported by this agent")]
    Kind { name: String, kind: String },
}

/// A volume that a pod may have, as it is written down in the pod's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bound {
    /// The PersistentVolume's name.
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) block: bool,
    pub(super) read_only: bool,
    /// Its one access mode is ReadWriteOncePod.
    pub(super) alone: bool,
    pub(super) options: Vec<String>,
    pub(super) source: Source,
}

/// Where the data are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Source {
    HostPath { path: String, kind: Option<String> },
    Local { path: String },
    Nfs { server: String, path: String },
}

/// The name of the volume that a claim is bound to.
pub(super) fn volume_of<'a>(claim: &'a PersistentVolumeClaim, owner: Option<&Pod>) -> Result<&'a str, ClaimError> {
    let meta = &claim.metadata;
    let protected = meta.finalizers.iter().flatten().any(|f| f == PROTECTED);
    if meta.deletion_timestamp.is_some() && !protected {
        return Err(ClaimError::Deleted);
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        return Err(ClaimError::Unbound);
    }
    if let Some(pod) = owner {
        let owned = |o: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
            o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref()
        };
        if !meta.owner_references.iter().flatten().any(owned) {
            return Err(ClaimError::NotOwned);
        }
    }
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if name.is_empty() { Err(ClaimError::Unnamed) } else { Ok(name) }
}

/// What is needed of the volume, once it points back to the claim.
pub(super) fn bound(
    volume: &str,
    claim: &PersistentVolumeClaim,
    pv: &PersistentVolume,
    used: Used,
    read_only: bool,
) -> Result<Bound, ClaimError> {
    let name = pv.metadata.name.clone().unwrap_or_default();
    let spec = pv.spec.clone().unwrap_or_default();
    let Some(back) = &spec.claim_ref else { return Err(ClaimError::Free(name)) };
    let (found, wanted) = (back.uid.clone().unwrap_or_default(), claim.metadata.uid.clone().unwrap_or_default());
    if found != wanted || wanted.is_empty() {
        return Err(ClaimError::Others { name, found, wanted });
    }
    let block = spec.volume_mode.as_deref() == Some("Block");
    match used {
        Used { mounted: true, .. } if block => {
            return Err(ClaimError::Mode { volume: volume.to_owned(), mode: "Block", list: "volumeMounts" });
        }
        Used { device: true, .. } if !block => {
            return Err(ClaimError::Mode { volume: volume.to_owned(), mode: "Filesystem", list: "volumeDevices" });
        }
        _ => {}
    }
    let source = if let Some(s) = spec.host_path.as_ref().filter(|_| !block) {
        Source::HostPath { path: s.path.clone(), kind: s.type_.clone() }
    } else if let Some(s) = &spec.local {
        Source::Local { path: s.path.clone() }
    } else if let Some(s) = spec.nfs.as_ref().filter(|_| !block) {
        Source::Nfs { server: s.server.clone(), path: s.path.clone() }
    } else {
        return Err(ClaimError::Kind { name, kind: kind_of(pv, block) });
    };
    let modes = spec.access_modes.unwrap_or_default();
    Ok(Bound {
        name,
        uid: pv.metadata.uid.clone().unwrap_or_default(),
        block,
        read_only: read_only || spec.nfs.as_ref().is_some_and(|s| s.read_only == Some(true)),
        alone: modes == ["ReadWriteOncePod"],
        options: spec.mount_options.unwrap_or_default(),
        source,
    })
}

/// The name of its source's field, for a message.
fn kind_of(pv: &PersistentVolume, block: bool) -> String {
    const OTHERS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let spec = serde_json::to_value(&pv.spec).unwrap_or_default();
    let mut sources = spec.as_object().into_iter().flat_map(|o| o.keys()).filter(|key| !OTHERS.contains(&key.as_str()));
    let kind = sources.next().cloned().unwrap_or_else(|| "none".to_owned());
    if block { format!("{kind} with volumeMode Block") } else { kind }
}

/// The terms of which a node must fit one; `None`: any node will do.
pub(super) fn terms(pv: &PersistentVolume) -> Option<&[NodeSelectorTerm]> {
    let required = pv.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    Some(&required.node_selector_terms)
}

#[cfg(test)]
mod tests;
