//! Following changes. A watcher owns only its cursor: it pulls from memory, or from disk when it lags, so a slow one costs
//! nothing and loses nothing until compaction passes it. `next` may be dropped at any await; the cursor moves only with what
//! was handed out.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::{Item, Shared, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub change: Change,
    pub key: Arc<str>,
    pub revision: u64,
    pub object: Arc<Value>,
    /// What was there before, for selectors that an object leaves or enters.
    pub previous: Option<Arc<Value>>,
}

impl Event {
    pub(super) fn new(change: Change, item: Item, previous: Option<Arc<Value>>) -> Event {
        Event { change, key: item.key, revision: item.revision, object: item.object, previous }
    }

    pub(super) fn deleted(last: &Item, revision: u64) -> Event {
        let mut object = (*last.object).clone();
        stamp(&mut object, revision);
        let previous = Some(Arc::clone(&last.object));
        Event { change: Change::Deleted, key: Arc::clone(&last.key), revision, object: Arc::new(object), previous }
    }
}

pub(super) fn stamp(object: &mut Value, revision: u64) {
    if let Some(object) = object.as_object_mut() {
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
    }
}

pub struct Watcher {
    shared: Arc<Shared>,
    latest: watch::Receiver<u64>,
    prefix: String,
    cursor: u64,
}

/// Log entries read from disk at once by a watcher that lags.
const CHUNK: usize = 500;

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>, latest: watch::Receiver<u64>, prefix: String, from: u64) -> Watcher {
        Watcher { shared, latest, prefix, cursor: from }
    }

    /// Everything up to this revision has been handed out.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next changes, at least one. `Compacted` if the history after the cursor is gone.
    pub async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            let latest = *self.latest.borrow_and_update();
            if self.cursor >= latest {
                self.latest.changed().await.map_err(|_| StoreError::Closed)?;
                continue;
            }
            let in_memory = self.shared.recent().events(&self.prefix, self.cursor);
            let (events, reached) = match in_memory {
                Some(found) => found,
                None => {
                    let (shared, prefix, from) = (Arc::clone(&self.shared), self.prefix.clone(), self.cursor);
                    let read = move || shared.disk.events(&prefix, from, CHUNK);
                    tokio::task::spawn_blocking(read).await.map_err(|_| StoreError::Closed)??
                }
            };
            self.cursor = reached;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
