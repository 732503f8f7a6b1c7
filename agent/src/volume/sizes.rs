//! How much is in a pod's volumes. Blocks: a volume with a file system of its own says it at once, any other is walked.
//!
//! What is in a volume belongs to its pod: links are not followed, mounts not crossed, names may go while they are looked at, and
//! what lies too deep to be opened by a path is left out.

use super::beneath::each;
use super::place::{self, Place, checked_uid};
use k8s_openapi::api::core::v1::Volume;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// On the disk, holes not counted.
    pub bytes: u64,
    pub inodes: u64,
    /// It lies among the pods' folders, and so counts for the pod's ephemeral storage.
    pub on_disk: bool,
}

/// The folder of volumes like this one; `None` for those that the agent does not keep.
pub fn kind(volume: &Volume) -> Option<&'static str> {
    let kinds = [
        (volume.empty_dir.is_some(), place::EMPTY_DIR),
        (volume.config_map.is_some(), place::CONFIG_MAP),
        (volume.secret.is_some(), place::SECRET),
        (volume.downward_api.is_some(), place::DOWNWARD_API),
        (volume.projected.is_some(), place::PROJECTED),
    ];
    kinds.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind)
}

/// `None` if it is not there, or cannot be read.
pub fn measure(root_dir: &Path, uid: &str, kind: &str, name: &str) -> Option<Size> {
    if name.contains('/') || checked_uid(uid).is_err() {
        return None;
    }
    let place = Place { root_dir: root_dir.to_owned(), uid: uid.to_owned(), name: name.to_owned() };
    let folder = place.find(kind).ok()??;
    let parent = rustix::fs::openat(&folder, "..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
    if device(&folder).ok()? == device(&parent).ok()? {
        return Some(walk(folder.as_fd()));
    }
    let stat = rustix::fs::fstatvfs(&folder).ok()?;
    let bytes = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    Some(Size { bytes, inodes: stat.f_files.saturating_sub(stat.f_ffree), on_disk: false })
}

fn walk(top: BorrowedFd<'_>) -> Size {
    let mut size = Size { on_disk: true, ..Size::default() };
    // Files with several names.
    let mut seen = HashSet::new();
    if let Ok(stat) = rustix::fs::fstat(top) {
        size.add(&stat);
    }
    let mut folders = vec![PathBuf::from(".")];
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    while let Some(path) = folders.pop() {
        let Ok(folder) = rustix::fs::openat2(top, &path, flags, Mode::empty(), resolve) else { continue };
        // Of a folder that cannot be read further, what was read counts.
        let _ = each(folder.as_fd(), |name, _| {
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder {
                folders.push(path.join(OsStr::from_bytes(name.to_bytes())));
            }
            if is_folder || stat.st_nlink <= 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                size.add(&stat);
            }
            Ok(())
        });
    }
    size
}

impl Size {
    fn add(&mut self, stat: &rustix::fs::Stat) {
        // stat(2): blocks of 512 bytes, whatever the file system's own are.
        self.bytes = self.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
        self.inodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_file_counts_once_and_nothing_outside() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("pods/u/volumes/kubernetes.io~empty-dir/v");
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(root.path().join("outside"), vec![1; 1 << 20]).unwrap();
        let measure = |name: &str| measure(root.path(), "u", "kubernetes.io~empty-dir", name);
        let empty = measure("v").unwrap();
        assert_eq!((empty.inodes, empty.on_disk), (3, true));
        fs::write(volume.join("a/b/file"), vec![1; 64 << 10]).unwrap();
        fs::hard_link(volume.join("a/b/file"), volume.join("again")).unwrap();
        symlink(root.path(), volume.join("a/link")).unwrap();
        symlink("../../../../..", volume.join("up")).unwrap();
        let size = measure("v").unwrap();
        assert_eq!(size.inodes, 6);
        let more = size.bytes - empty.bytes;
        assert!((64 << 10..96 << 10).contains(&more), "{more}");
        assert_eq!((measure("none"), measure("../v")), (None, None));
        // Deeper than a path can say: left out, not lost in.
        let mut at = rustix::fs::openat(rustix::fs::CWD, &volume, OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = "n".repeat(200);
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let deep = measure("v").unwrap().inodes;
        assert!((6 + 15..6 + 30).contains(&deep), "{deep}");
    }
}
