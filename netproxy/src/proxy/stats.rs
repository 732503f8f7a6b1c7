//! Numbers about the proxy's work. Plain values; the metrics page is made from them elsewhere.

use std::time::{Duration, SystemTime};

/// Upper bounds in seconds: 1 ms doubling, as kube-proxy's sync duration has them.
pub const BUCKETS: [f64; 15] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Observations at or below each bound, not cumulative; the last is for all above.
    pub counts: [u64; BUCKETS.len() + 1],
    pub sum: f64,
    pub count: u64,
}

impl Histogram {
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BUCKETS.iter().position(|b| seconds <= *b).unwrap_or(BUCKETS.len());
        self.counts[at] += 1;
        self.sum += seconds;
        self.count += 1;
    }
}

/// From a change of the cluster to the kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Programming {
    /// Observations at or below each bound, not cumulative; those above the last are only in `count`.
    pub counts: Vec<u64>,
    pub sum: f64,
    pub count: u64,
}

impl Programming {
    /// Upper bounds in seconds, as kube-proxy's network programming latency has them.
    pub fn bounds() -> impl Iterator<Item = f64> {
        let steps = |first: u32, step: u32, n: u32| (0..n).map(move |i| f64::from(first + i * step));
        [0.25, 0.5].into_iter().chain(steps(1, 1, 59)).chain(steps(60, 5, 12)).chain(steps(120, 30, 7))
    }

    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.counts.resize(Self::bounds().count(), 0);
        if let Some(count) = Self::bounds().position(|bound| seconds <= bound).and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }
}

#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Syncs that changed something in the kernel.
    pub syncs: u64,
    /// Those of them that compared everything with what the kernel had.
    pub full_syncs: u64,
    pub failures: u64,
    pub durations: Histogram,
    pub full_durations: Histogram,
    pub last_duration: Option<Duration>,
    pub last_sync: Option<SystemTime>,
    /// The latest failure, kept after later successes.
    pub last_error: Option<String>,
    pub services: usize,
    pub endpoints: usize,
    /// Elements and chains in the last transaction.
    pub last_operations: usize,
    pub operations: u64,
    /// Services the kernel would not take, by namespace/name.
    pub set_aside: Vec<String>,
    /// Objects of the API that could not be read.
    pub bad_objects: u64,
    pub flows_purged: u64,
    /// How often others changed our tables and they were put right.
    pub repairs: u64,
    /// Transactions of the last full sync.
    pub last_full_batches: usize,
    /// From the time that an EndpointSlice names as its last change.
    pub programming: Programming,
    /// Flows looked at for stale ones.
    pub purge_durations: Histogram,
    /// When something was last to be programmed.
    pub last_queued: Option<SystemTime>,
    pub service_changes: u64,
    pub endpoint_changes: u64,
    /// Those of them that are not in the kernel yet.
    pub service_changes_pending: u64,
    pub endpoint_changes_pending: u64,
    /// The longest that one transaction has kept the kernel.
    pub longest_batch: Duration,
}
