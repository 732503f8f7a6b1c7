//! The scheduler's shell: one task that owns the queue of pods without a node and its own placements that the watch has
//! not shown yet. Placing is done one pod after the other on one picture; binding runs beside it. When it ends, what it
//! assumed is forgotten, and the next start sees from the API what was bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{NAME, NodeInfo, Refusals, place};
use crate::controllers::cache::{Informer, Reader};
use crate::controllers::events::{Recorder, reference};
use crate::controllers::meta::{self, Key};
use crate::controllers::queue::{Outcome, Queue};
use crate::controllers::runner::WAKES;
use crate::kinds::{self, Sub};
use crate::registry::{Registry, WriteOptions};
use crate::status::ApiError;

/// A pod without a place is looked at again after this long, should the event that helps it have been missed.
const BACKSTOP: Duration = Duration::from_secs(300);

#[derive(Debug)]
enum Wake {
    /// This pod wants a node.
    Pod(Key),
    /// Something changed that may help pods that found no place.
    Room,
    /// A pod was bound: that only helps pods which look at other pods.
    Neighbour,
}

/// Starts the scheduler and its watches.
pub fn spawn(registry: &Registry, cancel: &CancellationToken) -> Vec<JoinHandle<()>> {
    let (events, recorder) = Recorder::spawn(registry, NAME, cancel);
    let (tx, rx) = mpsc::channel(WAKES);
    let mut pods = Informer::<Pod>::new(registry, &kinds::POD);
    let mut nodes = Informer::<Node>::new(registry, &kinds::NODE);
    pods.wake(&tx, wakes_by_pod);
    nodes.wake(&tx, wakes_by_node);
    let task = Task {
        registry: registry.clone(),
        pods: pods.reader(),
        nodes: nodes.reader(),
        events,
        queue: Queue::default(),
        parked: BTreeSet::new(),
        assumed: BTreeMap::new(),
        writes: FuturesUnordered::new(),
    };
    let token = cancel.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            () = task.run(rx) => {}
            () = token.cancelled() => {}
        }
    });
    vec![recorder, pods.spawn(cancel), nodes.spawn(cancel), task]
}

fn wants_node(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    meta::node_name(pod).is_none()
        && !meta::is_deleting(&pod.metadata)
        && !meta::is_finished(pod)
        && spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.scheduling_gates.as_ref().is_none_or(|g| g.is_empty())
}

fn looks_at_others(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let near = spec.affinity.as_ref().is_some_and(|a| a.pod_affinity.is_some());
    near || spec.topology_spread_constraints.as_ref().is_some_and(|c| !c.is_empty())
}

fn wakes_by_pod(old: Option<&Pod>, new: Option<&Pod>) -> Vec<Wake> {
    let mut wakes = vec![];
    if let Some(new) = new.filter(|p| wants_node(p)) {
        // The scheduler's own condition on the pod is no reason to look again.
        let same = |o: &Pod| wants_node(o) && o.spec == new.spec && o.metadata.labels == new.metadata.labels;
        if !old.is_some_and(same) {
            wakes.push(Wake::Pod(Key::of(&new.metadata)));
        }
    }
    let holds = |p: Option<&Pod>| p.is_some_and(|p| meta::node_name(p).is_some() && !meta::is_finished(p));
    let labels = |p: Option<&Pod>| p.and_then(|p| p.metadata.labels.clone());
    let resources = |p: Option<&Pod>| p.map(super::resources::of_pod);
    match (holds(old), holds(new)) {
        (true, false) => wakes.push(Wake::Room),
        (false, true) => wakes.push(Wake::Neighbour),
        (true, true) if labels(old) != labels(new) || resources(old) != resources(new) => wakes.push(Wake::Room),
        _ => {}
    }
    wakes
}

fn wakes_by_node(old: Option<&Node>, new: Option<&Node>) -> Vec<Wake> {
    let offer = |n: Option<&Node>| n.map(NodeInfo::new).map(|n| (n.labels, n.taints, n.unschedulable, n.allocatable));
    if offer(old) == offer(new) { vec![] } else { vec![Wake::Room] }
}

/// How a write ended: the pod it was for, and whether it was a binding.
struct Written {
    key: Key,
    bound: bool,
    result: Result<(), ApiError>,
}

struct Task {
    registry: Registry,
    pods: Reader<Pod>,
    nodes: Reader<Node>,
    events: Recorder,
    queue: Queue<Key>,
    /// Pods that found no place.
    parked: BTreeSet<Key>,
    /// Pods as they will be once the watch shows their binding.
    assumed: BTreeMap<Key, Arc<Pod>>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
}

impl Task {
    async fn run(mut self, mut wakes: mpsc::Receiver<Wake>) {
        self.pods.synced().await;
        self.nodes.synced().await;
        loop {
            while let Ok(wake) = wakes.try_recv() {
                self.wake(wake);
            }
            self.place_all();
            let timer = async {
                match self.queue.wake_at() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                wake = wakes.recv() => match wake {
                    Some(wake) => self.wake(wake),
                    None => return,
                },
                Some(written) = self.writes.next() => self.written(written),
                () = timer => {}
            }
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Pod(key) => self.queue.add(key),
            Wake::Room => {
                for key in std::mem::take(&mut self.parked) {
                    self.queue.add(key);
                }
            }
            Wake::Neighbour => {
                let (pods, queue) = (&self.pods, &mut self.queue);
                self.parked.retain(|key| {
                    let wake = pods.get(key).is_none_or(|p| looks_at_others(&p));
                    if wake {
                        queue.add(key.clone());
                    }
                    !wake
                });
            }
        }
    }

    fn place_all(&mut self) {
        let mut picture = None;
        while let Some(key) = self.queue.next(Instant::now()) {
            self.parked.remove(&key);
            let pod = self.pods.get(&key).filter(|p| wants_node(p));
            let Some(pod) = pod.filter(|p| self.assumed.get(&key).is_none_or(|a| a.metadata.uid != p.metadata.uid)) else {
                self.queue.done(key, Outcome::Done, Instant::now());
                continue;
            };
            let nodes = picture.get_or_insert_with(|| self.picture());
            match place(&pod, nodes, rand::random()).map(|n| n.name.clone()) {
                Ok(node) => {
                    let mut placed = (*pod).clone();
                    placed.spec.get_or_insert_default().node_name = Some(node.clone());
                    let placed = Arc::new(placed);
                    if let Some(info) = nodes.iter_mut().find(|n| n.name == node) {
                        info.add(&placed);
                    }
                    self.assumed.insert(key.clone(), placed);
                    self.bind(key, pod, node);
                }
                Err(why) => {
                    self.parked.insert(key.clone());
                    self.refuse(key, &pod, &why);
                }
            }
        }
    }

    /// The nodes with what runs on them, and with what is about to.
    fn picture(&mut self) -> Vec<NodeInfo> {
        let (nodes, pods) = (self.nodes.all(), self.pods.all());
        self.assumed.retain(|key, assumed| {
            pods.get(key).is_some_and(|p| p.metadata.uid == assumed.metadata.uid && meta::node_name(p).is_none())
        });
        let mut infos: BTreeMap<String, NodeInfo> =
            nodes.values().map(|n| NodeInfo::new(n)).map(|info| (info.name.clone(), info)).collect();
        for pod in pods.values().chain(self.assumed.values()) {
            if let Some(info) = meta::node_name(pod).and_then(|n| infos.get_mut(n)) {
                info.add(pod);
            }
        }
        infos.into_values().collect()
    }

    fn bind(&mut self, key: Key, pod: Arc<Pod>, node: String) {
        let (registry, events) = (self.registry.clone(), self.events.clone());
        self.writes.push(Box::pin(async move {
            let binding = json!({"apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": key.name, "namespace": key.namespace, "uid": pod.metadata.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
            let result = registry.bind(&key.namespace, &key.name, &binding, &WriteOptions::default()).await;
            let about = reference("v1", "Pod", &pod.metadata);
            match &result {
                Ok(()) => events.say(about, false, "Scheduled", format!("Successfully assigned {key} to {node}")),
                Err(error) if error.is_not_found() => {}
                Err(error) => events.say(about, true, "FailedScheduling", format!("binding to node {node} was refused: {error}")),
            }
            Written { key, bound: true, result }
        }));
    }

    fn refuse(&mut self, key: Key, pod: &Pod, why: &Refusals) {
        let message = why.to_string();
        // Saying the same thing at each try would only cost writes.
        let said = meta::pod_condition(pod, "PodScheduled").and_then(|c| c.message.as_deref());
        if said != Some(message.as_str()) {
            self.events.say(reference("v1", "Pod", &pod.metadata), true, "FailedScheduling", message.as_str());
        }
        let (registry, uid, now) = (self.registry.clone(), pod.metadata.uid.clone(), json!(Time(Timestamp::now())));
        self.writes.push(Box::pin(async move {
            let write = |v: &mut Value| {
                v.pointer("/metadata/uid").and_then(Value::as_str) == uid.as_deref() && set_unschedulable(v, &message, &now)
            };
            let result = registry.modify(&kinds::POD, &key.namespace, &key.name, Some(Sub::Status), write).await.map(|_| ());
            Written { key, bound: false, result }
        }));
    }

    fn written(&mut self, written: Written) {
        let Written { key, bound, result } = written;
        let outcome = match result {
            Ok(()) if bound => Outcome::Done,
            Ok(()) => Outcome::Again(BACKSTOP),
            Err(error) => {
                tracing::debug!(%key, %error, "a pod could not be placed, trying again");
                self.assumed.remove(&key);
                if error.is_not_found() { Outcome::Done } else { Outcome::Failed }
            }
        };
        self.queue.done(key, outcome, Instant::now());
    }
}

/// Says on the pod that it found no place; false if it says so already.
fn set_unschedulable(pod: &mut Value, message: &str, now: &Value) -> bool {
    let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    let Some(map) = pod.as_object_mut().filter(|_| !bound) else { return false };
    let status = map.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return false };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return false };
    let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": now});
    match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(old) if old["status"] == "False" && old["reason"] == "Unschedulable" && old["message"] == message => return false,
        Some(old) => {
            if old["status"] == "False" {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => list.push(condition),
    }
    true
}
