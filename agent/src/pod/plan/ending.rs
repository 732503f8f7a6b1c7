//! The plan of a pod that ends: everything stops, in order, and then what was there for it goes. Pure, as all of the plan.

use super::{Action, Planner, StopWhy};
use crate::pod::Time;
use crate::pod::desired::Role;
use crate::pod::observed::Container;

impl Planner<'_> {
    /// Stops everything; true once nothing runs. Sidecars follow the main containers, last started first ended.
    pub(super) fn stop_all(&mut self, deadline: Time) -> bool {
        let o = self.o;
        for c in o.live() {
            let (name, id, follows) = (c.name.clone(), c.id.clone(), self.outlives(c));
            self.act(Action::StopContainer { name, id, deadline, why: StopWhy::PodEnds, restarts: false, follows });
        }
        if o.live().next().is_some() {
            return false;
        }
        for s in o.sandboxes.iter().filter(|s| s.ready) {
            self.act(Action::StopSandbox { id: s.id.clone() });
        }
        !o.stale && !o.sandboxes.iter().any(|s| s.ready)
    }

    /// What must be gone before a sidecar is told to end: the main containers and the sidecars after it. Nothing for all others.
    fn outlives(&self, c: &Container) -> Vec<String> {
        let place = |name: &str| self.d.containers.iter().position(|s| s.name == name).map(|at| (at, self.d.containers[at].role));
        let Some((own, Role::Sidecar)) = place(&c.name) else { return Vec::new() };
        let first = |other: &&Container| {
            place(&other.name).is_some_and(|(at, role)| role == Role::Main || (role == Role::Sidecar && at > own))
        };
        let mut ids: Vec<String> = self.o.live().filter(first).map(|c| c.id.clone()).collect();
        ids.sort();
        ids
    }

    /// Nothing runs: take down what was prepared, and if the pod is unwanted everything else. True once nothing is left.
    pub(super) fn take_down(&mut self) -> bool {
        // An interrupted start may still have come through.
        if !self.stop_all(self.now) {
            return false;
        }
        let (o, local) = (self.o, &self.o.local);
        if !local.volumes_removed {
            self.act(Action::RemoveVolumes);
        }
        if !local.cgroup_removed {
            self.act(Action::RemoveCgroup);
        }
        if self.d.deletion.is_none() {
            self.prune();
            return false;
        }
        if !local.volumes_removed || !local.cgroup_removed {
            return false;
        }
        for c in &o.containers {
            self.act(Action::RemoveContainer { name: c.name.clone(), id: c.id.clone() });
        }
        if !o.containers.is_empty() {
            return false;
        }
        for s in &o.sandboxes {
            self.act(Action::RemoveSandbox { id: s.id.clone() });
        }
        if !o.sandboxes.is_empty() {
            return false;
        }
        if !local.folders_removed {
            self.act(Action::RemoveFolders);
        }
        local.folders_removed
    }
}
