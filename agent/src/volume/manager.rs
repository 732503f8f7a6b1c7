//! Preparing and removing a pod's volumes.
//!
//! Owns `<root>/pods/<uid>` on disk and nothing in memory: what is there is looked up again at each call. The API is asked
//! on the async side, all file work runs on the blocking pool under a lock on a folder that no pod can see.

use super::beneath::{failed, make_folder, open_folder, open_root, path_of, remove_tree};
use super::fields::PodContext;
use super::payload::{Payload, checked, conflict};
use super::source::{Collector, Named};
use super::unsupported::unsupported_source;
use super::{Error, Result, atomic, inside, local, mounts, subpath, userns};
use crate::objects::Store;
use crate::pod::containers;
use crate::userns::{Block, Range};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, Volume};
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
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
    objects: Store,
}

/// A pod's volumes, ready to be bound into containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Where each volume lies on the host.
    pub host_paths: BTreeMap<String, PathBuf>,
    /// Volumes that are to be mounted read-only whatever the mount says: they show API objects.
    pub read_only: BTreeSet<String>,
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

/// One volume, ready.
struct Ready {
    path: PathBuf,
    read_only: bool,
    renew_at: Option<SystemTime>,
}

/// How a volume of files is laid out.
struct Files {
    kind: &'static str,
    /// On a tmpfs, so that it never reaches a disk.
    in_memory: bool,
    payload: Payload,
    renew_at: Option<SystemTime>,
}

impl Manager {
    /// `root_dir` is the agent's, `/var/lib/kubelet` by default.
    pub fn new(root_dir: impl Into<PathBuf>, kube: kube::Client, objects: Store) -> Manager {
        Manager { inner: Arc::new(Inner { root_dir: root_dir.into(), kube, objects }) }
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
            out.host_paths.insert(name, ready.path);
        }
        Ok(out)
    }

    async fn volume(&self, pod: &Pod, uid: &str, volume: &Volume, context: &PodContext) -> Result<Ready> {
        let name = &volume.name;
        label(name, name)?;
        if let Some(field) = unsupported_source(volume) {
            return Err(Error::Unsupported { volume: name.clone(), field: field.to_owned() });
        }
        let gid = fs_group(pod);
        if let Some(source) = volume.host_path.clone() {
            let name = name.clone();
            let path = blocking(move || local::host_path(&name, &source)).await?;
            return Ok(Ready { path, read_only: false, renew_at: None });
        }
        let place = Place { root_dir: self.inner.root_dir.clone(), uid: uid.to_owned(), name: name.clone() };
        let nested = nested_mount_points(pod, name);
        if let Some(source) = &volume.empty_dir {
            let memory = source.medium.as_deref() == Some("Memory");
            let size = if memory { local::memory_size(pod, source, name, context)? } else { None };
            let path = blocking(move || {
                let folder = place.open("kubernetes.io~empty-dir", memory, size)?;
                local::open_to_pod(folder.fd.as_fd(), gid)?;
                make_nested(&folder.fd, &nested)?;
                Ok(folder.path)
            });
            return Ok(Ready { path: path.await?, read_only: false, renew_at: None });
        }
        let files = self.files(pod, volume, &place, context).await?;
        if let Some(path) = conflict(&files.payload) {
            return Err(Error::Path { volume: name.clone(), path: path.to_owned() });
        }
        let renew_at = files.renew_at;
        let path = blocking(move || {
            let folder = place.open(files.kind, files.in_memory, None)?;
            local::open_to_pod(folder.fd.as_fd(), gid)?;
            atomic::write(folder.fd.as_fd(), &files.payload, gid)?;
            make_nested(&folder.fd, &nested)?;
            Ok(folder.path)
        });
        Ok(Ready { path: path.await?, read_only: true, renew_at })
    }

    /// The content of a volume that shows API objects.
    async fn files(&self, pod: &Pod, volume: &Volume, place: &Place, context: &PodContext) -> Result<Files> {
        let name = volume.name.as_str();
        let (fs_group, fs_user) = (fs_group(pod), fs_user(pod));
        let collector =
            Collector { kube: &self.inner.kube, objects: &self.inner.objects, pod, context, volume: name, fs_group, fs_user };
        if let Some(c) = &volume.config_map {
            let named = Named { name: &c.name, items: c.items.as_ref(), default_mode: c.default_mode, optional: c.optional };
            let payload = collector.config_map(&named).await?;
            return Ok(Files { kind: "kubernetes.io~configmap", in_memory: false, payload, renew_at: None });
        }
        if let Some(s) = &volume.secret {
            let object = s.secret_name.as_deref().unwrap_or_default();
            let named = Named { name: object, items: s.items.as_ref(), default_mode: s.default_mode, optional: s.optional };
            let payload = collector.secret(&named).await?;
            return Ok(Files { kind: "kubernetes.io~secret", in_memory: true, payload, renew_at: None });
        }
        if let Some(d) = &volume.downward_api {
            let payload = collector.downward(d.items.as_deref().unwrap_or_default(), d.default_mode)?;
            return Ok(Files { kind: "kubernetes.io~downward-api", in_memory: true, payload, renew_at: None });
        }
        if let Some(p) = &volume.projected {
            let kind = "kubernetes.io~projected";
            let (wanted, place) = (token_paths(name, p)?, place.clone());
            let tokens = blocking(move || place.current(kind, &wanted)).await?;
            let (payload, renew_at) = collector.projected(p, &tokens).await?;
            return Ok(Files { kind, in_memory: true, payload, renew_at });
        }
        Err(Error::Unsupported { volume: name.to_owned(), field: "source".to_owned() })
    }

    /// Unmounts and removes all of the pod's volumes and its folder. Nothing there is success.
    pub async fn teardown(&self, uid: &str) -> Result<()> {
        let (root_dir, uid) = (self.inner.root_dir.clone(), checked_uid(uid)?.to_owned());
        blocking(move || {
            let Some(root) = open_root(&root_dir)? else { return Ok(()) };
            let Some(pods) = open_folder(root.as_fd(), "pods")? else { return Ok(()) };
            // The kernel's own name for the folder, since the mount table knows no links on the way to it.
            mounts::unmount_below(&path_of(pods.as_fd()).join(&uid))?;
            remove_tree(pods.as_fd(), &uid)
        })
        .await
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

/// Where a volume's folder belongs.
#[derive(Debug, Clone)]
struct Place {
    root_dir: PathBuf,
    uid: String,
    name: String,
}

/// An open volume folder; `_lock` keeps other writers away until it is dropped.
struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    _lock: OwnedFd,
}

impl Place {
    fn pod(&self) -> Result<OwnedFd> {
        Ok(make_folder(pods(&self.root_dir)?.as_fd(), &self.uid, 0o750)?.0)
    }

    /// Opens the volume's folder, making what is missing, with a tmpfs on it where wanted.
    fn open(&self, kind: &str, in_memory: bool, size: Option<u64>) -> Result<Folder> {
        let volumes = make_folder(self.pod()?.as_fd(), "volumes", 0o750)?.0;
        let parent = make_folder(volumes.as_fd(), kind, 0o750)?.0;
        lock(&parent)?;
        let mut fd = make_folder(parent.as_fd(), &self.name, 0o777)?.0;
        if in_memory && local::ensure_tmpfs(parent.as_fd(), fd.as_fd(), size)? {
            // What was opened is the folder below the new mount.
            fd = make_folder(parent.as_fd(), &self.name, 0o777)?.0;
        }
        let path = self.root_dir.join("pods").join(&self.uid).join("volumes").join(kind).join(&self.name);
        Ok(Folder { fd, path, _lock: parent })
    }

    /// The files of these paths that are in the volume now, with the time they were written.
    fn current(&self, kind: &str, paths: &[String]) -> Result<BTreeMap<String, (Vec<u8>, SystemTime)>> {
        let mut out = BTreeMap::new();
        let mut at = open_root(&self.root_dir)?;
        for part in ["pods", &self.uid, "volumes", kind, &self.name] {
            let Some(fd) = at else { return Ok(out) };
            at = open_folder(fd.as_fd(), part)?;
        }
        let Some(folder) = at else { return Ok(out) };
        for path in paths {
            if let Some((data, written)) = atomic::read(folder.as_fd(), path)? {
                out.insert(path.clone(), (data, written));
            }
        }
        Ok(out)
    }
}

/// The folder of all pods' folders.
fn pods(root_dir: &Path) -> Result<OwnedFd> {
    let io = |source| Error::Io { op: "make folder", path: root_dir.to_owned(), source };
    std::fs::create_dir_all(root_dir).map_err(io)?;
    let root = open_root(root_dir)?.ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))?;
    Ok(make_folder(root.as_fd(), "pods", 0o750)?.0)
}

pub(super) fn lock(folder: &OwnedFd) -> Result<()> {
    rustix::fs::flock(folder, FlockOperation::LockExclusive).map_err(failed("lock", path_of(folder.as_fd())))
}

pub(super) fn checked_uid(uid: &str) -> Result<&str> {
    if uid.is_empty() || uid.len() > 128 || !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Error::Uid(uid.to_owned()));
    }
    Ok(uid)
}

/// Names of volumes and containers are DNS labels in the API; nothing else may become a folder's name.
fn label<'a>(volume: &str, name: &'a str) -> Result<&'a str> {
    if name.is_empty() || name.len() > 253 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let why = "not a DNS label";
        return Err(Error::Invalid { volume: volume.to_owned(), field: "name", value: name.to_owned(), why });
    }
    Ok(name)
}

/// Runs file work where it may block. Dropping the future does not stop the work; the lock keeps a second try waiting.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Interrupted))
}

fn token_paths(volume: &str, source: &ProjectedVolumeSource) -> Result<Vec<String>> {
    let tokens = source.sources.iter().flatten().filter_map(|s| s.service_account_token.as_ref());
    tokens.map(|t| checked(volume, &t.path)).collect()
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// The one user that all containers run as, if it is stated for each.
fn fs_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let default = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = containers(spec).map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(default));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
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

fn make_nested(volume: &OwnedFd, paths: &[String]) -> Result<()> {
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
