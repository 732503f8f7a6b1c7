//! Deployment: move pods from one template to the next through ReplicaSets.
//!
//! `decide` is pure: a Deployment, the ReplicaSets of its namespace and the time in; the writes on ReplicaSets, the new
//! status and the events out. One step does one thing and the next step looks again, so that it is safe to stop between
//! any two writes. `rolling` has the arithmetic of surge and unavailability, `status` the conditions, `revision` the
//! history that `kubectl rollout history` and `undo` read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::{self, Labels};

pub mod revision;
pub mod rolling;
pub mod status;
#[cfg(test)]
mod tests;

pub const HASH: &str = "pod-template-hash";

/// A write on one ReplicaSet: its size and its annotations, both as they shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub name: String,
    /// The size the decision was made on; the write is dropped when it is no longer so.
    pub from: i32,
    pub to: i32,
    pub annotations: Labels,
    pub min_ready_seconds: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub adopt: Vec<String>,
    pub release: Vec<String>,
    pub create: Option<ReplicaSet>,
    pub change: Vec<Change>,
    pub delete: Vec<String>,
    /// The revision annotation of the Deployment, if it has to be written.
    pub revision: Option<String>,
    pub status: DeploymentStatus,
    pub events: Vec<Event>,
    pub wake_after: Option<Duration>,
}

/// What a step works on, read out of the objects once.
pub(crate) struct View<'a> {
    pub deployment: &'a Deployment,
    pub replicas: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
    pub recreate: bool,
    pub paused: bool,
    pub new: Option<&'a ReplicaSet>,
    /// Oldest first.
    pub old: Vec<&'a ReplicaSet>,
}

impl<'a> View<'a> {
    pub fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.old.iter().copied().chain(self.new)
    }

    pub fn active(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.all().filter(|rs| size(rs) > 0)
    }
}

pub(crate) fn size(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(crate) fn counted(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().map_or(0, |s| s.replicas)
}

pub(crate) fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// `sets` and `pods` are those of the Deployment's namespace.
pub fn decide(deployment: &Deployment, sets: &[&ReplicaSet], pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &deployment.spec else { return plan };
    let deleting = meta::is_deleting(&deployment.metadata);
    let owned = claim(deployment, sets, deleting, &mut plan);
    let view = view(deployment, owned);
    let selects_all = spec.selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && spec.selector.match_expressions.as_ref().is_none_or(|e| e.is_empty());
    if deleting || selects_all {
        if selects_all && !deleting {
            let message = "this deployment would select all pods, give it a selector that is not empty".to_string();
            plan.events.push(Event { warning: true, reason: "SelectingAll", message });
        }
        plan.status = status::count(&view, now);
        return plan;
    }
    let mut created = None;
    if view.paused {
        step_scale(&view, &mut plan);
    } else if rolling::is_scaling(&view) {
        revision::sync_annotations(&view, &mut plan);
        step_scale(&view, &mut plan);
    } else if view.recreate {
        created = step_recreate(&view, pods, &mut plan);
    } else {
        created = step_rolling(&view, &mut plan);
    }
    if view.paused || status::is_complete(&view, &status::count(&view, now)) {
        revision::clean_up(&view, &mut plan);
    }
    status::finish(&view, created, now, &mut plan);
    plan
}

/// Sorts out which ReplicaSets are the Deployment's: adopts orphans that match, releases its own that no longer do.
fn claim<'a>(deployment: &Deployment, sets: &[&'a ReplicaSet], deleting: bool, plan: &mut Plan) -> Vec<&'a ReplicaSet> {
    let uid = meta::uid(&deployment.metadata);
    let selector = deployment.spec.as_ref().map(|s| &s.selector);
    let mut owned = vec![];
    for &rs in sets {
        let matching = meta::selects(selector, rs.metadata.labels.as_ref());
        let free = !deleting && !meta::is_deleting(&rs.metadata);
        match meta::controller_of(&rs.metadata) {
            Some(owner) if owner.uid == uid && matching => owned.push(rs),
            Some(owner) if owner.uid == uid && free => plan.release.push(meta::name(&rs.metadata).into()),
            None if matching && free => {
                plan.adopt.push(meta::name(&rs.metadata).into());
                owned.push(rs);
            }
            _ => {}
        }
    }
    owned.sort_by_key(|rs| (meta::created(&rs.metadata), meta::name(&rs.metadata).to_string()));
    owned
}

fn view<'a>(deployment: &'a Deployment, owned: Vec<&'a ReplicaSet>) -> View<'a> {
    let spec = deployment.spec.as_ref();
    let replicas = spec.and_then(|s| s.replicas).unwrap_or(1);
    let strategy = spec.and_then(|s| s.strategy.as_ref());
    let recreate = strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let (max_surge, max_unavailable) = rolling::bounds(strategy.and_then(|s| s.rolling_update.as_ref()), replicas);
    let template = spec.map(|s| &s.template);
    let hash = template.map(|t| revision::hash(t, collisions(deployment))).unwrap_or_default();
    let same = |rs: &&&ReplicaSet| {
        rs.spec.as_ref().and_then(|s| s.template.as_ref()).zip(template).is_some_and(|(a, b)| revision::same_template(a, b))
    };
    let by_hash = |rs: &&&ReplicaSet| meta::label(&rs.metadata, HASH) == Some(&hash);
    let new = owned.iter().find(same).or_else(|| owned.iter().find(by_hash)).copied();
    let old = owned.into_iter().filter(|rs| new.is_none_or(|n| !std::ptr::eq(n, *rs))).collect();
    View {
        deployment,
        replicas,
        max_surge: if recreate { 0 } else { max_surge },
        max_unavailable: if recreate { 0 } else { max_unavailable },
        recreate,
        paused: spec.and_then(|s| s.paused).unwrap_or(false),
        new,
        old,
    }
}

fn collisions(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0)
}

/// Why the new ReplicaSet is where it is, for the Progressing condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewSet {
    Created,
    Found,
}

fn step_scale(view: &View, plan: &mut Plan) {
    for (rs, to) in rolling::proportional(view) {
        resize(view, plan, rs, to);
    }
}

fn step_rolling(view: &View, plan: &mut Plan) -> Option<NewSet> {
    let Some(new) = view.new else {
        create(view, rolling::new_size(view, 0), plan);
        return Some(NewSet::Created);
    };
    revision::sync_annotations(view, plan);
    let to = rolling::new_size(view, size(new));
    if to != size(new) {
        resize(view, plan, new, to);
    } else {
        for (rs, to) in rolling::shrink_old(view) {
            resize(view, plan, rs, to);
        }
    }
    Some(NewSet::Found)
}

fn step_recreate(view: &View, pods: &[&Pod], plan: &mut Plan) -> Option<NewSet> {
    let mut shrinking = false;
    for rs in view.old.iter().filter(|rs| size(rs) > 0) {
        resize(view, plan, rs, 0);
        shrinking = true;
    }
    // An old pod that still runs, even one that is terminating, must be gone before a new one is made.
    let runs = |rs: &&ReplicaSet| {
        let of_set = |p: &&&Pod| meta::controlled_by(&p.metadata, meta::uid(&rs.metadata));
        pods.iter().filter(of_set).any(|p| !meta::is_finished(p))
    };
    let waiting = shrinking || view.old.iter().any(|rs| counted(rs) > 0 || runs(rs));
    match view.new {
        None if waiting => None,
        None => {
            create(view, view.replicas, plan);
            Some(NewSet::Created)
        }
        Some(new) => {
            revision::sync_annotations(view, plan);
            if !waiting && size(new) != view.replicas {
                resize(view, plan, new, view.replicas);
            }
            Some(NewSet::Found)
        }
    }
}

/// Records the new size of a ReplicaSet together with the annotations that scaling in the middle of a rollout reads.
fn resize(view: &View, plan: &mut Plan, rs: &ReplicaSet, to: i32) {
    let from = size(rs);
    let name = meta::name(&rs.metadata);
    let at = match plan.change.iter().position(|c| c.name == name) {
        Some(at) => at,
        None => {
            plan.change.push(Change {
                name: name.into(),
                from,
                to,
                annotations: rs.metadata.annotations.clone().unwrap_or_default(),
                min_ready_seconds: rs.spec.as_ref().and_then(|s| s.min_ready_seconds),
            });
            plan.change.len() - 1
        }
    };
    let change = &mut plan.change[at];
    change.to = to;
    revision::sizes(view, &mut change.annotations);
    let unchanged = to == from
        && rs.metadata.annotations.as_ref().unwrap_or(&Labels::new()) == &change.annotations
        && change.min_ready_seconds == rs.spec.as_ref().and_then(|s| s.min_ready_seconds);
    if unchanged {
        plan.change.remove(at);
    } else if to != from {
        let how = if to > from { "up" } else { "down" };
        let message = format!("Scaled {how} replica set {name} from {from} to {to}");
        plan.events.push(Event { warning: false, reason: "ScalingReplicaSet", message });
    }
}

fn create(view: &View, replicas: i32, plan: &mut Plan) {
    let deployment = view.deployment;
    let Some(spec) = &deployment.spec else { return };
    let hash = revision::hash(&spec.template, collisions(deployment));
    let name = format!("{}-{hash}", meta::name(&deployment.metadata));
    let mut template: PodTemplateSpec = spec.template.clone();
    template.metadata.get_or_insert_default().labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash);
    let number = revision::latest(&view.old) + 1;
    let mut annotations = revision::copied(deployment);
    annotations.insert(revision::REVISION.into(), number.to_string());
    revision::sizes(view, &mut annotations);
    plan.revision = revision::of_deployment(deployment, &number.to_string());
    plan.events.push(Event {
        warning: false,
        reason: "ScalingReplicaSet",
        message: format!("Scaled up replica set {name} from 0 to {replicas}"),
    });
    plan.create = Some(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_ref("apps/v1", "Deployment", &deployment.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    });
}

/// The condition of a type, as the Deployment has it now.
pub(crate) fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}
