//! Local PersistentVolumes: a folder of this host, bound into the pod's own, or one of its block devices.

use super::host_path::plain;
use super::{Ask, Ready, Shown, blocking};
use crate::volume::beneath::{is_mount_point, path_of};
use crate::volume::ownership::{self, Policy};
use crate::volume::place::Place;
use crate::volume::{Error, Result, mounts};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub(super) const KIND: &str = "kubernetes.io~local-volume";

/// A local volume as it is to be for one pod.
pub(super) struct Local<'a> {
    /// The PersistentVolume's name.
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) read_only: bool,
    /// The files are to be the group's; `None` where they are not, or others use them too.
    pub(super) give: Option<(u32, Policy)>,
}

pub(super) async fn folder(ask: &Ask<'_>, local: &Local<'_>) -> Result<Ready> {
    let path = plain(ask.volume, "local.path", local.path)?.to_owned();
    let (place, volume) = (Place { name: local.name.to_owned(), ..ask.place.clone() }, local.name.to_owned());
    let (read_only, give) = (local.read_only, local.give);
    let path = blocking(move || {
        let source = open(&volume, &path)?;
        let stat = |fd: &OwnedFd| rustix::fs::fstat(fd).map_err(crate::volume::beneath::failed("stat", path_of(fd.as_fd())));
        if FileType::from_raw_mode(stat(&source)?.st_mode) != FileType::Directory {
            return Err(Error::HostPath { volume, path: path.display().to_string(), expected: "a directory" });
        }
        let mut folder = place.open(KIND, 0o750)?;
        if is_mount_point(folder.parent.as_fd(), folder.fd.as_fd())? {
            let same = |a: rustix::fs::Stat, b: rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
            if same(stat(&folder.fd)?, stat(&source)?) {
                return Ok(folder.path);
            }
            // The host's folder is another by now.
            mounts::unmount(&path_of(folder.fd.as_fd()))?;
            folder.reopen(&place.name)?;
        }
        if let Some((gid, policy)) = give {
            let files = rustix::fs::openat(&source, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let files = files.map_err(crate::volume::beneath::failed("open", &path))?;
            let changed = ownership::give(files.as_fd(), gid, policy)?;
            tracing::debug!(volume, gid, changed, "files of a volume were given to a pod's group");
        }
        if read_only {
            mounts::bind_read_only(source.as_fd(), folder.fd.as_fd(), &path_of(folder.fd.as_fd()))?;
        } else {
            mounts::bind(source.as_fd(), folder.fd.as_fd())?;
        }
        Ok(folder.path)
    });
    Ok(Ready { shown: Shown::Path(path.await?), read_only, renew_at: None })
}

pub(super) async fn device(ask: &Ask<'_>, local: &Local<'_>) -> Result<Ready> {
    let path = plain(ask.volume, "local.path", local.path)?.to_owned();
    let (volume, read_only) = (local.name.to_owned(), local.read_only);
    let device = blocking(move || {
        let fd = open(&volume, &path)?;
        let stat = rustix::fs::fstat(&fd).map_err(crate::volume::beneath::failed("stat", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
            return Err(Error::Device { volume, path: path.display().to_string() });
        }
        // Without links: that is what the runtime looks up.
        Ok(path_of(fd.as_fd()))
    });
    Ok(Ready { shown: Shown::Device(device.await?), read_only, renew_at: None })
}

/// Links on the host are the administrator's and are followed.
fn open(volume: &str, path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| Error::Local {
        volume: volume.to_owned(),
        path: path.display().to_string(),
        source: errno.into(),
    })
}
