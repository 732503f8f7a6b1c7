//! Commands in containers give way to pods that start: both cost the runtime most of what they cost, a few processes each time.
//!
//! Owns the count of what is under way. It only ever delays, and not for long.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// However long the period.
const LONGEST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct Busy {
    under_way: Arc<watch::Sender<usize>>,
}

/// Something is under way for as long as this lives.
#[derive(Debug)]
pub struct Precedence(Busy);

impl Busy {
    pub(super) fn new() -> Busy {
        Busy { under_way: Arc::new(watch::channel(0).0) }
    }

    pub(super) fn begin(&self) -> Precedence {
        self.under_way.send_modify(|n| *n += 1);
        Precedence(self.clone())
    }

    /// Returns when nothing is under way, or when a check with this period has waited enough.
    pub(super) async fn give_way(&self, period: Duration) {
        let mut count = self.under_way.subscribe();
        let _ = tokio::time::timeout(LONGEST.min(period / 10), count.wait_for(|n| *n == 0)).await;
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|n| *n = n.saturating_sub(1));
    }
}
