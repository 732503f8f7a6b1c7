//! List and watch of one kind: keeps a sink up to date through every failure of the API server.
//!
//! Owns the cursor. The initial state comes as a stream of events where the server offers that, and page by page
//! otherwise; both read the most recent state, so that a resync never goes back in time. After that changes are followed
//! from the last revision seen; an expired one means starting over. Nothing is handed on before a list is complete, and
//! an object that cannot be read is named in the log and left as it was. Only the token ends `run`.

use super::snapshot::ObjectKey;
use super::wire::{self, Ask, Decoded, Event, Selector, Status, Wire, WireError};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

const PAGE_SIZE: u32 = 500;
/// An object is at most 1.5 MiB in etcd; JSON of it a few times that.
const MAX_LINE: usize = 16 << 20;
const MAX_PAGE: usize = 512 << 20;
const MAX_STATUS: usize = 64 << 10;
/// A watch that lived this long was a good one, even if nothing happened in it.
const GOOD_WATCH: Duration = Duration::from_secs(5);
/// Failures in a row at one revision, after which that revision is given up.
const STUCK: u32 = 4;

/// What a sink is told.
#[derive(Debug)]
pub enum Change<T> {
    /// All there is. Objects in `malformed` exist, but what they say could not be read: keep what was known of them.
    Replaced {
        items: Vec<(ObjectKey, T)>,
        malformed: Vec<ObjectKey>,
    },
    Applied(ObjectKey, T),
    Deleted(ObjectKey),
}

/// Takes changes in order. May wait; the watch then waits too.
pub trait Sink<T>: Send {
    fn apply(&mut self, change: Change<T>) -> impl Future<Output = ()> + Send;

    /// A try failed; the next one follows by itself.
    fn failed(&mut self, _why: &str) {}
}

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Request(#[from] kube::Error),
    #[error("the api server answered {} {}: {}", .0.code, .0.reason, .0.message)]
    Status(Status),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("more than {0} bytes in one piece")]
    TooLong(usize),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The server ended the watch in good order.
    #[error("closed by the server")]
    Closed,
}

impl End {
    fn code(&self) -> u16 {
        match self {
            End::Status(status) => status.code,
            End::Request(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }

    /// The revision is too old: the state has to be read anew.
    fn expired(&self) -> bool {
        self.code() == 410 || matches!(self, End::Status(status) if matches!(status.reason.as_str(), "Expired" | "Gone"))
    }

    /// The server cannot send its state as a stream.
    fn streaming_refused(&self) -> bool {
        matches!(self.code(), 400 | 405 | 415 | 422) || matches!(self, End::Silent(_))
    }
}

/// The longest silences that are still believed in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While the initial state is streaming.
    pub initial: Duration,
    /// How long past the time that the server was asked to end a watch at. A connection that died is noticed sooner, by
    /// its pings; this is for one that lives and yet says nothing.
    pub overdue: Duration,
    /// The least seconds that a watch is asked for, up to twice that: spread, so that those of all nodes do not end together.
    pub watch_seconds: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { initial: Duration::from_secs(20), overdue: Duration::from_secs(10), watch_seconds: 240 }
    }
}

/// Keeps `sink` up to date until cancelled.
pub async fn run<T: Wire>(client: kube::Client, selector: Selector, sink: impl Sink<T>, cancel: CancellationToken) {
    run_with(client, selector, Patience::default(), sink, cancel).await;
}

pub(crate) async fn run_with<T: Wire>(
    client: kube::Client,
    selector: Selector,
    patience: Patience,
    mut sink: impl Sink<T>,
    cancel: CancellationToken,
) {
    let mut session =
        Session { client, selector, patience, streaming: true, paged_once: false, trouble: Trouble::default(), last: None };
    let work = async {
        loop {
            let end = match session.last.clone() {
                None => session.start::<T>(&mut sink).await,
                Some(revision) => session.follow_from::<T>(&revision, &mut sink).await,
            };
            if !matches!(end, End::Closed) {
                sink.failed(&chain(&end));
            }
            session.after::<T>(end).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = work => {}
    }
}

/// How often it failed in a row, since when, and whether that was said.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    since: Option<Instant>,
}

/// Milliseconds to wait after so many failures in a row; `random` is in 0..1000.
fn delay(failures: u32, random: u64) -> Duration {
    let base = 100u64.saturating_mul(1 << failures.min(10)).min(10_000);
    // Between half and one and a half: nodes that lost the same server must not come back in step.
    Duration::from_millis(base / 2 + base * random / 1000)
}

struct Session {
    client: kube::Client,
    selector: Selector,
    patience: Patience,
    /// Whether to ask for the initial state as a stream.
    streaming: bool,
    /// The next time not, whatever is said above.
    paged_once: bool,
    trouble: Trouble,
    /// The revision to follow from; none before the initial state is complete.
    last: Option<String>,
}

impl Session {
    /// Decides what a list's or watch's end means for the next try, and waits as long as that needs.
    async fn after<T: Wire>(&mut self, end: End) {
        let kind = T::PLURAL;
        if matches!(end, End::Closed) {
            if self.trouble.failures == 0 {
                return;
            }
        } else if end.expired() {
            info!(kind, "revision expired, reading everything anew");
            self.last = None;
        } else if self.last.is_none() && self.streaming && end.streaming_refused() {
            info!(kind, reason = %end, "no streaming lists, reading page by page");
            self.streaming = false;
            return;
        } else if self.last.is_none() && self.streaming && end.code() == 500 && !self.paged_once {
            // So says one whose store cannot tell how far a stream has come, but also one in trouble that passes.
            info!(kind, error = %end, "the streaming list failed, reading page by page");
            self.paged_once = true;
            return;
        } else if self.trouble.failures == 0 && !T::MANY {
            warn!(kind, error = %chain(&end), "watch failed, trying again");
        } else {
            debug!(kind, error = %chain(&end), failures = self.trouble.failures, "watch failed again");
        }
        self.trouble.failures = self.trouble.failures.saturating_add(1);
        self.trouble.since.get_or_insert_with(Instant::now);
        if self.trouble.failures.is_multiple_of(STUCK) && matches!(end, End::Wire(_) | End::TooLong(_)) {
            // The same bytes keep coming: a list takes another way to the same state.
            self.last = None;
            self.streaming = false;
        }
        // Both ways failed, or the one that did has been put to use since: either may be tried again.
        self.paged_once = false;
        let wait = delay(self.trouble.failures, rand::random_range(0..1000));
        tokio::time::sleep(wait).await;
    }

    fn healthy<T: Wire>(&mut self) {
        let (kind, many) = (T::PLURAL, T::MANY);
        if let Some(since) = self.trouble.since.take()
            && !many
        {
            info!(kind, seconds = since.elapsed().as_secs(), "watch works again");
        }
        self.trouble.failures = 0;
    }

    async fn start<T: Wire>(&mut self, sink: &mut impl Sink<T>) -> End {
        let done =
            if self.streaming && !self.paged_once { self.start_streaming(sink).await } else { self.start_paged(sink).await };
        match done {
            Ok(end) | Err(end) => end,
        }
    }

    /// Reads the state page by page; following it is the next step.
    async fn start_paged<T: Wire>(&mut self, sink: &mut impl Sink<T>) -> Result<End, End> {
        let (mut items, mut malformed) = (Vec::new(), Vec::new());
        let mut cursor: Option<String> = None;
        let revision = loop {
            let uri = wire::uri::<T>(&self.selector, Ask::Page { limit: PAGE_SIZE, cursor: cursor.as_deref() });
            let body = self.get(&uri).await?;
            let bytes = whole(body, MAX_PAGE).await?;
            let page = wire::page::<T>(&bytes)?;
            for error in &page.unreadable {
                warn!(kind = T::PLURAL, %error, "object skipped");
            }
            page.items.into_iter().for_each(|object| sort_in(object, &mut items, &mut malformed));
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => break page.revision,
            }
        };
        sink.apply(Change::Replaced { items, malformed }).await;
        self.last = Some(revision);
        self.healthy::<T>();
        Ok(End::Closed)
    }

    /// Reads the state as a stream of events, and goes on with the changes on the same stream.
    async fn start_streaming<T: Wire>(&mut self, sink: &mut impl Sink<T>) -> Result<End, End> {
        let seconds = self.watch_seconds();
        let uri = wire::uri::<T>(&self.selector, Ask::StreamingList { timeout_seconds: seconds });
        let mut lines = Lines::new(self.get(&uri).await?);
        let (mut items, mut malformed) = (Vec::new(), Vec::new());
        loop {
            let Some(line) = lines.next(self.patience.initial).await? else {
                return Err(End::Broken("ended within the initial state".into()));
            };
            match read_event::<T>(&line)? {
                Some(Event::Applied { object, .. }) => sort_in(object, &mut items, &mut malformed),
                Some(Event::Bookmark { revision, initial_end: true }) => {
                    self.last = Some(revision);
                    break;
                }
                Some(Event::Failed(status)) => return Err(End::Status(status)),
                Some(Event::Deleted { .. } | Event::Bookmark { .. }) | None => {}
            }
        }
        sink.apply(Change::Replaced { items, malformed }).await;
        self.healthy::<T>();
        Ok(self.follow(&mut lines, seconds, sink).await)
    }

    async fn follow_from<T: Wire>(&mut self, revision: &str, sink: &mut impl Sink<T>) -> End {
        let seconds = self.watch_seconds();
        let uri = wire::uri::<T>(&self.selector, Ask::Watch { from: revision, timeout_seconds: seconds });
        match self.get(&uri).await {
            Ok(body) => self.follow(&mut Lines::new(body), seconds, sink).await,
            Err(end) => end,
        }
    }

    async fn follow<T: Wire>(&mut self, lines: &mut Lines, seconds: u32, sink: &mut impl Sink<T>) -> End {
        let started = Instant::now();
        // The server ends the watch after that time; one that does not is gone without a word.
        let silence = Duration::from_secs(u64::from(seconds)) + self.patience.overdue;
        loop {
            let line = match lines.next(silence).await {
                Ok(Some(line)) => line,
                Ok(None) => {
                    if started.elapsed() >= GOOD_WATCH {
                        self.healthy::<T>();
                        return End::Closed;
                    }
                    return End::Broken("ended right after it began".into());
                }
                Err(end) => return end,
            };
            let revision = match read_event::<T>(&line) {
                Ok(Some(Event::Applied { object: Decoded { key, body }, revision })) => {
                    match body {
                        Ok(body) => sink.apply(Change::Applied(key, body)).await,
                        Err(error) => warn!(%error, "malformed object left as it was"),
                    }
                    revision
                }
                Ok(Some(Event::Deleted { key, revision })) => {
                    sink.apply(Change::Deleted(key)).await;
                    revision
                }
                Ok(Some(Event::Bookmark { revision, .. })) => revision,
                Ok(Some(Event::Failed(status))) => return End::Status(status),
                Ok(None) => continue,
                Err(error) => return error,
            };
            self.last = Some(revision);
            self.healthy::<T>();
        }
    }

    fn watch_seconds(&self) -> u32 {
        let least = self.patience.watch_seconds.max(1);
        rand::random_range(least..least * 2)
    }

    async fn get(&self, uri: &str) -> Result<Body, End> {
        let request = http::Request::get(uri).header(http::header::ACCEPT, "application/json").body(Body::empty());
        let request = request.map_err(|error| End::Broken(format!("cannot form {uri}: {error}")))?;
        let (parts, body) = self.client.send(request).await?.into_parts();
        if parts.status.is_success() {
            return Ok(body);
        }
        let bytes = whole(body, MAX_STATUS).await.unwrap_or_default();
        let mut status: Status = serde_json::from_slice(&bytes).unwrap_or_default();
        status.code = parts.status.as_u16();
        if status.message.is_empty() {
            status.message = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        }
        Err(End::Status(status))
    }
}

/// `None` for an event that can be passed over: it says nothing that is understood.
fn read_event<T: Wire>(line: &[u8]) -> Result<Option<Event<T>>, End> {
    match wire::event(line) {
        Ok(event) => Ok(Some(event)),
        // Bytes that are not JSON were damaged on the way: ask for them again.
        Err(error @ WireError::Json { what: "watch event", .. }) => Err(error.into()),
        Err(error) => {
            warn!(kind = T::PLURAL, %error, "watch event skipped");
            Ok(None)
        }
    }
}

fn sort_in<T>(object: Decoded<T>, items: &mut Vec<(ObjectKey, T)>, malformed: &mut Vec<ObjectKey>) {
    match object.body {
        Ok(body) => items.push((object.key, body)),
        Err(error) => {
            warn!(%error, "malformed object left as it was");
            malformed.push(object.key);
        }
    }
}

async fn whole(body: Body, limit: usize) -> Result<Bytes, End> {
    let limited = http_body_util::Limited::new(body, limit);
    limited.collect().await.map(|all| all.to_bytes()).map_err(|error| End::Broken(error.to_string()))
}

/// A body cut at line ends.
struct Lines {
    body: Body,
    buffer: BytesMut,
    searched: usize,
}

impl Lines {
    fn new(body: Body) -> Self {
        Lines { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line; `None` at the end. What follows the last line end was cut off on the way and is dropped.
    async fn next(&mut self, silence: Duration) -> Result<Option<Bytes>, End> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(End::TooLong(MAX_LINE));
            }
            if self.buffer.is_empty() {
                // Between events nothing is kept: a large object's buffer would stay for the life of the watch.
                self.buffer = BytesMut::new();
            }
            match tokio::time::timeout(silence, self.body.frame()).await {
                Err(_) => return Err(End::Silent(silence)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(End::Broken(chain(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// An error with its causes, which is where the reason is.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
