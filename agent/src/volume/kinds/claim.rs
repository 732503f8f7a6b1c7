//! `persistentVolumeClaim` and `ephemeral`: the volume that a claim is bound to.
//!
//! Nodes may read claims and volumes by name and not watch them, so a claim that is waited for is read again and again, once for
//! all pods that wait for it (`objects`). Once a pod has its volume the record in its folder says which it is.

use super::bound::{self, Bound, ClaimError, Source};
use super::{Ask, Ready, blocking, host_path, local, nfs, record};
use crate::admission::fits_any;
use crate::volume::ownership::Policy;
use crate::volume::place::subdomain;
use crate::volume::{Error, Result};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::Api;

/// Who may use the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Anyone {
        read_only: bool,
    },
    /// This pod, for which it was made.
    Pods,
}

pub(super) async fn prepare(ask: &Ask<'_>, claim: &str, whose: Whose) -> Result<Ready> {
    let place = ask.place.clone();
    if let Some(bound) = blocking(move || record::find(&place)).await? {
        // It stays what it was for as long as the pod is there, whatever becomes of the claim.
        return make(ask, &bound, true).await;
    }
    let failed =
        |why| Error::Claim { volume: ask.volume.to_owned(), claim: format!("{}/{claim}", ask.namespace()), why: Box::new(why) };
    let found = ask.objects.get::<PersistentVolumeClaim>(ask.namespace(), claim).await;
    let found = found.map_err(|e| failed(ClaimError::Claim(e.to_string())))?;
    let found = found.ok_or_else(|| failed(ClaimError::Claim(format!("persistentvolumeclaims {claim:?} not found"))))?;
    let owner = (whose == Whose::Pods).then_some(ask.pod);
    let name = bound::volume_of(&found, owner).map_err(failed)?;
    let volume = Api::<PersistentVolume>::all(ask.kube.clone()).get_opt(name).await;
    let why = |why: String| failed(ClaimError::Volume { name: name.to_owned(), why });
    let volume = volume.map_err(|e| why(crate::api::watch::chain(&e)))?;
    let volume = volume.ok_or_else(|| why(format!("persistentvolumes {name:?} not found")))?;
    let read_only = whose == Whose::Anyone { read_only: true };
    let bound = bound::bound(ask.volume, &found, &volume, ask.used, read_only).map_err(failed)?;
    subdomain(ask.volume, &bound.name)?;
    here(ask, &volume, &bound).await?;
    let (place, taken) = (ask.place.clone(), bound.clone());
    let shared = blocking(move || record::take(&place, &taken)).await?;
    let made = make(ask, &bound, shared).await;
    if made.is_err() {
        let place = ask.place.clone();
        blocking(move || record::forget(&place)).await?;
    }
    made
}

/// Whether the volume is to be had on this node.
async fn here(ask: &Ask<'_>, volume: &PersistentVolume, bound: &Bound) -> Result<()> {
    let Some(terms) = bound::terms(volume) else { return Ok(()) };
    let failed = |why: String| Error::Affinity { block: bound.block, volume: bound.name.clone(), why };
    let name = ask.context.node_name.clone();
    let node = Api::<Node>::all(ask.kube.clone()).get(&name).await.map_err(|e| failed(crate::api::watch::chain(&e)))?;
    if fits_any(&name, &node.metadata.labels.unwrap_or_default(), terms) {
        Ok(())
    } else {
        Err(failed("no matching NodeSelectorTerms".to_owned()))
    }
}

/// `kept`: its files are not to be given to the pod's group, as they were, or are others' too.
async fn make(ask: &Ask<'_>, bound: &Bound, kept: bool) -> Result<Ready> {
    let read_only = bound.read_only;
    match &bound.source {
        Source::HostPath { path, kind } => Ok(Ready { read_only, ..host_path::prepare(ask, path, kind.as_deref()).await? }),
        Source::Local { path } => {
            let give = ask.gid.filter(|_| !kept && !read_only).map(|gid| (gid, policy(ask)));
            let local = local::Local { name: &bound.name, path, read_only, give };
            if bound.block { local::device(ask, &local).await } else { local::folder(ask, &local).await }
        }
        Source::Nfs { server, path } => {
            let export = nfs::Export { server, path, options: &bound.options };
            nfs::prepare(ask, &export, read_only).await
        }
    }
}

fn policy(ask: &Ask<'_>) -> Policy {
    let context = ask.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    match context.and_then(|c| c.fs_group_change_policy.as_deref()) {
        Some("OnRootMismatch") => Policy::OnRootMismatch,
        _ => Policy::Always,
    }
}
