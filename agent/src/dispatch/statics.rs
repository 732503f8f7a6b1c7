//! Static pods among the dispatcher's pods.
//!
//! They wait for nothing that an API server has, and end when their source has them no longer. Two of one name never run side by side:
//! the changed one starts when the one before has gone. Mirror pods follow the actors.

use super::Dispatcher;
use super::entry::Origin;
use super::mirror::{self, Owner, Wanted};
use crate::api::snapshot::Snapshot;
use crate::observe::RuntimeSnapshot;
use crate::pod::PodId;
use crate::pod::desired::id_of;
use crate::static_pods::StaticPods;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the adoption of a static pod waits for the status that the API has of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// Brings what is there up to date. Returns those that may start if they are admitted.
    pub(super) fn static_pods(&mut self, statics: &StaticPods, api: &Snapshot<Pod>, runtime: &RuntimeSnapshot) -> Vec<Arc<Pod>> {
        for (uid, entry) in &mut self.actors {
            entry.update_static(statics.pods.get(uid));
        }
        let mut new = Vec::new();
        for (uid, pod) in &statics.pods {
            let id = id_of(pod);
            if self.actors.contains_key(uid) || self.name_taken(&id, runtime) {
                continue;
            }
            let runs = runtime.pods.contains_key(uid.as_str());
            if runs && !api.synced && self.patience.is_some() {
                continue;
            }
            // What the node said of it before goes on.
            let pod = match mirror::of(pod, api).and_then(|m| m.status.clone()) {
                Some(status) => Arc::new(Pod { status: Some(status), ..Pod::clone(pod) }),
                None => pod.clone(),
            };
            if runs {
                self.start(id, Some(pod), None);
            } else {
                new.push(pod);
            }
        }
        new
    }

    /// Another pod of this name is on its way out.
    pub(super) fn name_taken(&self, id: &PodId, runtime: &RuntimeSnapshot) -> bool {
        let same = |other: &PodId| other.uid != id.uid && other.name == id.name && other.namespace == id.namespace;
        let ends = self.actors.values().filter(|e| !matches!(e.origin, Origin::Api)).any(|e| same(&e.id));
        ends || runtime.pods.values().any(|p| p.is_static && same(&p.id))
    }

    /// Ends what runs for static pods that are no more. Not while there is something that cannot be read: it may be theirs.
    pub(super) fn end_static_orphans(
        &mut self,
        statics: &StaticPods,
        runtime: &RuntimeSnapshot,
        wanted: &BTreeMap<&str, &Arc<Pod>>,
    ) {
        if !statics.synced || statics.broken {
            return;
        }
        let left = runtime.pods.values().filter(|p| p.is_static);
        let left = left.filter(|p| {
            let uid = &p.id.uid;
            !statics.pods.contains_key(uid) && !wanted.contains_key(uid.as_str()) && !self.actors.contains_key(uid)
        });
        let left: Vec<PodId> = left.map(|p| p.id.clone()).collect();
        for id in left {
            tracing::info!(pod = %id, "the runtime has a static pod that no source has: it is ended");
            self.start(id, None, None);
        }
    }

    /// Objects in the API that stand for static pods: those that are missing, and those that should not be.
    pub(super) fn mirror(&mut self, statics: &StaticPods, api: &Snapshot<Pod>, mirrors: &BTreeMap<&str, &Arc<Pod>>) {
        let quiet = statics.pods.values().map(|pod| (mirror::key(pod), Wanted { pod: pod.clone(), make: false }));
        let mut wanted: BTreeMap<_, _> = quiet.collect();
        for entry in self.actors.values() {
            let Some(pod) = entry.source() else { continue };
            entry.set_mirror(mirror::of(pod, api));
            wanted.insert(mirror::key(pod), Wanted { pod: pod.clone(), make: !entry.is_leaving() });
        }
        let all = statics.synced && !statics.broken;
        if all {
            self.departed.clear();
        }
        let decision = mirror::decide(&wanted, mirrors, api, all, &self.departed);
        let node = self.node.borrow().items.values().next().and_then(|n| n.metadata.uid.clone());
        let owner = Owner { kube: &self.shared.kube, node: &self.shared.config.node_name, uid: node };
        self.mirrors.carry_out(decision, &wanted, mirrors, &owner, &self.over);
    }
}
