//! What changes for a pod from outside: its object, the node's decision to end it, the objects that it shows.

use super::{Actor, desired_of};
use crate::objects;
use crate::pod::Time;
use crate::pod::backoff::Subject;
use crate::pod::desired::{Container, Desired};
use crate::pod::execute;
use crate::pod::plan::Key;
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;

impl Actor {
    pub(super) fn ended(&mut self) {
        let mut next = Desired::clone(&self.desired);
        next.ended = self.inputs.ended.borrow_and_update().clone();
        self.desired = Arc::new(next);
    }

    pub(super) fn new_pod(&mut self) {
        let pod = self.inputs.pod.borrow_and_update().clone();
        let mut next = match pod {
            Some(pod) => desired_of(&self.local.resize.record.allocation.apply(&pod)),
            None => {
                let mut gone = Desired::clone(&self.desired);
                gone.gone();
                gone
            }
        };
        next.started = self.status.start_time.as_ref().map(|t| t.0);
        // A deletion is never taken back, whatever an old object says.
        next.deletion = next.deletion.or(self.desired.deletion);
        next.ended = self.desired.ended.clone();
        let other_images: Vec<String> =
            next.containers.iter().filter(|c| self.image_changed(c)).map(|c| c.name.clone()).collect();
        let shown = objects::shows_itself(&next.pod) && shows_other(&self.desired.pod, &next.pod);
        self.desired = Arc::new(next);
        self.hold_objects();
        if shown {
            self.volumes_outdated();
        }
        for name in other_images {
            self.cut_off(&Key::Pull(name.clone()));
            self.backoffs.succeeded(&Subject::Image(name.clone()));
            self.local.images.remove(&name);
            self.images.remove(&name);
        }
    }

    /// Until nothing runs any more.
    pub(super) fn hold_objects(&mut self) {
        if self.lifecycle.rank() < 2 {
            let mut refs = objects::of(&self.desired.pod);
            // Only what is waited for: a volume that the pod has stays its own.
            if !self.local.volumes_ready {
                refs.append(&mut objects::claims(&self.desired.pod));
            }
            self.shared.objects.hold(&mut self.objects, refs);
        }
    }

    /// A ConfigMap, Secret or claim has changed: what failed for want of it is tried again now.
    pub(super) fn other_objects(&mut self) {
        let now = Time::now();
        for (subject, failure) in &mut self.backoffs.failures {
            if matches!(subject, Subject::Start(_)) && failure.reason == execute::CONFIG_ERROR {
                failure.until = now;
            }
        }
        self.backoffs.looks.values_mut().for_each(|look| look.at = now);
        self.volumes_outdated();
    }

    /// Another pod has what this one wants for itself.
    pub(super) fn waits_for_a_volume(&self) -> bool {
        let failure = self.backoffs.failures.get(&Subject::Volumes);
        failure.is_some_and(|f| f.message.ends_with(crate::volume::IN_USE))
    }

    pub(super) fn volumes_outdated(&mut self) {
        let now = Time::now();
        if let Some(failure) = self.backoffs.failures.get_mut(&Subject::Volumes) {
            failure.until = now;
        }
        self.local.renew_at = Some(now);
        self.outdated = true;
    }

    fn image_changed(&self, c: &Container) -> bool {
        self.desired.container(&c.name).is_some_and(|old| old.image != c.image)
    }
}

/// Whether volumes that show the pod have other content now.
fn shows_other(before: &api::Pod, now: &api::Pod) -> bool {
    let resources = |pod: &api::Pod| {
        let all = pod.spec.iter().flat_map(crate::pod::containers);
        all.map(|c| c.resources.clone()).collect::<Vec<_>>()
    };
    let (a, b) = (&before.metadata, &now.metadata);
    (&a.labels, &a.annotations) != (&b.labels, &b.annotations) || resources(before) != resources(now)
}
