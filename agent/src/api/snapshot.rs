//! What a watcher publishes: the whole of one kind as last known.
//!
//! Owns the type only. One writer (the watcher task), many readers through `tokio::sync::watch`; a reader never blocks
//! the writer and always sees a consistent whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

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
    pub items: BTreeMap<ObjectKey, Arc<K>>,
}

impl<K> Default for Snapshot<K> {
    fn default() -> Self {
        Snapshot { synced: false, items: BTreeMap::new() }
    }
}

/// The reading end of a watcher.
pub type Watched<K> = watch::Receiver<Arc<Snapshot<K>>>;
