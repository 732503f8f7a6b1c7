//! The dispatcher's end of an actor.

use super::resizes::Room;
use crate::admission;
use crate::observe::PodRuntime;
use crate::pod::PodId;
use crate::pod::actor::{Inputs, Over};
use crate::pod::desired::Ended;
use crate::pod::explain::Standing;
use crate::pod::resize::Record;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Who wants the pod.
pub(super) enum Origin {
    Api,
    /// Nobody: only the runtime has it.
    Runtime,
    Static(Static),
}

/// A pod that this node has by itself.
pub(super) struct Static {
    /// As its source has it.
    source: Arc<Pod>,
    /// The source has it no longer.
    leaving: bool,
    mirror: watch::Sender<Option<Arc<Pod>>>,
}

pub(super) struct Entry {
    pub(super) id: PodId,
    pub(super) origin: Origin,
    pub(super) pod: watch::Sender<Option<Arc<Pod>>>,
    pub(super) runtime: Arc<Notify>,
    /// What the actor was last woken for.
    pub(super) last: Option<Arc<PodRuntime>>,
    /// Who asks the actor how the pod stands.
    pub(super) asks: mpsc::Sender<oneshot::Sender<Standing>>,
    pub(super) room: Room,
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
        (record, runtime_pod): (Option<Record>, Option<Arc<PodRuntime>>),
    ) -> (Entry, Inputs) {
        let (origin, mirror, gate) = match &pod {
            None => (Origin::Runtime, None, gate),
            Some(pod) if admission::is_static(pod) => {
                let (mirror, mirrors) = watch::channel(None);
                // It waits for nothing that only an API server has.
                let open = watch::channel(true).1;
                (Origin::Static(Static { source: pod.clone(), leaving: false, mirror }), Some(mirrors), open)
            }
            Some(_) => (Origin::Api, None, gate),
        };
        let (mut room, grants) = Room::new(pod.as_ref(), record.as_ref(), runtime_pod.as_deref());
        if let Some(pod) = &pod {
            room.look(pod);
        }
        let (pod, pods) = watch::channel(pod);
        let (ended, endings) = watch::channel(ended);
        let (runtime, over) = (Arc::new(Notify::new()), Over::listener(listener));
        let (asks, asked) = mpsc::channel(super::ask::WAITING);
        let (wake, told) = (runtime.clone(), over.clone());
        let inputs = Inputs {
            id: id.clone(),
            pod: pods,
            mirror,
            runtime: wake,
            gate,
            ended: endings,
            over: told,
            grants,
            record: record.unwrap_or_default(),
            asks: asked,
        };
        (Entry { id, origin, pod, runtime, last: None, asks, room, ended, over }, inputs)
    }

    /// A newer object, if it is one.
    pub(super) fn update(&mut self, pod: &Arc<Pod>) {
        let same = self.pod.borrow().as_ref().is_some_and(|known| Arc::ptr_eq(known, pod));
        if !same {
            self.room.look(pod);
            self.pod.send_replace(Some(pod.clone()));
        }
    }

    /// The pod as its requests count, if there is one.
    pub(super) fn counted(&self) -> Option<Arc<Pod>> {
        self.pod.borrow().as_ref().map(|pod| self.room.counted(pod))
    }

    /// The generation that the pod has all of.
    pub(super) fn settled(&self) -> i64 {
        self.over.settled()
    }

    /// What the source of a static pod has now: `None` ends the pod with its own grace period, and for good.
    pub(super) fn update_static(&mut self, source: Option<&Arc<Pod>>) {
        let Origin::Static(own) = &mut self.origin else { return };
        if own.leaving || source.is_some_and(|s| Arc::ptr_eq(s, &own.source)) {
            return;
        }
        let Some(mut next) = self.pod.borrow().as_deref().cloned() else { return };
        match source {
            Some(source) => {
                own.source = source.clone();
                next = Pod { status: next.status, ..Pod::clone(source) };
            }
            None => {
                own.leaving = true;
                next.metadata.deletion_timestamp = Some(meta::Time(crate::clock::now()));
                next.metadata.deletion_grace_period_seconds = next.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
            }
        }
        let next = Arc::new(next);
        self.room.look(&next);
        self.pod.send_replace(Some(next));
    }

    /// The static pod as its source has it.
    pub(super) fn source(&self) -> Option<&Arc<Pod>> {
        match &self.origin {
            Origin::Static(own) => Some(&own.source),
            Origin::Api | Origin::Runtime => None,
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(&self.origin, Origin::Static(own) if own.leaving)
    }

    /// The object in the API that stands for this static pod.
    pub(super) fn set_mirror(&self, mirror: Option<&Arc<Pod>>) {
        let Origin::Static(own) = &self.origin else { return };
        own.mirror.send_if_modified(|known| {
            let uid = |pod: Option<&Arc<Pod>>| pod.and_then(|p| p.metadata.uid.clone());
            let other = uid(known.as_ref()) != uid(mirror);
            if other {
                *known = mirror.cloned();
            }
            other
        });
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
