//! What credential providers answered, until it is over. Pure: the time is given.

use super::account::Shown;
use crate::images::records::PullAccount;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Of each provider; of more the one that is over first goes.
const MAX: usize = 1024;

/// What an answer holds for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Image(String),
    Registry(String),
    Global,
}

/// Whom an answer was given to. Pods of the same service account share one, unless it holds for a token only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Whose {
    account: PullAccount,
    annotations: BTreeMap<String, String>,
    token: Option<[u8; 32]>,
}

impl Whose {
    pub(super) fn of(shown: &Shown, for_one_token: bool) -> Whose {
        let token = for_one_token.then(|| Sha256::digest(&shown.token).into());
        Whose { account: shown.account.clone(), annotations: shown.annotations.clone(), token }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) scope: Scope,
    pub(super) whose: Option<Whose>,
}

pub(super) struct Cache<V> {
    entries: HashMap<Key, (Instant, V)>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Cache { entries: HashMap::new() }
    }
}

impl<V: Clone> Cache<V> {
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<V> {
        self.entries.get(key).filter(|(until, _)| now < *until).map(|(_, value)| value.clone())
    }

    pub(super) fn put(&mut self, key: Key, value: V, now: Instant, holds: Duration) {
        self.entries.retain(|_, (until, _)| now < *until);
        if self.entries.len() >= MAX
            && let Some(first) = self.entries.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone())
        {
            self.entries.remove(&first);
        }
        // What no clock reaches holds for a year.
        let until = now.checked_add(holds).unwrap_or(now + Duration::from_secs(365 * 86_400));
        self.entries.insert(key, (until, value));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
