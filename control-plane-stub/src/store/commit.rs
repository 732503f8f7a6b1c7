//! The writing thread: the only place where a revision is given out. Ends when all handles are gone; a batch that was begun is
//! finished first. Must never answer a write before it is on disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Compacted, Record};
use super::watch::{Change, Event, stamp};
use super::{Expect, Item, Keep, Shared, StoreError};

pub(super) struct Write {
    pub(super) key: Arc<str>,
    pub(super) expect: Expect,
    /// Nothing: delete.
    pub(super) value: Option<Value>,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Request {
    Write(Write, Answer<Item>),
    Compact { keep: Keep, answer: Answer<Compacted> },
}

const BATCH: usize = 256;

pub(super) fn spawn(
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Request>,
    publish: watch::Sender<u64>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("store".to_owned()).spawn(move || run(&shared, queue, &publish))
}

fn run(shared: &Shared, mut queue: mpsc::Receiver<Request>, publish: &watch::Sender<u64>) {
    while let Some(first) = queue.blocking_recv() {
        let mut writes = Vec::new();
        let mut next = Some(first);
        let mut compactions = Vec::new();
        while let Some(request) = next {
            match request {
                Request::Write(write, answer) => writes.push((write, answer)),
                Request::Compact { keep, answer } => compactions.push((keep, answer)),
            }
            next = if writes.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        commit(shared, writes, publish);
        for (keep, answer) in compactions {
            let _ = answer.send(shared.disk.compact(keep, now()));
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// State as it will be once the batch is committed.
struct Pending<'a> {
    shared: &'a Shared,
    overlay: HashMap<Arc<str>, Option<Item>>,
    revision: u64,
    records: Vec<Record>,
    events: Vec<Event>,
}

impl Pending<'_> {
    fn get(&self, key: &str) -> Option<Item> {
        match self.overlay.get(key) {
            Some(known) => known.clone(),
            None => self.shared.recent().get(key),
        }
    }

    fn accept(&mut self, write: Write, millis: u64) -> Result<Item, StoreError> {
        let old = self.get(&write.key);
        let key = || write.key.to_string();
        match (write.expect, &old) {
            (Expect::Absent, Some(_)) => return Err(StoreError::Exists { key: key() }),
            (Expect::Revision(_), None) => return Err(StoreError::Missing { key: key() }),
            (Expect::Revision(wanted), Some(old)) if old.revision != wanted => {
                return Err(StoreError::Stale { key: key(), current: old.revision });
            }
            _ => {}
        }
        let revision = self.revision + 1;
        let replaced = old.as_ref().map_or(0, |o| o.revision);
        let (event, bytes) = match (write.value, &old) {
            (Some(mut value), _) => {
                stamp(&mut value, revision);
                let bytes = serde_json::to_vec(&value)
                    .map_err(|source| StoreError::Encoding { key: write.key.to_string(), source: Arc::new(source) })?;
                let change = if old.is_some() { Change::Modified } else { Change::Added };
                let item = Item { key: Arc::clone(&write.key), revision, object: Arc::new(value) };
                (Event::new(change, item, old.map(|o| o.object)), bytes)
            }
            (None, Some(old)) => (Event::deleted(old, revision), Vec::new()),
            (None, None) => return Err(StoreError::Missing { key: write.key.to_string() }),
        };
        self.revision = revision;
        let item = Item { key: Arc::clone(&write.key), revision, object: Arc::clone(&event.object) };
        let live = (event.change != Change::Deleted).then(|| item.clone());
        self.overlay.insert(Arc::clone(&write.key), live);
        self.records.push(Record { key: write.key, revision, replaced, millis, bytes });
        self.events.push(event);
        Ok(item)
    }
}

fn commit(shared: &Shared, writes: Vec<(Write, Answer<Item>)>, publish: &watch::Sender<u64>) {
    if writes.is_empty() {
        return;
    }
    let millis = now().as_millis() as u64;
    let revision = shared.recent().revision();
    let mut pending = Pending { shared, overlay: HashMap::new(), revision, records: Vec::new(), events: Vec::new() };
    let mut answers = Vec::with_capacity(writes.len());
    for (write, answer) in writes {
        answers.push((pending.accept(write, millis), answer));
    }
    let Pending { records, events, revision: reached, .. } = pending;
    if let Err(error) = shared.disk.append(&records) {
        tracing::error!(%error, "writes cannot be stored");
        for (result, answer) in answers {
            let _ = answer.send(result.and(Err(error.clone())));
        }
        return;
    }
    if reached != revision {
        shared.recent.write().unwrap_or_else(|poisoned| poisoned.into_inner()).apply(events);
        publish.send_replace(reached);
    }
    for (result, answer) in answers {
        let _ = answer.send(result);
    }
}
