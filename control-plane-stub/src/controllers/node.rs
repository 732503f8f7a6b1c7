//! The life of a node as the cluster sees it: whether it still answers, which taints follow from that, which of its
//! pods have to go and when, and its part of the cluster's pod addresses. Pure: the age of the lease is given.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::ranges::Ranges;
use crate::scheduler::fit::{UNSCHEDULABLE, tolerates};

#[cfg(test)]
mod tests;

/// A node whose lease stands still for so long does not answer.
pub const GRACE: Duration = Duration::from_secs(40);
/// Pods of a node that is no longer there are removed after this time.
pub const ABANDONED: SignedDuration = SignedDuration::from_secs(40);
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// What the kubelet reports; all of it is unknown when it does not answer.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// New conditions, if they change.
    pub conditions: Option<Vec<NodeCondition>>,
    /// New taints, if they change.
    pub taints: Option<Vec<Taint>>,
    /// The node does not answer: its pods cannot be taken for ready.
    pub lost: bool,
    /// When the lease will have stood still for too long.
    pub wake_after: Option<Duration>,
}

pub fn decide(node: &Node, lease_age: Duration, now: Timestamp) -> Plan {
    let old = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let lost = lease_age >= GRACE;
    let conditions = if lost { unknown(&old, now) } else { old.clone() };
    let before = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let after = taints(node, &conditions, &before, now);
    Plan {
        lost,
        wake_after: (!lost).then(|| GRACE - lease_age),
        taints: (after != before).then_some(after),
        conditions: (conditions != old).then_some(conditions),
    }
}

fn unknown(old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let mut conditions = old.to_vec();
    for kind in REPORTED {
        let make = |reason: &str, message: &str, beat: Option<Time>| NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: beat,
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                let beat = c.last_heartbeat_time.clone();
                *c = make("NodeStatusUnknown", "the node has stopped renewing its lease", beat);
            }
            None => conditions.push(make("NodeStatusNeverUpdated", "the node has never reported a status", None)),
        }
    }
    conditions
}

fn taints(node: &Node, conditions: &[NodeCondition], before: &[Taint], now: Timestamp) -> Vec<Taint> {
    let state = |kind: &str| conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str());
    let mut wanted: Vec<(&str, &str)> = vec![];
    match state("Ready") {
        Some("True") => {}
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some(_) => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        // It has only just registered: nothing is put there yet, but nothing has to leave either.
        None => wanted.push((NOT_READY, "NoSchedule")),
    }
    let pressures = [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ];
    wanted.extend(pressures.iter().filter(|(kind, _)| state(kind) == Some("True")).map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |t: &Taint| {
        let own = [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&t.key.as_str());
        own || pressures.iter().any(|(_, key)| *key == t.key)
    };
    let is = |t: &Taint, (key, effect): &(&str, &str)| t.key == *key && t.effect == *effect;
    let mut after: Vec<Taint> = before.iter().filter(|t| !managed(t) || wanted.iter().any(|w| is(t, w))).cloned().collect();
    for want in wanted {
        if !after.iter().any(|t| is(t, &want)) {
            let time_added = (want.1 == "NoExecute").then_some(Time(now));
            after.push(Taint { key: want.0.into(), effect: want.1.into(), value: None, time_added });
        }
    }
    after
}

/// When a pod has to leave its node because of NoExecute taints; nothing if it may stay. A taint without a time counts
/// from `now`.
pub fn evict_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut earliest = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let mut fitting = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        let added = taint.time_added.as_ref().map_or(now, |t| t.0);
        let leave = if fitting.peek().is_none() {
            Some(now)
        } else {
            let seconds = fitting.filter_map(|t| t.toleration_seconds).min();
            seconds.map(|s| added.checked_add(SignedDuration::from_secs(s.max(0))).unwrap_or(Timestamp::MAX))
        };
        earliest = earliest.into_iter().chain(leave).min();
    }
    earliest
}

/// The first part of each of the cluster's ranges that no node has; nothing if one of them is used up.
pub fn free_cidrs(cluster: Ranges, used: &BTreeSet<IpNet>) -> Option<Vec<IpNet>> {
    cluster.iter().map(|range| free_cidr(range, used)).collect()
}

fn free_cidr(range: IpNet, used: &BTreeSet<IpNet>) -> Option<IpNet> {
    let length = if matches!(range, IpNet::V4(_)) { 24 } else { 64 };
    range.subnets(length.max(range.prefix_len())).ok()?.find(|net| !used.contains(net))
}
