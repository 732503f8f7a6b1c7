//! Volumes that need nothing from the API: folders of the pod's own and paths of the host.

use super::beneath::{failed, is_mount_point, path_of};
use super::fields::PodContext;
use super::{Error, Result, mounts};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod};
use rustix::fs::{Gid, Mode};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

/// A folder any user of the pod may write to, or those of its group.
pub(super) fn open_to_pod(folder: BorrowedFd<'_>, gid: Option<u32>) -> Result<()> {
    let stat = rustix::fs::fstat(folder).map_err(failed("stat", path_of(folder)))?;
    let mut mode = 0o777;
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

/// The size of a memory-backed volume: what it asks for, but no more than the pod may use, or the node has.
pub(super) fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, volume: &str, context: &PodContext) -> Result<Option<u64>> {
    let mut sizes: Vec<Quantity> = context.allocatable.get("memory").copied().into_iter().collect();
    if let Some(limit) = &source.size_limit {
        let parsed: Quantity = limit.0.parse().map_err(|_| Error::Invalid {
            volume: volume.to_owned(),
            field: "emptyDir.sizeLimit",
            value: limit.0.clone(),
            why: "not a quantity",
        })?;
        sizes.push(parsed);
    }
    let limits = pod.spec.iter().flat_map(|s| &s.containers).map(|c| {
        let limits = c.resources.as_ref().and_then(|r| r.limits.as_ref());
        limits.and_then(|l| l.get("memory")).and_then(|q| q.0.parse::<Quantity>().ok()).filter(|q| !q.is_zero())
    });
    // Only if every container is limited is the pod as a whole.
    if let Some(limits) = limits.collect::<Option<Vec<_>>>().filter(|l| !l.is_empty()) {
        sizes.push(limits.into_iter().sum());
    }
    Ok(sizes.into_iter().filter_map(|q| u64::try_from(q.units()).ok()).filter(|b| *b > 0).min())
}

/// Mounts a tmpfs on the folder unless there is one.
pub(super) fn ensure_tmpfs(parent: BorrowedFd<'_>, folder: BorrowedFd<'_>, size: Option<u64>) -> Result<bool> {
    if is_mount_point(parent, folder)? {
        return Ok(false);
    }
    mounts::tmpfs(folder, size)?;
    Ok(true)
}

/// The host's path, checked to be what the pod expects and made where it asks for that.
pub(super) fn host_path(volume: &str, source: &HostPathVolumeSource) -> Result<PathBuf> {
    let path = Path::new(&source.path);
    if !path.is_absolute() || path.components().any(|c| matches!(c, Component::ParentDir)) {
        let why = "must be an absolute path without `..`";
        return Err(Error::Invalid { volume: volume.to_owned(), field: "hostPath.path", value: source.path.clone(), why });
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    // Links on the host are the administrator's and are followed.
    let found = || std::fs::metadata(path).ok();
    let io = |op| move |source| Error::Io { op, path: path.to_owned(), source };
    match kind {
        "DirectoryOrCreate" if found().is_none() => {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(io("make folder"))?;
        }
        "FileOrCreate" if found().is_none() => {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o644).open(path).map_err(io("make file"))?;
        }
        _ => {}
    }
    let file_type = found().map(|m| m.file_type());
    let is = |test: fn(&std::fs::FileType) -> bool| file_type.as_ref().is_some_and(test);
    let (fits, expected) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(std::fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(std::fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        _ => {
            let why = "unknown type";
            return Err(Error::Invalid { volume: volume.to_owned(), field: "hostPath.type", value: kind.to_owned(), why });
        }
    };
    if !fits {
        return Err(Error::HostPath { volume: volume.to_owned(), path: source.path.clone(), expected });
    }
    Ok(path.to_owned())
}
