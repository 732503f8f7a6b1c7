//! Lifecycle hooks: a command, an HTTP request, or a pause.

use super::Job;
use crate::pod::health;
use ferrolet_probes::HookAnswer;
use k8s_openapi::api::core::v1 as api;
use std::time::Duration;

/// How much of each of a hook's outputs is told.
const SAID_MAX: usize = 1024;

impl Job {
    /// Runs a hook for as long as it takes. The error is a whole message, which may hold what the hook wrote.
    pub(super) async fn hook(&self, name: &str, id: &str, hook: &api::LifecycleHandler) -> Result<(), String> {
        let failed = |what: String, error: &str| {
            format!("{what} for Container {name:?} in Pod \"{}\" failed - error: {error}", self.desired.id)
        };
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        if let Some(get) = &hook.http_get {
            let path = get.path.as_deref().unwrap_or_default();
            return self.http_hook(name, get).await.map_err(|e| failed(format!("HTTP lifecycle hook ({path})"), &e));
        }
        let Some(exec) = &hook.exec else { return Ok(()) };
        let command = exec.command.clone().unwrap_or_default();
        self.exec_hook(id, &command).await.map_err(|e| failed(format!("Exec lifecycle hook ([{}])", command.join(" ")), &e))
    }

    async fn exec_hook(&self, id: &str, command: &[String]) -> Result<(), String> {
        let output = self.shared.cri.exec_sync(id, command, Duration::ZERO).await.map_err(|e| e.to_string())?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let said = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SAID_MAX)]).into_owned();
        let (out, err) = (said(&output.stdout), said(&output.stderr));
        let command = command.join(" ");
        Err(format!("command '{command}' exited with {}: {err}, message: {:?}", output.exit_code, out + &err))
    }

    async fn http_hook(&self, name: &str, get: &api::HTTPGetAction) -> Result<(), String> {
        let spec = self.desired.spec_of(name).ok_or("the container is not in the pod")?;
        let ip = self.address().ok_or("the pod has no address")?;
        let request = health::http_check(get, spec, Some(&ip))?;
        let answer = ferrolet_probes::http_hook(&request, None).await?;
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
        let newest =
            snapshot.pods.get(self.desired.id.uid.as_str()).and_then(|p| p.sandboxes.iter().max_by_key(|s| s.attempt)).cloned();
        newest.or_else(|| self.observed.newest_sandbox().cloned())?.ips.first().cloned()
    }
}
