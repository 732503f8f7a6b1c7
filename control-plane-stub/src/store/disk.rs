//! The data file. Owns the table layout; must never be asked for anything from an async task without `spawn_blocking`,
//! except at start. Tables: `versions` holds each (key, revision) with its JSON, empty for a deletion; `log` holds for each
//! revision the key and the revision it replaced; `meta` holds the latest and the compacted revision.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::recent::Recent;
use super::{Change, Event, Item, Keep, Page, StoreError};

const VERSIONS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("versions");
/// revision -> (the revision it replaced or 0, milliseconds since 1970, key)
const LOG: TableDefinition<u64, (u64, u64, &str)> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const COMPACTED: &str = "compacted";
const CACHE_BYTES: usize = 8 << 20;
/// How many log entries one compaction step drops, so that writers wait for milliseconds only.
const COMPACT_STEP: usize = 500;

pub(super) struct Disk {
    db: Database,
}

/// One accepted write, ready to be stored.
pub(super) struct Record {
    pub(super) key: Arc<str>,
    pub(super) revision: u64,
    pub(super) replaced: u64,
    pub(super) millis: u64,
    /// Empty for a deletion.
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Compacted {
    pub(super) oldest: u64,
    pub(super) done: bool,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Disk, StoreError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: folder.display().to_string(), source: Arc::new(source) })?;
        }
        let db = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let txn = db.begin_write()?;
        txn.open_table(VERSIONS)?;
        txn.open_table(LOG)?;
        txn.open_table(META)?;
        txn.commit()?;
        Ok(Disk { db })
    }

    /// The latest state of everything.
    pub(super) fn load(&self, window: usize) -> Result<Recent, StoreError> {
        let txn = self.db.begin_read()?;
        let meta = txn.open_table(META)?;
        let revision = meta.get(REVISION)?.map_or(0, |v| v.value());
        let versions = txn.open_table(VERSIONS)?;
        let mut current: BTreeMap<Arc<str>, Item> = BTreeMap::new();
        for entry in versions.iter()? {
            let (key, bytes) = entry?;
            let (key, at) = key.value();
            if bytes.value().is_empty() {
                current.remove(key);
            } else {
                let item = decode(key, at, bytes.value())?;
                current.insert(Arc::clone(&item.key), item);
            }
        }
        Ok(Recent::new(current, revision, window))
    }

    /// Returns once the records are on stable storage.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), StoreError> {
        let Some(last) = records.last() else { return Ok(()) };
        let txn = self.db.begin_write()?;
        {
            let mut versions = txn.open_table(VERSIONS)?;
            let mut log = txn.open_table(LOG)?;
            for r in records {
                versions.insert((&*r.key, r.revision), r.bytes.as_slice())?;
                log.insert(r.revision, (r.replaced, r.millis, &*r.key))?;
            }
            txn.open_table(META)?.insert(REVISION, last.revision)?;
        }
        txn.commit()?;
        Ok(())
    }

    pub(super) fn list_at(&self, prefix: &str, revision: u64, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let txn = self.db.begin_read()?;
        let compacted = txn.open_table(META)?.get(COMPACTED)?.map_or(0, |v| v.value());
        if revision < compacted {
            return Err(StoreError::Compacted { wanted: revision, oldest: compacted });
        }
        let versions = txn.open_table(VERSIONS)?;
        let start = match after {
            Some(after) => (after, u64::MAX),
            None => (prefix, 0),
        };
        let mut items: Vec<Item> = Vec::new();
        // The newest version not after `revision` of the key being looked at; a key's versions follow each other.
        let mut candidate: Option<Item> = None;
        let mut more = false;
        for entry in versions.range(start..)? {
            let (key, bytes) = entry?;
            let (key, at) = key.value();
            if !key.starts_with(prefix) {
                break;
            }
            if candidate.as_ref().is_some_and(|c| *c.key != *key)
                && let Some(finished) = candidate.take()
            {
                if limit > 0 && items.len() == limit {
                    more = true;
                    break;
                }
                items.push(finished);
            }
            if at <= revision {
                candidate = if bytes.value().is_empty() { None } else { Some(decode(key, at, bytes.value())?) };
            }
        }
        if let Some(finished) = candidate {
            if limit > 0 && items.len() == limit {
                more = true;
            } else {
                items.push(finished);
            }
        }
        Ok(Page { items, revision, more, remaining: None })
    }

    /// Up to `limit` log entries after `from`; also the revision up to which they were read.
    pub(super) fn events(&self, prefix: &str, from: u64, limit: usize) -> Result<(Vec<Event>, u64), StoreError> {
        let txn = self.db.begin_read()?;
        let compacted = txn.open_table(META)?.get(COMPACTED)?.map_or(0, |v| v.value());
        if from < compacted {
            return Err(StoreError::Compacted { wanted: from, oldest: compacted });
        }
        let log = txn.open_table(LOG)?;
        let versions = txn.open_table(VERSIONS)?;
        let mut events = Vec::new();
        let mut reached = from;
        for entry in log.range(from + 1..)?.take(limit) {
            let (revision, value) = entry?;
            let (replaced, _, key) = value.value();
            reached = revision.value();
            if !key.starts_with(prefix) {
                continue;
            }
            let version = |at: u64| -> Result<Option<Item>, StoreError> {
                match versions.get((key, at))? {
                    Some(bytes) if !bytes.value().is_empty() => Ok(Some(decode(key, at, bytes.value())?)),
                    _ => Ok(None),
                }
            };
            let previous = if replaced > 0 { version(replaced)? } else { None };
            events.push(match (version(reached)?, previous) {
                (Some(item), None) => Event::new(Change::Added, item, None),
                (Some(item), Some(old)) => Event::new(Change::Modified, item, Some(old.object)),
                (None, Some(old)) => Event::deleted(&old, reached),
                (None, None) => continue,
            });
        }
        Ok((events, reached))
    }

    /// Drops one step of the history that `keep` no longer covers.
    pub(super) fn compact(&self, keep: Keep, now: Duration) -> Result<Compacted, StoreError> {
        let txn = self.db.begin_write()?;
        let mut outcome = Compacted { oldest: 0, done: true };
        {
            let mut log = txn.open_table(LOG)?;
            let mut versions = txn.open_table(VERSIONS)?;
            let mut meta = txn.open_table(META)?;
            let latest = meta.get(REVISION)?.map_or(0, |v| v.value());
            outcome.oldest = meta.get(COMPACTED)?.map_or(0, |v| v.value());
            let before = outcome.oldest;
            let horizon = now.saturating_sub(keep.age).as_millis() as u64;
            let by_size = latest.saturating_sub(keep.events);
            let mut dropped: Vec<(u64, u64, String)> = Vec::new();
            for entry in log.iter()? {
                let (revision, value) = entry?;
                let (replaced, millis, key) = value.value();
                if millis >= horizon && revision.value() > by_size {
                    break;
                }
                if dropped.len() == COMPACT_STEP {
                    outcome.done = false;
                    break;
                }
                dropped.push((revision.value(), replaced, key.to_owned()));
            }
            for (revision, replaced, key) in dropped {
                log.remove(revision)?;
                if replaced > 0 {
                    versions.remove((key.as_str(), replaced))?;
                }
                let tombstone = versions.get((key.as_str(), revision))?.is_some_and(|bytes| bytes.value().is_empty());
                if tombstone {
                    versions.remove((key.as_str(), revision))?;
                }
                outcome.oldest = revision;
            }
            if outcome.oldest != before {
                meta.insert(COMPACTED, outcome.oldest)?;
            }
        }
        txn.commit()?;
        Ok(outcome)
    }
}

fn decode(key: &str, revision: u64, bytes: &[u8]) -> Result<Item, StoreError> {
    let object: Value =
        serde_json::from_slice(bytes).map_err(|source| StoreError::Encoding { key: key.to_owned(), source: Arc::new(source) })?;
    Ok(Item { key: key.into(), revision, object: Arc::new(object) })
}
