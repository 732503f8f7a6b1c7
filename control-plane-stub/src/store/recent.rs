//! The latest state and the last events, in memory. Owns nothing on disk. Pure: only the writer changes it, after the disk has.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{Event, Item, Page};

pub(super) struct Recent {
    current: BTreeMap<Arc<str>, Item>,
    revision: u64,
    /// The last events in order; complete for all revisions after `window_from`.
    window: VecDeque<Event>,
    window_from: u64,
    window_max: usize,
}

impl Recent {
    pub(super) fn new(current: BTreeMap<Arc<str>, Item>, revision: u64, window_max: usize) -> Recent {
        Recent { current, revision, window: VecDeque::new(), window_from: revision, window_max }
    }

    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, key: &str) -> Option<Item> {
        self.current.get(key).cloned()
    }

    pub(super) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let start = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let mut range = self
            .current
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, item)| item.clone());
        let max = if limit == 0 { usize::MAX } else { limit };
        let items: Vec<Item> = range.by_ref().take(max).collect();
        let remaining = range.count();
        Page { items, revision: self.revision, more: remaining > 0, remaining: Some(remaining) }
    }

    /// Events after `from` up to the latest revision, or nothing if the window does not reach back that far.
    pub(super) fn events(&self, prefix: &str, from: u64) -> Option<(Vec<Event>, u64)> {
        if from < self.window_from {
            return None;
        }
        let first = self.window.partition_point(|e| e.revision <= from);
        let events = self.window.range(first..).filter(|e| e.key.starts_with(prefix)).cloned().collect();
        Some((events, self.revision))
    }

    pub(super) fn apply(&mut self, events: Vec<Event>) {
        for event in events {
            self.revision = event.revision;
            if event.change == super::Change::Deleted {
                self.current.remove(&event.key);
            } else {
                let item = Item { key: Arc::clone(&event.key), revision: event.revision, object: Arc::clone(&event.object) };
                self.current.insert(Arc::clone(&event.key), item);
            }
            self.window.push_back(event);
            if self.window.len() > self.window_max
                && let Some(gone) = self.window.pop_front()
            {
                self.window_from = gone.revision;
            }
        }
    }
}
