//! Files that change all at once.
//!
//! The layout is the one that applications watch for: real files lie in a folder named after the time, `..data` is a link to
//! it, and each visible name is a link through `..data`. Renaming a new `..data` over the old one switches all files in one
//! step, so a reader sees the old content or the new, never a mixture. One writer at a time; it may die at any point, and
//! the next call tidies up.

use super::payload::{File, Payload};
use crate::volume::beneath::{entries, failed, make_folder, path_of, remove_tree};
use crate::volume::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the volume's files exactly these; true if anything had to be written. `gid` is the group that may read them.
pub(super) fn write(volume: BorrowedFd<'_>, payload: &Payload, gid: Option<u32>) -> Result<bool> {
    let current = link(volume, DATA)?.filter(|name| is_ours(name));
    let same = match &current {
        Some(name) => is_same(volume, name, payload, gid)?,
        None => false,
    };
    let live = if same {
        current.unwrap_or_default()
    } else {
        let name = write_all(volume, payload, gid)?;
        unlink(volume, NEW_DATA)?;
        rustix::fs::symlinkat(&name, volume, NEW_DATA).map_err(failed("link", path_of(volume).join(NEW_DATA)))?;
        rustix::fs::renameat(volume, NEW_DATA, volume, DATA).map_err(failed("rename", path_of(volume).join(NEW_DATA)))?;
        name
    };
    publish(volume, payload, &live)?;
    Ok(!same)
}

/// One file of the content that is live now, and when it was written.
pub(super) fn read(volume: BorrowedFd<'_>, path: &str) -> Result<Option<(Vec<u8>, SystemTime)>> {
    let Some(name) = link(volume, DATA)?.filter(|name| is_ours(name)) else { return Ok(None) };
    match open_file(volume, &name, path) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd).map_err(failed("stat", path_of(fd.as_fd())))?;
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            Ok(Some((contents(fd)?, written)))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(failed("open", path_of(volume).join(&name).join(path))(errno)),
    }
}

/// A name that only this writer makes; the API refuses keys that start with two dots.
fn is_ours(name: &str) -> bool {
    name.starts_with("..") && name != ".." && name != DATA && name != NEW_DATA && !name.contains('/')
}

fn link(volume: BorrowedFd<'_>, name: &str) -> Result<Option<String>> {
    match rustix::fs::readlinkat(volume, name, Vec::new()) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => Err(failed("read link", path_of(volume).join(name))(errno)),
    }
}

fn unlink(volume: BorrowedFd<'_>, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(volume, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove", path_of(volume).join(name))(errno)),
    }
}

fn open_file(volume: BorrowedFd<'_>, name: &str, path: &str) -> std::result::Result<OwnedFd, Errno> {
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::openat2(volume, format!("{name}/{path}"), flags, Mode::empty(), resolve)
}

fn contents(fd: OwnedFd) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let path = path_of(fd.as_fd());
    let mut file = std::fs::File::from(fd);
    std::io::Read::read_to_end(&mut file, &mut data).map_err(|source| Error::Io { op: "read", path, source })?;
    Ok(data)
}

fn final_mode(file: &File, gid: Option<u32>) -> u32 {
    if gid.is_some() { file.mode | 0o440 } else { file.mode }
}

/// Whether the live content is this payload to the byte, mode and owner.
fn is_same(volume: BorrowedFd<'_>, name: &str, payload: &Payload, gid: Option<u32>) -> Result<bool> {
    let mut there = BTreeSet::new();
    if !names(volume, name, "", &mut there)? || !there.iter().eq(payload.keys()) {
        return Ok(false);
    }
    for (path, file) in payload {
        let Ok(fd) = open_file(volume, name, path) else { return Ok(false) };
        let stat = rustix::fs::fstat(&fd).map_err(failed("stat", path_of(fd.as_fd())))?;
        let owned = file.uid.is_none_or(|uid| uid == stat.st_uid) && gid.is_none_or(|gid| gid == stat.st_gid);
        if stat.st_mode & 0o7777 != final_mode(file, gid)
            || !owned
            || usize::try_from(stat.st_size).ok() != Some(file.data.len())
            || contents(fd)? != file.data
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Collects the paths of files below a folder; false if the folder is not there or holds anything else.
fn names(parent: BorrowedFd<'_>, name: &str, prefix: &str, out: &mut BTreeSet<String>) -> Result<bool> {
    // The depth is that of a payload's paths, which are bounded.
    let Ok(Some(folder)) = crate::volume::beneath::open_folder(parent, name) else { return Ok(false) };
    for (entry, kind) in entries(folder.as_fd())? {
        let entry = entry.to_string_lossy().into_owned();
        let path = format!("{prefix}{entry}");
        match kind {
            FileType::RegularFile => {
                out.insert(path);
            }
            FileType::Directory if names(folder.as_fd(), &entry, &format!("{path}/"), out)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Writes a new folder with all files and gives its name. What could not be finished does not stay: the next try would add to it.
fn write_all(volume: BorrowedFd<'_>, payload: &Payload, gid: Option<u32>) -> Result<String> {
    let (name, top) = fresh_folder(volume)?;
    match fill(top.as_fd(), payload, gid) {
        Ok(()) => Ok(name),
        Err(error) => {
            if let Err(left) = remove_tree(volume, &name) {
                tracing::debug!(path = %path_of(volume).join(&name).display(), error = %left, "cannot remove what was begun");
            }
            Err(error)
        }
    }
}

fn fill(top: BorrowedFd<'_>, payload: &Payload, gid: Option<u32>) -> Result<()> {
    own_folder(top, gid)?;
    for (path, file) in payload {
        let mut folder = top.try_clone_to_owned().map_err(|source| Error::Io { op: "open", path: path_of(top), source })?;
        let mut parts: Vec<&str> = path.split('/').collect();
        let Some(last) = parts.pop() else { continue };
        for part in parts {
            let (next, made) = make_folder(folder.as_fd(), part, 0o755)?;
            if made {
                own_folder(next.as_fd(), gid)?;
            }
            folder = next;
        }
        write_file(folder.as_fd(), last, file, gid)?;
    }
    Ok(())
}

fn own_folder(folder: BorrowedFd<'_>, gid: Option<u32>) -> Result<()> {
    let Some(gid) = gid else { return Ok(()) };
    rustix::fs::fchown(folder, None, Some(Gid::from_raw(gid))).map_err(failed("set group of", path_of(folder)))?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(0o2755)).map_err(failed("set mode of", path_of(folder)))
}

fn write_file(folder: BorrowedFd<'_>, name: &str, file: &File, gid: Option<u32>) -> Result<()> {
    let path = path_of(folder).join(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)).map_err(failed("make", &path))?;
    let mut out = std::fs::File::from(fd);
    std::io::Write::write_all(&mut out, &file.data).map_err(|source| Error::Io { op: "write", path: path.clone(), source })?;
    let (uid, group) = (file.uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    if uid.is_some() || group.is_some() {
        rustix::fs::fchown(&out, uid, group).map_err(failed("set owner of", &path))?;
    }
    // After the owner, since changing that clears the set-id bits.
    rustix::fs::fchmod(&out, Mode::from_raw_mode(final_mode(file, gid))).map_err(failed("set mode of", &path))
}

/// A folder named after the time, as applications expect; a number keeps two in one second apart.
fn fresh_folder(volume: BorrowedFd<'_>) -> Result<(String, OwnedFd)> {
    let stamp = jiff::Zoned::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let mut counter = 0u32;
    loop {
        let name = format!("{stamp}{counter}");
        let (fd, made) = make_folder(volume, &name, 0o755)?;
        if made {
            return Ok((name, fd));
        }
        counter += 1;
    }
}

/// Makes the visible links, and removes what belongs to no live file.
fn publish(volume: BorrowedFd<'_>, payload: &Payload, live: &str) -> Result<()> {
    let visible: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &visible {
        let target = format!("{DATA}/{name}");
        if link(volume, name)?.as_deref() == Some(&target) {
            continue;
        }
        match rustix::fs::symlinkat(&target, volume, *name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                remove_tree(volume, name)?;
                rustix::fs::symlinkat(&target, volume, *name).map_err(failed("link", path_of(volume).join(name)))?;
            }
            Err(errno) => return Err(failed("link", path_of(volume).join(name))(errno)),
        }
    }
    for (name, kind) in entries(volume)? {
        let name = name.to_string_lossy().into_owned();
        let stale_link = kind == FileType::Symlink
            && !visible.contains(name.as_str())
            && link(volume, &name)?.is_some_and(|target| target.strip_prefix("..data/") == Some(&name));
        if stale_link || name == NEW_DATA {
            unlink(volume, &name)?;
        } else if kind == FileType::Directory && is_ours(&name) && name != live {
            remove_tree(volume, &name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
