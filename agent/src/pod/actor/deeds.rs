//! What the actor has under way: it starts planned actions, cuts off what is no longer planned, and takes what they achieved.

use super::Actor;
use crate::clock;
use crate::events::Severity;
use crate::pod::execute::{self, Failed, Held, Job, Outcome, Shared};
use crate::pod::observed::Observed;
use crate::pod::plan::{Action, Key, Step};
use crate::pod::stage::{Progress, Stage};
use crate::pod::{PodId, Time};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError};
use tokio::time::Instant;

/// How long a runtime may go on with the start of a container that is to end.
const START_ENDS: Duration = Duration::from_secs(10);
/// Pause between tries to look at the pod while the runtime does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Running {
    pub action: Action,
    abort: AbortHandle,
    pub since: Time,
    pub progress: watch::Receiver<Progress>,
    /// Of a stop: when it is to kill, which may still come sooner.
    deadline: watch::Sender<Instant>,
}

pub(super) enum Done {
    Action {
        action: Box<Action>,
        result: Result<Outcome, Failed>,
    },
    /// Looked at the pod after an action was cut off.
    Looked,
}

impl Actor {
    /// Starts what is planned and not under way; cuts off what is no longer planned.
    pub(super) fn reconcile(&mut self, step: &Step, observed: &Arc<Observed>) {
        let now = self.now();
        // Only the pod's end cuts a start off: until then one that seems done by the runtime's snapshot still has its
        // network, its hook or its event to come.
        if !self.lifecycle.active() {
            let starting = self.running.iter().filter(|(_, r)| r.action.starts());
            let unwanted: Vec<Key> = starting.map(|(key, _)| key.clone()).collect();
            for key in unwanted {
                self.cut_off(&key);
            }
        }
        for action in &step.actions {
            let key = action.key();
            // What looks like the leftover of a failed start may be the next one under way.
            let busy = self.running.get(&Key::Start).is_some_and(|r| r.action.container() == action.container());
            if busy && matches!(action, Action::RemoveContainer { .. }) {
                continue;
            }
            if let Some(running) = self.running.get_mut(&key) {
                if let Some(sooner) = action.hastens(&running.action) {
                    running.action = action.clone();
                    running.deadline.send_replace(at(sooner, now));
                    continue;
                }
                if !action.supersedes(&running.action) {
                    continue;
                }
                self.cut_off(&key);
            }
            self.start(action.clone(), observed.clone());
        }
    }

    pub(super) fn cut_off(&mut self, key: &Key) {
        let Some(Running { abort, mut progress, .. }) = self.running.remove(key) else { return };
        // Its effect is unknown until the pod has been looked at.
        if self.unknown == 0 {
            self.unsure = self.now();
        }
        self.unknown += 1;
        // A runtime whose start is broken off reports a container that could not be started; one that runs is ended well.
        let starting = progress.borrow().stage == Stage::Starting;
        if !starting {
            abort.abort();
        }
        let (shared, id) = (self.shared.clone(), self.inputs.id.clone());
        self.tasks.spawn(async move {
            if starting {
                let started = progress.wait_for(|now| now.stage != Stage::Starting);
                let _ = tokio::time::timeout(START_ENDS, started).await;
                abort.abort();
            }
            look(&shared, &id).await;
            Done::Looked
        });
    }

    fn start(&mut self, action: Action, observed: Arc<Observed>) {
        if action.replaces()
            && let Action::StopContainer { id, .. } = &action
        {
            self.local.replaced.retain(|known| observed.containers.iter().any(|c| c.id == *known));
            self.local.replaced.insert(id.clone());
        }
        if matches!(action, Action::PrepareVolumes) {
            self.outdated = false;
        }
        let now = self.now();
        let (deadline, deadlines) = watch::channel(at(action.deadline().unwrap_or(now), now));
        let about = match &action {
            Action::StartContainer { name, .. } | Action::StartEphemeral { name, .. } => self.images.get(name).cloned(),
            _ => None,
        };
        let (progress, seen) = watch::channel(Progress { stage: Stage::Begun, since: now });
        let job = Job {
            progress,
            shared: self.shared.clone(),
            desired: self.desired.clone(),
            observed,
            prepared: self.prepared.clone(),
            image: about,
            held: self.held(&action),
            action: action.clone(),
            deadline: deadlines,
            leaving: self.traffic.leaving(),
        };
        tracing::trace!(pod = %self.desired.id, ?action, "start");
        self.timeline.action_started(&action, now);
        let key = action.key();
        let abort = self.tasks.spawn(async move {
            let result = execute::run(&job).await;
            if !matches!(job.action, Action::PullImage { .. } | Action::PrepareVolumes) {
                job.at(Stage::Looking);
                look(&job.shared, &job.desired.id).await;
            }
            Done::Action { action: Box::new(job.action), result }
        });
        self.keys.insert(abort.id(), key.clone());
        self.running.insert(key, Running { action, abort, since: now, progress: seen, deadline });
    }

    /// The failure that a pull has still to wait for.
    fn held(&self, action: &Action) -> Option<Held> {
        let Action::PullImage { container, .. } = action else { return None };
        let failure = self.backoffs.failures.get(&action.subject())?;
        let credentials = self.backoffs.tried_with(container, clock::now());
        Some(Held { reason: failure.reason.clone(), message: failure.message.clone(), credentials })
    }

    pub(super) fn done(&mut self, done: Result<(tokio::task::Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => (error.id(), None),
        };
        let key = self.keys.remove(&id);
        match done {
            Some(Done::Looked) => self.unknown = self.unknown.saturating_sub(1),
            Some(Done::Action { action, result }) => {
                // One that was cut off may have ended before that took hold: its key is another's by now.
                if let Some(key) = key.filter(|k| self.running.get(k).is_some_and(|r| r.abort.id() == id)) {
                    self.running.remove(&key);
                }
                self.action_done(&action, result);
            }
            None => {}
        }
    }

    fn action_done(&mut self, action: &Action, result: Result<Outcome, Failed>) {
        let now = self.now();
        let subject = action.subject();
        match result {
            Ok(Outcome::Resized(tried)) => self.resized(*tried, now),
            Ok(Outcome::StillHeld { container }) => self.backoffs.looked(&container, now),
            Ok(Outcome::NotPulled { container, image, failed, credentials }) => {
                tracing::debug!(pod = %self.desired.id, container, image, error = failed.message, "pull failed");
                self.backoffs.not_pulled(&container, now, (failed.reason, failed.message), (credentials, image));
                self.local.images.remove(&container);
            }
            Ok(outcome) => {
                self.backoffs.succeeded(&subject);
                self.timeline.action_done(action, now);
                self.achieved(action, outcome);
            }
            Err(failed) => {
                tracing::debug!(pod = %self.desired.id, ?action, reason = failed.reason, error = failed.message, "action failed");
                self.backoffs.failed(subject, now, failed.reason, failed.message);
                if let Action::PullImage { container, .. } = action {
                    self.local.images.remove(container);
                }
            }
        }
    }

    fn achieved(&mut self, action: &Action, outcome: Outcome) {
        match outcome {
            Outcome::Volumes(prepared) => {
                self.local.volumes_ready = true;
                self.local.recursive_read_only = prepared.recursive_read_only;
                self.local.renew_at = match self.outdated {
                    true => Some(clock::now()),
                    false => prepared.renew_at.and_then(|t| Time::try_from(t).ok()),
                };
                self.prepared = Arc::new(prepared);
                self.hold_objects();
            }
            Outcome::Image { container, attempt, facts } => {
                self.local.images.insert(container.clone(), attempt);
                self.images.insert(container, facts);
            }
            // Seen to where it came.
            Outcome::NotPulled { .. } | Outcome::StillHeld { .. } | Outcome::Resized(_) => {}
            Outcome::Done => match action {
                Action::StopSandbox { id } => drop(self.stopped.insert(id.clone())),
                Action::RemoveSandbox { id } => drop(self.stopped.remove(id)),
                Action::RemoveVolumes => self.local.volumes_removed = true,
                Action::RemoveCgroup => self.local.cgroup_removed = true,
                Action::RemoveFolders => self.local.folders_removed = true,
                _ => {}
            },
        }
    }
}

/// A moment by the clock that nobody sets.
fn at(t: Time, now: Time) -> Instant {
    Instant::now() + crate::pod::elapsed(now, t).min(execute::LONGEST)
}

/// Looks until the runtime has answered, and says once that it does not.
async fn look(shared: &Shared, id: &PodId) {
    let mut said = false;
    while let Err(error) = shared.runtime.refresh(id).await {
        tracing::debug!(pod = %id, %error, "cannot look at the pod in the runtime");
        if !std::mem::replace(&mut said, true) {
            shared.events.pod(id, None, Severity::Warning, "FailedSync", format!("error determining status: {error}"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
