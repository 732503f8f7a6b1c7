//! Lifecycle hooks: a command, an HTTP request, or a pause.

use super::Job;
use crate::pod::health;
use ferrolet_probes::HookAnswer;
use k8s_openapi::api::core::v1 as api;
use std::time::Duration;

impl Job {
    /// Runs a hook; a zero limit is none.
    pub(super) async fn hook(&self, name: &str, id: &str, hook: &api::LifecycleHandler, limit: Duration) -> Result<(), String> {
        if let Some(sleep) = &hook.sleep {
            let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(if limit.is_zero() { wanted } else { wanted.min(limit) }).await;
            return Ok(());
        }
        if let Some(get) = &hook.http_get {
            return self.http_hook(name, get, limit).await;
        }
        let Some(exec) = &hook.exec else { return Ok(()) };
        let command = exec.command.clone().unwrap_or_default();
        let output = self.shared.cri.exec_sync(id, &command, limit).await.map_err(|e| e.to_string())?;
        if output.exit_code == 0 { Ok(()) } else { Err(format!("the command ended with code {}", output.exit_code)) }
    }

    async fn http_hook(&self, name: &str, get: &api::HTTPGetAction, limit: Duration) -> Result<(), String> {
        let spec = self.desired.spec_of(name).ok_or("the container is not in the pod")?;
        let ip = self.address().ok_or("the pod has no address")?;
        let request = health::http_check(get, spec, &ip)?;
        let answer = ferrolet_probes::http_hook(&request, (!limit.is_zero()).then_some(limit)).await?;
        if let HookAnswer::InTheClear { server } = answer {
            let message = format!("request to HTTPS lifecycle hook {server} got HTTP response, retry with HTTP succeeded");
            self.warn(None, "LifecycleHTTPFallback", message);
        }
        Ok(())
    }

    /// As it is now: the observation that the action was made with may be older than the sandbox.
    fn address(&self) -> Option<String> {
        if self.desired.host_network {
            return self.shared.node.ips.first().map(ToString::to_string);
        }
        let snapshot = self.shared.runtime.snapshot.borrow().clone();
        let newest = snapshot.pods.get(&self.desired.id.uid).and_then(|p| p.sandboxes.iter().max_by_key(|s| s.attempt)).cloned();
        newest.or_else(|| self.observed.newest_sandbox().cloned())?.ips.first().cloned()
    }
}
