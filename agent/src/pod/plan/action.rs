//! What a plan may ask for: the whole vocabulary of actions, and which of them exclude each other. Pure.

use crate::pod::Time;
use crate::pod::backoff::Subject;
use std::time::Duration;

/// Why a container is stopped; decides the message of the `Killing` event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopWhy {
    PodEnds,
    Liveness,
    Startup,
    Changed,
    /// It is to have other resources, and asks to be restarted for that.
    Resized,
    /// All containers of the pod are restarted together.
    Together,
    /// Its sandbox died or was replaced.
    SandboxGone,
    /// The runtime does not know whether it runs.
    Unknown,
    /// A second live instance; must never happen, and is ended if it does.
    Duplicate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    PrepareVolumes,
    RunSandbox {
        attempt: u32,
    },
    PullImage {
        container: String,
        attempt: u32,
    },
    /// Create and start.
    StartContainer {
        name: String,
        sandbox_id: String,
        attempt: u32,
        backoff: Duration,
        round: u32,
    },
    /// Start what an interrupted attempt has created.
    StartCreated {
        name: String,
        id: String,
    },
    /// Create and start one of those that run beside the others.
    StartEphemeral {
        name: String,
        sandbox_id: String,
        /// The container whose processes it is to see, by id.
        target: Option<String>,
        /// What an interrupted attempt has created: only started.
        created: Option<String>,
    },
    /// Its hook at once; the signal once those it follows are gone, or at the deadline.
    StopContainer {
        name: String,
        id: String,
        deadline: Time,
        why: StopWhy,
        restarts: bool,
        /// Containers by id.
        follows: Vec<String>,
    },
    RemoveContainer {
        name: String,
        id: String,
    },
    /// Give what runs, and the pod's cgroup, what was granted.
    Resize,
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    RemoveVolumes,
    RemoveCgroup,
    /// The pod's folder and its logs.
    RemoveFolders,
}

/// At most one action of a key is under way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Volumes,
    Sandbox,
    Pull(String),
    /// One for the whole pod: containers start in order.
    Start,
    /// An ephemeral container by name: nothing waits for it, and it waits for nothing that starts.
    StartEphemeral(String),
    /// A container or sandbox by id.
    Stop(String),
    Resize,
    Cgroup,
    Folders,
}

impl Action {
    pub fn key(&self) -> Key {
        match self {
            Action::PrepareVolumes | Action::RemoveVolumes => Key::Volumes,
            Action::RunSandbox { .. } => Key::Sandbox,
            Action::PullImage { container, .. } => Key::Pull(container.clone()),
            Action::StartContainer { .. } | Action::StartCreated { .. } => Key::Start,
            Action::StartEphemeral { name, .. } => Key::StartEphemeral(name.clone()),
            Action::StopContainer { id, .. }
            | Action::RemoveContainer { id, .. }
            | Action::StopSandbox { id }
            | Action::RemoveSandbox { id } => Key::Stop(id.clone()),
            Action::Resize => Key::Resize,
            Action::RemoveCgroup => Key::Cgroup,
            Action::RemoveFolders => Key::Folders,
        }
    }

    /// What its failure delays.
    pub fn subject(&self) -> Subject {
        match self {
            Action::PrepareVolumes => Subject::Volumes,
            Action::RunSandbox { .. } => Subject::Sandbox,
            Action::PullImage { container, .. } => Subject::Image(container.clone()),
            Action::StartContainer { name, .. } | Action::StartCreated { name, .. } | Action::StartEphemeral { name, .. } => {
                Subject::Start(name.clone())
            }
            Action::StopContainer { id, .. }
            | Action::RemoveContainer { id, .. }
            | Action::StopSandbox { id }
            | Action::RemoveSandbox { id } => Subject::Stop(id.clone()),
            Action::Resize => Subject::Resize,
            Action::RemoveVolumes | Action::RemoveCgroup | Action::RemoveFolders => Subject::Cleanup,
        }
    }

    /// The deadline of a stop that is to hold for the one under way too: it is due sooner.
    pub fn hastens(&self, running: &Action) -> Option<Time> {
        match (self, running) {
            (Action::StopContainer { deadline: new, .. }, Action::StopContainer { deadline: old, .. }) => {
                (new < old).then_some(*new)
            }
            _ => None,
        }
    }

    /// Whether this one must replace the one under way with the same key.
    pub fn supersedes(&self, running: &Action) -> bool {
        match (self, running) {
            // The runtime shows a container as created while its start is still under way: that is the start itself.
            (a, b) if a.starts() && b.starts() => false,
            (Action::RemoveVolumes, Action::PrepareVolumes) => true,
            _ => false,
        }
    }

    /// Of a stop.
    pub fn deadline(&self) -> Option<Time> {
        if let Action::StopContainer { deadline, .. } = self { Some(*deadline) } else { None }
    }

    /// The name of the container that it is about.
    pub fn container(&self) -> Option<&str> {
        match self {
            Action::PullImage { container: name, .. }
            | Action::StartContainer { name, .. }
            | Action::StartCreated { name, .. }
            | Action::StartEphemeral { name, .. }
            | Action::StopContainer { name, .. }
            | Action::RemoveContainer { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it ends a container in order to start it again.
    pub fn replaces(&self) -> bool {
        use StopWhy::{Changed, Liveness, Startup, Unknown};
        matches!(self, Action::StopContainer { restarts: true, why: Changed | Liveness | Startup | Unknown, .. })
    }

    /// Whether it brings something to life.
    pub fn starts(&self) -> bool {
        matches!(
            self,
            Action::PrepareVolumes
                | Action::RunSandbox { .. }
                | Action::PullImage { .. }
                | Action::StartContainer { .. }
                | Action::StartCreated { .. }
                | Action::StartEphemeral { .. }
                | Action::Resize
        )
    }
}
