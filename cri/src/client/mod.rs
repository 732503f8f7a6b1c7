//! The client: every call of CRI v1 as a method named as the call, taking and returning domain types.
//!
//! Owns: the connections (one for calls, one for the stream of events, so that a slow reader of events never takes the
//! window of the others), the deadlines, and the memory of what this runtime lacks.
//! Must never: hold a lock across an await, retry a mutating call, log or return a secret.
//!
//! A `Client` is cheap to clone. Nothing is connected before the first call, and a broken connection is made anew by the next
//! one. Dropping the future of a call cancels it on the wire; whether a mutating call took effect is then unknown, as after
//! [`Error::Deadline`] and [`Error::Unreachable`]: look at the runtime again.

mod calls;
mod connection;
mod container;
mod features;
mod image;
mod runtime;
mod sandbox;
mod stats;

pub use runtime::ContainerEvents;

use crate::error::Error;
use crate::types::Features;
use connection::Connection;
use std::sync::Arc;
use std::time::Duration;

/// How long each class of call may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// Version, status, lists, statistics, streaming URLs.
    pub query: Duration,
    /// Create, start, remove, update.
    pub mutate: Duration,
    /// RunPodSandbox and StopPodSandbox, which wait for the network plugins.
    pub sandbox: Duration,
    /// Added to the grace of StopContainer: killing and reaping takes time too.
    pub stop_margin: Duration,
    /// Added to the timeout of ExecSync.
    pub exec_margin: Duration,
    /// PullImage: nothing tells how far a pull is, so this only ends what would never end.
    pub pull: Duration,
    /// CheckpointContainer, and ExecSync without a timeout.
    pub long: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            query: Duration::from_secs(20),
            mutate: Duration::from_secs(120),
            sandbox: Duration::from_secs(240),
            stop_margin: Duration::from_secs(60),
            exec_margin: Duration::from_secs(15),
            pull: Duration::from_secs(6 * 3600),
            long: Duration::from_secs(3600),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub deadlines: Deadlines,
    /// Where the image service is, if not at the runtime's own endpoint.
    pub image_endpoint: Option<String>,
    /// The largest answer that is taken. ExecSync alone may bring twice 16 MiB.
    pub max_message: usize,
    /// Whether to try the streaming lists, which have no largest answer, before the unary ones.
    pub streaming_lists: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadlines: Deadlines::default(), image_endpoint: None, max_message: 40 << 20, streaming_lists: true }
    }
}

#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    calls: Connection,
    events: Connection,
    /// `None`: the same as `calls`.
    images: Option<Connection>,
    features: features::Memory,
}

impl Client {
    /// `unix:///run/containerd/containerd.sock`, or the bare path. Connects nothing yet, so a runtime that is not there is not
    /// an error here. Must be called inside a tokio runtime.
    pub fn connect(endpoint: &str, options: Options) -> Result<Self, Error> {
        let calls = Connection::new(endpoint)?;
        let events = Connection::new(endpoint)?;
        let images = options.image_endpoint.as_deref().map(Connection::new).transpose()?;
        Ok(Self { inner: Arc::new(Inner { options, calls, events, images, features: features::Memory::default() }) })
    }

    /// Where the runtime is, as a path.
    pub fn endpoint(&self) -> &str {
        self.inner.calls.path()
    }

    /// What the runtime has been found to lack so far.
    pub fn features(&self) -> Features {
        self.inner.features.view()
    }

    fn deadlines(&self) -> &Deadlines {
        &self.inner.options.deadlines
    }
}

#[cfg(test)]
mod tests;
