//! Giving what is in a volume to a pod's group (`fsGroup`).
//!
//! The tree is another's work and may change under way: each file is opened by its name in an open folder, no link is followed and no
//! mount crossed, and what is changed is the open file. However deep the tree is, two folders are open at a time; the way back up is
//! by `..`, which must be the folder that it was.

use super::Result;
use super::beneath::{FOLDER, failed, path_of, proc_path};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SET_GROUP: u32 = 0o2000;
const FILE: u32 = 0o660;
const SEARCH: u32 = 0o110;

/// `fsGroupChangePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Always,
    /// Only where the root of the volume is not the group's already.
    OnRootMismatch,
}

/// A folder on the way down: which one it is, and where in it to go on.
struct Level {
    device: u64,
    inode: u64,
    at: i64,
}

/// Makes all in the folder, and at last the folder itself, the group's to read and write. How many files were looked at.
pub(super) fn give(root: BorrowedFd<'_>, gid: u32, policy: Policy) -> Result<u64> {
    let stat = rustix::fs::fstat(root).map_err(failed("stat", path_of(root)))?;
    if policy == Policy::OnRootMismatch && stat.st_gid == gid && wanted(&stat) == stat.st_mode & 0o7777 {
        return Ok(0);
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut here = open(root, ".")?;
    let (mut from, mut count) = (None, 0u64);
    loop {
        match children(here.as_fd(), from.take(), gid, &mut count)? {
            Some((child, at)) => {
                let stat = rustix::fs::fstat(&here).map_err(failed("stat", path_of(here.as_fd())))?;
                levels.push(Level { device: stat.st_dev, inode: stat.st_ino, at });
                here = child;
            }
            None => {
                change(here.as_fd(), gid)?;
                count += 1;
                let Some(level) = levels.pop() else { return Ok(count) };
                let up = open(here.as_fd(), "..")?;
                let stat = rustix::fs::fstat(&up).map_err(failed("stat", path_of(up.as_fd())))?;
                if (stat.st_dev, stat.st_ino) != (level.device, level.inode) {
                    return Err(failed("change the group of files that are being moved about in", path_of(root))(Errno::AGAIN));
                }
                (here, from) = (up, Some(level.at));
            }
        }
    }
}

fn open(folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    rustix::fs::openat(folder, name, FOLDER, Mode::empty()).map_err(failed("open", path_of(folder)))
}

/// Changes the files in a folder from a place in it on, up to the next folder: that one, and the place after it.
fn children(here: BorrowedFd<'_>, from: Option<i64>, gid: u32, count: &mut u64) -> Result<Option<(OwnedFd, i64)>> {
    let err = |errno| failed("list", path_of(here))(errno);
    let mut dir = Dir::read_from(here).map_err(err)?;
    if let Some(at) = from {
        dir.seek(at).map_err(err)?;
    }
    while let Some(entry) = dir.read() {
        let entry = entry.map_err(err)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat2(here, name, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            // Gone meanwhile, or another's mount.
            Err(Errno::NOENT | Errno::XDEV) => continue,
            Err(errno) => return Err(failed("open", path_of(here))(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed("stat", path_of(file.as_fd())))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Some((open(file.as_fd(), ".")?, entry.offset())));
        }
        change(file.as_fd(), gid)?;
        *count += 1;
    }
    Ok(None)
}

/// The mode that a file of the group has.
fn wanted(stat: &Stat) -> u32 {
    let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    (stat.st_mode & 0o7777) | FILE | if folder { SET_GROUP | SEARCH } else { 0 }
}

fn change(file: BorrowedFd<'_>, gid: u32) -> Result<()> {
    let stat = rustix::fs::fstat(file).map_err(failed("stat", path_of(file)))?;
    if stat.st_gid != gid {
        let group = Some(Gid::from_raw(gid));
        let changed = rustix::fs::chownat(file, c"", None, group, AtFlags::EMPTY_PATH);
        changed.map_err(failed("set group of", path_of(file)))?;
    }
    // A link has no mode of its own.
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let mode = wanted(&stat);
    if stat.st_mode & 0o7777 != mode || stat.st_gid != gid {
        rustix::fs::chmod(proc_path(file), Mode::from_raw_mode(mode)).map_err(failed("set mode of", path_of(file)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
