//! Static pods of a folder, or of one file.
//!
//! Owns what each file last said. Inotify wakes; what is there is always listed as a whole, and a slow list catches what inotify does
//! not tell (files behind symbolic links, other machines' changes on a network file system). A file that is being written is not read
//! before it is closed. One that cannot be read leaves the pod that it had as it is, and the others alone; one that is gone takes
//! its pod with it, and so does the folder. Cancelled at any await.

use super::read::{self, SEEN, Source};
use super::{Found, Kind, Publisher};
use futures::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Stamp {
        Stamp {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

#[derive(Debug, Clone)]
struct File {
    /// `None`: it has not been read in its present form.
    stamp: Option<Stamp>,
    pod: Option<Arc<Pod>>,
    /// Why the pod is not what the file says.
    problem: Option<String>,
}

type Files = BTreeMap<PathBuf, File>;

pub(super) struct Folder {
    path: PathBuf,
    node: String,
    period: Duration,
    publisher: Publisher,
    files: Files,
    /// Files that somebody has begun to write, and since when.
    writing: BTreeMap<PathBuf, Instant>,
}

impl Folder {
    pub(super) fn new(path: PathBuf, node: String, period: Duration, publisher: Publisher) -> Folder {
        Folder { path, node, period, publisher, files: Files::new(), writing: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) {
        info!(path = %self.path.display(), "watching for static pods");
        let mut hints = Hints::new();
        loop {
            // First the watch, then the look: nothing falls between them.
            hints.arm(&self.path);
            self.look().await;
            self.wait(&mut hints).await;
        }
    }

    async fn look(&mut self) {
        let period = self.period;
        self.writing.retain(|_, since| since.elapsed() < period);
        let (path, node, known) = (self.path.clone(), self.node.clone(), self.files.clone());
        let writing: BTreeSet<PathBuf> = self.writing.keys().cloned().collect();
        let listed = tokio::task::spawn_blocking(move || list(&path, &node, &known, &writing)).await;
        match listed {
            Ok(Ok(files)) => {
                self.files = files;
                // Of two files with one pod the last one counts.
                let pods = self.files.values().rev().filter_map(|f| f.pod.clone()).collect();
                let problem = |(path, file): (&PathBuf, &File)| Some((path.display().to_string(), file.problem.clone()?));
                let problems: BTreeMap<_, _> = self.files.iter().filter_map(problem).collect();
                self.publisher.publish(Found { pods, broken: !problems.is_empty(), problems });
            }
            Ok(Err(error)) => self.publisher.fail(Some((&self.path.to_string_lossy(), error.to_string()))),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    /// Until there may be something new.
    async fn wait(&mut self, hints: &mut Hints) {
        let deadline = tokio::time::Instant::now() + self.period;
        loop {
            let hint = tokio::select! {
                hint = hints.next() => hint,
                () = tokio::time::sleep_until(deadline) => return,
            };
            let mut worth = self.take(hint);
            while let Some(hint) = hints.next().now_or_never() {
                worth |= self.take(hint);
            }
            if worth {
                return;
            }
        }
    }

    /// Whether it is worth a look.
    fn take(&mut self, hint: Hint) -> bool {
        let Hint::At(path, mask) = hint else { return true };
        let ours = path.starts_with(&self.path) || self.path.starts_with(&path);
        if mask.contains(EventMask::MODIFY) {
            self.writing.insert(path, Instant::now());
            return false;
        }
        // Whoever makes a file goes on to write it; a further link to one is whole at once.
        let begun = || std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.nlink() == 1);
        if mask.contains(EventMask::CREATE) && begun() {
            self.writing.insert(path, Instant::now());
            return false;
        }
        self.writing.remove(&path);
        ours
    }
}

/// Everything that is there now. Blocks.
fn list(path: &Path, node: &str, known: &Files, writing: &BTreeSet<PathBuf>) -> io::Result<Files> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Files::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<PathBuf> = vec![path.to_owned()];
    if meta.is_dir() {
        names = std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
        names.retain(|p| p.file_name().is_some_and(|n| !n.as_encoded_bytes().starts_with(b".")));
        names.sort();
    }
    let mut files = Files::new();
    for name in names {
        let before = known.get(&name);
        match file(&name, node, before, writing.contains(&name)) {
            Ok(Some(file)) => drop(files.insert(name, file)),
            Ok(None) => {}
            // Gone since the list was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                files.insert(
                    name,
                    File { stamp: None, pod: before.and_then(|f| f.pod.clone()), problem: Some(error.to_string()) },
                );
            }
        }
    }
    Ok(files)
}

/// `None` for what is no file.
fn file(path: &Path, node: &str, before: Option<&File>, writing: bool) -> io::Result<Option<File>> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        tracing::debug!(path = %path.display(), "not a file: no static pod is looked for in it");
        return Ok(None);
    }
    let stamp = Some(Stamp::of(&meta));
    match before {
        Some(file) if file.stamp == stamp => return Ok(Some(file.clone())),
        _ if writing => return Ok(before.cloned()),
        _ => {}
    }
    let mut data = Vec::new();
    std::fs::File::open(path)?.take(read::MAX + 1).read_to_end(&mut data)?;
    if data.len() as u64 > read::MAX {
        return Err(io::Error::other("the file is larger than 10 MiB"));
    }
    let place = path.to_string_lossy();
    let last = before.and_then(|f| f.pod.as_ref());
    Ok(Some(match read::read(&data, node, Source { kind: Kind::File, place: &place }) {
        Ok(pod) => File { stamp, pod: Some(seen(pod, last)), problem: None },
        Err(error) => File { stamp, pod: last.cloned(), problem: Some(error.to_string()) },
    }))
}

/// With the time when it was first seen. One that says the same as before is the same object.
pub(super) fn seen(mut pod: Pod, last: Option<&Arc<Pod>>) -> Arc<Pod> {
    let last = last.filter(|l| l.metadata.uid == pod.metadata.uid);
    let since = last.and_then(|l| l.metadata.annotations.as_ref()?.get(SEEN).cloned());
    let since = since.unwrap_or_else(|| jiff::Timestamp::now().to_string());
    pod.metadata.annotations.get_or_insert_default().insert(SEEN.to_owned(), since);
    match last {
        Some(last) if **last == pod => last.clone(),
        _ => Arc::new(pod),
    }
}

enum Hint {
    At(PathBuf, EventMask),
    /// Something was missed, or nothing can be told.
    Unknown,
}

/// What inotify tells of the folder and of the way to it.
struct Hints {
    events: Option<EventStream<[u8; 4096]>>,
    watched: HashMap<WatchDescriptor, PathBuf>,
}

impl Hints {
    fn new() -> Hints {
        Hints { events: None, watched: HashMap::new() }
    }

    /// Watches the folder and the nearest folder above it that is there. What is watched already stays so.
    fn arm(&mut self, path: &Path) {
        if self.events.is_none() {
            self.watched.clear();
            let start = || Inotify::init()?.into_event_stream([0; 4096]);
            self.events = start().inspect_err(|error| warn!(%error, "no inotify: static pods are looked at by time")).ok();
        }
        let Some(events) = &self.events else { return };
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut watches = events.watches();
        let mut watch = |dir: &Path| match watches.add(dir, mask) {
            Ok(descriptor) => {
                self.watched.insert(descriptor, dir.to_owned());
                true
            }
            Err(_) => false,
        };
        watch(path);
        path.ancestors().skip(1).find(|dir| watch(dir));
    }

    /// Never, where there is no inotify.
    async fn next(&mut self) -> Hint {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        match events.next().await {
            Some(Ok(event)) => self.hint(event),
            _ => {
                self.events = None;
                Hint::Unknown
            }
        }
    }

    fn hint(&mut self, event: Event<OsString>) -> Hint {
        if event.mask.contains(EventMask::IGNORED) {
            self.watched.remove(&event.wd);
        }
        match (self.watched.get(&event.wd), event.name) {
            (Some(dir), Some(name)) => Hint::At(dir.join(name), event.mask),
            (Some(dir), None) => Hint::At(dir.clone(), event.mask),
            (None, _) => Hint::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
