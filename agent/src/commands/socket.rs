//! The socket on which a running daemon answers `ferrolet trace` and `ferrolet pod`: one line of JSON in, one out, then it is closed.
//!
//! Owns `<root-dir>/ferrolet.sock`, for root alone. It is made under another name and then moved into place, so that it is never
//! there with wider rights and replaces what a daemon that was killed left behind. Requests are bounded in size, number and time.

use super::pod;
use super::trace::{Ask, Report};
use crate::dispatch::ask::Asker;
use crate::pod::Time;
use ferrolet_netproxy::Handle;
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub const NAME: &str = "ferrolet.sock";
/// For a whole exchange.
const LIMIT: Duration = Duration::from_secs(10);
/// Until a socket that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: u64 = 4 << 10;
const LONGEST_ANSWER: u64 = 4 << 20;
const AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {}", path.display())]
    Socket { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is served by another ferrolet that is running", .0.display())]
    Taken(PathBuf),
    #[error("the running ferrolet gave no answer within {} s", LIMIT.as_secs())]
    Silent,
    #[error("the running ferrolet's answer cannot be read, is it of another version?")]
    Answer(#[source] serde_json::Error),
    #[error("the running ferrolet refused: {0}")]
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    Trace(Ask),
    Pods(pod::Ask),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Trace(Box<Report>),
    Pods(Vec<pod::Report>),
    Error(String),
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Socket { what, path: path.to_owned(), source }
}

/// A file in a folder by a path that fits a socket address, however deep the folder is.
struct Short {
    folder: OwnedFd,
}

impl Short {
    fn open(folder: &Path) -> io::Result<Short> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Short { folder: rustix::fs::openat(CWD, folder, flags, Mode::empty())? })
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()).into()
    }
}

/// Whether a daemon answers there.
pub async fn is_served(root: &Path) -> bool {
    connect(root).await.is_ok()
}

async fn connect(root: &Path) -> io::Result<UnixStream> {
    let short = Short::open(root)?;
    timeout(LIMIT, UnixStream::connect(short.path(NAME))).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks a running daemon. `None`: there is none.
pub async fn ask(root: &Path, request: &Request) -> Result<Option<Answer>, Error> {
    let path = root.join(NAME);
    let stream = match connect(root).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(failed("connect to", &path)(error)),
    };
    let line = timeout(LIMIT, exchange(stream, request)).await.map_err(|_| Error::Silent)?;
    let line = line.map_err(failed("speak with", &path))?;
    match serde_json::from_slice(&line).map_err(Error::Answer)? {
        Answer::Error(why) => Err(Error::Refused(why)),
        answer => Ok(Some(answer)),
    }
}

async fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_until(b'\n', &mut answer).await?;
    Ok(answer)
}

/// What answers requests; a second one in the tests.
pub trait Answers: Send + Sync + 'static {
    fn trace(&self, ask: Ask) -> impl Future<Output = Answer> + Send;
    fn pods(&self, ask: pod::Ask) -> impl Future<Output = Answer> + Send;
}

/// The parts of the daemon that know.
pub struct Daemon {
    /// `None` on a node without an API server.
    pub proxy: Option<Handle>,
    pub pods: Asker,
}

impl Answers for Daemon {
    async fn trace(&self, ask: Ask) -> Answer {
        let packet = match ask.packet() {
            Ok(packet) => packet,
            Err(problem) => return Answer::Error(problem.to_string()),
        };
        let Some(proxy) = &self.proxy else {
            return Answer::Error("there are no Services on a node without an API server".into());
        };
        let synced = *proxy.synced.borrow();
        match proxy.explain(packet).await {
            Some(explained) => Answer::Trace(Box::new(Report::new(&ask, explained, synced))),
            None => Answer::Error("the data plane has ended".into()),
        }
    }

    async fn pods(&self, ask: pod::Ask) -> Answer {
        let one = ask.name.is_some();
        match self.pods.ask(ask.which()).await {
            Some(told) => Answer::Pods(pod::reports(told, one, Time::now())),
            None => Answer::Error("the dispatcher has ended".into()),
        }
    }
}

/// The file is gone when this is.
struct Bound {
    path: PathBuf,
    inode: (u64, u64),
    listener: UnixListener,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // A later daemon's socket is not ours to remove.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn bind(root: &Path) -> Result<Bound, Error> {
    let path = root.join(NAME);
    if is_served(root).await {
        return Err(Error::Taken(path));
    }
    let private = format!(".{NAME}.{}", std::process::id());
    let folder = root.join(&private);
    // Left by a process with the same number, if anything is.
    let _ = std::fs::remove_dir_all(&folder);
    let bound = bind_in(root, &folder, &path);
    let _ = std::fs::remove_dir_all(&folder);
    bound
}

fn bind_in(root: &Path, folder: &Path, path: &Path) -> Result<Bound, Error> {
    std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(failed("make", folder))?;
    let make = || {
        let short = Short::open(folder)?;
        let (from, to) = (short.path("s"), Short::open(root)?);
        let listener = UnixListener::bind(&from)?;
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o600))?;
        let made = std::fs::symlink_metadata(&from)?;
        rustix::fs::renameat(&short.folder, "s", &to.folder, NAME)?;
        Ok(Bound { path: path.to_owned(), inode: (made.dev(), made.ino()), listener })
    };
    make().map_err(failed("listen on", path))
}

/// Serves until cancelled. A daemon that cannot have its socket, on a full disk, goes on without and tries again: nothing but its
/// own commands need it.
pub fn spawn(root: PathBuf, answers: impl Answers, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = run(&root, Arc::new(answers)) => {}
        }
    })
}

async fn run(root: &Path, answers: Arc<impl Answers>) {
    let mut told = false;
    let bound = loop {
        match bind(root).await {
            Ok(bound) => break bound,
            Err(error) if told => debug!(%error, "still no socket"),
            Err(error) => {
                told = true;
                warn!(error = crate::api::watch::chain(&error), "ferrolet trace and ferrolet pod are not answered yet");
            }
        }
        tokio::time::sleep(AGAIN).await;
    };
    info!(path = %bound.path.display(), "ferrolet trace and ferrolet pod are answered");
    serve(&bound.listener, answers).await;
}

async fn serve(listener: &UnixListener, answers: Arc<impl Answers>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    if timeout(LIMIT, one(stream, &*answers)).await.is_err() {
                        debug!("a request on the socket took too long");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "a connection to the socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn one(stream: UnixStream, answers: &impl Answers) {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let read = BufReader::new(read.take(LONGEST_REQUEST)).read_until(b'\n', &mut line).await;
    if read.is_err() || line.is_empty() {
        return;
    }
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Trace(ask)) => answers.trace(ask).await,
        Ok(Request::Pods(ask)) => answers.pods(ask).await,
        Err(problem) => Answer::Error(format!("not a request: {problem}")),
    };
    if let Ok(mut text) = serde_json::to_vec(&answer) {
        text.push(b'\n');
        // A client that went away needs no answer.
        let _ = write.write_all(&text).await;
    }
}

#[cfg(test)]
mod tests;
