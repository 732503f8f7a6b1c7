//! The reporter of one pod: brings its status to the API and deletes the object when the pod is done.
//!
//! Owns the status that the API took last. Reports are a `watch`: only the newest matters, so a slow API coalesces them.
//! It sends only what differs, bound to the pod's uid, and tries again while the API is away; a pod that is gone or
//! another one of the same name ends it. It never decides what the status is. It ends by itself once its actor has and the
//! last report is brought; whoever stops the agent waits for that as long as it likes.

mod patch;

use crate::api::watch::chain;
use crate::pod::PodId;
use crate::pod::explain::Trouble;
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
    /// The API does not take what is wanted. Nobody is woken for it: it is there when somebody asks.
    pub trouble: Option<Trouble>,
}

/// The object that the status is brought to.
pub enum Recipient {
    /// The pod's own, with the status in the API when the actor began.
    Own(Box<api::PodStatus>),
    /// The mirror of a static pod, while there is one. It comes and goes without the pod, and is never deleted from here.
    Mirror(watch::Receiver<Option<Arc<api::Pod>>>),
}

/// The actor's end.
pub struct Reporter {
    wanted: watch::Sender<Report>,
    pub taken: watch::Receiver<Taken>,
}

impl Reporter {
    pub fn spawn(kube: kube::Client, slots: Arc<Semaphore>, id: PodId, to: Recipient, tracker: &TaskTracker) -> Reporter {
        let (wanted, wants) = watch::channel(Report::default());
        let (took, taken) = watch::channel(Taken { status: None, gone: false, trouble: None });
        let (known, mirror) = match to {
            Recipient::Own(known) => (*known, None),
            Recipient::Mirror(mirror) => (api::PodStatus::default(), Some(mirror)),
        };
        let task = Task { api: Api::namespaced(kube, &id.namespace), slots, id, known, mirror, took };
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
    mirror: Option<watch::Receiver<Option<Arc<api::Pod>>>>,
    took: watch::Sender<Taken>,
}

enum Outcome {
    Taken,
    Gone,
    /// Not now, and why.
    Again(String),
    /// There is no mirror to bring it to.
    Nowhere,
}

impl Task {
    async fn run(mut self, mut wants: watch::Receiver<Report>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let wanted = tokio::select! {
                changed = wants.changed() => changed.is_ok(),
                () = other(&mut self.mirror) => true,
            };
            if !wanted {
                return;
            }
            loop {
                let report = wants.borrow_and_update().clone();
                match self.bring(&report).await {
                    Outcome::Taken => {
                        pause = FIRST_PAUSE;
                        self.took.send_replace(Taken { status: report.status, gone: false, trouble: None });
                        break;
                    }
                    Outcome::Gone => {
                        self.took.send_replace(Taken { status: report.status, gone: true, trouble: None });
                        return;
                    }
                    Outcome::Nowhere => {
                        self.took.send_if_modified(|taken| {
                            taken.trouble = None;
                            false
                        });
                        break;
                    }
                    Outcome::Again(why) => {
                        self.took.send_if_modified(|taken| {
                            let since = taken.trouble.take().map_or_else(crate::clock::now, |before| before.since);
                            taken.trouble = Some(Trouble { since, why });
                            false
                        });
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LAST_PAUSE);
                    }
                }
            }
        }
    }

    async fn bring(&mut self, report: &Report) -> Outcome {
        if self.mirror.is_some() {
            return self.reflect(report).await;
        }
        let Ok(_slot) = self.slots.acquire().await else { return Outcome::Again("the agent is stopping".to_owned()) };
        if let Some(status) = &report.status
            && let Some(patch) = patch::between(&self.id.uid, &self.known, status)
        {
            let params = PatchParams::default();
            let patch = Patch::Strategic(&patch);
            let sent = self.api.patch_status(&self.id.name, &params, &patch);
            match tokio::time::timeout(LIMIT, sent).await {
                Ok(Ok(pod)) => self.known = pod.status.unwrap_or_default(),
                Ok(Err(error)) => match self.refused(&error, "patch the status") {
                    Ok(outcome) => return outcome,
                    // The API will not take this status, but it may still take the deletion.
                    Err(_) if report.delete => {}
                    Err(why) => return Outcome::Again(why),
                },
                Err(_) => return no_answer(),
            }
        }
        if report.delete { self.delete().await } else { Outcome::Taken }
    }

    /// Brings the status to the mirror of the moment. The pod's own end waits for nobody.
    async fn reflect(&mut self, report: &Report) -> Outcome {
        if report.delete {
            return Outcome::Gone;
        }
        let mirror = self.mirror.as_mut().and_then(|m| m.borrow_and_update().clone());
        let (Some(mirror), Some(status)) = (mirror, &report.status) else { return Outcome::Nowhere };
        let uid = mirror.metadata.uid.clone().unwrap_or_default();
        if uid != self.id.uid {
            self.id.uid = uid;
            self.known = mirror.status.clone().unwrap_or_default();
        }
        let Some(patch) = patch::between(&self.id.uid, &self.known, status) else { return Outcome::Taken };
        let Ok(_slot) = self.slots.acquire().await else { return Outcome::Again("the agent is stopping".to_owned()) };
        let (params, patch) = (PatchParams::default(), Patch::Strategic(&patch));
        match tokio::time::timeout(LIMIT, self.api.patch_status(&self.id.name, &params, &patch)).await {
            Ok(Ok(pod)) => {
                self.known = pod.status.unwrap_or_default();
                Outcome::Taken
            }
            // It went meanwhile; another one will come.
            Ok(Err(error)) => match self.refused(&error, "patch the status of the mirror") {
                Ok(Outcome::Gone) => Outcome::Nowhere,
                other => other.unwrap_or_else(Outcome::Again),
            },
            Err(_) => no_answer(),
        }
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
            Ok(Err(error)) => self.refused(&error, "delete").unwrap_or_else(Outcome::Again),
            Err(_) => no_answer(),
        }
    }

    /// What a failure means; `Err` with the reason for a refusal that will not change by itself.
    fn refused(&self, error: &kube::Error, what: &str) -> Result<Outcome, String> {
        match error {
            kube::Error::Api(s) if s.code == 404 => Ok(Outcome::Gone),
            // Another pod has the name: the uid in the patch or the precondition does not match.
            kube::Error::Api(s) if s.code == 409 && s.message.to_ascii_lowercase().contains("uid") => Ok(Outcome::Gone),
            // The same where that other pod is another node's: a pod never changes its node, so this cannot be of ours.
            kube::Error::Api(s) if s.code == 403 && s.message.contains("with spec.nodeName set to itself") => Ok(Outcome::Gone),
            kube::Error::Api(s) if s.code == 409 || s.code == 429 || s.code >= 500 => {
                tracing::debug!(pod = %self.id, code = s.code, message = s.message, "cannot {what} yet");
                Ok(Outcome::Again(format!("cannot {what}: {} ({})", s.message, s.code)))
            }
            kube::Error::Api(s) => {
                tracing::warn!(pod = %self.id, code = s.code, message = s.message, "the api refuses to {what}");
                Err(format!("it refuses to {what}: {} ({})", s.message, s.code))
            }
            error => {
                tracing::debug!(pod = %self.id, %error, "cannot {what} yet");
                Ok(Outcome::Again(format!("cannot {what}: {}", chain(error))))
            }
        }
    }
}

fn no_answer() -> Outcome {
    Outcome::Again(format!("no answer within {} s", LIMIT.as_secs()))
}

/// Returns when there is another mirror, or none any more.
async fn other(mirror: &mut Option<watch::Receiver<Option<Arc<api::Pod>>>>) {
    let changed = match mirror {
        Some(mirror) => mirror.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
