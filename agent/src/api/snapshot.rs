//! What a watcher publishes: the whole of one kind as last known.
//!
//! One writer (the watcher task), many readers through `tokio::sync::watch`; a reader never blocks
//! the writer and always sees a consistent whole.

use super::watch::{Change, Sink};
use super::wire::{Selector, Wire};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

/// All objects of one kind that this node cares about.
#[derive(Debug, Clone)]
pub struct Snapshot<K> {
    /// True once the first list was complete; nothing may be concluded from an object's absence before.
    pub synced: bool,
    /// Keys are shared: a snapshot is cloned for every change of one object.
    pub items: BTreeMap<Arc<ObjectKey>, Arc<K>>,
    /// Objects that exist, but say something that could not be read; `items` has what was known of them before, if anything.
    pub malformed: BTreeSet<ObjectKey>,
}

impl<K> Default for Snapshot<K> {
    fn default() -> Self {
        Snapshot { synced: false, items: BTreeMap::new(), malformed: BTreeSet::new() }
    }
}

impl<K> Snapshot<K> {
    /// What there is where there is no API server.
    pub fn none() -> Snapshot<K> {
        Snapshot { synced: true, ..Snapshot::default() }
    }
}

/// The reading end of a watcher.
pub type Watched<K> = watch::Receiver<Arc<Snapshot<K>>>;

/// A sink that publishes.
pub(super) struct Publish<K> {
    pub(super) sender: watch::Sender<Arc<Snapshot<K>>>,
}

impl<K: Send + Sync + 'static> Sink<K> for Publish<K> {
    async fn apply(&mut self, change: Change<K>) {
        self.sender.send_modify(|snapshot| *snapshot = Arc::new(apply(snapshot, change)));
    }
}

/// The snapshot after a change. Pure.
pub fn apply<K>(before: &Snapshot<K>, change: Change<K>) -> Snapshot<K> {
    match change {
        Change::Replaced { items, malformed } => {
            let mut map: BTreeMap<_, _> = items.into_iter().map(|(key, item)| (Arc::new(key), Arc::new(item))).collect();
            for key in &malformed {
                // It exists: concluding its absence from not understanding it would be wrong.
                if let Some(known) = before.items.get(key) {
                    map.insert(Arc::new(key.clone()), known.clone());
                }
            }
            Snapshot { synced: true, items: map, malformed: malformed.into_iter().collect() }
        }
        Change::Applied(key, item) => {
            let (mut items, mut malformed) = (before.items.clone(), before.malformed.clone());
            malformed.remove(&key);
            items.insert(Arc::new(key), Arc::new(item));
            Snapshot { synced: before.synced, items, malformed }
        }
        Change::Deleted(key) => {
            let (mut items, mut malformed) = (before.items.clone(), before.malformed.clone());
            malformed.remove(&key);
            items.remove(&key);
            Snapshot { synced: before.synced, items, malformed }
        }
    }
}

/// Starts watching; the task ends with the token only.
pub fn spawn<K: Wire>(client: kube::Client, selector: Selector, cancel: CancellationToken) -> (Watched<K>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
    let task = tokio::spawn(super::watch::run(client, selector, Publish { sender }, cancel));
    (receiver, task)
}
