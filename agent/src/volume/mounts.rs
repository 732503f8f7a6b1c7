//! Mounts made and unmade below a pod's folder.

use super::beneath::{failed, path_of, proc_path};
use super::{Error, Result};
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Mounts a tmpfs right on the folder, sticky as kubelet's are. `noswap` keeps secrets off the disk where the kernel can (6.3 and later).
pub(super) fn tmpfs(folder: BorrowedFd<'_>, size: Option<u64>) -> Result<()> {
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = |swap: &str| CString::new(format!("mode=1777{size}{swap}")).unwrap_or_default();
    let mount =
        |options: CString| rustix::mount::mount("tmpfs", proc_path(folder), "tmpfs", MountFlags::empty(), options.as_c_str());
    match mount(options(",noswap")) {
        Err(Errno::INVAL) => mount(options("")),
        other => other,
    }
    .map_err(failed("mount tmpfs on", path_of(folder)))
}

/// Mounts huge pages of this size right on the folder.
pub(super) fn huge_pages(folder: BorrowedFd<'_>, page: u64) -> Result<()> {
    let options = CString::new(format!("mode=0777,pagesize={page}")).unwrap_or_default();
    let mounted = rustix::mount::mount("nodev", proc_path(folder), "hugetlbfs", MountFlags::empty(), options.as_c_str());
    mounted.map_err(failed("mount huge pages on", path_of(folder)))
}

/// Binds one open file or folder onto another, and so that nothing can be written through it.
pub(super) fn bind_read_only(source: BorrowedFd<'_>, target: BorrowedFd<'_>, on_top: &Path) -> Result<()> {
    bind(source, target)?;
    // What the file system was mounted with must be said again, or it is lost: a set-id program is no less dangerous here.
    let stat = rustix::fs::fstatvfs(source).map_err(failed("stat", on_top))?;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (has, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        flags.set(flag, stat.f_flag.contains(has));
    }
    rustix::mount::mount_remount(on_top, flags, c"").map_err(failed("make read-only", on_top))
}

/// Binds one open file or folder onto another.
pub(super) fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    rustix::mount::mount_bind(proc_path(source), proc_path(target)).map_err(failed("bind onto", path_of(target)))
}

/// Unmounts what is at the path, once; not being a mount is success.
pub(super) fn unmount(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("unmount", path)(errno)),
    }
}

/// Unmounts all at and below the folder, what was mounted last first. Returns only when nothing is left, or with an error.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    let table = Path::new("/proc/self/mountinfo");
    // Unmounting may uncover what was hidden beneath.
    for _ in 0..8 {
        let text = std::fs::read(table).map_err(|source| Error::Io { op: "read", path: table.to_owned(), source })?;
        let points = below(&text, folder);
        if points.is_empty() {
            return Ok(());
        }
        for point in points {
            unmount(&point)?;
        }
    }
    Err(failed("unmount all below", folder)(Errno::BUSY))
}

/// The mount points at and below a folder, in the order to unmount them.
pub(super) fn below(mountinfo: &[u8], folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape);
    let mut points: Vec<PathBuf> = points.filter(|p| p.starts_with(folder)).collect();
    // The table is in order of mounting, so this is right also for mounts on top of each other.
    points.reverse();
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    points
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = field.get(i + 1..i + 4).filter(|d| field[i] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, b| n.wrapping_mul(8).wrapping_add(b - b'0')));
                i += 4;
            }
            None => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests;
