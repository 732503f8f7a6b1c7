//! The shell of `node`. One key at a time, so that two nodes never get the same addresses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{revision_of, text};
use crate::controllers::cache::Reader;
use crate::controllers::events::{Recorder, reference};
use crate::controllers::meta::{self, Key};
use crate::controllers::node::{ABANDONED, Plan, decide, evict_at, free_cidrs};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds::{self, Sub};
use crate::ranges::Ranges;
use crate::registry::{DeleteOptions, Registry};

const LEASES: &str = "kube-node-lease";
const ABANDONED_REASON: &str = "DeletionByPodGC";

/// A lease and when this process saw it so. The node's own clock is of no use, and after a restart every node gets its
/// full time again.
#[derive(Debug, Clone)]
pub struct Seen {
    pub lease: Lease,
    pub at: Instant,
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Seen { lease: Lease::deserialize(deserializer)?, at: Instant::now() })
    }
}

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub nodes: Reader<Node>,
    pub pods: Reader<Pod>,
    pub leases: Reader<Seen>,
    pub events: Recorder,
    pub cluster_cidr: Option<Ranges>,
    pub started: Instant,
}

/// A renewal needs no look: the timer finds it. Only what brings a node back does.
pub fn wakes_by_lease(nodes: &Reader<Node>, _old: Option<&Seen>, new: Option<&Seen>) -> Vec<Key> {
    let Some(new) = new.filter(|l| meta::namespace(&l.lease.metadata) == LEASES) else { return vec![] };
    let key = Key::new("", meta::name(&new.lease.metadata));
    let lost = nodes.get(&key).is_some_and(|n| ready(&n) != Some("True".into()));
    if lost { vec![key] } else { vec![] }
}

/// A pod that came to a node may have to leave it again.
pub fn wakes_by_pod(old: Option<&Pod>, new: Option<&Pod>) -> Vec<Key> {
    let of = |p: Option<&Pod>| p.and_then(meta::node_name).map(str::to_owned);
    let ready = |p: Option<&Pod>| p.is_some_and(meta::is_ready);
    let came = of(new).filter(|_| of(old) != of(new) || ready(old) != ready(new));
    came.map(|n| Key::new("", n)).into_iter().collect()
}

fn pod_cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return vec![] };
    let listed = spec.pod_cidrs.clone().unwrap_or_default();
    if listed.is_empty() { spec.pod_cidr.iter().filter(|c| !c.is_empty()).cloned().collect() } else { listed }
}

fn ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone())
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        self.nodes.synced().await;
        self.pods.synced().await;
        self.leases.synced().await;
        let pods: Vec<Arc<Pod>> =
            self.pods.all().values().filter(|p| meta::node_name(p) == Some(key.name.as_str())).cloned().collect();
        let now = Timestamp::now();
        let Some(node) = self.nodes.get(&key) else { return self.abandon(&key.name, &pods, now).await };
        let seen = self.leases.get(&Key::new(LEASES, &key.name)).map(|s| s.at.elapsed());
        let plan = decide(&node, seen.unwrap_or_else(|| self.known_for(&node, now)), now);
        self.write(&key, &node, &plan).await?;
        if plan.lost {
            self.unready(&pods, now).await?;
        }
        self.reclaim(&pods).await?;
        let taints = plan.taints.or_else(|| node.spec.as_ref().and_then(|s| s.taints.clone())).unwrap_or_default();
        let mut next = plan.wake_after;
        for pod in pods.iter().filter(|p| !meta::is_deleting(&p.metadata) && !meta::is_finished(p)) {
            match evict_at(pod, &taints, now) {
                Some(at) if at <= now => self.evict(pod, now).await?,
                Some(at) => {
                    let after = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    next = Some(next.map_or(after, |n| n.min(after)));
                }
                None => {}
            }
        }
        Ok(next)
    }

    /// For a node without a lease: how long this process has known it.
    fn known_for(&self, node: &Node, now: Timestamp) -> Duration {
        let age = Duration::try_from(now.duration_since(meta::created(&node.metadata))).unwrap_or_default();
        age.min(self.started.elapsed())
    }

    async fn write(&self, key: &Key, node: &Node, plan: &Plan) -> Result<(), Error> {
        let mut latest = 0;
        let uid = meta::uid(&node.metadata);
        let version = node.metadata.resource_version.as_deref().unwrap_or_default();
        if let Some(conditions) = &plan.conditions {
            let mut stale = false;
            let put = |v: &mut Value| {
                stale = text(v, "resourceVersion") != version;
                if !stale {
                    v["status"]["conditions"] = json!(conditions);
                }
                !stale
            };
            let done = self.registry.modify(&kinds::NODE, "", &key.name, Some(Sub::Status), put).await;
            let done = unless_gone(done, "write the conditions of a node")?;
            if stale {
                return Err(Error::Stale(format!("node {}", key.name)));
            }
            latest = done.map_or(0, |v| revision_of(&v));
            let about = reference("v1", "Node", &node.metadata);
            self.events.say(about, false, "NodeNotReady", format!("Node {} status is now: NodeNotReady", key.name));
        }
        let cidrs = self.wanted_cidrs(node);
        if plan.taints.is_some() || !cidrs.is_empty() {
            let before = json!(node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default());
            let mut stale = false;
            let put = |v: &mut Value| {
                let there = v.pointer("/spec/taints").cloned().unwrap_or_else(|| json!([]));
                stale = text(v, "uid") != uid || there != before;
                if stale {
                    return false;
                }
                if let Some(taints) = &plan.taints {
                    v["spec"]["taints"] = json!(taints);
                }
                if let Some(first) = cidrs.first() {
                    v["spec"]["podCIDR"] = json!(first);
                    v["spec"]["podCIDRs"] = json!(cidrs);
                }
                true
            };
            let done = self.registry.modify(&kinds::NODE, "", &key.name, None, put).await;
            let done = unless_gone(done, "write the taints of a node")?;
            if stale {
                return Err(Error::Stale(format!("node {}", key.name)));
            }
            latest = done.map_or(latest, |v| revision_of(&v));
        }
        self.nodes.reach(latest).await;
        Ok(())
    }

    /// A part of each of the cluster's ranges, for a node that has none yet.
    fn wanted_cidrs(&self, node: &Node) -> Vec<String> {
        let Some(cluster) = self.cluster_cidr else { return vec![] };
        if !pod_cidrs(node).is_empty() || meta::is_deleting(&node.metadata) {
            return vec![];
        }
        let used = self.nodes.all().values().flat_map(|n| pod_cidrs(n)).filter_map(|c| c.parse().ok()).collect();
        let free = free_cidrs(cluster, &used);
        if free.is_none() {
            let about = reference("v1", "Node", &node.metadata);
            self.events.say(about, true, "CIDRNotAvailable", "the cluster's pod address range is used up");
        }
        free.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    /// What the node last said of its pods may no longer be so.
    async fn unready(&self, pods: &[Arc<Pod>], now: Timestamp) -> Result<(), Error> {
        let now = json!(Time(now));
        for pod in pods.iter().filter(|p| meta::is_ready(p)) {
            let change = |v: &mut Value| {
                let list = v.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
                let Some(ready) = list.and_then(|l| l.iter_mut().find(|c| c["type"] == "Ready" && c["status"] == "True")) else {
                    return false;
                };
                ready["status"] = json!("False");
                ready["reason"] = json!("NodeNotReady");
                ready["lastTransitionTime"] = now.clone();
                true
            };
            self.change(pod, change, "mark a pod of a lost node").await?;
            let about = reference("v1", "Pod", &pod.metadata);
            self.events.say(about, true, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    async fn change(&self, pod: &Pod, mut change: impl FnMut(&mut Value) -> bool + Send, what: &str) -> Result<(), Error> {
        let (namespace, name, uid) = (meta::namespace(&pod.metadata), meta::name(&pod.metadata), meta::uid(&pod.metadata));
        let guarded = |v: &mut Value| text(v, "uid") == uid && change(v);
        let done = self.registry.modify(&kinds::POD, namespace, name, Some(Sub::Status), guarded).await;
        let seen = unless_gone(done, what)?.map_or(0, |v| revision_of(&v));
        self.pods.reach(seen).await;
        Ok(())
    }

    async fn evict(&self, pod: &Pod, now: Timestamp) -> Result<(), Error> {
        let message = format!("Marking for deletion Pod {}", Key::of(&pod.metadata));
        self.events.say(reference("v1", "Pod", &pod.metadata), false, "TaintManagerEviction", message);
        let why = disruption("DeletionByTaintManager", "the node has a taint that the pod does not tolerate", now);
        self.change(pod, |v| set_condition(v, &why), "mark a pod for eviction").await?;
        self.delete(pod, None).await
    }

    async fn delete(&self, pod: &Pod, grace: Option<i64>) -> Result<(), Error> {
        let (namespace, name) = (meta::namespace(&pod.metadata), meta::name(&pod.metadata));
        let options = DeleteOptions { grace_period_seconds: grace, uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        unless_gone(self.registry.delete(&kinds::POD, namespace, name, &options).await, "delete a pod").map(|_| ())
    }

    /// The node is gone. Its pods are marked first and removed when the mark has stood for a while, so that a node that
    /// registers anew keeps them.
    async fn abandon(&self, node: &str, pods: &[Arc<Pod>], now: Timestamp) -> Synced {
        let mut next: Option<Duration> = None;
        for pod in pods {
            let marked = meta::pod_condition(pod, "DisruptionTarget").filter(|c| c.reason.as_deref() == Some(ABANDONED_REASON));
            let until = marked.and_then(|c| c.last_transition_time.as_ref()?.0.checked_add(ABANDONED).ok());
            let left = match until {
                Some(until) if until <= now => {
                    self.events.say(
                        reference("v1", "Pod", &pod.metadata),
                        false,
                        ABANDONED_REASON,
                        format!("removed because node {node} no longer exists"),
                    );
                    self.delete(pod, Some(0)).await?;
                    continue;
                }
                Some(until) => Duration::try_from(until.duration_since(now)).unwrap_or_default(),
                None => {
                    let why = disruption(ABANDONED_REASON, "the node no longer exists", now);
                    self.change(pod, |v| set_condition(v, &why), "mark a pod without a node").await?;
                    Duration::try_from(ABANDONED).unwrap_or_default()
                }
            };
            next = Some(next.map_or(left, |n| n.min(left)));
        }
        Ok(next)
    }

    async fn reclaim(&self, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let abandoned = |c: &Value| c["type"] == "DisruptionTarget" && c["reason"] == ABANDONED_REASON;
        for pod in pods {
            if meta::pod_condition(pod, "DisruptionTarget").is_some_and(|c| c.reason.as_deref() == Some(ABANDONED_REASON)) {
                let unmark = |v: &mut Value| {
                    let Some(list) = v.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return false };
                    list.retain(|c| !abandoned(c));
                    true
                };
                self.change(pod, unmark, "take a mark off a pod").await?;
            }
        }
        Ok(())
    }
}

fn disruption(reason: &str, message: &str, now: Timestamp) -> Value {
    json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastProbeTime": null,
        "lastTransitionTime": Time(now)})
}

fn set_condition(pod: &mut Value, condition: &Value) -> bool {
    let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) else { return false };
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return false };
    list.retain(|c| c["type"] != condition["type"]);
    list.push(condition.clone());
    true
}
