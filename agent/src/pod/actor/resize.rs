//! The actor's part of a resize in place: it takes over what is granted, and tells what becomes of it.

use super::{Actor, Inputs};
use crate::events::Severity;
use crate::pod::Time;
use crate::pod::backoff::Subject;
use crate::pod::execute::Tried;
use crate::pod::observed::Observed;
use crate::pod::resize::words::{self, About};
use crate::pod::resize::{self, Record, Resized};
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;

/// What is known at the start of an actor.
pub(super) fn known(inputs: &mut Inputs) -> Resized {
    let grant = inputs.grants.borrow_and_update().clone();
    let record = Record { allocation: Arc::unwrap_or_clone(grant.allocation), ..std::mem::take(&mut inputs.record) };
    Resized { record, pending: grant.pending }
}

impl Actor {
    pub(super) fn granted(&mut self) {
        let grant = self.inputs.grants.borrow_and_update().clone();
        let own = &mut self.local.resize;
        own.pending = grant.pending;
        if !own.record.allocation.same(&grant.allocation) {
            own.record.unsettled = true;
            own.record.since = Some(Time::now());
            // It is another one that is tried.
            self.backoffs.succeeded(&Subject::Resize);
        }
        own.record.allocation = Arc::unwrap_or_clone(grant.allocation);
        self.new_pod();
    }

    /// What came of a try. Another grant may have come meanwhile: then it is not over.
    pub(super) fn resized(&mut self, tried: Tried, now: Time) {
        let Tried { record, failed } = tried;
        let own = &mut self.local.resize;
        let current = own.record.allocation.same(&record.allocation);
        own.record.actuated = record.actuated;
        own.record.unsettled = !current || record.unsettled;
        own.record.real = record.real;
        match failed {
            None => self.backoffs.succeeded(&Subject::Resize),
            Some(_) if !current => {}
            Some(failed) => {
                tracing::debug!(pod = %self.desired.id, error = failed.message, "resize failed");
                self.backoffs.failed(Subject::Resize, now, failed.reason, failed.message);
            }
        }
    }

    /// Room that the pod gave up may be given to others from now on.
    pub(super) fn settle(&self, observed: &Observed) {
        if !observed.stale && !resize::due(&self.desired, observed) {
            self.inputs.over.settle(self.local.resize.record.allocation.generation);
        }
    }

    /// Tells of what has changed since the last status.
    pub(super) fn resize_events(&self, next: &api::PodStatus) {
        let asked = self.inputs.pod.borrow().clone().unwrap_or_else(|| self.desired.pod.clone());
        let about = About { asked: &asked, granted: &self.desired.pod, pending: self.local.resize.pending.as_ref() };
        for (reason, message) in words::events(&self.status, next, &about) {
            let good = matches!(reason, "ResizeStarted" | "ResizeCompleted");
            let severity = if good { Severity::Normal } else { Severity::Warning };
            self.shared.events.pod(&self.desired.id, None, severity, reason, message);
        }
    }
}
