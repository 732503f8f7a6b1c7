//! Which events are written, counted together or held back, as client-go's correlator decides. Pure.
//!
//! Equal events become one with a count. Ten that differ in their message alone within ten minutes become one whose message
//! says that it stands for others. One object may send a burst of either type, and then one event every five minutes.
//! Memory is bounded: what was used longest ago is forgotten.

use super::{Item, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// So many messages of one reason, and the next are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_FOR: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";
/// Events of one object at once, and how soon one more is allowed.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Names in the API end here.
const NAME_MAX: usize = 253;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub name: String,
    /// More than 1: it is in the API already, unless it has expired there.
    pub count: i32,
    pub first: jiff::Timestamp,
    pub message: String,
}

struct Seen {
    name: String,
    count: i32,
    first: jiff::Timestamp,
}

struct Similar {
    messages: BTreeSet<u64>,
    last: jiff::Timestamp,
}

/// Tokens left, and when that was reckoned.
struct Bucket {
    tokens: f64,
    at: jiff::Timestamp,
}

#[derive(Default)]
pub(super) struct Correlator {
    similar: Recent<Similar>,
    seen: Recent<Seen>,
    spam: Recent<Bucket>,
}

impl Correlator {
    /// `None`: the object has said too much.
    pub fn correlate(&mut self, item: &Item) -> Option<Verdict> {
        let o = &item.object;
        let object = (&o.kind, &o.namespace, &o.name, &o.uid, &o.api_version, item.severity == Severity::Warning);
        let alike = hash(&(&object, &item.reason));
        let (key, message) = if self.combined(alike, item) {
            (alike, format!("{COMBINED}{}", item.message))
        } else {
            (hash(&(&object, &item.reason, &o.field_path, &item.message)), item.message.clone())
        };
        let seen = self.seen.entry(key, || Seen { name: name(item), count: 0, first: item.at });
        seen.count = seen.count.saturating_add(1);
        let verdict = Verdict { name: seen.name.clone(), count: seen.count, first: seen.first, message };
        self.allowed(hash(&object), item.at).then_some(verdict)
    }

    fn combined(&mut self, alike: u64, item: &Item) -> bool {
        let similar = self.similar.entry(alike, || Similar { messages: BTreeSet::new(), last: item.at });
        if crate::pod::elapsed(similar.last, item.at) > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.last = item.at;
        similar.messages.insert(hash(&item.message));
        let many = similar.messages.len() >= SIMILAR_MAX;
        if many {
            similar.messages.pop_first();
        }
        many
    }

    fn allowed(&mut self, object: u64, at: jiff::Timestamp) -> bool {
        let bucket = self.spam.entry(object, || Bucket { tokens: BURST, at });
        let more = crate::pod::elapsed(bucket.at, at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + more).min(BURST);
        bucket.at = at;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

fn name(item: &Item) -> String {
    let object = item.object.name.as_deref().unwrap_or_default();
    let name = format!("{object}.{:x}", item.at.as_nanosecond());
    if name.len() <= NAME_MAX { name } else { format!("{:x}.{:x}", hash(&object), item.at.as_nanosecond()) }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A map that forgets the half of it that was used longest ago when it is full.
struct Recent<V> {
    entries: BTreeMap<u64, (u64, V)>,
    clock: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent { entries: BTreeMap::new(), clock: 0 }
    }
}

impl<V> Recent<V> {
    const MAX: usize = 2048;

    fn entry(&mut self, key: u64, new: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        if self.entries.len() >= Self::MAX && !self.entries.contains_key(&key) {
            let mut used: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
            used.sort_unstable();
            let middle = used[used.len() / 2];
            self.entries.retain(|_, (used, _)| *used > middle);
        }
        let clock = self.clock;
        let entry = self.entries.entry(key).or_insert_with(|| (clock, new()));
        entry.0 = clock;
        &mut entry.1
    }
}

#[cfg(test)]
mod tests;
