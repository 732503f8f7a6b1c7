//! What ever ran, in order, also of what the runtime has forgotten since. For tests that want to know whether something ran twice.

use super::state::State;
use crate::pb;

/// One process of a container, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub container_id: String,
    pub sandbox_id: String,
    /// By the labels and annotations that Kubernetes puts on containers.
    pub pod_uid: String,
    pub name: String,
    pub restart_count: String,
    /// Places in the one order of all starts and ends.
    pub began: usize,
    pub ended: Option<usize>,
    /// It got a stop signal before its end.
    pub told: bool,
}

impl Run {
    /// Whether both ran at some moment.
    pub fn overlaps(&self, other: &Run) -> bool {
        let before = |a: &Run, b: &Run| a.ended.is_some_and(|end| end < b.began);
        !before(self, other) && !before(other, self)
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) runs: Vec<Run>,
    /// The uid of the pod of every sandbox that was made.
    pub(super) sandboxes: Vec<String>,
    steps: usize,
}

fn of(map: &std::collections::BTreeMap<String, String>, key: &str) -> String {
    map.get(key).cloned().unwrap_or_default()
}

impl State {
    pub(super) fn note_sandbox(&mut self, config: &pb::PodSandboxConfig) {
        self.history.sandboxes.push(config.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default());
    }

    pub(super) fn note_start(&mut self, id: &str) {
        let Some(found) = self.containers.get(id) else { return };
        let history = &mut self.history;
        history.steps += 1;
        history.runs.push(Run {
            container_id: id.to_owned(),
            sandbox_id: found.sandbox_id.clone(),
            pod_uid: of(&found.config.labels, "io.kubernetes.pod.uid"),
            name: of(&found.config.labels, "io.kubernetes.container.name"),
            restart_count: of(&found.config.annotations, "io.kubernetes.container.restartCount"),
            began: history.steps,
            ended: None,
            told: false,
        });
    }

    pub(super) fn note_end(&mut self, id: &str, told: bool) {
        let history = &mut self.history;
        history.steps += 1;
        if let Some(run) = history.runs.iter_mut().rev().find(|run| run.container_id == id) {
            (run.ended, run.told) = (Some(history.steps), told);
        }
    }
}
