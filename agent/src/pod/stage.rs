//! How far an action under way has come: told by what carries it out, read when somebody asks what the pod waits for.
//!
//! Owns the words for it. Nothing is decided by a stage, and nobody is woken by one.

use crate::pod::Time;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Nothing more is to be said than that it is under way.
    Begun,
    /// An image that is pulled when others have been.
    Queued,
    Pulling,
    /// The names of the volumes that are not ready yet.
    Volumes(Vec<String>),
    /// What the container is to be given is gathered.
    Gathering,
    Creating,
    Starting,
    PostStart,
    /// The postStart hook failed: the container is ended.
    HookFailed,
    /// Service rules of this node still lead to the container.
    Rules,
    PreStop,
    /// Others have to be gone first.
    Following,
    /// The container has been told to end; it is killed then.
    Signalled {
        until: Time,
    },
    /// Done; the runtime is asked what came of it.
    Looking,
}

/// A stage, and when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    pub since: Time,
}
