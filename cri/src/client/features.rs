//! What the runtime at this address lacks.
//!
//! Owns: one bit for each optional call, set when the runtime answers "unimplemented". The bits hold for one version of the
//! runtime: when a new connection has been made since, the version is asked for again, and another one clears them.

use crate::types::Features;
use std::sync::Mutex;

/// The calls that some supported runtime does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Optional {
    Events,
    RuntimeConfig,
    UpdateRuntimeConfig,
    StreamPodSandboxes,
    StreamContainers,
    StreamContainerStats,
    StreamPodSandboxStats,
    StreamPodSandboxMetrics,
    StreamImages,
    PodSandboxStats,
    ListPodSandboxStats,
    ListMetricDescriptors,
    ListPodSandboxMetrics,
    UpdatePodSandboxResources,
    Checkpoint,
}

impl Optional {
    fn bit(self) -> u32 {
        1 << self as u32
    }
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Held for a few instructions only, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    lacks: u32,
    /// The count of connections at which `version` was seen.
    connection: u64,
    version: String,
}

impl Memory {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(super) fn lacks(&self, what: Optional) -> bool {
        self.with(|state| state.lacks & what.bit() != 0)
    }

    /// `connection`: the count of connections when the runtime said so.
    pub(super) fn set_lacks(&self, what: Optional, connection: u64) {
        self.with(|state| {
            state.lacks |= what.bit();
            if state.connection == 0 {
                state.connection = connection;
            }
        });
    }

    /// Whether what is remembered was learnt over an earlier connection.
    pub(super) fn is_stale(&self, connection: u64) -> bool {
        self.with(|state| state.lacks != 0 && state.connection != connection)
    }

    /// The runtime has said what it is; another version than before means that nothing is known about it.
    pub(super) fn saw_version(&self, version: &str, connection: u64) {
        self.with(|state| {
            if state.version != version {
                // What was found out before the version was first asked for is about this very version,
                // unless the connection has been made anew in between.
                if !(state.version.is_empty() && state.connection == connection) {
                    state.lacks = 0;
                }
                state.version = version.to_owned();
            }
            state.connection = connection;
        });
    }

    pub(super) fn view(&self) -> Features {
        use Optional as O;
        let lacks = self.with(|state| state.lacks);
        let has = |what: &[O]| what.iter().all(|w| lacks & w.bit() == 0);
        Features {
            events: has(&[O::Events]),
            runtime_config: has(&[O::RuntimeConfig]),
            streaming_lists: has(&[O::StreamPodSandboxes, O::StreamContainers, O::StreamImages]),
            sandbox_stats: has(&[O::PodSandboxStats, O::ListPodSandboxStats]),
            metrics: has(&[O::ListMetricDescriptors, O::ListPodSandboxMetrics]),
            update_sandbox_resources: has(&[O::UpdatePodSandboxResources]),
            checkpoint: has(&[O::Checkpoint]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_there_until_found_missing() {
        let memory = Memory::default();
        assert_eq!(memory.view(), Features::ALL);
        memory.set_lacks(Optional::Events, 1);
        assert!(memory.lacks(Optional::Events));
        assert_eq!(memory.view(), Features { events: false, ..Features::ALL });
    }

    #[test]
    fn the_same_version_after_a_reconnect_keeps_the_memory_and_another_clears_it() {
        let memory = Memory::default();
        memory.saw_version("containerd 1.6", 1);
        memory.set_lacks(Optional::Events, 1);
        assert!(!memory.is_stale(1));
        assert!(memory.is_stale(2));
        memory.saw_version("containerd 1.6", 2);
        assert!(memory.lacks(Optional::Events));
        assert!(!memory.is_stale(2));
        memory.saw_version("containerd 2.1", 3);
        assert!(!memory.lacks(Optional::Events));
    }

    #[test]
    fn nothing_remembered_is_never_stale() {
        assert!(!Memory::default().is_stale(7));
    }
}
