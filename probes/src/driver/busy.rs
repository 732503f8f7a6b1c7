//! Commands in containers give way to pods that start: both cost the runtime most of what they cost, a few processes each time.
//!
//! Owns the count of what is under way, and how many commands begin at once. It only ever delays. Checks of containers that are
//! not well yet do not come here: they are part of a start themselves.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// However long the period.
const LONGEST: Duration = Duration::from_secs(1);
/// Between the steps of a start nothing is under way for a moment.
const REST: Duration = Duration::from_millis(100);
/// Within which a command has begun, if the host is not overloaded: from then on it is the container's own affair.
pub(super) const BEGINNING: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    count: usize,
    ended: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(super) struct Busy {
    under_way: Arc<watch::Sender<UnderWay>>,
    begins: Arc<Semaphore>,
}

/// Something is under way for as long as this lives.
#[derive(Debug)]
pub struct Precedence(Busy);

impl Busy {
    /// `begins`: how many commands may begin at once.
    pub(super) fn new(begins: usize) -> Busy {
        let under_way = Arc::new(watch::channel(UnderWay::default()).0);
        Busy { under_way, begins: Arc::new(Semaphore::new(begins.max(1))) }
    }

    pub(super) fn begin(&self) -> Precedence {
        self.under_way.send_modify(|u| u.count += 1);
        Precedence(self.clone())
    }

    /// Returns when it is a check's turn: in order and when nothing is under way, or when the check has waited for a tenth of
    /// its period. What is returned is to be held until the command has begun.
    pub(super) async fn turn(&self, period: Duration) -> Option<OwnedSemaphorePermit> {
        let until = Instant::now() + LONGEST.min(period / 10);
        let permit = tokio::time::timeout_at(until, self.begins.clone().acquire_owned()).await;
        let _ = tokio::time::timeout_at(until, self.idle()).await;
        permit.ok()?.ok()
    }

    async fn idle(&self) {
        let mut under_way = self.under_way.subscribe();
        loop {
            let now = *under_way.borrow_and_update();
            let rested = now.ended.map(|at| at + REST).filter(|end| *end > Instant::now());
            match (now.count, rested) {
                (0, None) => return,
                (0, Some(end)) => tokio::time::sleep_until(end).await,
                _ => drop(under_way.changed().await),
            }
        }
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|u| {
            u.count = u.count.saturating_sub(1);
            u.ended = Some(Instant::now());
        });
    }
}
