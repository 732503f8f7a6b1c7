//! When a pod passed each step of its start: one log line when the API has taken its readiness.
//!
//! Owns the times only. A pod that was ready already when the agent started is not measured.

use crate::pod::observed::{Observed, State};
use crate::pod::plan::Action;
use crate::pod::{PodId, Time, elapsed};
use k8s_openapi::api::core::v1 as api;

/// Moments of one start; later ones of the same kind do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    pub seen: Option<Time>,
    pub sandbox: Option<Time>,
    pub volumes: Option<Time>,
    pub image: Option<Time>,
    pub start: Option<Time>,
    pub created: Option<Time>,
    pub started: Option<Time>,
    pub running_reported: Option<Time>,
    pub ready_reported: Option<Time>,
}

impl Timeline {
    pub fn new(now: Time, known: &api::PodStatus) -> Timeline {
        let fresh = known.start_time.is_none();
        Timeline { seen: fresh.then_some(now), ..Default::default() }
    }

    pub fn action_started(&mut self, action: &Action, now: Time) {
        if let Action::StartContainer { .. } = action {
            self.start.get_or_insert(now);
        }
    }

    pub fn action_done(&mut self, action: &Action, now: Time) {
        match action {
            Action::RunSandbox { .. } => {
                self.sandbox.get_or_insert(now);
            }
            Action::PrepareVolumes => {
                self.volumes.get_or_insert(now);
            }
            // The last of several counts.
            Action::PullImage { .. } if self.start.is_none() => self.image = Some(now),
            _ => {}
        }
    }

    /// By the runtime's own clock.
    pub fn observed(&mut self, o: &Observed) {
        for c in &o.containers {
            self.created.get_or_insert(c.created_at);
            if let (State::Running, Some(at)) = (&c.state, c.started_at) {
                self.started.get_or_insert(at);
            }
        }
    }

    /// The API took this status.
    pub fn reported(&mut self, id: &PodId, status: &api::PodStatus, now: Time) {
        let Some(seen) = self.seen else { return };
        if status.phase.as_deref() == Some("Running") {
            self.running_reported.get_or_insert(now);
        }
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        if !ready || self.ready_reported.is_some() {
            return;
        }
        self.ready_reported = Some(now);
        let since = |t: Option<Time>| t.map(|t| elapsed(seen, t).as_micros() as f64 / 1000.0);
        tracing::info!(
            pod = %id,
            sandbox_ms = since(self.sandbox),
            volumes_ms = since(self.volumes),
            image_ms = since(self.image),
            start_ms = since(self.start),
            created_ms = since(self.created),
            started_ms = since(self.started),
            running_reported_ms = since(self.running_reported),
            ready_reported_ms = since(self.ready_reported),
            "pod ready"
        );
    }
}
