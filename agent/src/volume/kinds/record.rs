//! What a pod has been given for its claims, written down in its folder.
//!
//! With the record a pod goes on without the API server, and other pods see which volumes are taken. Whoever writes holds the lock on
//! the folder of all pods.

use super::bound::Bound;
use crate::volume::beneath::{entries, failed, make_folder, open_folder, path_of, read_file, replace_file};
use crate::volume::place::{Place, checked_uid, lock, pods};
use crate::volume::{Error, Result};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const FOLDER: &str = "claims";
const HALF: &str = ".new";
/// More than any of them has.
const MAX: u64 = 64 << 10;

/// What this pod was given for the volume.
pub(super) fn find(place: &Place) -> Result<Option<Bound>> {
    let pods = pods(&place.root_dir)?;
    match of_pod(pods.as_fd(), &place.uid)? {
        Some(folder) => read(folder.as_fd(), &place.name),
        None => Ok(None),
    }
}

/// Writes it down, unless another pod has the volume and it is for one alone. Whether other pods have it too.
pub(super) fn take(place: &Place, bound: &Bound) -> Result<bool> {
    let pods = pods(&place.root_dir)?;
    lock(&pods)?;
    let shared = held_by_others(&pods, &place.uid, bound)?;
    if shared && bound.alone {
        return Err(Error::Taken { volume: bound.name.clone() });
    }
    let own = make_folder(place.pod()?.as_fd(), FOLDER, 0o750)?.0;
    write(own.as_fd(), &place.name, bound)?;
    Ok(shared)
}

/// It came to nothing.
pub(super) fn forget(place: &Place) -> Result<()> {
    let pods = pods(&place.root_dir)?;
    let Some(own) = of_pod(pods.as_fd(), &place.uid)? else { return Ok(()) };
    match rustix::fs::unlinkat(&own, place.name.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove", path_of(own.as_fd()).join(&place.name))(errno)),
    }
}

fn of_pod(pods: BorrowedFd<'_>, uid: &str) -> Result<Option<OwnedFd>> {
    match open_folder(pods, uid)? {
        Some(pod) => open_folder(pod.as_fd(), FOLDER),
        None => Ok(None),
    }
}

fn held_by_others(pods: &OwnedFd, uid: &str, bound: &Bound) -> Result<bool> {
    for (name, kind) in entries(pods.as_fd())? {
        let other = name.to_string_lossy();
        if kind != FileType::Directory || other == uid || checked_uid(&other).is_err() {
            continue;
        }
        let Some(folder) = of_pod(pods.as_fd(), &other)? else { continue };
        for (volume, _) in entries(folder.as_fd())? {
            let found = read(folder.as_fd(), &volume.to_string_lossy())?;
            if found.is_some_and(|found| found.name == bound.name && found.uid == bound.uid) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// One that cannot be read says nothing: the API does.
fn read(folder: BorrowedFd<'_>, name: &str) -> Result<Option<Bound>> {
    let Some(text) = read_file(folder, name, MAX)? else { return Ok(None) };
    match serde_json::from_slice(&text) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) => {
            tracing::warn!(path = %path_of(folder).join(name).display(), %error, "a record of a volume cannot be read");
            Ok(None)
        }
    }
}

fn write(folder: BorrowedFd<'_>, name: &str, bound: &Bound) -> Result<()> {
    let wrong = |e: serde_json::Error| Error::Io { op: "write", path: path_of(folder).join(name), source: e.into() };
    replace_file(folder, name, HALF, &serde_json::to_vec(bound).map_err(wrong)?)
}
