//! The reporter of one pod: brings its status to the API and deletes the object when the pod is done.
//!
//! Owns the status that the API took last. Reports are a `watch`: only the newest matters, so a slow API coalesces them.
//! It sends only what differs, bound to the pod's uid, and tries again while the API is away; a pod that is gone or
//! another one of the same name ends it. It never decides what the status is. It ends by itself once its actor has and the
//! last report is brought; whoever stops the agent waits for that as long as it likes.

mod patch;

use crate::pod::PodId;
use k8s_openapi::api::core::v1 as api;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

/// What a pod's actor wants the API to show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub status: Option<Arc<api::PodStatus>>,
    /// Nothing is left of the pod on this node: remove the object once the status is taken.
    pub delete: bool,
}

/// Patches of all pods under way at once.
pub const PARALLEL: usize = 16;

const LIMIT: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// How far the API has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The last report that the API took as a whole.
    pub status: Option<Arc<api::PodStatus>>,
    /// The object is gone, by us or by others.
    pub gone: bool,
}

/// The actor's end.
pub struct Reporter {
    wanted: watch::Sender<Report>,
    pub taken: watch::Receiver<Taken>,
}

impl Reporter {
    /// `known` is the status in the API when the actor began.
    pub fn spawn(kube: kube::Client, slots: Arc<Semaphore>, id: PodId, known: api::PodStatus, tracker: &TaskTracker) -> Reporter {
        let (wanted, wants) = watch::channel(Report::default());
        let (took, taken) = watch::channel(Taken { status: None, gone: false });
        let task = Task { api: Api::namespaced(kube, &id.namespace), slots, id, known, took };
        tracker.spawn(task.run(wants));
        Reporter { wanted, taken }
    }

    /// Replaces what is wanted. A deletion once asked for stays.
    pub fn report(&self, status: &Arc<api::PodStatus>, delete: bool) {
        self.wanted.send_if_modified(|r| {
            let delete = delete || r.delete;
            let next = Report { status: Some(status.clone()), delete };
            let changed = *r != next;
            *r = next;
            changed
        });
    }

    /// Waits until the object is gone.
    pub async fn gone(&mut self) {
        // An ended reporter has nothing more to bring.
        let _ = self.taken.wait_for(|t| t.gone).await;
    }
}

struct Task {
    api: Api<api::Pod>,
    slots: Arc<Semaphore>,
    id: PodId,
    known: api::PodStatus,
    took: watch::Sender<Taken>,
}

enum Outcome {
    Taken,
    Gone,
    Again,
}

impl Task {
    async fn run(mut self, mut wants: watch::Receiver<Report>) {
        let mut pause = FIRST_PAUSE;
        loop {
            if wants.changed().await.is_err() {
                return;
            }
            loop {
                let report = wants.borrow_and_update().clone();
                match self.bring(&report).await {
                    Outcome::Taken => {
                        pause = FIRST_PAUSE;
                        self.took.send_replace(Taken { status: report.status, gone: false });
                        break;
                    }
                    Outcome::Gone => {
                        self.took.send_replace(Taken { status: report.status, gone: true });
                        return;
                    }
                    Outcome::Again => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LAST_PAUSE);
                    }
                }
            }
        }
    }

    async fn bring(&mut self, report: &Report) -> Outcome {
        let Ok(_slot) = self.slots.acquire().await else { return Outcome::Again };
        if let Some(status) = &report.status
            && let Some(patch) = patch::between(&self.id.uid, &self.known, status)
        {
            let params = PatchParams::default();
            let patch = Patch::Strategic(&patch);
            let sent = self.api.patch_status(&self.id.name, &params, &patch);
            match tokio::time::timeout(LIMIT, sent).await {
                Ok(Ok(pod)) => self.known = pod.status.unwrap_or_default(),
                Ok(Err(error)) => match self.refused(&error, "patch the status") {
                    Some(outcome) => return outcome,
                    // The API will not take this status, but it may still take the deletion.
                    None if report.delete => {}
                    None => return Outcome::Again,
                },
                Err(_) => return Outcome::Again,
            }
        }
        if report.delete { self.delete().await } else { Outcome::Taken }
    }

    async fn delete(&self) -> Outcome {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.id.uid.clone()), resource_version: None }),
            ..Default::default()
        };
        match tokio::time::timeout(LIMIT, self.api.delete(&self.id.name, &params)).await {
            // With finalizers the object stays; that is for their owners to end.
            Ok(Ok(_)) => Outcome::Gone,
            Ok(Err(error)) => self.refused(&error, "delete").unwrap_or(Outcome::Again),
            Err(_) => Outcome::Again,
        }
    }

    /// What a failure means; `None` for a refusal that will not change by itself.
    fn refused(&self, error: &kube::Error, what: &str) -> Option<Outcome> {
        match error {
            kube::Error::Api(s) if s.code == 404 => Some(Outcome::Gone),
            // Another pod has the name: the uid in the patch or the precondition does not match.
            kube::Error::Api(s) if s.code == 409 && s.message.to_ascii_lowercase().contains("uid") => Some(Outcome::Gone),
            kube::Error::Api(s) if s.code == 409 || s.code == 429 || s.code >= 500 => {
                tracing::debug!(pod = %self.id, code = s.code, message = s.message, "cannot {what} yet");
                Some(Outcome::Again)
            }
            kube::Error::Api(s) => {
                tracing::warn!(pod = %self.id, code = s.code, message = s.message, "the api refuses to {what}");
                None
            }
            error => {
                tracing::debug!(pod = %self.id, %error, "cannot {what} yet");
                Some(Outcome::Again)
            }
        }
    }
}

#[cfg(test)]
mod tests;
