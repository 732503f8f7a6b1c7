//! What the actor does when somebody sets the clock: nothing that waits does so for longer or shorter.

use super::Actor;
use crate::clock;
use crate::pod::Time;
use crate::pod::lifecycle::Lifecycle;
use crate::pod::observed::{Observed, State};
use crate::pod::plan::Action;
use jiff::SignedDuration;
use std::sync::Arc;

impl Actor {
    /// Now; what the actor keeps is moved first if the clock was. Whatever is computed from it is kept after this.
    pub(super) fn now(&mut self) -> Time {
        let now = clock::now();
        let by = self.clock.until(now);
        if !by.is_zero() {
            tracing::debug!(pod = %self.inputs.id, seconds = by.as_secs(), "the clock was set");
            self.shift(by);
        }
        now
    }

    fn shift(&mut self, by: SignedDuration) {
        let shift = |t: &mut Time| *t = clock::moved(*t, by);
        self.moved = self.moved.saturating_add(by);
        self.backoffs.shift(by);
        [&mut self.begun, &mut self.entered, &mut self.unsure].into_iter().for_each(shift);
        self.local.renew_at.iter_mut().for_each(shift);
        if let Lifecycle::Terminating { deadline, .. } = &mut self.lifecycle {
            shift(deadline);
        }
        for running in self.running.values_mut() {
            shift(&mut running.since);
            if let Action::StopContainer { deadline, .. } = &mut running.action {
                shift(deadline);
            }
        }
        let mut desired = crate::pod::Desired::clone(&self.desired);
        desired.started = self.started();
        self.desired = Arc::new(desired);
    }

    /// When the pod began, by the clock of now: its deadline counts the time that passes, not what somebody sets.
    pub(super) fn started(&self) -> Option<Time> {
        self.status.start_time.as_ref().map(|t| clock::moved(t.0, self.moved))
    }

    /// Delays after an end begin when the runtime says it was, but never later than it was seen.
    pub(super) fn note_ends(&mut self, observed: &Observed, now: Time) {
        let ended = |id: &String| observed.containers.iter().any(|c| c.id == *id && !c.live());
        self.backoffs.ends.retain(|id, _| ended(id));
        for c in &observed.containers {
            if let State::Exited { finished_at, .. } = c.state {
                self.backoffs.ends.entry(c.id.clone()).or_insert(finished_at.min(now));
            }
        }
    }
}
