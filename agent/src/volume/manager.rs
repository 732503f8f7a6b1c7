//! Preparing and removing a pod's volumes.
//!
//! Owns `<root>/pods/<uid>` on disk; what is there is looked up again at each call. In memory it has only keys that pods'
//! certificates were asked for with. The API is asked
//! on the async side, all file work runs on the blocking pool under a lock on a folder that no pod can see.

use super::beneath::{make_folder, open_folder, open_root, path_of, remove_tree};
use super::fields::PodContext;
use super::kinds::certificates::Certificates;
use super::kinds::{self, Ask, Ready, Shown, Used, checked};
use super::place::{Place, blocking, checked_uid, label, lock, pods};
use super::{Error, Result, inside, mounts, subpath, userns};
use crate::objects::Store;
use crate::pod::containers;
use crate::userns::{Block, Range};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{EnvVar, Pod, Volume, VolumeDevice, VolumeMount};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Cheap to clone.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    root_dir: PathBuf,
    /// How often a pod's volumes have been removed.
    removed: watch::Sender<u64>,
    kube: kube::Client,
    objects: Store,
    certificates: Certificates,
}

/// A pod's volumes, ready to be bound into containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Where each volume lies on the host.
    pub host_paths: BTreeMap<String, PathBuf>,
    /// The host's device of each volume that is one.
    pub devices: BTreeMap<String, PathBuf>,
    /// Volumes that are to be mounted read-only whatever the mount says.
    pub read_only: BTreeSet<String>,
    /// What the runtime can do for mounts that ask for it; found out by whoever prepares.
    pub recursive_read_only: bool,
    /// When `prepare` must be called again at the latest, because a token nears its end.
    pub renew_at: Option<SystemTime>,
}

/// One mount that shows a part of a volume.
#[derive(Debug, Clone, Copy)]
pub struct SubPath<'a> {
    pub volume: &'a str,
    pub container: &'a str,
    /// The mount's place in the container's list.
    pub index: usize,
    /// The volume's host path.
    pub root: &'a Path,
    /// `subPath`, or `subPathExpr` expanded.
    pub sub: &'a str,
}

impl Manager {
    /// `root_dir` is the agent's, `/var/lib/kubelet` by default.
    pub fn new(root_dir: impl Into<PathBuf>, kube: kube::Client, objects: Store) -> Manager {
        let (removed, certificates) = (watch::Sender::new(0), Certificates::new());
        Manager { inner: Arc::new(Inner { root_dir: root_dir.into(), removed, kube, objects, certificates }) }
    }

    /// The pod's own folder.
    pub fn pod_dir(&self, uid: &str) -> Result<PathBuf> {
        Ok(self.inner.root_dir.join("pods").join(checked_uid(uid)?))
    }

    /// Makes all volumes of the pod, or brings their content up to date. What is as it should be is left alone. All volumes
    /// are tried; the first error in the pod's order is returned.
    pub async fn prepare(&self, pod: &Pod, context: &PodContext) -> Result<Prepared> {
        self.prepare_telling(pod, context, &|_| {}).await
    }

    /// The same; `pending` is told each time which volumes are not ready yet.
    pub async fn prepare_telling(&self, pod: &Pod, context: &PodContext, pending: &(dyn Fn(&[&str]) + Sync)) -> Result<Prepared> {
        let uid = checked_uid(pod.metadata.uid.as_deref().unwrap_or_default())?;
        let volumes: Vec<&Volume> = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).collect();
        let mut left: Vec<&str> = volumes.iter().map(|v| v.name.as_str()).collect();
        let work = |(at, volume)| async move { (at, self.volume(pod, uid, volume, context).await) };
        let mut under_way: FuturesUnordered<_> = volumes.iter().copied().enumerate().map(work).collect();
        let mut all: Vec<Option<Result<Ready>>> = volumes.iter().map(|_| None).collect();
        pending(&left);
        while let Some((at, ready)) = under_way.next().await {
            left.retain(|name| *name != volumes[at].name);
            pending(&left);
            all[at] = Some(ready);
        }
        let mut out = Prepared::default();
        for (volume, ready) in volumes.iter().zip(all.into_iter().flatten()) {
            let (name, ready) = (volume.name.clone(), ready?);
            if ready.read_only {
                out.read_only.insert(name.clone());
            }
            out.renew_at = match (out.renew_at, ready.renew_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            match ready.shown {
                Shown::Path(path) => drop(out.host_paths.insert(name, path)),
                Shown::Device(path) => drop(out.devices.insert(name, path)),
                Shown::Nothing => {}
            }
        }
        Ok(out)
    }

    async fn volume(&self, pod: &Pod, uid: &str, volume: &Volume, context: &PodContext) -> Result<Ready> {
        let name = label(&volume.name, &volume.name)?;
        let ask = Ask {
            kube: &self.inner.kube,
            objects: &self.inner.objects,
            certificates: &self.inner.certificates,
            pod,
            context,
            volume: name,
            place: Place { root_dir: self.inner.root_dir.clone(), uid: uid.to_owned(), name: name.to_owned() },
            gid: fs_group(pod),
            nested: nested_mount_points(pod, name),
            used: used(pod, name),
        };
        kinds::prepare(volume, &ask).await
    }

    /// Unmounts and removes all of the pod's volumes and its folder. Nothing there is success.
    pub async fn teardown(&self, uid: &str) -> Result<()> {
        let (root_dir, uid) = (self.inner.root_dir.clone(), checked_uid(uid)?.to_owned());
        self.inner.certificates.forget(&uid);
        blocking(move || {
            let Some(root) = open_root(&root_dir)? else { return Ok(()) };
            let Some(pods) = open_folder(root.as_fd(), "pods")? else { return Ok(()) };
            // The kernel's own name for the folder, since the mount table knows no links on the way to it.
            mounts::unmount_below(&path_of(pods.as_fd()).join(&uid))?;
            remove_tree(pods.as_fd(), &uid)
        })
        .await?;
        self.inner.removed.send_modify(|times| *times += 1);
        Ok(())
    }

    /// Changes when a pod's volumes have been removed: what another waits for may be free.
    pub fn removed(&self) -> watch::Receiver<u64> {
        self.inner.removed.subscribe()
    }

    /// A host path for one `volumeMount.subPath`, which cannot lead out of the volume. To be called again for each container
    /// made: content that was replaced meanwhile is then bound anew.
    pub async fn sub_path(&self, uid: &str, mount: &SubPath<'_>) -> Result<PathBuf> {
        let uid = checked_uid(uid)?.to_owned();
        let volume = label(mount.volume, mount.volume)?.to_owned();
        let container = label(mount.volume, mount.container)?.to_owned();
        let place = Place { root_dir: self.inner.root_dir.clone(), uid, name: volume };
        let (index, root, sub) = (mount.index.to_string(), mount.root.to_owned(), mount.sub.to_owned());
        blocking(move || {
            let source = subpath::open(&place.name, &root, &sub)?;
            let mut folder = place.pod()?;
            for part in ["volume-subpaths", &place.name, &container] {
                folder = make_folder(folder.as_fd(), part, 0o750)?.0;
            }
            lock(&folder)?;
            subpath::publish(source.as_fd(), folder.as_fd(), &index)
        })
        .await
    }

    /// Lets `read` have a file inside the volume that lies at `root`; it runs where it may block.
    pub async fn with_file<T: Send + 'static>(
        &self,
        root: &Path,
        path: &str,
        read: impl FnOnce(std::fs::File) -> T + Send + 'static,
    ) -> Result<T> {
        let (root, path) = (root.to_owned(), path.to_owned());
        blocking(move || Ok(read(inside::open(&root, &path)?))).await
    }

    /// The pod's own block of ids: the one that it has, or one that no other pod has.
    pub async fn id_block(&self, uid: &str, range: Range) -> Result<Block> {
        let (root_dir, uid) = (self.inner.root_dir.clone(), checked_uid(uid)?.to_owned());
        blocking(move || userns::block(&pods(&root_dir)?, &uid, &range, rand::random())).await
    }

    /// The uids that have a folder.
    pub async fn list_pod_dirs(&self) -> Result<Vec<String>> {
        let root_dir = self.inner.root_dir.clone();
        blocking(move || {
            let Some(root) = open_root(&root_dir)? else { return Ok(Vec::new()) };
            let Some(pods) = open_folder(root.as_fd(), "pods")? else { return Ok(Vec::new()) };
            let names = super::beneath::entries(pods.as_fd())?;
            let mut uids: Vec<String> = names.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect();
            uids.retain(|uid| checked_uid(uid).is_ok());
            uids.sort();
            Ok(uids)
        })
        .await
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// How containers name the volume.
fn used(pod: &Pod, volume: &str) -> Used {
    let mut used = Used::default();
    let mut by = |mounts: &Option<Vec<VolumeMount>>, devices: &Option<Vec<VolumeDevice>>, env: &Option<Vec<EnvVar>>| {
        used.mounted |= mounts.iter().flatten().any(|m| m.name == volume);
        used.device |= devices.iter().flatten().any(|d| d.name == volume);
        let files = env.iter().flatten().filter_map(|e| e.value_from.as_ref()?.file_key_ref.as_ref());
        used.read |= files.into_iter().any(|f| f.volume_name == volume);
    };
    let spec = pod.spec.iter();
    spec.clone().flat_map(containers).for_each(|c| by(&c.volume_mounts, &c.volume_devices, &c.env));
    let ephemeral = spec.flat_map(|s| s.ephemeral_containers.iter().flatten());
    ephemeral.for_each(|c| by(&c.volume_mounts, &c.volume_devices, &c.env));
    used
}

/// Folders inside this volume on which other volumes of the same container are mounted: the runtime could not make them in
/// a read-only volume.
fn nested_mount_points(pod: &Pod, volume: &str) -> Vec<String> {
    let mut out = BTreeSet::new();
    for container in pod.spec.iter().flat_map(containers) {
        let mounts = || container.volume_mounts.iter().flatten();
        let of_volume = mounts().filter(|m| m.name == volume && m.sub_path.is_none() && m.sub_path_expr.is_none());
        for outer in of_volume {
            let base = format!("{}/", outer.mount_path.trim_end_matches('/'));
            out.extend(mounts().filter_map(|m| m.mount_path.strip_prefix(&base)).filter_map(|p| checked(volume, p).ok()));
        }
    }
    out.into_iter().collect()
}

pub(super) fn make_nested(volume: &OwnedFd, paths: &[String]) -> Result<()> {
    for path in paths {
        // A name that the volume itself shows is a link and fails here: it can serve as the mount point as it is.
        let mut folder = volume.try_clone().map_err(|source| Error::Io { op: "open", path: path_of(volume.as_fd()), source })?;
        for part in path.split('/') {
            match make_folder(folder.as_fd(), part, 0o755) {
                Ok((next, _)) => folder = next,
                Err(_) => break,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
