//! Where a pod is in its life. Only forward; a grace period only shortens.

use crate::pod::{Time, after};
use std::time::Duration;

/// Reason of a pod that has been there for longer than `activeDeadlineSeconds`.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// Why a pod is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// All its containers ended and none restarts, or the API shows a terminal phase.
    Completed,
    /// The node ends it: the status gets this reason and message, and phase Failed.
    Failed { reason: String, message: String },
    /// The API wants it gone.
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    Active,
    /// Nothing is started any more; what runs is stopped, by force after the deadline.
    Terminating {
        deadline: Time,
        why: Why,
    },
    /// Nothing runs any more; what was prepared is taken down. A completed pod rests here until the API deletes it.
    Terminated {
        why: Why,
    },
    /// Nothing is left on the node.
    Finished {
        why: Why,
    },
}

impl Lifecycle {
    /// Begin to end, or end sooner. A later deadline than the present one is ignored; the first reason stays, but a
    /// deletion is always remembered by `Desired`.
    pub fn terminate(self, now: Time, grace: Duration, why: Why) -> Lifecycle {
        let wanted = after(now, grace);
        match self {
            Lifecycle::Active => Lifecycle::Terminating { deadline: wanted, why },
            Lifecycle::Terminating { deadline, why } => Lifecycle::Terminating { deadline: deadline.min(wanted), why },
            done => done,
        }
    }

    pub fn rank(&self) -> u8 {
        match self {
            Lifecycle::Active => 0,
            Lifecycle::Terminating { .. } => 1,
            Lifecycle::Terminated { .. } => 2,
            Lifecycle::Finished { .. } => 3,
        }
    }

    pub fn why(&self) -> Option<&Why> {
        match self {
            Lifecycle::Active => None,
            Lifecycle::Terminating { why, .. } | Lifecycle::Terminated { why } | Lifecycle::Finished { why } => Some(why),
        }
    }

    pub fn active(&self) -> bool {
        *self == Lifecycle::Active
    }
}

#[cfg(test)]
mod tests;
