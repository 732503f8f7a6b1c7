//! What the fuzz targets (folder `fuzz/`) reach of this module. Only built for them.

use super::atomic;
use super::payload::{DEFAULT_MODE, Keys, Mapping, conflict};
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// The mount points of a table at and below a folder, in the order to unmount them.
pub fn below(mountinfo: &[u8], folder: &Path) -> Vec<PathBuf> {
    crate::volume::mounts::below(mountinfo, folder)
}

/// Brings a volume to the state of a ConfigMap, as for a pod; the paths and bytes it must have then, or `None` if that was refused.
pub fn write(volume: BorrowedFd<'_>, object: &ConfigMap, items: &[KeyToPath]) -> Option<Vec<(String, Vec<u8>)>> {
    let mapping = Mapping { volume: "fuzzed", items, default_mode: DEFAULT_MODE, optional: true };
    let payload = Keys::config_map("fuzzed", Some(object)).files(&mapping).ok()?;
    if conflict(&payload).is_some() {
        return None;
    }
    atomic::write(volume, &payload, None).ok()?;
    for (path, file) in &payload {
        let read = atomic::read(volume, path).expect("what was written can be read");
        assert_eq!(read.map(|(data, _)| data).as_ref(), Some(&file.data), "{path:?}");
    }
    Some(payload.into_iter().map(|(path, file)| (path, file.data)).collect())
}
