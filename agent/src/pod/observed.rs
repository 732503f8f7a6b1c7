//! What is there: the runtime's sandboxes and containers of one pod, and what the agent itself has prepared for it.
//!
//! Owns these types and the questions asked of them. It never talks to the runtime; `observe` fills it.

use crate::pod::Time;
use crate::pod::resize::Resized;
use crate::pod::resources::Resources;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Time,
    pub host_network: bool,
    /// Primary address first; empty for the host's network.
    pub ips: Vec<String>,
}

/// The exit code of a container of which nobody knows how it ended.
pub const UNKNOWN_CODE: i32 = 137;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited { code: i32, finished_at: Time, reason: String, message: String },
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    /// The restart count, from the annotation or else the attempt.
    pub attempt: u32,
    pub state: State,
    pub created_at: Time,
    pub started_at: Option<Time>,
    pub image: String,
    /// By digest where the runtime knows it.
    pub image_id: String,
    /// What it was made from; `None` where something else made it.
    pub hash: Option<String>,
    /// How long to wait before its successor, written down when it was created.
    pub backoff: Duration,
    /// How often all containers of the pod had been restarted together when it was made; see `round`.
    pub round: u32,
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// Where the runtime knows it.
    pub stop_signal: Option<String>,
    /// What it was started with; `None` where something else made it.
    pub resources: Option<Resources>,
}

impl Container {
    /// Anything but exited may still run processes.
    pub fn live(&self) -> bool {
        !matches!(self.state, State::Exited { .. })
    }

    pub fn running(&self) -> bool {
        self.state == State::Running
    }

    pub fn exit_code(&self) -> Option<i32> {
        match self.state {
            State::Exited { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// What the agent itself has done for the pod in this process; after a restart it is done again, harmlessly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// No new pod starts before this.
    pub gate_open: bool,
    pub volumes_ready: bool,
    /// The pod's runtime handler can make mounts read-only with all that is mounted below; only known where a mount asks for it.
    pub recursive_read_only: bool,
    /// When volumes want to be written anew (tokens).
    pub renew_at: Option<Time>,
    /// By container: the attempt for which the image was made sure of.
    pub images: BTreeMap<String, u32>,
    /// Containers by id that were told to end in order to run again.
    pub replaced: BTreeSet<String>,
    /// Sandboxes by id that ended without having been told to, or not as they should: what they hold, their address for
    /// one, is free once they have been told.
    pub lost: BTreeSet<String>,
    pub volumes_removed: bool,
    pub cgroup_removed: bool,
    pub folders_removed: bool,
    pub resize: Resized,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Any order.
    pub sandboxes: Vec<Sandbox>,
    /// Any order.
    pub containers: Vec<Container>,
    pub local: Local,
    /// The runtime does not answer; absence means nothing.
    pub stale: bool,
}

impl Observed {
    /// The sandbox of the last attempt.
    pub fn newest_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().max_by_key(|s| (s.attempt, s.created_at, s.id.as_str()))
    }

    /// Those that are to be told to end before another takes their place or the pod is over.
    pub fn to_stop(&self) -> impl Iterator<Item = &Sandbox> {
        self.sandboxes.iter().filter(|s| s.ready || self.local.lost.contains(&s.id))
    }

    /// The one sandbox, with its network, in which containers can be started.
    pub fn usable_sandbox(&self, host_network: bool) -> Option<&Sandbox> {
        let ready = self.sandboxes.iter().filter(|s| s.ready).count();
        self.newest_sandbox().filter(|s| {
            let addressed = s.host_network || !s.ips.is_empty();
            s.ready && ready == 1 && s.host_network == host_network && addressed
        })
    }

    pub fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// The last instance of a container, in whichever sandbox.
    pub fn newest<'a>(&'a self, name: &'a str) -> Option<&'a Container> {
        self.instances(name).max_by_key(|c| (c.attempt, c.created_at, c.id.as_str()))
    }

    /// The last instance of a container in this sandbox.
    pub fn newest_in<'a>(&'a self, name: &'a str, sandbox: &str) -> Option<&'a Container> {
        self.instances(name).filter(|c| c.sandbox_id == sandbox).max_by_key(|c| (c.attempt, c.created_at, c.id.as_str()))
    }

    pub fn live(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.live())
    }

    pub fn nothing_in_runtime(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

/// What the probes say of one container instance. `None`: no answer yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub container_id: String,
    pub startup: Option<bool>,
    pub readiness: Option<bool>,
    pub liveness: Option<bool>,
}

/// By container name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts(pub BTreeMap<String, Verdict>);

impl Verdicts {
    /// The verdict on exactly this instance.
    pub fn of(&self, container: &Container) -> Option<&Verdict> {
        self.0.get(&container.name).filter(|v| v.container_id == container.id)
    }
}
