//! A file inside a volume that a container has written, opened for the agent to read.
//!
//! The kernel resolves the path as if the volume were the root of all files (`openat2`), so neither a link nor `..` leads out,
//! and only a regular file is handed out: nothing that blocks, and no device.

use super::beneath::failed;
use super::{Error, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// Opening a pipe must not wait for its other end.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

pub(super) fn open(root: &Path, path: &str) -> Result<File> {
    let root_fd = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root_fd = root_fd.map_err(failed("open", root))?;
    let at = || root.join(path.trim_start_matches('/'));
    let refused = |kind| Error::Io { op: "open inside the volume", path: at(), source: std::io::Error::other(kind) };
    // Looked at before it is opened for reading: opening a device can have effects.
    let open = |flags| {
        for _ in 0..16 {
            match rustix::fs::openat2(&root_fd, path, flags, Mode::empty(), INSIDE) {
                // Something on the way was renamed meanwhile.
                Err(Errno::AGAIN) => {}
                found => return found.map_err(failed("open inside the volume", at())),
            }
        }
        Err(refused("it changes all the time"))
    };
    let regular = |fd: &std::os::fd::OwnedFd| {
        let stat = rustix::fs::fstat(fd).map_err(failed("stat", at()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { Ok(()) } else { Err(refused("not a regular file")) }
    };
    regular(&open(OFlags::PATH | OFlags::CLOEXEC)?)?;
    let fd = open(READ)?;
    regular(&fd)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests;
