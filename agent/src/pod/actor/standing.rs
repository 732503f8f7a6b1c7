//! What the actor says when it is asked how its pod stands.

use super::Actor;
use crate::pod::explain::{self, Standing, UnderWay};
use crate::pod::health;
use tokio::sync::oneshot;

impl Actor {
    pub(super) fn tell(&self, ask: oneshot::Sender<Standing>) {
        // Whoever asked may have gone.
        let _ = ask.send(self.standing());
    }

    fn standing(&self) -> Standing {
        let observed = self.observe();
        let probes = self.verdicts.borrow().clone();
        let verdicts = health::verdicts(&probes, &self.carried, &observed, &self.lifecycle);
        let under_way: Vec<UnderWay<'_>> = self
            .running
            .values()
            .map(|r| UnderWay { action: &r.action, since: r.since, progress: r.progress.borrow().clone() })
            .collect();
        let runtime = self.shared.runtime.snapshot.borrow().clone();
        let taken = self.reporter.taken.borrow().clone();
        explain::explain(&explain::Inputs {
            desired: &self.desired,
            lifecycle: &self.lifecycle,
            entered: self.entered,
            begun: self.begun,
            observed: &observed,
            verdicts: &verdicts,
            probes: &probes,
            backoffs: &self.backoffs,
            under_way: &under_way,
            status: &self.status,
            runtime: runtime.stale.as_ref(),
            unsure: (self.unknown > 0).then_some(self.unsure),
            report: taken.trouble.as_ref(),
            now: crate::clock::now(),
        })
    }
}
