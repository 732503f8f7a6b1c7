//! What a Deployment says about itself: the counts, and the conditions that `kubectl rollout status` reads.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{NewSet, Plan, View, available, collisions, condition, counted, meta, size};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";

/// The counts, with the conditions as they were.
pub(crate) fn count(view: &View, now: Timestamp) -> DeploymentStatus {
    let sum = |f: &dyn Fn(&ReplicaSet) -> i32| view.all().map(f).sum::<i32>();
    let of = |rs: &ReplicaSet, f: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
        rs.status.as_ref().and_then(f).unwrap_or(0)
    };
    let available_now = sum(&available);
    let old = view.deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: Some(sum(&counted)),
        updated_replicas: Some(view.new.map_or(0, counted)),
        ready_replicas: Some(sum(&|rs| of(rs, |s| s.ready_replicas))),
        available_replicas: Some(available_now),
        unavailable_replicas: Some((sum(&size) - available_now).max(0)),
        terminating_replicas: Some(sum(&|rs| of(rs, |s| s.terminating_replicas))),
        collision_count: old.collision_count.filter(|_| collisions(view.deployment) > 0),
        conditions: old.conditions,
    };
    let enough = available_now >= view.replicas - view.max_unavailable;
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "enough replicas are available")
    } else {
        ("False", "MinimumReplicasUnavailable", "fewer replicas are available than the strategy asks for")
    };
    says(AVAILABLE, state, reason, message).put(&mut status, now);
    status
}

/// All pods are of the new template and available, and the controller has seen the newest spec.
pub(crate) fn is_complete(view: &View, status: &DeploymentStatus) -> bool {
    let all = Some(view.replicas);
    status.updated_replicas == all && status.replicas == all && status.available_replicas == all
}

/// Works out the conditions and when to look again, and writes the status into the plan.
pub(crate) fn finish(view: &View, new: Option<NewSet>, now: Timestamp, plan: &mut Plan) {
    let mut status = count(view, now);
    let deadline = view.deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).filter(|s| *s != i32::MAX);
    let name = view.new.map_or_else(
        || plan.create.as_ref().map(|rs| meta::name(&rs.metadata).to_string()).unwrap_or_default(),
        |rs| meta::name(&rs.metadata).to_string(),
    );
    let current = condition(view.deployment, PROGRESSING).map(|c| c.reason.clone().unwrap_or_default());
    if deadline.is_none() {
        remove(&mut status, PROGRESSING);
    } else if view.paused {
        if current.as_deref() != Some(TIMED_OUT) {
            says(PROGRESSING, "Unknown", "DeploymentPaused", "the deployment is paused").put(&mut status, now);
        }
    } else if current.as_deref() == Some("DeploymentPaused") {
        says(PROGRESSING, "Unknown", "DeploymentResumed", "the deployment goes on").renewed().put(&mut status, now);
    } else if new == Some(NewSet::Created) {
        let message = format!("replica set {name:?} was created");
        says(PROGRESSING, "True", "NewReplicaSetCreated", message).renewed().put(&mut status, now);
    } else if current.is_none() || (plan.revision.is_some() && new.is_some() && !is_complete(view, &status)) {
        // A rollback to a ReplicaSet that is still there starts the clock anew as well.
        let message = format!("replica set {name:?} was found");
        says(PROGRESSING, "True", "FoundNewReplicaSet", message).renewed().put(&mut status, now);
    } else {
        progress(view, &mut status, &name, deadline, now);
    }
    failure(view, &mut status, now);
    plan.wake_after = next_look(view, &status, deadline, now);
    plan.status = status;
}

fn progress(view: &View, status: &mut DeploymentStatus, name: &str, deadline: Option<i32>, now: Timestamp) {
    let before = view.deployment.status.clone().unwrap_or_default();
    let current = condition(view.deployment, PROGRESSING).and_then(|c| c.reason.as_deref());
    let done_before = current == Some(COMPLETE) && status.replicas == status.updated_replicas;
    if done_before {
        return;
    }
    let n = |v: Option<i32>| v.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    let moved = n(status.updated_replicas) > n(before.updated_replicas)
        || outdated(status) < outdated(&before)
        || n(status.ready_replicas) > n(before.ready_replicas)
        || n(status.available_replicas) > n(before.available_replicas);
    if is_complete(view, status) {
        let message = format!("replica set {name:?} has all its pods available");
        says(PROGRESSING, "True", COMPLETE, message).renewed().put(status, now);
    } else if moved {
        let message = format!("replica set {name:?} is progressing");
        says(PROGRESSING, "True", "ReplicaSetUpdated", message).renewed().put(status, now);
    } else if timed_out(status, deadline, now) {
        let message = format!("replica set {name:?} did not progress within its deadline");
        says(PROGRESSING, "False", TIMED_OUT, message).put(status, now);
    }
}

fn last_progress(status: &DeploymentStatus) -> Option<Timestamp> {
    let c = status.conditions.iter().flatten().find(|c| c.type_ == PROGRESSING)?;
    c.last_update_time.as_ref().or(c.last_transition_time.as_ref()).map(|t| t.0)
}

fn expires(status: &DeploymentStatus, deadline: Option<i32>) -> Option<Timestamp> {
    last_progress(status)?.checked_add(SignedDuration::from_secs(i64::from(deadline?))).ok()
}

fn timed_out(status: &DeploymentStatus, deadline: Option<i32>, now: Timestamp) -> bool {
    let reason = status.conditions.iter().flatten().find(|c| c.type_ == PROGRESSING).and_then(|c| c.reason.as_deref());
    reason != Some(COMPLETE) && (reason == Some(TIMED_OUT) || expires(status, deadline).is_some_and(|at| at <= now))
}

fn next_look(view: &View, status: &DeploymentStatus, deadline: Option<i32>, now: Timestamp) -> Option<Duration> {
    if view.paused || is_complete(view, status) || timed_out(status, deadline, now) {
        return None;
    }
    let at = expires(status, deadline).filter(|at| *at > now)?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// A ReplicaSet that cannot make its pods says so; the Deployment repeats it.
fn failure(view: &View, status: &mut DeploymentStatus, now: Timestamp) {
    let of =
        |rs: &ReplicaSet| rs.status.as_ref().and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == FAILURE).cloned());
    match view.new.and_then(of).or_else(|| view.old.iter().find_map(|rs| of(rs))) {
        Some(c) => says(FAILURE, &c.status, c.reason.as_deref().unwrap_or("FailedCreate"), c.message.unwrap_or_default())
            .put(status, now),
        None => remove(status, FAILURE),
    }
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|c| c.type_ != kind);
    }
}

/// A condition to write.
struct Says<'a> {
    kind: &'a str,
    state: &'a str,
    reason: &'a str,
    message: String,
    /// Moves the update time even if nothing else changes: that is what progress means.
    renew: bool,
}

fn says<'a>(kind: &'a str, state: &'a str, reason: &'a str, message: impl Into<String>) -> Says<'a> {
    Says { kind, state, reason, message: message.into(), renew: false }
}

impl Says<'_> {
    fn renewed(self) -> Self {
        Says { renew: true, ..self }
    }

    fn put(self, status: &mut DeploymentStatus, now: Timestamp) {
        let all = status.conditions.get_or_insert_default();
        let old = all.iter().position(|c| c.type_ == self.kind);
        let since = old.map(|i| &all[i]).filter(|c| c.status == self.state).and_then(|c| c.last_transition_time.clone());
        let same = old.is_some_and(|i| all[i].status == self.state && all[i].reason.as_deref() == Some(self.reason));
        if same && !self.renew {
            return;
        }
        let new = DeploymentCondition {
            type_: self.kind.into(),
            status: self.state.into(),
            reason: Some(self.reason.into()),
            message: Some(self.message),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            last_update_time: Some(Time(now)),
        };
        match old {
            Some(i) => all[i] = new,
            None => all.push(new),
        }
    }
}
