//! Stopping and removing what runs, and taking down what was prepared.

use super::{Failed, Job, Outcome, chain};
use crate::cgroup;
use crate::clock;
use crate::pod::desired::Role;
use crate::pod::observed::{Container, State};
use crate::pod::plan::StopWhy;
use crate::pod::stage::Stage;
use crate::pod::{after, container};
use ferrolet_cri::types as cri;
use std::path::{Component, Path};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Every container gets at least this long between the signal and the kill.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// No grace is longer: moments beyond it cannot be told.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One container on its way out.
pub(super) struct Ending<'a> {
    pub name: &'a str,
    pub id: &'a str,
    /// Containers by id that must be gone before it gets its signal.
    pub follows: &'a [String],
    /// As it is now.
    pub deadline: watch::Receiver<Instant>,
}

impl Ending<'_> {
    /// Waits until `what` is over, or the deadline has come. True: it is over.
    async fn in_time(&self, what: impl Future<Output = ()>) -> bool {
        let mut deadline = self.deadline.clone();
        let mut what = std::pin::pin!(what);
        loop {
            let until = *deadline.borrow_and_update();
            tokio::select! {
                biased;
                () = &mut what => return true,
                () = tokio::time::sleep_until(until) => return false,
                Ok(()) = deadline.changed() => {}
            }
        }
    }
}

impl Job {
    /// The hook at once, the signal in its turn, the kill at the deadline. A deadline that comes sooner meanwhile holds for
    /// whatever is under way.
    pub(super) async fn stop_container(
        &self,
        name: &str,
        id: &str,
        why: StopWhy,
        restarts: bool,
        follows: &[String],
    ) -> Result<Outcome, Failed> {
        self.leave_rules(name, why).await;
        self.normal(Some(name), "Killing", self.killing(name, why, restarts));
        let ending = Ending { name, id, follows, deadline: self.deadline.clone() };
        let ended = if self.runs(id) { self.end_container(&ending).await } else { self.signal(&ending).await };
        ended.map_err(|e| {
            self.warn(None, "FailedKillPod", format!("error killing pod: failed to stop container {name:?}: {e}"));
            Failed::new("KillContainerError", e)
        })?;
        Ok(Outcome::Done)
    }

    /// Ends one that runs.
    pub(super) async fn end_container(&self, ending: &Ending<'_>) -> Result<(), ferrolet_cri::Error> {
        let mut hook = std::pin::pin!(self.pre_stop(ending));
        let done = ending.in_time(&mut hook).await;
        if !done {
            tracing::warn!(pod = %self.desired.id, container = ending.name, "preStop hook did not end within the grace period");
        }
        if !ending.follows.is_empty() {
            self.at(Stage::Following);
            ending.in_time(self.gone(ending.follows)).await;
        }
        let mut stop = std::pin::pin!(self.signal(ending));
        if done {
            return stop.await;
        }
        // A hook that takes too long ends with its container.
        tokio::select! {
            stopped = &mut stop => stopped,
            () = hook => stop.await,
        }
    }

    fn runs(&self, id: &str) -> bool {
        let snapshot = self.shared.runtime.snapshot.borrow().clone();
        let pod = snapshot.pods.get(self.desired.id.uid.as_str());
        pod.is_some_and(|p| p.containers.iter().any(|c| c.id == id && c.running()))
    }

    /// Waits until none of these containers is live any more.
    async fn gone(&self, ids: &[String]) {
        let mut snapshot = self.shared.runtime.snapshot.clone();
        let uid = &self.desired.id.uid;
        let ended = snapshot.wait_for(|s| {
            let pod = s.pods.get(uid.as_str());
            !pod.is_some_and(|p| p.containers.iter().any(|c| c.live() && ids.contains(&c.id)))
        });
        let _ = ended.await;
    }

    /// The stop signal now, the kill when what is left of the grace has passed.
    async fn signal(&self, ending: &Ending<'_>) -> Result<(), ferrolet_cri::Error> {
        let mut deadline = ending.deadline.clone();
        loop {
            let grace = deadline.borrow_and_update().saturating_duration_since(Instant::now()).max(LEAST_GRACE);
            self.at(Stage::Signalled { until: after(clock::now(), grace) });
            tokio::select! {
                stopped = self.shared.cri.stop_container(ending.id, grace) => {
                    stopped?;
                    return self.never_started(ending.id).await;
                }
                // The runtime is asked again, with less.
                Ok(()) = deadline.changed() => {}
            }
        }
    }

    /// Runtimes have nothing to stop in a container that was created and never started: it stays as it is until it is removed.
    async fn never_started(&self, id: &str) -> Result<(), ferrolet_cri::Error> {
        let created = |c: &&Container| c.id == id && c.state == State::Created;
        if !self.observed.containers.iter().any(|c| created(&c)) {
            return Ok(());
        }
        match self.shared.cri.container_status(id, false).await {
            Ok(status) if status.state == cri::ContainerState::Created => self.shared.cri.remove_container(id).await,
            Ok(_) => Ok(()),
            Err(error) if error.class() == ferrolet_cri::Class::Gone => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn killing(&self, name: &str, why: StopWhy, restarts: bool) -> String {
        let init = self.desired.container(name).is_some_and(|c| matches!(c.role, Role::Init | Role::Sidecar));
        let what = if init { "Init container" } else { "Container" };
        let cause = match why {
            StopWhy::PodEnds | StopWhy::SandboxGone | StopWhy::Duplicate => return format!("Stopping container {name}"),
            // In kubelet's word.
            StopWhy::Together => return "killing".to_owned(),
            StopWhy::Unknown => return "Container is in \"unknown\" state, try killing it before restart".to_owned(),
            StopWhy::Liveness => format!("{what} {name} failed liveness probe"),
            StopWhy::Startup => format!("{what} {name} failed startup probe"),
            StopWhy::Changed => format!("{what} {name} definition changed"),
            StopWhy::Resized => return format!("Container {name} resize requires restart"),
        };
        // Init containers always run again, and kubelet does not say so of them.
        if restarts && !init { format!("{cause}, will be restarted") } else { cause }
    }

    /// Neither hook nor signal reaches a container while new connections of this node are still led to it. That is a matter of
    /// milliseconds; rules that cannot be changed hold up nothing for long.
    async fn leave_rules(&self, name: &str, why: StopWhy) {
        if why == StopWhy::PodEnds
            && let Some(leaving) = self.leaving.clone()
        {
            self.at(Stage::Rules);
            if leaving.wait().await {
                return;
            }
            tracing::warn!(pod = %self.desired.id, container = name, "ending a container that service rules may still lead to");
        }
    }

    /// Runs the hook, where there is time for one.
    async fn pre_stop(&self, ending: &Ending<'_>) {
        let hook = self.desired.spec_of(ending.name).and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref());
        let Some(hook) = hook.filter(|_| *ending.deadline.borrow() > Instant::now()) else { return };
        self.at(Stage::PreStop);
        if let Err(error) = self.hook(ending.name, ending.id, hook).await {
            tracing::warn!(pod = %self.desired.id, container = ending.name, error, "preStop hook failed");
            self.warn(Some(ending.name), "FailedPreStopHook", "PreStopHook failed");
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<Outcome, Failed> {
        self.shared.cri.stop_pod_sandbox(id).await.map_err(|e| {
            self.warn(None, "FailedKillPod", format!("error killing pod: failed to stop sandbox {id:?}: {e}"));
            Failed::new("KillPodSandboxError", e)
        })?;
        Ok(Outcome::Done)
    }

    pub(super) async fn remove_container(&self, name: &str, id: &str) -> Result<Outcome, Failed> {
        if self.observed.containers.iter().any(|c| c.id == id && c.state == State::Created) && self.came_up(id).await {
            return Err(Failed::new("RemoveContainerError", format!("container {name:?} was started by now")));
        }
        self.shared.cri.remove_container(id).await.map_err(|e| Failed::new("RemoveContainerError", e))?;
        let attempt = self.observed.containers.iter().find(|c| c.id == id).map(|c| c.attempt);
        // A container that never ran leaves its number to its successor, whose log must stay.
        let shared = self.observed.containers.iter().any(|c| c.id != id && c.name == name && Some(c.attempt) == attempt);
        if let Some(attempt) = attempt.filter(|_| !shared && plain(name)) {
            let log = self.pod_logs().join(container::log_path(name, attempt));
            remove_logs(&log).await;
        }
        Ok(Outcome::Done)
    }

    /// One whose start seemed to fail, but did not: the runtime ended it if it were removed. In a pod that ends it was told to.
    async fn came_up(&self, id: &str) -> bool {
        let status = self.shared.cri.container_status(id, false).await;
        status.is_ok_and(|status| status.state != cri::ContainerState::Created)
    }

    fn pod_logs(&self) -> std::path::PathBuf {
        container::pod_logs(&self.shared.config.pod_logs_dir, &self.desired.id)
    }

    pub(super) fn cleanup_failed(&self, what: &str, error: impl std::error::Error) -> Failed {
        let message = chain(&error);
        tracing::warn!(pod = %self.desired.id, error = message, "cannot {what}");
        Failed { reason: "CleanupError", message: format!("cannot {what}: {message}") }
    }

    pub(super) async fn remove_cgroup(&self) -> Result<Outcome, Failed> {
        let manager = &self.shared.cgroups;
        let uid = &self.desired.id.uid;
        let remove = async {
            if self.desired.pod.spec.is_some() {
                return manager.remove(&cgroup::plan(&self.desired.pod, manager.node())?).await;
            }
            // Its class went with its spec: look where it is.
            for found in manager.list().await?.iter().filter(|c| c.uid == *uid) {
                manager.remove(found).await?;
            }
            Ok(())
        };
        remove.await.map_err(|e| self.cleanup_failed("remove the pod's cgroup", e))?;
        Ok(Outcome::Done)
    }

    pub(super) async fn remove_folders(&self) -> Result<Outcome, Failed> {
        let id = &self.desired.id;
        // Names from the runtime's labels must not lead elsewhere.
        if !id.uid.is_empty() && [&id.uid, &id.namespace, &id.name].into_iter().all(|part| plain(part)) {
            let logs = self.pod_logs();
            match tokio::fs::remove_dir_all(&logs).await {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(self.cleanup_failed("remove the pod's logs", e)),
            }
            // A container that was stopped late may have written here after the volumes were removed.
            let removed = self.shared.volumes.teardown(&id.uid).await;
            removed.map_err(|e| self.cleanup_failed("remove the pod's folder", e))?;
        }
        Ok(Outcome::Done)
    }
}

/// A single plain component of a path.
fn plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.contains('/')
}

/// The log and what rotation made of it.
async fn remove_logs(log: &Path) {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().map(|n| n.to_string_lossy().into_owned())) else { return };
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file == name || file.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')) {
            let _ = tokio::fs::remove_file(entry.path()).await;
        }
    }
}
