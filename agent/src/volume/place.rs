//! Where a pod's volumes lie on disk, and opening the folders there.
//!
//! A folder's parent is locked for as long as somebody changes what is in it: two tries at the same volume, of which one was
//! given up by whoever asked, wait for each other.

use super::beneath::{failed, make_folder, open_folder, open_root, path_of};
use super::{Error, Result};
use rustix::fs::FlockOperation;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The folders of the kinds of volumes whose contents the agent keeps, under kubelet's names.
pub(super) const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
pub(super) const CONFIG_MAP: &str = "kubernetes.io~configmap";
pub(super) const SECRET: &str = "kubernetes.io~secret";
pub(super) const DOWNWARD_API: &str = "kubernetes.io~downward-api";
pub(super) const PROJECTED: &str = "kubernetes.io~projected";

/// Where a volume's folder belongs.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) root_dir: PathBuf,
    pub(super) uid: String,
    /// The folder's own name.
    pub(super) name: String,
}

/// An open volume folder and the one that it is in, which keeps other writers away until it is dropped.
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) parent: OwnedFd,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn pod(&self) -> Result<OwnedFd> {
        Ok(make_folder(pods(&self.root_dir)?.as_fd(), &self.uid, 0o750)?.0)
    }

    /// Opens the volume's folder, making what is missing, and holds the lock.
    pub(super) fn open(&self, kind: &str, mode: u32) -> Result<Folder> {
        let volumes = make_folder(self.pod()?.as_fd(), "volumes", 0o750)?.0;
        let parent = make_folder(volumes.as_fd(), kind, 0o750)?.0;
        lock(&parent)?;
        let fd = make_folder(parent.as_fd(), &self.name, mode)?.0;
        let path = self.root_dir.join("pods").join(&self.uid).join("volumes").join(kind).join(&self.name);
        Ok(Folder { fd, parent, path })
    }

    /// A volume's folder if it is there.
    pub(super) fn find(&self, kind: &str) -> Result<Option<OwnedFd>> {
        let mut at = open_root(&self.root_dir)?;
        for part in ["pods", &self.uid, "volumes", kind, &self.name] {
            let Some(fd) = at else { return Ok(None) };
            at = open_folder(fd.as_fd(), part)?;
        }
        Ok(at)
    }
}

impl Folder {
    /// What is on top now: after a mount an open folder is still the one below it.
    pub(super) fn reopen(&mut self, name: &str) -> Result<()> {
        self.fd = make_folder(self.parent.as_fd(), name, 0o777)?.0;
        Ok(())
    }
}

/// The folder of all pods' folders.
pub(super) fn pods(root_dir: &Path) -> Result<OwnedFd> {
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
pub(super) fn label<'a>(volume: &str, name: &'a str) -> Result<&'a str> {
    if name.is_empty() || name.len() > 253 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let why = "not a DNS label";
        return Err(Error::Invalid { volume: volume.to_owned(), field: "name", value: name.to_owned(), why });
    }
    Ok(name)
}

/// Names of PersistentVolumes are DNS subdomains.
pub(super) fn subdomain<'a>(volume: &str, name: &'a str) -> Result<&'a str> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if name.is_empty() || name.len() > 253 || !plain || name.starts_with('.') {
        let why = "not a DNS subdomain";
        return Err(Error::Invalid { volume: volume.to_owned(), field: "volumeName", value: name.to_owned(), why });
    }
    Ok(name)
}

/// Runs file work where it may block. Dropping the future does not stop the work; the lock keeps a second try waiting.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Interrupted))
}
