//! The events that tell of a change between two statuses.
//!
//! Reads the actor's last status and the next; it changes nothing.

use super::Actor;
use crate::events::Severity;
use crate::pod::{execute, status};
use k8s_openapi::api::core::v1 as api;

impl Actor {
    pub(super) fn waiting_events(&self, next: &api::PodStatus) {
        let reason = |s: &api::PodStatus, name: &str| {
            let found = status::all_containers(s).find(|s| s.name == name)?;
            found.state.as_ref()?.waiting.as_ref()?.reason.clone()
        };
        for c in &self.desired.containers {
            let (before, after) = (reason(&self.status, &c.name), reason(next, &c.name));
            if before == after {
                continue;
            }
            let (severity, message) = match after.as_deref() {
                Some("CrashLoopBackOff") => {
                    (Severity::Warning, format!("Back-off restarting failed container {} in pod {}", c.name, self.desired.id))
                }
                Some("ImagePullBackOff") => {
                    (Severity::Normal, format!("Back-off pulling image {:?}", self.backoffs.awaited(&c.name, &c.image)))
                }
                _ => continue,
            };
            let path = execute::field_path(&self.desired, &c.name);
            self.shared.events.pod(&self.desired.id, path.clone(), severity, "BackOff", message);
            if severity == Severity::Normal {
                let message = "Error: ImagePullBackOff";
                self.shared.events.pod(&self.desired.id, path, Severity::Warning, "Failed", message);
            }
        }
    }
}
