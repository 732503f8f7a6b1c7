//! How the checks of a probe have ended, for metrics.

use super::{Entry, Id, Kind};
use std::collections::BTreeMap;
use std::time::Duration;

/// Seconds, the usual ones of Prometheus; what took longer is in none.
pub const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Of one probe, over all containers of its name. Checks that could not be made say nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub successful: u64,
    pub failed: u64,
    /// Of the successful ones: how many took no longer than each of the bounds and longer than the one before, and all together.
    pub within: [u32; BUCKETS.len()],
    pub seconds: f64,
}

impl Tally {
    pub(super) fn count(&mut self, success: bool, took: Duration) {
        if !success {
            self.failed += 1;
            return;
        }
        let took = took.as_secs_f64();
        self.successful += 1;
        self.seconds += took;
        if let Some(place) = BUCKETS.iter().position(|bound| took <= *bound) {
            self.within[place] += 1;
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tallied {
    pub pod_uid: String,
    pub container: String,
    pub kind: Kind,
    pub tally: Tally,
}

/// Those that have been made at least once.
pub(super) fn all(machines: &BTreeMap<Id, Entry>) -> Vec<Tallied> {
    let made = machines.values().filter(|e| e.tally != Tally::default());
    made.map(|e| Tallied { pod_uid: e.pod_uid.clone(), container: e.container.clone(), kind: e.kind, tally: e.tally }).collect()
}
