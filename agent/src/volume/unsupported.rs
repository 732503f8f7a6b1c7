//! Which volumes of a pod this agent cannot provide. Pure.

use k8s_openapi::api::core::v1::{Pod, Volume};

/// A field of the pod that asks for something that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Path in the object, as in `spec.volumes[2].nfs`.
    pub field: String,
    pub reason: String,
}

/// Everything about volumes in this pod that cannot be done; empty if the pod's volumes can all be prepared.
pub fn unsupported(pod: &Pod) -> Vec<Unsupported> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut out = Vec::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        if let Some(source) = unsupported_source(volume) {
            let reason = format!("volume {:?}: volumes of type {source} are not supported by this agent", volume.name);
            out.push(Unsupported { field: format!("spec.volumes[{i}].{source}"), reason });
        }
    }
    out
}

/// The name of the volume's source if it is one that is not done here, or if there is none at all.
pub(super) fn unsupported_source(volume: &Volume) -> Option<&'static str> {
    let v = volume;
    let of_files = v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some();
    let of_claims = v.persistent_volume_claim.is_some() || v.ephemeral.is_some();
    if of_files || of_claims || v.host_path.is_some() || v.empty_dir.is_some() || v.nfs.is_some() || v.image.is_some() {
        return None;
    }
    let others = [
        ("awsElasticBlockStore", v.aws_elastic_block_store.is_some()),
        ("azureDisk", v.azure_disk.is_some()),
        ("azureFile", v.azure_file.is_some()),
        ("cephfs", v.cephfs.is_some()),
        ("cinder", v.cinder.is_some()),
        ("csi", v.csi.is_some()),
        ("fc", v.fc.is_some()),
        ("flexVolume", v.flex_volume.is_some()),
        ("flocker", v.flocker.is_some()),
        ("gcePersistentDisk", v.gce_persistent_disk.is_some()),
        ("gitRepo", v.git_repo.is_some()),
        ("glusterfs", v.glusterfs.is_some()),
        ("iscsi", v.iscsi.is_some()),
        ("photonPersistentDisk", v.photon_persistent_disk.is_some()),
        ("portworxVolume", v.portworx_volume.is_some()),
        ("quobyte", v.quobyte.is_some()),
        ("rbd", v.rbd.is_some()),
        ("scaleIO", v.scale_io.is_some()),
        ("storageos", v.storageos.is_some()),
        ("vsphereVolume", v.vsphere_volume.is_some()),
    ];
    others.iter().find(|(_, set)| *set).map(|(name, _)| *name).or(Some("source"))
}

#[cfg(test)]
mod tests;
