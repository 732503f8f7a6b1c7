//! From an unknown state of the kernel to the ruleset: what it holds is read and compared, and what differs goes to it in
//! transactions that each keep it for a short time only.
//!
//! A start, a failure and a change by others all come here. A table of another layout serves until a whole new one under the
//! second name does; that one serves until the first name's is filled. Nothing is known before all is done: if it ends in
//! between, the next try looks again.

use super::core::{Core, Kernel, Layout};
use super::stats::Stats;
use crate::compile::update;
use crate::conntrack::Gone;
use crate::diff::{Found, Installed, Place, Resync, Transaction, full};
use crate::error::{Class, Error};
use crate::model::{Family, Key};
use crate::ruleset::Ruleset;
use crate::tables::Touched;
use std::collections::BTreeSet;
use tracing::{debug, error, info};

/// Elements in one step, so that the kernel is kept for a small part of 100 ms even where it is slow (HOOKS.md).
const MOST_AT_ONCE: usize = 8_000;
/// A change with more elements than this goes in steps too, though that costs a comparison with all the kernel has.
pub(super) const MOST_IN_A_CHANGE: usize = 16_000;

/// Chains that pick, a few for each family, number of endpoints and timeout in use. Those that nothing uses any more stay as long as
/// the tables do, so with more than this, or twice what is needed, all is made anew.
pub(super) const MOST_PICKS: usize = 2048;

/// A step that failed.
struct Failure {
    error: Error,
    /// The services it was about. None: it was about the tables themselves.
    services: Vec<Key>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, services: Vec::new() }
    }
}

impl Core {
    pub(super) fn install_all(&mut self) -> Result<usize, Error> {
        loop {
            let mut steps = Steps::new(&mut *self.kernel, &mut self.stats, MOST_AT_ONCE);
            let result = steps.resync(&self.ruleset, self.crowded);
            let Steps { operations, batches, gone, .. } = steps;
            self.purge.get_or_insert_default().join(gone);
            match result {
                Ok(installed) => {
                    self.stats.last_full_batches = batches;
                    if std::mem::take(&mut self.crowded) {
                        self.most_picks = MOST_PICKS.max(2 * installed.picks());
                    }
                    self.installed = Some(installed);
                    return Ok(operations);
                }
                // Each round leaves out one service more, or is the last.
                Err(f) if f.error.class() == Class::Permanent && self.set_bad_aside(&f) => {}
                Err(f) => return Err(f.error),
            }
        }
    }

    /// Finds the services the kernel will not take, by halves, without touching what it holds. False if none was found.
    fn set_bad_aside(&mut self, failure: &Failure) -> bool {
        if failure.services.is_empty() || self.check(&[]).is_err() {
            return false;
        }
        let mut bad = Vec::new();
        self.bisect(&failure.services, &mut bad);
        if bad.is_empty() {
            return false;
        }
        for (key, why) in &bad {
            error!(service = %key, error = %why, "the kernel refuses this service's rules, it is left out until it changes");
        }
        debug!(error = %failure.error, "the error that led here");
        let touched: Touched = bad.into_iter().map(|(k, _)| k).collect();
        self.set_aside.extend(touched.iter().cloned());
        update(&mut self.ruleset, &self.tables, &touched, &self.set_aside);
        true
    }

    /// Tries these services in tables of their own, so that nothing depends on what is there. Too many are not even tried.
    fn check(&mut self, keys: &[Key]) -> Result<(), Option<Error>> {
        let mut tx = full(&self.ruleset.restricted_to(keys));
        if keys.len() > 1 && tx.len() > MOST_AT_ONCE {
            return Err(None);
        }
        tx.place = Place::Spare;
        self.kernel.check(&tx).map_err(Some)
    }

    fn bisect(&mut self, keys: &[Key], bad: &mut Vec<(Key, Error)>) {
        let Err(why) = self.check(keys) else { return };
        match (keys, why) {
            ([], _) => {}
            ([one], Some(why)) => bad.push((one.clone(), why)),
            _ => {
                let (left, right) = keys.split_at(keys.len() / 2);
                self.bisect(left, bad);
                self.bisect(right, bad);
            }
        }
    }
}

struct Steps<'a> {
    kernel: &'a mut dyn Kernel,
    stats: &'a mut Stats,
    most: usize,
    operations: usize,
    batches: usize,
    /// Where the tables led that were found, and do not lead any more.
    gone: Gone,
}

impl<'a> Steps<'a> {
    fn new(kernel: &'a mut dyn Kernel, stats: &'a mut Stats, most: usize) -> Self {
        Steps { kernel, stats, most, operations: 0, batches: 0, gone: Gone::default() }
    }

    /// `anew`: tables of our layout are replaced too.
    fn resync(&mut self, ruleset: &Ruleset, anew: bool) -> Result<Installed, Failure> {
        let all = &ruleset.policy.families;
        let (mut keep, mut other, mut spare) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for family in all {
            match self.kernel.layout(Place::Main, *family)? {
                Layout::Ours if !anew => drop(keep.insert(*family)),
                Layout::Ours | Layout::Other => drop(other.insert(*family)),
                Layout::Absent => {}
            }
            if self.kernel.layout(Place::Spare, *family)? != Layout::Absent {
                spare.insert(*family);
            }
        }
        let installed = match self.replace(ruleset, all, &keep, &other, &mut spare) {
            // Of our layout by its sets, and yet it cannot be put right.
            Err(f) if f.error.class() == Class::Permanent && f.services.is_empty() && !keep.is_empty() => {
                info!(error = %f.error, "tables cannot be put right in place, replacing them");
                other.append(&mut keep);
                self.replace(ruleset, all, &keep, &other, &mut spare)?
            }
            done => done?,
        };
        if !spare.is_empty() {
            self.commit(Transaction::without(Place::Spare, spare))?;
        }
        Ok(installed)
    }

    fn replace(
        &mut self,
        ruleset: &Ruleset,
        all: &BTreeSet<Family>,
        keep: &BTreeSet<Family>,
        other: &BTreeSet<Family>,
        spare: &mut BTreeSet<Family>,
    ) -> Result<Installed, Failure> {
        if !other.is_empty() {
            info!(families = ?other, "tables of another layout are there, replacing them");
            spare.extend(other);
            self.fill(Place::Spare, ruleset, other, &BTreeSet::new())?;
        }
        self.fill(Place::Main, ruleset, all, keep)
    }

    /// Brings some tables to the ruleset; those to `keep` are read, the others made.
    fn fill(
        &mut self,
        place: Place,
        ruleset: &Ruleset,
        families: &BTreeSet<Family>,
        keep: &BTreeSet<Family>,
    ) -> Result<Installed, Failure> {
        let found = self.read(ruleset, keep)?;
        let mut way = Resync::new(place, ruleset, families.clone(), found);
        let mut installed = Installed::default();
        installed.apply(self.commit(way.first(keep))?);
        loop {
            let units = way.units(self.most);
            if units.is_empty() {
                break;
            }
            let services: Vec<Key> = units.iter().filter(|u| !u.is_empty()).filter_map(|u| u.key.clone()).collect();
            let tx = self.commit(Transaction::of(place, units)).map_err(|error| Failure { error, services })?;
            installed.apply(tx);
        }
        installed.apply(self.commit(way.last())?);
        Ok(installed)
    }

    /// Somebody else's transactions interrupt a list though they do not touch our tables. So it is not tried for ever: what was
    /// told wrongly the kernel refuses, and then all is looked at again.
    fn read(&mut self, ruleset: &Ruleset, families: &BTreeSet<Family>) -> Result<Found, Error> {
        const MOST_TRIES: usize = 4;
        let mut tries = 0;
        loop {
            let (mut found, mut whole) = (Found::default(), true);
            for family in families {
                whole &= self.kernel.read(*family, &mut |held| {
                    self.gone.held(&held, ruleset);
                    found.add(held);
                })?;
            }
            tries += 1;
            if whole || tries == MOST_TRIES {
                return Ok(found);
            }
        }
    }

    fn commit(&mut self, tx: Transaction) -> Result<Transaction, Error> {
        if !tx.is_empty() {
            self.kernel.commit(&tx)?;
            self.stats.longest_batch = self.stats.longest_batch.max(self.kernel.held());
            self.operations += tx.len();
            self.batches += 1;
        }
        Ok(tx)
    }
}

#[cfg(test)]
mod tests;
