//! The kinds of volumes: one module each, behind one small interface.
//!
//! A kind is a function from its source and an `Ask` to a `Ready`: it makes the volume, or brings it up to date, and leaves alone
//! what is as it should be. It keeps nothing in memory and may be cut off anywhere. What it mounts lies below the pod's folder,
//! where `Manager::teardown` finds and unmounts it without knowing the kind. A new kind is a module and a line in `prepare`.

mod anchors;
pub(super) mod atomic;
mod bound;
pub(super) mod certificates;
mod claim;
mod empty_dir;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host_path;
mod image;
mod issue;
mod local;
mod nfs;
mod payload;
mod record;
mod source;
mod token;

pub(super) use bound::ClaimError;
pub use payload::checked;

use super::fields::PodContext;
use super::place::{Place, blocking};
use super::unsupported::unsupported_source;
use super::{Error, Result};
use crate::objects::Store;
use k8s_openapi::api::core::v1::{Pod, Volume};
use std::path::PathBuf;
use std::time::SystemTime;

/// What a kind is told about the volume it is to make.
pub(super) struct Ask<'a> {
    pub(super) kube: &'a kube::Client,
    pub(super) objects: &'a Store,
    pub(super) certificates: &'a certificates::Certificates,
    pub(super) pod: &'a Pod,
    pub(super) context: &'a PodContext,
    /// The volume's name in the pod.
    pub(super) volume: &'a str,
    pub(super) place: Place,
    /// The group that is to own what is in it.
    pub(super) gid: Option<u32>,
    /// Paths inside it on which other volumes are mounted.
    pub(super) nested: Vec<String>,
    pub(super) used: Used,
}

impl Ask<'_> {
    pub(super) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }
}

/// How containers name the volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// In `volumeMounts`.
    pub(super) mounted: bool,
    /// In `volumeDevices`.
    pub(super) device: bool,
    /// For a variable that is read from a file in it.
    pub(super) read: bool,
}

impl Used {
    pub(super) fn at_all(self) -> bool {
        self.mounted || self.device || self.read
    }
}

/// What containers are given of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// A folder or file of the host.
    Path(PathBuf),
    /// A block device of the host.
    Device(PathBuf),
    /// Nothing of the host's: it is not used, or the runtime sees to it.
    Nothing,
}

/// One volume, ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) shown: Shown,
    pub(super) read_only: bool,
    /// When it must be looked at again at the latest.
    pub(super) renew_at: Option<SystemTime>,
}

impl Ready {
    pub(super) const NOTHING: Ready = Ready { shown: Shown::Nothing, read_only: false, renew_at: None };

    pub(super) fn path(path: PathBuf) -> Ready {
        Ready { shown: Shown::Path(path), read_only: false, renew_at: None }
    }
}

/// Makes the volume by its kind. One that no container uses is not made, nor waited for.
pub(super) async fn prepare(volume: &Volume, ask: &Ask<'_>) -> Result<Ready> {
    if let Some(field) = unsupported_source(volume) {
        return Err(Error::Unsupported { volume: volume.name.clone(), field: field.to_owned() });
    }
    if !ask.used.at_all() {
        return Ok(Ready::NOTHING);
    }
    if let Some(source) = &volume.host_path {
        host_path::prepare(ask, &source.path, source.type_.as_deref()).await
    } else if let Some(source) = &volume.empty_dir {
        empty_dir::prepare(ask, source).await
    } else if let Some(source) = &volume.persistent_volume_claim {
        claim::prepare(ask, &source.claim_name, claim::Whose::Anyone { read_only: source.read_only == Some(true) }).await
    } else if volume.ephemeral.is_some() {
        let name = format!("{}-{}", ask.pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
        claim::prepare(ask, &name, claim::Whose::Pods).await
    } else if volume.image.is_some() {
        Ok(image::prepare())
    } else if let Some(source) = &volume.nfs {
        let export = nfs::Export { server: &source.server, path: &source.path, options: &[] };
        nfs::prepare(ask, &export, source.read_only == Some(true)).await
    } else {
        files::prepare(volume, ask).await
    }
}
