//! Preparing and removing a pod's volumes.

use super::fields::PodContext;
use super::{Error, Result};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Cheap to clone.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    root_dir: PathBuf,
    kube: kube::Client,
}

/// A pod's volumes, ready to be bound into containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Where each volume lies on the host.
    pub host_paths: BTreeMap<String, PathBuf>,
    /// When `prepare` must be called again at the latest, because a token nears its end.
    pub renew_at: Option<SystemTime>,
}

impl Manager {
    /// `root_dir` is the agent's, `/var/lib/kubelet` by default.
    pub fn new(root_dir: impl Into<PathBuf>, kube: kube::Client) -> Manager {
        Manager { inner: Arc::new(Inner { root_dir: root_dir.into(), kube }) }
    }

    /// The pod's own folder.
    pub fn pod_dir(&self, uid: &str) -> Result<PathBuf> {
        if uid.is_empty() || !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::Uid(uid.to_owned()));
        }
        Ok(self.inner.root_dir.join("pods").join(uid))
    }

    /// Makes all volumes of the pod, or brings their content up to date. What is as it should be is left alone.
    pub async fn prepare(&self, _pod: &Pod, _context: &PodContext) -> Result<Prepared> {
        let _ = &self.inner.kube;
        Ok(Prepared::default())
    }

    /// Unmounts and removes all of the pod's volumes and its folder. Nothing there is success.
    pub async fn teardown(&self, uid: &str) -> Result<()> {
        let _ = self.pod_dir(uid)?;
        Ok(())
    }

    /// A host path for one `volumeMount.subPath`, which cannot lead out of the volume. `index` is the mount's place in the
    /// container's list.
    pub async fn sub_path(
        &self,
        _uid: &str,
        _volume: &str,
        _container: &str,
        _index: usize,
        root: &Path,
        _sub: &str,
    ) -> Result<PathBuf> {
        Ok(root.to_owned())
    }

    /// The uids that have a folder.
    pub async fn list_pod_dirs(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
