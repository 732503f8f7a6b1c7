//! Reads a log file from where it was asked, and follows it over rotation until the container has ended.
//!
//! Ends when the client goes (the channel closes). Holds one file, one inotify instance while following, and one buffer.

use super::line::{More, Show};
use super::options::Options;
use bytes::Bytes;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use std::future::Future;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

const BLOCK: usize = 32 << 10;
/// The runtime cuts lines at 16 KiB; whatever is longer than this is no log line.
const MAX_LINE: usize = 1 << 20;
/// How often a silent log's container is asked about, and a rotation without a notice is noticed.
const IDLE: Duration = Duration::from_secs(1);

pub type Sender = mpsc::Sender<io::Result<Bytes>>;

/// Whether the container may still write.
pub trait Alive: Send {
    fn alive(&mut self) -> impl Future<Output = bool> + Send;
}

/// Sends what is asked of the file at `path`. Errors end the stream.
pub async fn run(path: PathBuf, options: Options, mut container: impl Alive, out: Sender) {
    if let Err(error) = read(&path, &options, &mut container, &out).await {
        let _ = out.send(Err(error)).await;
    }
}

/// What is left in hand between two reads.
struct State {
    file: File,
    inode: u64,
    /// An incomplete line.
    pending: Vec<u8>,
    show: Show,
}

enum Read {
    End,
    Done,
}

async fn read(path: &Path, options: &Options, container: &mut impl Alive, out: &Sender) -> io::Result<()> {
    let mut changes = options.follow.then(|| Changes::new(path));
    let Some(mut file) = open(path, container, &mut changes, out).await? else { return Ok(()) };
    if let Some(lines) = options.tail_lines {
        let start = tail(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let inode = file.metadata().await?.ino();
    let mut state = State { file, inode, pending: Vec::new(), show: Show::new(options) };
    loop {
        let Some(changes) = &mut changes else {
            state.read_on(out).await?;
            state.rest(out).await;
            return Ok(());
        };
        if let Read::Done = state.read_on(out).await? {
            return Ok(());
        }
        match state.successor(path).await? {
            Some(next) => {
                state.rest(out).await;
                state = State { inode: next.metadata().await?.ino(), file: next, pending: Vec::new(), show: state.show };
                continue;
            }
            None if changes.wait(out).await => continue,
            None => {}
        }
        if out.is_closed() {
            return Ok(());
        }
        // Asked before reading: what it wrote until then is in the file by now.
        if !container.alive().await
            && let Read::End = state.read_on(out).await?
            && state.successor(path).await?.is_none()
        {
            state.rest(out).await;
            return Ok(());
        }
    }
}

/// The file; while following, it may come to be later.
async fn open(path: &Path, container: &mut impl Alive, changes: &mut Option<Changes>, out: &Sender) -> io::Result<Option<File>> {
    loop {
        match File::open(path).await {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let Some(changes) = changes else { return Ok(None) };
        if !changes.wait(out).await && (out.is_closed() || !container.alive().await) {
            return Ok(None);
        }
    }
}

impl State {
    async fn read_on(&mut self, out: &Sender) -> io::Result<Read> {
        let mut block = vec![0; BLOCK];
        loop {
            let n = self.file.read(&mut block).await?;
            if n == 0 {
                return Ok(Read::End);
            }
            let mut shown = Vec::new();
            let mut more = More::Yes;
            for piece in block[..n].split_inclusive(|byte| *byte == b'\n') {
                if self.pending.is_empty() && piece.ends_with(b"\n") {
                    more = self.show.line(piece, &mut shown);
                } else if self.pending.len() + piece.len() > MAX_LINE {
                    self.pending.clear();
                } else {
                    self.pending.extend_from_slice(piece);
                    if piece.ends_with(b"\n") {
                        more = self.show.line(&self.pending, &mut shown);
                        self.pending.clear();
                    }
                }
                if more == More::No {
                    break;
                }
            }
            if !shown.is_empty() && out.send(Ok(shown.into())).await.is_err() || more == More::No {
                return Ok(Read::Done);
            }
        }
    }

    /// A last line that never got its end.
    async fn rest(&mut self, out: &Sender) {
        let mut shown = Vec::new();
        self.show.line(&self.pending, &mut shown);
        self.pending.clear();
        if !shown.is_empty() {
            let _ = out.send(Ok(shown.into())).await;
        }
    }

    /// Another file at the same path: this one was rotated away. A truncated one is read from its start.
    async fn successor(&mut self, path: &Path) -> io::Result<Option<File>> {
        let next = match File::open(path).await {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = next.metadata().await?;
        if meta.ino() != self.inode {
            return Ok(Some(next));
        }
        if meta.len() < self.file.stream_position().await? {
            self.file.seek(SeekFrom::Start(0)).await?;
            self.pending.clear();
        }
        Ok(None)
    }
}

/// Where the last so many lines begin.
pub(super) async fn tail(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0)).await?;
    let mut wanted = lines;
    let mut end = size;
    let mut block = vec![0; BLOCK];
    let mut last_byte = true;
    if lines == 0 {
        return Ok(size);
    }
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin)).await?;
        file.read_exact(part).await?;
        for at in (0..part.len()).rev() {
            // The end of the last line is not one that separates.
            if part[at] == b'\n' && !std::mem::take(&mut last_byte) {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(begin + at as u64 + 1);
                }
            }
            last_byte = false;
        }
        end = begin;
    }
    Ok(0)
}

/// Tells when something happened in the log's folder.
struct Changes {
    /// `None` where the host has no instance left for us: then only time tells.
    events: Option<inotify::EventStream<[u8; 1024]>>,
}

impl Changes {
    fn new(path: &Path) -> Self {
        let start = || -> io::Result<_> {
            let inotify = Inotify::init()?;
            let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE;
            inotify.watches().add(path.parent().unwrap_or(Path::new("/")), mask)?;
            inotify.into_event_stream([0; 1024])
        };
        Changes { events: start().inspect_err(|error| tracing::debug!(%error, "no inotify, following by time")).ok() }
    }

    /// True when something happened, false when it is time to ask about the container.
    async fn wait(&mut self, out: &Sender) -> bool {
        let Some(events) = &mut self.events else {
            tokio::time::sleep(IDLE / 4).await;
            return false;
        };
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(_)) => true,
                _ => {
                    self.events = None;
                    false
                }
            },
            () = tokio::time::sleep(IDLE) => false,
            () = out.closed() => false,
        }
    }
}

#[cfg(test)]
mod tests;
