//! The file in a pod's folder that records its block of ids, and the choice of one that no other pod has.
//!
//! The folders are the only record: a block is free once its pod's folder is gone. Whoever chooses holds a lock on the folder of all
//! pods. A record that cannot be read stops the choice: the ids in it may be in use.

use super::beneath::{entries, failed, make_folder, open_folder, path_of, read_file, replace_file};
use super::place::{checked_uid, lock};
use super::{Error, Result};
use crate::userns::{Block, Range};
use rustix::fs::FileType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const NAME: &str = "userns";
const HALF: &str = ".userns.new";
/// More than any such file has.
const MAX: u64 = 4096;

/// The pod's block: as it was chosen once, or a new one. `pods` is the folder of all pods.
pub(super) fn block(pods: &OwnedFd, uid: &str, range: &Range, random: u32) -> Result<Block> {
    lock(pods)?;
    let own = make_folder(pods.as_fd(), uid, 0o750)?.0;
    if let Some(block) = read(own.as_fd(), uid)? {
        return Ok(block);
    }
    let mut taken = Vec::new();
    for (name, kind) in entries(pods.as_fd())? {
        let other = name.to_string_lossy();
        if kind != FileType::Directory || checked_uid(&other).is_err() {
            continue;
        }
        let Some(folder) = open_folder(pods.as_fd(), &other)? else { continue };
        taken.extend(read(folder.as_fd(), &other)?);
    }
    let wrong = |source| Error::UserNamespace { uid: uid.to_owned(), source };
    let block = range.choose(&taken, random).map_err(wrong)?;
    write(own.as_fd(), &block.to_file())?;
    Ok(block)
}

fn read(folder: BorrowedFd<'_>, uid: &str) -> Result<Option<Block>> {
    // Written in one step, an empty one says nothing: kubelet's own reading of it.
    let Some(text) = read_file(folder, NAME, MAX)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    Block::of_file(&text).map(Some).map_err(|source| Error::UserNamespace { uid: uid.to_owned(), source })
}

/// There before anything uses the ids, whatever happens to the host.
fn write(folder: BorrowedFd<'_>, text: &str) -> Result<()> {
    replace_file(folder, NAME, HALF, text.as_bytes())?;
    rustix::fs::fsync(folder).map_err(failed("write", path_of(folder).join(NAME)))
}

#[cfg(test)]
mod tests;
