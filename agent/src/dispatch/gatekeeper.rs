//! Lets new pods in: `admission` decides, here its answer is carried out.
//!
//! A pod is asked about once, when it is first seen and the node's own object is known; the older ones first. A refused pod
//! gets an actor too, which reports it and keeps it until the API deletes it. One that others must make room for is started
//! when they are over.

use super::Dispatcher;
use super::entry::Entry;
use crate::admission::{self, Answer, NodeView, Refusal, preempt};
use crate::events::Severity;
use crate::pod::desired::{Ended, id_of};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// An agent has reported on the pod, or nothing will start of it anyway.
pub(super) fn taken_before(pod: &Pod) -> bool {
    let acknowledged = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    acknowledged || terminal(pod) || pod.metadata.deletion_timestamp.is_some()
}

impl Dispatcher {
    pub(super) fn admit(&mut self, mut new: Vec<&Arc<Pod>>) {
        let node = self.node.borrow_and_update().clone();
        if !node.synced {
            // There need not be any API server for a static pod: the node is what it would register as.
            new.retain(|pod| admission::is_static(pod));
        }
        let view = self.view();
        new.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
        for pod in new {
            self.admit_one(&view, pod);
        }
    }

    /// The node as it is now.
    pub(super) fn view(&self) -> NodeView {
        let own = self.registered.clone();
        match self.node.borrow().items.values().next() {
            Some(object) => own.with(object),
            None => own,
        }
    }

    fn admit_one(&mut self, view: &NodeView, pod: &Arc<Pod>) {
        let id = id_of(pod);
        if let Some((_, victims)) = self.awaiting.get(&id.uid) {
            if !victims.iter().any(|uid| self.actors.get(uid).is_some_and(Entry::is_live)) {
                self.awaiting.remove(&id.uid);
                self.start(id, Some(pod.clone()), None);
            }
            return;
        }
        let (uids, others) = self.active();
        let others: Vec<&Pod> = others.iter().map(|p| &**p).collect();
        match admission::admit(view, &others, pod) {
            Answer::Admitted { victims } if victims.is_empty() => self.start(id, Some(pod.clone()), None),
            Answer::Admitted { victims } => {
                let victims: BTreeSet<String> = victims.into_iter().filter_map(|at| uids.get(at).cloned()).collect();
                victims.iter().for_each(|uid| self.preempt(uid));
                tracing::info!(pod = %id, victims = victims.len(), "waits for others to make room for it");
                self.awaiting.insert(id.uid, (pod.clone(), victims));
            }
            Answer::Refused(refusal) => self.refuse(pod, &refusal),
        }
    }

    /// The pods that count: taken and not over, and those that wait for others to go.
    fn active(&self) -> (Vec<String>, Vec<Arc<Pod>>) {
        self.active_beside(None)
    }

    pub(super) fn active_beside(&self, own: Option<&str>) -> (Vec<String>, Vec<Arc<Pod>>) {
        let taken = self.actors.iter().filter(|(uid, entry)| entry.holds_room() && Some(uid.as_str()) != own);
        let taken = taken.filter_map(|(uid, entry)| Some((uid.clone(), entry.counted()?)));
        let awaiting = self.awaiting.iter().map(|(uid, (pod, _))| (uid.clone(), pod.clone()));
        taken.filter(|(_, pod)| !terminal(pod)).chain(awaiting).unzip()
    }

    pub(super) fn preempt(&self, uid: &str) {
        let Some(entry) = self.actors.get(uid) else { return };
        self.shared.events.pod(&entry.id, None, Severity::Warning, preempt::REASON, preempt::MESSAGE.to_owned());
        entry.end(Ended {
            reason: preempt::REASON.to_owned(),
            message: preempt::MESSAGE.to_owned(),
            disruption: Some(preempt::CONDITION_MESSAGE),
        });
    }

    fn refuse(&mut self, pod: &Arc<Pod>, refusal: &Refusal) {
        let (id, reason, message) = (id_of(pod), refusal.reason(), refusal.message());
        tracing::info!(pod = %id, reason, message, "the pod is refused");
        self.shared.events.pod(&id, None, Severity::Warning, &reason, message.clone());
        let ended = Ended { reason, message: format!("Pod was rejected: {message}"), disruption: None };
        self.start(id, Some(pod.clone()), Some(ended));
    }
}
