//! The work queue of a controller: which key is due, which is being worked on, which waits after a failure.
//!
//! Pure: the time is given. A key is never handed out twice at once; what arrives for it meanwhile runs it once more
//! afterwards. A failed key comes back after a delay that doubles from 5 ms to 30 s and is forgotten on success.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(30);

/// How work on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until an event comes.
    Done,
    /// Look again after this time, though all went well.
    Again(Duration),
    /// Try again with backoff.
    Failed,
}

#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    waiting: BTreeSet<K>,
    working: BTreeSet<K>,
    delayed: BTreeSet<(Instant, K)>,
    due: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
}

impl<K: Ord + Clone> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            working: BTreeSet::new(),
            delayed: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// A key has to be looked at. An addition overtakes a delay that is running.
    pub fn add(&mut self, key: K) {
        self.forget_delay(&key);
        if self.waiting.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// A key has to be looked at no later than `when`.
    pub fn add_at(&mut self, key: K, when: Instant) {
        if self.waiting.contains(&key) || self.due.get(&key).is_some_and(|&t| t <= when) {
            return;
        }
        self.forget_delay(&key);
        self.due.insert(key.clone(), when);
        self.delayed.insert((when, key));
    }

    fn forget_delay(&mut self, key: &K) {
        if let Some(when) = self.due.remove(key) {
            self.delayed.remove(&(when, key.clone()));
        }
    }

    /// The next key to work on; it stays reserved until `done`.
    pub fn next(&mut self, now: Instant) -> Option<K> {
        while let Some((when, key)) = self.delayed.first().cloned() {
            if when > now {
                break;
            }
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    pub fn done(&mut self, key: K, outcome: Outcome, now: Instant) {
        self.working.remove(&key);
        if self.waiting.contains(&key) {
            self.ready.push_back(key.clone());
        }
        match outcome {
            Outcome::Done => {
                self.failures.remove(&key);
            }
            Outcome::Again(after) => {
                self.failures.remove(&key);
                self.add_at(key, now + after);
            }
            Outcome::Failed => {
                let times = self.failures.entry(key.clone()).or_default();
                let delay = FIRST_DELAY.saturating_mul(1 << (*times).min(16)).min(LAST_DELAY);
                *times = times.saturating_add(1);
                self.add_at(key, now + delay);
            }
        }
    }

    /// When a delayed key comes due.
    pub fn wake_at(&self) -> Option<Instant> {
        self.delayed.first().map(|(when, _)| *when)
    }

    pub fn working(&self) -> usize {
        self.working.len()
    }
}
