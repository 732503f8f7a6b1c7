//! When to probe next and what the results amount to. Pure: time comes in as a value.
//!
//! Properties held (see the tests): the verdict changes only when a full threshold of equal results in a row is reached;
//! nothing is due before the initial delay or, behind a startup probe, before that has succeeded; after a liveness failure
//! or any startup verdict nothing is probed until there is another container (and so another machine).

use crate::spec::{Kind, Spec};
use std::time::Duration;

/// Monotonic time since an epoch of the caller's choosing.
pub type Time = Duration;

/// What a probe is known to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Unknown,
    Success,
    Failure,
}

impl State {
    /// What holds before the first verdict: not started, not ready, alive.
    pub fn initial(kind: Kind) -> State {
        match kind {
            Kind::Startup => State::Unknown,
            Kind::Readiness => State::Failure,
            Kind::Liveness => State::Success,
        }
    }
}

/// What one check told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Success,
    Failure,
    /// The check itself could not be made: says nothing about the container and is not counted.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Behind a startup probe; not before `earliest` even then.
    Gated {
        earliest: Time,
    },
    Waiting {
        due: Time,
    },
    Checking {
        planned: Time,
    },
    /// Decided for this container.
    Held,
}

/// The state of one probe of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    kind: Kind,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    state: State,
    phase: Phase,
    /// Until then a failure says only that the container has just begun.
    young_until: Time,
    /// The last counted reading and how many times in a row it came.
    run: Option<(Reading, u32)>,
}

impl Machine {
    /// `started` is the container's start; `not_before` lets the caller spread first checks; `carried` is a verdict known
    /// from before (of the same container); `gated` says that a startup probe has yet to succeed.
    pub fn new(kind: Kind, spec: &Spec, started: Time, not_before: Time, carried: Option<State>, gated: bool) -> Machine {
        let earliest = started.saturating_add(spec.initial_delay).max(not_before);
        let state = carried.unwrap_or(State::initial(kind));
        let phase = match (kind, carried) {
            (Kind::Startup, Some(State::Success | State::Failure)) | (Kind::Liveness, Some(State::Failure)) => Phase::Held,
            (Kind::Startup, _) => Phase::Waiting { due: earliest },
            _ if gated => Phase::Gated { earliest },
            _ => Phase::Waiting { due: earliest },
        };
        Machine {
            kind,
            // A period of nothing would spin.
            period: spec.period.max(Duration::from_millis(1)),
            success_threshold: spec.success_threshold.max(1),
            failure_threshold: spec.failure_threshold.max(1),
            state,
            phase,
            young_until: started.saturating_add(spec.initial_delay).saturating_add(spec.period),
            run: None,
        }
    }

    /// Whether a failure now is not held against the container. The first check comes as soon as it may, so that success is known at
    /// once; kubelet's comes up to a period later, and what is up by then must not be ended for having been asked earlier.
    pub fn forgives(&self, now: Time) -> bool {
        self.kind != Kind::Readiness && now < self.young_until
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// When the next check is due; `None` while one runs, behind a startup probe, or when all is decided.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Gated { .. } | Phase::Checking { .. } | Phase::Held => None,
        }
    }

    /// The container's startup probe has succeeded: the first check follows at once, unless the initial delay still runs.
    pub fn open_gate(&mut self, now: Time) {
        if let Phase::Gated { earliest } = self.phase {
            self.phase = Phase::Waiting { due: earliest.max(now) };
        }
    }

    /// Takes the due check in hand; false if none is due, and then none may be made.
    pub fn begin(&mut self, now: Time) -> bool {
        match self.phase {
            Phase::Waiting { due } if due <= now => {
                self.phase = Phase::Checking { planned: due.max(now.saturating_sub(self.period)) };
                true
            }
            _ => false,
        }
    }

    /// Counts a check's result; the new verdict if this changed it. The next check is a period after this one was planned,
    /// or now if it took longer than that.
    pub fn on_result(&mut self, now: Time, reading: Reading) -> Option<State> {
        let Phase::Checking { planned } = self.phase else { return None };
        self.phase = Phase::Waiting { due: planned.saturating_add(self.period).max(now) };
        let (verdict, threshold) = match reading {
            Reading::Unknown => return None,
            Reading::Success => (State::Success, self.success_threshold),
            Reading::Failure => (State::Failure, self.failure_threshold),
        };
        let count = match self.run {
            Some((last, count)) if last == reading => count.saturating_add(1),
            _ => 1,
        };
        self.run = Some((reading, count));
        if count < threshold {
            return None;
        }
        if self.kind == Kind::Startup || (self.kind == Kind::Liveness && verdict == State::Failure) {
            self.phase = Phase::Held;
        }
        if self.state == verdict {
            return None;
        }
        self.state = verdict;
        Some(verdict)
    }
}

#[cfg(test)]
mod tests;
