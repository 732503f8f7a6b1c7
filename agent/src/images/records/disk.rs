//! The records as files below `<root-dir>/image_manager`: one a pull under way in `pulling`, one an image in `pulled`.
//!
//! A file is written beside its place, brought to the disk and put there by a rename, so that a reader, or the next agent after
//! a crash, sees the old content or the new. One writer at a time (`images`); readers need no lock.

use super::{Document, Intent, Record, decode};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No record that an agent has written comes near this.
const FILE_MAX: u64 = 8 << 20;
const PREFIX: &str = "sha256-";
const UNFINISHED: &str = ".tmp";

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{op} {path}: {source}")]
    Io { op: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}")]
    Content { path: PathBuf, why: String },
    #[error("file work was interrupted")]
    Interrupted,
}

type Result<T> = std::result::Result<T, DiskError>;

fn failed(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io { op, path, source }
}

/// Cheap to clone; all calls may block.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

/// Which of the two folders a document belongs in.
pub trait Kept: Document {
    const FOLDER: &'static str;
}

impl Kept for Intent {
    const FOLDER: &'static str = "pulling";
}

impl Kept for Record {
    const FOLDER: &'static str = "pulled";
}

impl Folder {
    pub fn new(root_dir: &Path) -> Folder {
        Folder { root: root_dir.join("image_manager") }
    }

    fn path<D: Kept>(&self, subject: &str) -> PathBuf {
        self.root.join(D::FOLDER).join(file_name(subject))
    }

    /// `None`: there is none of that subject.
    pub fn read<D: Kept>(&self, subject: &str) -> Result<Option<D>> {
        let Some(document) = read::<D>(&self.path::<D>(subject))? else { return Ok(None) };
        Ok(Some(document).filter(|d| d.subject() == subject))
    }

    /// On the disk when it returns.
    pub fn write<D: Kept>(&self, document: &D) -> Result<()> {
        let folder = self.root.join(D::FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed("make folder", &folder))?;
        let place = folder.join(file_name(document.subject()));
        let mut unfinished = place.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let written = fill(&unfinished, document).and_then(|()| {
            std::fs::rename(&unfinished, &place).map_err(failed("rename", &unfinished))?;
            File::open(&folder).and_then(|f| f.sync_all()).map_err(failed("sync", &folder))
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    /// Nothing there is success.
    pub fn remove<D: Kept>(&self, subject: &str) -> Result<()> {
        let path = self.path::<D>(subject);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Hands out each document, and what is wrong with those that cannot be read. Removes what a crash left unfinished.
    pub fn each<D: Kept>(&self, mut act: impl FnMut(Result<D>)) -> Result<()> {
        let folder = self.root.join(D::FOLDER);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("list", &folder)(e)),
        };
        for entry in entries {
            let path = entry.map_err(failed("list", &folder))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if !name.starts_with(PREFIX) {
                continue;
            }
            if name.ends_with(UNFINISHED) {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            match read::<D>(&path) {
                Ok(Some(document)) => act(Ok(document)),
                Ok(None) => {}
                Err(error) => act(Err(error)),
            }
        }
        Ok(())
    }
}

fn fill<D: Document>(path: &Path, document: &D) -> Result<()> {
    let mut text = serde_json::to_vec(document).map_err(|e| DiskError::Content { path: path.to_owned(), why: e.to_string() })?;
    text.push(b'\n');
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(failed("make", path))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

fn read<D: Document>(path: &Path) -> Result<Option<D>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    let content = |why| DiskError::Content { path: path.to_owned(), why };
    if bytes.len() as u64 > FILE_MAX {
        return Err(content(format!("more than {FILE_MAX} bytes")));
    }
    decode(&bytes).map(Some).map_err(content)
}

/// Names hold slashes and have no limit; kubelet's files are named like this too.
fn file_name(subject: &str) -> String {
    Sha256::digest(subject.as_bytes()).iter().fold(PREFIX.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
