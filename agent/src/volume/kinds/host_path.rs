//! Paths of the host: `hostPath`, in a pod or in a PersistentVolume.

use super::{Ask, Ready, blocking};
use crate::volume::{Error, Result};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

pub(super) async fn prepare(ask: &Ask<'_>, path: &str, kind: Option<&str>) -> Result<Ready> {
    let (volume, path, kind) = (ask.volume.to_owned(), path.to_owned(), kind.unwrap_or_default().to_owned());
    Ok(Ready::path(blocking(move || host_path(&volume, &path, &kind)).await?))
}

/// A path that an administrator wrote.
pub(super) fn plain<'a>(volume: &str, field: &'static str, path: &'a str) -> Result<&'a Path> {
    let found = Path::new(path);
    if !found.is_absolute() || path.contains('\0') || found.components().any(|c| matches!(c, Component::ParentDir)) {
        let why = "must be an absolute path without `..`";
        return Err(Error::Invalid { volume: volume.to_owned(), field, value: path.to_owned(), why });
    }
    Ok(found)
}

/// The host's path, checked to be what the pod expects and made where it asks for that.
fn host_path(volume: &str, text: &str, kind: &str) -> Result<PathBuf> {
    let path = plain(volume, "hostPath.path", text)?;
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
        return Err(Error::HostPath { volume: volume.to_owned(), path: text.to_owned(), expected });
    }
    Ok(path.to_owned())
}
