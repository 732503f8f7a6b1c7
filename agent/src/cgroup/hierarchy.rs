//! One mounted cgroup hierarchy: making, reading, killing and removing in it.
//!
//! Works on paths: cgroup file systems hold no links, and only root makes folders outside a container's own part.

use super::manager::Version;
use super::{Error, Result};
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is enabled for pods in v2, where the kernel has it.
pub(super) const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    mount: PathBuf,
    version: Version,
    /// In v1 what is mounted here; in v2 nothing, since it differs by folder.
    controllers: BTreeSet<String>,
}

/// A folder that was made.
#[derive(Debug)]
pub(super) struct Level {
    path: PathBuf,
    /// In v2, what is enabled in it; in v1 those of its hierarchy.
    pub(super) controllers: BTreeSet<String>,
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { op, path, source }
}

fn words(path: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

impl Hierarchy {
    /// All hierarchies mounted in a folder: the folder itself for v2, its subfolders for v1.
    pub(super) fn find(mount: &Path) -> Result<(Version, Vec<Hierarchy>)> {
        if mount.join("cgroup.controllers").exists() {
            let unified = Hierarchy { mount: mount.to_owned(), version: Version::V2, controllers: BTreeSet::new() };
            return Ok((Version::V2, vec![unified]));
        }
        let mut found = Vec::new();
        let entries = std::fs::read_dir(mount).map_err(failed("list", mount))?;
        for entry in entries {
            let entry = entry.map_err(failed("list", mount))?;
            let path = entry.path();
            // `cpu` is often a link to `cpu,cpuacct`, which is found by its own name.
            let is_folder = entry.file_type().map_err(failed("stat", &path))?.is_dir();
            if is_folder && path.join("cgroup.procs").exists() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let controllers = name.split(',').map(str::to_owned).collect();
                found.push(Hierarchy { mount: path, version: Version::V1, controllers });
            }
        }
        found.sort_by(|a, b| a.mount.cmp(&b.mount));
        if found.is_empty() {
            return Err(Error::NoHierarchy(mount.to_owned()));
        }
        Ok((Version::V1, found))
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }

    /// Makes the folder and all above it, usable for processes.
    pub(super) fn make(&self, path: &Path) -> Result<Level> {
        let mut at = self.mount.clone();
        for part in path {
            if self.version == Version::V2 {
                enable(&at)?;
            }
            let parent = at.clone();
            at.push(part);
            match std::fs::create_dir(&at) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("make cgroup", &at)(error)),
            }
            if self.has("cpuset") {
                inherit(&parent, &at)?;
            }
        }
        self.level(at)
    }

    /// A folder of others; `None` if it is not there.
    pub(super) fn existing(&self, path: &Path) -> Result<Option<Level>> {
        let at = self.mount.join(path);
        if at.is_dir() { self.level(at).map(Some) } else { Ok(None) }
    }

    fn level(&self, path: PathBuf) -> Result<Level> {
        let controllers = match self.version {
            Version::V1 => self.controllers.clone(),
            Version::V2 => words(&path.join("cgroup.controllers"))?,
        };
        Ok(Level { path, controllers })
    }

    pub(super) fn folder(&self, path: &Path) -> PathBuf {
        self.mount.join(path)
    }

    /// The names of the cgroups in a folder; none if it is not there.
    pub(super) fn children(&self, path: &Path) -> Result<Vec<String>> {
        children(&self.mount.join(path))
    }

    /// Kills and removes, once; true if nothing is left. Adds the processes seen.
    pub(super) fn remove(&self, path: &Path, pids: &mut Vec<i32>) -> Result<bool> {
        let folders = self.kill(path, pids)?;
        let Some(top) = folders.first() else { return Ok(true) };
        // Those found last lie deepest.
        for folder in folders.iter().rev() {
            match std::fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // Held by a process that is dying, or by a child made meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty) => return Ok(false),
                Err(error) => return Err(failed("remove cgroup", folder)(error)),
            }
        }
        Ok(!top.exists())
    }

    /// Kills all that runs there, once, and adds it to those seen. The folders, each before those in it; none if it is not there.
    pub(super) fn kill(&self, path: &Path, pids: &mut Vec<i32>) -> Result<Vec<PathBuf>> {
        let top = self.mount.join(path);
        if !top.exists() {
            return Ok(Vec::new());
        }
        let mut folders = vec![top];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            folders.extend(children(&folder)?.into_iter().map(|name| folder.join(name)));
            next += 1;
        }
        for folder in &folders {
            let running = processes(folder)?;
            if !running.is_empty() {
                thaw(folder);
                running.iter().for_each(|pid| kill(*pid));
                pids.extend(running);
            }
        }
        Ok(folders)
    }
}

impl Level {
    /// Writes a value, if there is one. A file that is not there is a feature this kernel lacks.
    pub(super) fn set(&self, file: &str, value: Option<impl Display>) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        match put(&self.path.join(file), &value.to_string()) {
            Err(Error::Io { path, source, .. }) if source.kind() == ErrorKind::NotFound => {
                tracing::debug!(path = %path.display(), "this kernel has no such limit");
                Ok(())
            }
            other => other,
        }
    }
}

/// Writes an existing file: a cgroup's files cannot be made.
fn put(path: &Path, value: &str) -> Result<()> {
    let open = std::fs::OpenOptions::new().write(true).truncate(true).open(path);
    open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())).map_err(failed("write", path))
}

/// Enables what pods need for the children of a v2 folder, where it is to be had.
fn enable(folder: &Path) -> Result<()> {
    let available = words(&folder.join("cgroup.controllers"))?;
    let control = folder.join("cgroup.subtree_control");
    let enabled = words(&control)?;
    for controller in V2_CONTROLLERS {
        if available.contains(controller) && !enabled.contains(controller) {
            put(&control, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// A new v1 cpuset takes no process before it has CPUs and memory nodes: it gets its parent's.
fn inherit(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |folder: &Path| {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map_err(failed("read", &path))
        };
        if read(child)?.trim().is_empty() {
            put(&child.join(file), read(parent)?.trim())?;
        }
    }
    Ok(())
}

fn children(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        if entry.file_type().is_ok_and(|t| t.is_dir()) && !name.as_bytes().is_empty() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn processes(folder: &Path) -> Result<Vec<i32>> {
    let path = folder.join("cgroup.procs");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(19) => Ok(Vec::new()),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// A frozen process does not die in v1.
fn thaw(folder: &Path) {
    if folder.join("freezer.state").exists() {
        let _ = put(&folder.join("freezer.state"), "THAWED");
    }
}

/// Kills a pod's process. A pid of 0 is a process that this namespace cannot see; 1 and this process are never a pod's.
fn kill(pid: i32) {
    if pid > 1
        && pid != getpid().as_raw_nonzero().get()
        && let Some(pid) = Pid::from_raw(pid)
    {
        // Already dead is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
}
