//! Runs the shell of a controller from its work queue.
//!
//! Owns the queue; several keys are worked on at once, one key never twice. Events that arrive during the work are taken
//! in at once, so that a slow sync holds up nobody else. Cancelling drops the work in hand: every sync is level-triggered
//! and finds out again what is left to do.

use std::fmt::Display;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::queue::{Outcome, Queue};
use crate::status::{ApiError, Class};

/// Wake-ups that may wait to be taken in.
pub const WAKES: usize = 256;

/// Why a sync did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what}: {source}")]
    Api {
        what: String,
        #[source]
        source: Box<ApiError>,
    },
    #[error("{0} changed meanwhile")]
    Stale(String),
}

impl Error {
    pub fn api(what: impl Into<String>) -> impl FnOnce(ApiError) -> Error {
        move |source| Error::Api { what: what.into(), source: Box::new(source) }
    }

    pub fn class(&self) -> Class {
        match self {
            Error::Api { source, .. } => source.class(),
            Error::Stale(_) => Class::Transient,
        }
    }
}

/// Nothing, or when to look again without an event.
pub type Synced = Result<Option<Duration>, Error>;

/// Ignores that an object is gone: for a controller that is what it wanted, or what the next event tells it.
pub fn unless_gone<T>(result: Result<T, ApiError>, what: &str) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::api(what)(error)),
    }
}

pub fn spawn<K, F, Fut>(
    name: &'static str,
    workers: usize,
    wakes: mpsc::Receiver<K>,
    sync: F,
    cancel: &CancellationToken,
) -> JoinHandle<()>
where
    K: Ord + Clone + Display + Send + 'static,
    F: Fn(K) -> Fut + Send + 'static,
    Fut: Future<Output = Synced> + Send,
{
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = run(name, workers, wakes, sync) => {}
            () = cancel.cancelled() => {}
        }
    })
}

async fn run<K, F, Fut>(name: &'static str, workers: usize, mut wakes: mpsc::Receiver<K>, sync: F)
where
    K: Ord + Clone + Display + Send,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Synced>,
{
    let mut queue: Queue<K> = Queue::default();
    let mut work = FuturesUnordered::new();
    let mut open = true;
    while open || queue.working() > 0 {
        while queue.working() < workers
            && let Some(key) = queue.next(Instant::now())
        {
            let result = sync(key.clone());
            work.push(async move { (key, result.await) });
        }
        let sleep = queue.wake_at().filter(|_| queue.working() < workers);
        let timer = async {
            match sleep {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            wake = wakes.recv(), if open => match wake {
                Some(key) => {
                    queue.add(key);
                    while let Ok(key) = wakes.try_recv() {
                        queue.add(key);
                    }
                }
                None => open = false,
            },
            Some((key, result)) = work.next() => {
                let outcome = outcome(name, &key, result);
                queue.done(key, outcome, Instant::now());
            }
            () = timer => {}
        }
    }
}

fn outcome(controller: &str, key: &impl Display, result: Synced) -> Outcome {
    match result {
        Ok(None) => Outcome::Done,
        Ok(Some(after)) => Outcome::Again(after),
        Err(error) => {
            if error.class() == Class::Permanent {
                tracing::warn!(controller, %key, %error, "a sync failed, trying again later");
            } else {
                tracing::debug!(controller, %key, %error, "a sync has to be repeated");
            }
            Outcome::Failed
        }
    }
}
