//! `volumeMounts.subPath`: a file or folder inside a volume, found without leaving it.
//!
//! The kernel resolves the path beneath the volume's root in one step (`openat2`), so a link that the pod made meanwhile
//! cannot lead out. What was found is bound to a place of the agent's own, and that is what the container gets: by then the
//! name no longer matters.

use super::beneath::{failed, is_mount_point, make_folder, path_of};
use super::kinds::checked;
use super::{Result, mounts};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens `sub` beneath the volume's root, making folders where nothing is.
pub(super) fn open(volume: &str, root: &Path, sub: &str) -> Result<OwnedFd> {
    let sub = checked(volume, sub)?;
    let root_fd = rustix::fs::openat(CWD, root, PATH | OFlags::DIRECTORY, Mode::empty()).map_err(failed("open", root))?;
    let mut at = String::new();
    for part in sub.split('/') {
        let parent = if at.is_empty() { ".".to_owned() } else { at.clone() };
        at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
        match rustix::fs::openat2(&root_fd, at.as_str(), PATH, Mode::empty(), INSIDE) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("open inside the volume", root.join(&at))(errno)),
        }
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat2(&root_fd, parent.as_str(), folder, Mode::empty(), INSIDE);
        let parent = parent.map_err(failed("open inside the volume", root.join(&at)))?;
        let like = rustix::fs::fstat(&root_fd).map_err(failed("stat", root))?;
        make_folder(parent.as_fd(), part, like.st_mode & 0o7777)?;
    }
    rustix::fs::openat2(&root_fd, sub.as_str(), PATH, Mode::empty(), INSIDE)
        .map_err(failed("open inside the volume", root.join(&sub)))
}

/// Binds the open file onto `name` in the folder, anew where something else is bound there.
pub(super) fn publish(source: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &str) -> Result<PathBuf> {
    let path = path_of(folder).join(name);
    let wanted = rustix::fs::fstat(source).map_err(failed("stat", &path))?;
    let is_folder = FileType::from_raw_mode(wanted.st_mode) == FileType::Directory;
    let open = || rustix::fs::openat(folder, name, PATH | OFlags::NOFOLLOW, Mode::empty());
    // Another pass is needed only after something old was unmounted or was of the other type.
    for _ in 0..16 {
        let target = match open() {
            Ok(target) => target,
            Err(Errno::NOENT) => {
                if is_folder {
                    make_folder(folder, name, 0o750)?;
                } else {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o640)).map_err(failed("make", &path))?;
                }
                continue;
            }
            Err(errno) => return Err(failed("open", &path)(errno)),
        };
        let there = rustix::fs::fstat(&target).map_err(failed("stat", &path))?;
        if is_mount_point(folder, target.as_fd())? {
            if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino) && there.st_nlink > 0 {
                return Ok(path);
            }
            drop(target);
            mounts::unmount(&path)?;
        } else if (FileType::from_raw_mode(there.st_mode) == FileType::Directory) != is_folder {
            let flags = if is_folder { AtFlags::empty() } else { AtFlags::REMOVEDIR };
            rustix::fs::unlinkat(folder, name, flags).map_err(failed("remove", &path))?;
        } else {
            mounts::bind(source, target.as_fd())?;
            return Ok(path);
        }
    }
    Err(failed("bind onto", path)(Errno::BUSY))
}

#[cfg(test)]
mod tests;
