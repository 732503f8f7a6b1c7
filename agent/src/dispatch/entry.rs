//! The dispatcher's end of an actor.

use crate::observe::PodRuntime;
use crate::pod::PodId;
use crate::pod::actor::{Inputs, Over};
use crate::pod::desired::Ended;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

pub(super) struct Entry {
    pub(super) id: PodId,
    pub(super) pod: watch::Sender<Option<Arc<Pod>>>,
    pub(super) runtime: Arc<Notify>,
    /// What the actor was last woken for.
    pub(super) last: Option<Arc<PodRuntime>>,
    ended: watch::Sender<Option<Ended>>,
    over: Over,
}

impl Entry {
    pub(super) fn new(
        id: PodId,
        pod: Option<Arc<Pod>>,
        ended: Option<Ended>,
        gate: watch::Receiver<bool>,
        listener: &Arc<Notify>,
    ) -> (Entry, Inputs) {
        let (pod, pods) = watch::channel(pod);
        let (ended, endings) = watch::channel(ended);
        let (runtime, over) = (Arc::new(Notify::new()), Over::listener(listener));
        let inputs = Inputs { id: id.clone(), pod: pods, runtime: runtime.clone(), gate, ended: endings, over: over.clone() };
        (Entry { id, pod, runtime, last: None, ended, over }, inputs)
    }

    /// A newer object, if it is one.
    pub(super) fn update(&self, pod: &Arc<Pod>) {
        let same = self.pod.borrow().as_ref().is_some_and(|known| Arc::ptr_eq(known, pod));
        if !same {
            self.pod.send_replace(Some(pod.clone()));
        }
    }

    /// The pod fails with this. The first word stays.
    pub(super) fn end(&self, with: Ended) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(with);
            first
        });
    }

    /// Something of the pod runs, or may.
    pub(super) fn is_live(&self) -> bool {
        !self.over.told()
    }

    /// Its requests count. Those of a refused pod never do, and the room of one that is ended is promised to another.
    pub(super) fn holds_room(&self) -> bool {
        self.is_live() && self.ended.borrow().is_none()
    }
}
