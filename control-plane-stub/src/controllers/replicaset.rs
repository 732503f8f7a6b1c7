//! ReplicaSet: keep as many pods as the spec says.
//!
//! `decide` is pure: a ReplicaSet and the pods of its namespace in, what to adopt, release, create and delete out, and
//! the status that the pods add up to. The shell carries it out in slow-start batches and records events.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::meta::{self, Labels};

#[cfg(test)]
mod tests;

/// One sync creates or deletes at most this many pods; the next sync goes on.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub adopt: Vec<PodRef>,
    pub release: Vec<PodRef>,
    pub create: usize,
    pub delete: Vec<PodRef>,
    pub status: ReplicaSetStatus,
    /// When a ready pod becomes available and the status has to be counted again.
    pub wake_after: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    pub name: String,
    pub uid: String,
}

fn pod_ref(pod: &Pod) -> PodRef {
    PodRef { name: meta::name(&pod.metadata).into(), uid: meta::uid(&pod.metadata).into() }
}

fn is_active(pod: &Pod) -> bool {
    !meta::is_finished(pod) && !meta::is_deleting(&pod.metadata)
}

/// `pods` are those of the ReplicaSet's namespace; others than its own and the orphans that match are passed over.
pub fn decide(rs: &ReplicaSet, pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &rs.spec else { return plan };
    let uid = meta::uid(&rs.metadata);
    let deleting = meta::is_deleting(&rs.metadata);
    let mut mine = vec![];
    for &pod in pods {
        let matching = meta::selects(Some(&spec.selector), pod.metadata.labels.as_ref());
        match meta::controller_of(&pod.metadata) {
            Some(owner) if owner.uid == uid && matching => mine.push(pod),
            Some(owner) if owner.uid == uid && !deleting && !meta::is_deleting(&pod.metadata) => plan.release.push(pod_ref(pod)),
            None if matching && !deleting && is_active(pod) => {
                plan.adopt.push(pod_ref(pod));
                mine.push(pod);
            }
            _ => {}
        }
    }
    let active: Vec<&Pod> = mine.iter().copied().filter(|p| is_active(p)).collect();
    let want = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !deleting {
        if active.len() < want {
            plan.create = (want - active.len()).min(BURST);
        } else if active.len() > want {
            plan.delete = victims(&active, (active.len() - want).min(BURST));
        }
    }
    let terminating = mine.iter().filter(|p| meta::is_deleting(&p.metadata) && !meta::is_finished(p)).count();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.as_ref();
    plan.status = count(rs, template, &active, terminating, min_ready, now);
    plan.wake_after = active
        .iter()
        .filter_map(|p| meta::available_at(p, min_ready))
        .filter(|&at| at > now)
        .min()
        .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    plan
}

fn count(
    rs: &ReplicaSet,
    template: Option<&PodTemplateSpec>,
    active: &[&Pod],
    terminating: usize,
    min_ready: i32,
    now: Timestamp,
) -> ReplicaSetStatus {
    let of_template: Labels = template.and_then(|t| t.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let total = |f: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| f(p)).count() as i32;
    let labelled = |p: &Pod| of_template.is_empty() || meta::has_all(&of_template, p.metadata.labels.as_ref());
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: Some(total(&labelled)),
        ready_replicas: Some(total(&meta::is_ready)),
        available_replicas: Some(total(&|p| meta::available_at(p, min_ready).is_some_and(|at| at <= now))),
        terminating_replicas: Some(terminating as i32),
        observed_generation: rs.metadata.generation,
        conditions: rs.status.as_ref().and_then(|s| s.conditions.clone()),
    }
}

/// The pods that hurt least to lose: unscheduled before scheduled, pending before running, unready before ready, cheap
/// before dear, crowded nodes before empty ones, lately ready before long ready, often restarted first, young before old.
fn victims(active: &[&Pod], how_many: usize) -> Vec<PodRef> {
    let mut crowd: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in active.iter().filter(|p| meta::is_ready(p)) {
        *crowd.entry(meta::node_name(pod).unwrap_or_default()).or_default() += 1;
    }
    let mut ranked: Vec<(Rank, &Pod)> = active.iter().map(|&p| (rank(p, &crowd), p)).collect();
    ranked.sort_by(|(a, p), (b, q)| a.cmp(b).then_with(|| meta::name(&p.metadata).cmp(meta::name(&q.metadata))));
    ranked.into_iter().take(how_many).map(|(_, pod)| pod_ref(pod)).collect()
}

/// Compared field by field; the smaller goes first.
type Rank = (bool, u8, bool, i32, i64, std::cmp::Reverse<Timestamp>, i32, std::cmp::Reverse<Timestamp>);

fn rank(pod: &Pod, crowd: &BTreeMap<&str, i64>) -> Rank {
    let scheduled = meta::node_name(pod).is_some();
    let phase = match meta::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = meta::is_ready(pod);
    let cost = meta::annotation(&pod.metadata, DELETION_COST).and_then(|c| c.parse().ok()).unwrap_or(0);
    let neighbours = meta::node_name(pod).and_then(|n| crowd.get(n)).copied().unwrap_or(0);
    let ready_since = meta::pod_condition(pod, "Ready")
        .filter(|_| ready)
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or(Timestamp::MIN, |t| t.0);
    let restarts =
        pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).map(|c| c.restart_count).max().unwrap_or(0);
    use std::cmp::Reverse;
    (scheduled, phase, ready, cost, -neighbours, Reverse(ready_since), -restarts, Reverse(meta::created(&pod.metadata)))
}

/// The pod that a ReplicaSet makes from its template.
pub fn pod_of(rs: &ReplicaSet) -> Pod {
    let template = rs.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let from = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", meta::name(&rs.metadata))),
            namespace: rs.metadata.namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![meta::controller_ref("apps/v1", "ReplicaSet", &rs.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The conditions after a sync: `ReplicaFailure` stands while pods cannot be made or removed.
pub fn conditions(
    old: Option<&Vec<ReplicaSetCondition>>,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut kept: Vec<ReplicaSetCondition> = old.into_iter().flatten().filter(|c| c.type_ != "ReplicaFailure").cloned().collect();
    if let Some((reason, message)) = failure {
        let before = old.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure");
        let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(now));
        kept.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(since),
        });
    }
    (!kept.is_empty()).then_some(kept)
}

/// Sizes of the batches that pods are made in: a failing create is then tried once, not five hundred times.
pub fn batches(total: usize) -> impl Iterator<Item = usize> {
    let mut left = total;
    let mut size = 1;
    std::iter::from_fn(move || {
        let now = size.min(left);
        left -= now;
        size *= 2;
        (now > 0).then_some(now)
    })
}
