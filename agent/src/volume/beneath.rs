//! File work that cannot be led astray: every step is relative to an open folder, no symbolic link is followed, and no
//! mount is crossed.

use super::{Error, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Says what was tried where.
pub(super) fn failed(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Error {
    let path = path.into();
    move |errno| Error::Io { op, path, source: errno.into() }
}

/// Opens the agent's own root, which an administrator may have made a link; `None` if it is not there.
pub(super) fn open_root(path: &Path) -> Result<Option<OwnedFd>> {
    match rustix::fs::openat(CWD, path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed("open", path)(errno)),
    }
}

/// Opens a folder directly inside another; `None` if it is not there.
pub(super) fn open_folder(parent: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>> {
    match rustix::fs::openat(parent, name, FOLDER, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed("open", path_of(parent).join(name))(errno)),
    }
}

/// Opens a folder, making it with this mode where it is missing; true if it was.
pub(super) fn make_folder(parent: BorrowedFd<'_>, name: &str, mode: u32) -> Result<(OwnedFd, bool)> {
    let path = || path_of(parent).join(name);
    let made = match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(failed("make folder", path())(errno)),
    };
    let fd = rustix::fs::openat(parent, name, FOLDER, Mode::empty()).map_err(|e| failed("open", path())(e))?;
    if made {
        // The mask of the process must not weaken what a pod's user needs.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| failed("set mode of", path())(e))?;
    }
    Ok((fd, made))
}

/// What is in a small file of the agent's own, of which no more than this is read; `None` if it is not there.
pub(super) fn read_file(folder: BorrowedFd<'_>, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let path = || path_of(folder).join(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open", path())(errno)),
    };
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text).map_err(|source| Error::Io { op: "read", path: path(), source })?;
    Ok(Some(text))
}

/// Writes a small file in one step; `half` is the name that it has until then. The text is on the disk when this returns, its
/// name with the folder's next `fsync`.
pub(super) fn replace_file(folder: BorrowedFd<'_>, name: &str, half: &str, text: &[u8]) -> Result<()> {
    let path = path_of(folder).join(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, half, flags, Mode::from_raw_mode(0o600)).map_err(failed("make", &path))?;
    let mut file = File::from(fd);
    let written = file.write_all(text).and_then(|()| file.sync_all());
    written.map_err(|source| Error::Io { op: "write", path: path.clone(), source })?;
    rustix::fs::renameat(folder, half, folder, name).map_err(failed("rename", &path))
}

/// The path of an open folder as the kernel knows it: for messages, and for calls that know only paths.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> PathBuf {
    std::fs::read_link(proc_path(fd)).unwrap_or_else(|_| proc_path(fd))
}

/// A path that names exactly this open file, whatever is renamed meanwhile.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Whether something is mounted right on this folder.
pub(super) fn is_mount_point(parent: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> Result<bool> {
    let id = |fd: BorrowedFd<'_>| {
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        stat.map(|s| s.stx_mnt_id).map_err(failed("stat", path_of(fd)))
    };
    Ok(id(parent)? != id(folder)?)
}

/// Calls for each name in a folder with its type, until one fails. Names may be removed meanwhile.
pub(super) fn each(folder: BorrowedFd<'_>, mut act: impl FnMut(&CStr, FileType) -> Result<()>) -> Result<()> {
    let err = |errno| failed("list", path_of(folder))(errno);
    for entry in Dir::read_from(folder).map_err(err)? {
        let entry = entry.map_err(err)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            act(name, entry.file_type())?;
        }
    }
    Ok(())
}

/// The names in a folder with their types: for folders of the agent's own, which are small.
pub(super) fn entries(folder: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>> {
    let mut out = Vec::new();
    each(folder, |name, kind| {
        out.push((name.to_owned(), kind));
        Ok(())
    })?;
    Ok(out)
}

/// A folder any user of the pod may write to, or those of its group. The sticky bit stays, which a file system in memory has
/// of itself: programs find their volumes so on every node.
pub(super) fn open_to_pod(folder: BorrowedFd<'_>, gid: Option<u32>) -> Result<()> {
    let stat = rustix::fs::fstat(folder).map_err(failed("stat", path_of(folder)))?;
    let mut mode = 0o777 | stat.st_mode & 0o1000;
    if let Some(gid) = gid {
        mode |= 0o2000;
        if stat.st_gid != gid {
            let group = Some(Gid::from_raw(gid));
            rustix::fs::fchown(folder, None, group).map_err(failed("set group of", path_of(folder)))?;
        }
    }
    if stat.st_mode & 0o7777 != mode || gid.is_some_and(|gid| stat.st_gid != gid) {
        rustix::fs::fchmod(folder, Mode::from_raw_mode(mode)).map_err(failed("set mode of", path_of(folder)))?;
    }
    Ok(())
}

/// Removes `name` in `parent` and all below it. Nothing there is success; a mount below is an error.
///
/// A pod may have left trees of any depth, so folders are not descended into: what is in them is moved up beside them until
/// they are empty. That needs two open files and no stack, however deep the tree.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    let path = || path_of(parent).join(name);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let top = match rustix::fs::openat2(parent, name, FOLDER, Mode::empty(), resolve) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        // A file or a link by that name goes as such.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed("remove", path()));
        }
        Err(errno) => return Err(failed("open (is it still mounted?)", path())(errno)),
    };
    let mut counter = 0u64;
    let mut left = true;
    while left {
        left = false;
        each(top.as_fd(), |child, _| {
            left = true;
            if unlink(top.as_fd(), child)? {
                return Ok(());
            }
            let folder = match rustix::fs::openat2(&top, child, FOLDER, Mode::empty(), resolve) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => {
                    let at = path().join(child.to_string_lossy().as_ref());
                    return Err(failed("open (is it still mounted?)", at)(errno));
                }
            };
            each(folder.as_fd(), |grandchild, _| {
                if !unlink(folder.as_fd(), grandchild)? {
                    move_up(folder.as_fd(), grandchild, top.as_fd(), &mut counter)?;
                }
                Ok(())
            })
        })?;
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove folder", path())(errno)),
    }
}

/// Removes a file, a link or an empty folder; false for a folder with something in it.
fn unlink(folder: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
    let err = |errno| failed("remove", path_of(folder).join(name.to_string_lossy().as_ref()))(errno);
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(err(errno)),
    }
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(err(errno)),
    }
}

fn move_up(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, counter: &mut u64) -> Result<()> {
    loop {
        *counter += 1;
        match rustix::fs::renameat_with(from, name, to, format!(".removing-{counter}"), RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("move", path_of(from).join(name.to_string_lossy().as_ref()))(errno)),
        }
    }
}

#[cfg(test)]
mod tests;
