//! Stopping and removing what runs, and taking down what was prepared.

use super::{Failed, Job, Outcome, chain};
use crate::cgroup;
use crate::pod::desired::Role;
use crate::pod::plan::StopWhy;
use crate::pod::{Time, container, elapsed};
use std::path::{Component, Path};
use std::time::{Duration, Instant};

/// Every container gets at least this long between the signal and the kill.
const LEAST_GRACE: Duration = Duration::from_secs(2);

impl Job {
    pub(super) async fn stop_container(
        &self,
        name: &str,
        id: &str,
        deadline: Time,
        why: StopWhy,
        restarts: bool,
    ) -> Result<Outcome, Failed> {
        self.leave_rules(name, why).await;
        let mut grace = elapsed(Time::now(), deadline);
        if !self.again {
            self.normal(Some(name), "Killing", self.killing(name, why, restarts));
            grace = self.pre_stop(name, id, grace).await;
        }
        let stopped = self.shared.cri.stop_container(id, grace.max(LEAST_GRACE)).await;
        stopped.map_err(|e| {
            self.warn(None, "FailedKillPod", format!("error killing pod: failed to stop container {name:?}: {e}"));
            Failed::new("KillContainerError", e)
        })?;
        Ok(Outcome::Done)
    }

    fn killing(&self, name: &str, why: StopWhy, restarts: bool) -> String {
        let init = self.desired.container(name).is_some_and(|c| matches!(c.role, Role::Init | Role::Sidecar));
        let what = if init { "Init container" } else { "Container" };
        let cause = match why {
            StopWhy::PodEnds | StopWhy::SandboxGone | StopWhy::Duplicate => return format!("Stopping container {name}"),
            StopWhy::Unknown => return "Container is in \"unknown\" state, try killing it before restart".to_owned(),
            StopWhy::Liveness => format!("{what} {name} failed liveness probe"),
            StopWhy::Startup => format!("{what} {name} failed startup probe"),
            StopWhy::Changed => format!("{what} {name} definition changed"),
        };
        // Init containers always run again, and kubelet does not say so of them.
        if restarts && !init { format!("{cause}, will be restarted") } else { cause }
    }

    /// Neither hook nor signal reaches a container while new connections of this node are still led to it. That is a matter of
    /// milliseconds; rules that cannot be changed hold up nothing for long.
    async fn leave_rules(&self, name: &str, why: StopWhy) {
        if why == StopWhy::PodEnds
            && let Some(leaving) = self.leaving.clone()
            && !leaving.wait().await
        {
            tracing::warn!(pod = %self.desired.id, container = name, "ending a container that service rules may still lead to");
        }
    }

    /// Runs the hook within the grace; what is left of the grace is for the container.
    async fn pre_stop(&self, name: &str, id: &str, grace: Duration) -> Duration {
        let hook = self.desired.spec_of(name).and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref());
        let running = self.observed.containers.iter().any(|c| c.id == id && c.running());
        let Some(hook) = hook.filter(|_| running && !grace.is_zero()) else { return grace };
        let begun = Instant::now();
        match tokio::time::timeout(grace, self.hook(name, id, hook, grace)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = %self.desired.id, container = name, error, "preStop hook failed");
                self.warn(Some(name), "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => {
                tracing::warn!(pod = %self.desired.id, container = name, "preStop hook did not end within the grace period")
            }
        }
        grace.saturating_sub(begun.elapsed())
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<Outcome, Failed> {
        self.shared.cri.stop_pod_sandbox(id).await.map_err(|e| {
            self.warn(None, "FailedKillPod", format!("error killing pod: failed to stop sandbox {id:?}: {e}"));
            Failed::new("KillPodSandboxError", e)
        })?;
        Ok(Outcome::Done)
    }

    pub(super) async fn remove_container(&self, name: &str, id: &str) -> Result<Outcome, Failed> {
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

    fn pod_logs(&self) -> std::path::PathBuf {
        container::pod_logs(&self.shared.config.pod_logs_dir, &self.desired)
    }

    pub(super) fn cleanup_failed(&self, what: &str, error: impl std::error::Error) -> Failed {
        let message = chain(&error);
        tracing::warn!(pod = %self.desired.id, error = message, "cannot {what}");
        Failed { reason: "CleanupError", message }
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
