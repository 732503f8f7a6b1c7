//! Ephemeral containers: how they are read from the API, and whether the container that one wants to look into is there. Pure.
//!
//! One is started once in the pod's life, beside everything else, and counts for nothing: neither for the phase nor for
//! readiness nor for the pod's end. It never decides when one starts (that is `plan`) nor what its status says (`status`).

use super::desired::{Container, Desired, Unsupported};
use super::observed::Observed;
use k8s_openapi::api::core::v1 as api;

/// What only an ephemeral container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ephemeral {
    /// The container of the pod whose processes it wants to see.
    pub target: Option<String>,
    /// The API knows that it ran: it never does again, even where the runtime has forgotten it.
    pub ran: bool,
    /// What of it cannot be done. It alone is not started then.
    pub refused: Vec<Unsupported>,
}

/// The fields that the API allows for one, as those of any other container.
pub fn as_container(e: &api::EphemeralContainer) -> api::Container {
    let e = e.clone();
    api::Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Default::default()
    }
}

/// Whether it ran, by the status that the API has of it.
pub fn ran(name: &str, status: Option<&api::PodStatus>) -> bool {
    let known = status.and_then(|s| s.ephemeral_container_statuses.as_ref());
    let known = known.into_iter().flatten().filter(|s| s.name == name);
    let states = known.flat_map(|s| [&s.state, &s.last_state]).flatten();
    states.into_iter().any(|s| s.running.is_some() || s.terminated.is_some())
}

/// Why one cannot look into its target now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    #[error("unable to find target container {0}")]
    Missing(String),
    #[error("target container {0} is not running")]
    Down(String),
}

impl NoTarget {
    pub fn reason(&self) -> &'static str {
        match self {
            NoTarget::Missing(_) => "CreateContainerConfigError",
            NoTarget::Down(_) => "CreateContainerError",
        }
    }
}

/// The id of the container whose processes `c` is to see. `None`: it asks for none, or sees those of the whole pod anyway.
pub fn target(d: &Desired, c: &Container, o: &Observed, sandbox: &str) -> Result<Option<String>, NoTarget> {
    let Some(name) = c.ephemeral.as_ref().and_then(|e| e.target.as_deref()) else { return Ok(None) };
    let found = o.newest_in(name, sandbox).ok_or_else(|| NoTarget::Missing(name.to_owned()))?;
    let spec = d.pod.spec.as_ref();
    if spec.is_some_and(|s| s.host_pid == Some(true) || s.share_process_namespace == Some(true)) {
        return Ok(None);
    }
    // The runtime would refuse: a process namespace lives only as long as its first process.
    if found.running() { Ok(Some(found.id.clone())) } else { Err(NoTarget::Down(name.to_owned())) }
}

#[cfg(test)]
mod tests;
