//! The store: every object's history under one cluster-wide revision, durable before it is acknowledged.
//!
//! Owns the data file and the order of writes. One thread writes: it drains whatever is queued, checks each write's
//! expectation, and commits the batch with one fsync; only then is a write visible to readers and answered. Readers share the
//! latest state and the recent events in memory; older revisions are read from disk until compaction drops them.
//! Must never interpret an object beyond stamping `metadata.resourceVersion`.
//! Dropping a caller's future after `put` was queued leaves the outcome unknown: look again.

mod commit;
mod disk;
mod recent;
mod watch;

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub use watch::{Change, Event, Watcher};

use crate::status::Class;
use recent::Recent;

/// What must be true of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Revision(u64),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub key: Arc<str>,
    pub revision: u64,
    pub object: Arc<Value>,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub items: Vec<Item>,
    pub revision: u64,
    /// More items follow the last one.
    pub more: bool,
    /// How many more, where that is cheap to know.
    pub remaining: Option<usize>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{key} exists already")]
    Exists { key: String },
    #[error("{key} does not exist")]
    Missing { key: String },
    #[error("{key} was changed at revision {current}")]
    Stale { key: String, current: u64 },
    #[error("revision {wanted} is compacted, the oldest kept is {oldest}")]
    Compacted { wanted: u64, oldest: u64 },
    #[error("revision {wanted} is in the future, the latest is {latest}")]
    Future { wanted: u64, latest: u64 },
    #[error("{key} cannot be encoded or decoded")]
    Encoding {
        key: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("data file failed")]
    Storage(#[source] Arc<redb::Error>),
    #[error("data folder {path} cannot be made")]
    Folder {
        path: String,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    pub fn class(&self) -> Class {
        match self {
            StoreError::Exists { .. } | StoreError::Encoding { .. } | StoreError::Folder { .. } => Class::Permanent,
            StoreError::Missing { .. } | StoreError::Compacted { .. } => Class::Gone,
            StoreError::Stale { .. } | StoreError::Future { .. } | StoreError::Storage(_) | StoreError::Closed => {
                Class::Transient
            }
        }
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Storage(Arc::new(error.into()))
    }
}

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub age: Duration,
    pub events: u64,
    /// Events kept in memory for watchers that are nearly up to date.
    pub in_memory: usize,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { age: Duration::from_secs(300), events: 100_000, in_memory: 1000 }
    }
}

#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    requests: mpsc::Sender<commit::Request>,
    revision: tokio::sync::watch::Receiver<u64>,
    keep: Keep,
}

/// What readers and the one writer share. The lock is held for moments only and never over I/O.
struct Shared {
    recent: RwLock<Recent>,
    disk: disk::Disk,
}

impl Shared {
    fn recent(&self) -> std::sync::RwLockReadGuard<'_, Recent> {
        // A poisoned lock means a reader panicked; the data under it is only changed by the writer, in one step.
        self.recent.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

const QUEUE: usize = 1024;

impl Store {
    /// Opens or makes the data file and starts the writing thread, which ends when the last handle is dropped.
    pub fn open(path: &Path, keep: Keep) -> Result<Store, StoreError> {
        let disk = disk::Disk::open(path)?;
        let recent = disk.load(keep.in_memory)?;
        let revision = recent.revision();
        tracing::info!(revision, objects = recent.len(), "store open");
        let shared = Arc::new(Shared { recent: RwLock::new(recent), disk });
        let (requests, queue) = mpsc::channel(QUEUE);
        let (publish, revision) = tokio::sync::watch::channel(revision);
        commit::spawn(Arc::clone(&shared), queue, publish)
            .map_err(|source| StoreError::Folder { path: path.display().to_string(), source: Arc::new(source) })?;
        Ok(Store { shared, requests, revision, keep })
    }

    pub async fn put(&self, key: &str, expect: Expect, value: Value) -> Result<Item, StoreError> {
        self.submit(commit::Write { key: key.into(), expect, value: Some(value) }).await
    }

    /// Answers with the last state, stamped with the revision of its deletion.
    pub async fn delete(&self, key: &str, revision: u64) -> Result<Item, StoreError> {
        self.submit(commit::Write { key: key.into(), expect: Expect::Revision(revision), value: None }).await
    }

    async fn submit(&self, write: commit::Write) -> Result<Item, StoreError> {
        let (answer, result) = oneshot::channel();
        self.requests.send(commit::Request::Write(write, answer)).await.map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    pub fn get(&self, key: &str) -> Option<Item> {
        self.shared.recent().get(key)
    }

    /// The latest durable revision.
    pub fn revision(&self) -> u64 {
        self.shared.recent().revision()
    }

    /// Waits until the store has reached a revision.
    pub async fn reached(&self, revision: u64) -> Result<(), StoreError> {
        let mut latest = self.revision.clone();
        latest.wait_for(|now| *now >= revision).await.map(|_| ()).map_err(|_| StoreError::Closed)
    }

    /// Up to `limit` items (0: all) of the latest state after `after`, in key order.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        self.shared.recent().list(prefix, after, limit)
    }

    /// The same as it was at a past revision.
    pub async fn list_at(&self, prefix: &str, revision: u64, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let latest = self.revision();
        if revision > latest {
            return Err(StoreError::Future { wanted: revision, latest });
        }
        if revision == latest {
            let page = self.list(prefix, after, limit);
            if page.revision == revision {
                return Ok(page);
            }
        }
        let shared = Arc::clone(&self.shared);
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let read = move || shared.disk.list_at(&prefix, revision, after.as_deref(), limit);
        tokio::task::spawn_blocking(read).await.map_err(|_| StoreError::Closed)?
    }

    /// All changes under a prefix after `from`, in order, then those to come.
    pub fn watch(&self, prefix: &str, from: u64) -> Watcher {
        Watcher::new(Arc::clone(&self.shared), self.revision.clone(), prefix.to_owned(), from)
    }

    /// Drops history past `Keep`; call it every minute or so. Answers with the oldest revision that can still be read.
    pub async fn compact(&self) -> Result<u64, StoreError> {
        let mut oldest = 0;
        loop {
            let (answer, result) = oneshot::channel();
            let request = commit::Request::Compact { keep: self.keep, answer };
            self.requests.send(request).await.map_err(|_| StoreError::Closed)?;
            let reached = result.await.map_err(|_| StoreError::Closed)??;
            if reached.done {
                return Ok(reached.oldest.max(oldest));
            }
            oldest = reached.oldest;
        }
    }
}

#[cfg(test)]
mod tests;
