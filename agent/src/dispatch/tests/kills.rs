//! The agent is killed within each call that it makes of the runtime, before the call does its work and after: a new agent brings
//! the pod to where it would have come, nothing is started twice, nothing that ran is ended, nothing stays behind.

use super::ready;
use super::world::World;
use ferrolet_cri::fake::{Fault, Profile, Program};
use ferrolet_cri::types::ContainerState;
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// Worlds at a time.
const AT_ONCE: usize = 6;

/// The calls that change something.
pub(super) const WORK: [&str; 7] = [
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
];

/// The agent's life ends in the nth call of this method.
#[derive(Debug, Clone)]
struct Point {
    method: &'static str,
    nth: u32,
    worked: bool,
}

fn spec() -> Value {
    let c = |name: &str| json!({"name": name, "image": "web:1", "imagePullPolicy": "IfNotPresent", "command": ["/web", name]});
    let mut side = c("side");
    side["restartPolicy"] = json!("Always");
    json!({"initContainers": [c("init"), side], "containers": [c("a"), c("b")]})
}

async fn world() -> World {
    let mut w = World::start(Profile::containerd_2()).await;
    w.stop_agent().await;
    w.fake.script(&["/web", "init"], Program::ends(0, "", ""));
    for name in ["side", "a", "b"] {
        w.fake.script(&["/web", name], Program::runs());
    }
    w.start_mortal_agent();
    w
}

/// Every call that changes something between two moments of a life without faults.
fn points(calls: &[&'static str]) -> Vec<Point> {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut all = Vec::new();
    for method in calls.iter().filter(|m| WORK.contains(m)) {
        let nth = seen.entry(method).or_default();
        all.extend([false, true].map(|worked| Point { method, nth: *nth, worked }));
        *nth += 1;
    }
    all
}

impl World {
    fn set(&self, p: &Point) {
        if p.nth > 0 {
            self.fake.inject_first(p.method, p.nth, Fault::Delay(Duration::ZERO));
        }
        self.fake.inject_first(p.method, 1, if p.worked { Fault::HangAfter } else { Fault::Hang });
        self.fake.clear_calls();
    }

    /// Until the agent is within that call; then it is killed, and another takes its place.
    async fn reached(&mut self, p: &Point) {
        let within = self.fake.wait(LIMIT, || (self.fake.count(p.method) > p.nth as usize).then_some(()));
        assert!(within.await.is_some(), "{p:?} was never made");
        if p.worked {
            // The call is written down before its work is done.
            self.until("its effect", |w| w.has_effect(p).then_some(())).await;
        }
        self.kill_agent();
        self.fake.clear_faults();
        self.start_mortal_agent();
    }

    fn has_effect(&self, p: &Point) -> bool {
        let nth = p.nth as usize;
        let (sandboxes, containers) = (self.fake.sandboxes(), self.fake.containers());
        let in_state = |s: ContainerState| containers.iter().filter(|c| c.state == s).count();
        let ready = sandboxes.iter().any(|s| s.state == ferrolet_cri::types::SandboxState::Ready);
        match p.method {
            "RunPodSandbox" => ready,
            "CreateContainer" => containers.len() > nth,
            "StartContainer" => containers.len() - in_state(ContainerState::Created) > nth,
            // One has ended before.
            "StopContainer" => in_state(ContainerState::Exited) > nth + 1,
            "RemoveContainer" => containers.len() < 4 - nth,
            "StopPodSandbox" => !ready,
            _ => sandboxes.is_empty(),
        }
    }

    fn running(&self) -> Vec<(String, String)> {
        let all = self.fake.containers().into_iter().filter(|c| c.state == ContainerState::Running);
        let mut all: Vec<_> = all.map(|c| (c.config.name, c.id)).collect();
        all.sort();
        all
    }
}

/// Names and counts of all containers of a status.
fn counts(pod: &Value) -> Vec<(String, i64)> {
    let lists = ["initContainerStatuses", "containerStatuses"].map(|l| pod["status"][l].as_array().cloned().unwrap_or_default());
    let all = lists.into_iter().flatten();
    all.map(|c| (c["name"].as_str().unwrap().to_owned(), c["restartCount"].as_i64().unwrap())).collect()
}

/// Nothing that was said to run is said to wait or to have ended later, nor another in its place.
fn never_backwards(w: &World, p: &Point) {
    let mut ran: BTreeMap<String, Value> = BTreeMap::new();
    for pod in w.api.statuses("p") {
        for c in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let name = c["name"].as_str().unwrap().to_owned();
            if let Some(id) = ran.get(&name) {
                assert!(c["state"]["running"].is_object() && c["containerID"] == *id, "{p:?}: {name} ran as {id}, then {c:#}");
            }
            if c["state"]["running"].is_object() {
                ran.insert(name, c["containerID"].clone());
            }
        }
    }
}

async fn killed_while_starting(p: Point) {
    let mut w = world().await;
    w.set(&p);
    w.create("p", spec());
    w.reached(&p).await;
    let pod = w.until(&format!("ready after {p:?}"), |w| w.pod("p").filter(ready)).await;
    let names: Vec<String> = w.running().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "side"], "{p:?}");
    assert!(counts(&pod).iter().all(|(_, count)| *count == 0), "{p:?}: {:?}", counts(&pod));
    assert_eq!(w.fake.sandboxes().len(), 1, "{p:?}");
    never_backwards(&w, &p);
    gone(&mut w, &p).await;
}

async fn killed_while_ending(p: Point) {
    let mut w = world().await;
    w.create("p", spec());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.set(&p);
    w.delete("p", 30);
    w.reached(&p).await;
    gone(&mut w, &p).await;
    assert_eq!(w.fake.count("StartContainer") + w.fake.count("RunPodSandbox"), 0, "{p:?}: started while it ended");
}

async fn gone(w: &mut World, p: &Point) {
    w.delete("p", 30);
    w.until(&format!("gone after {p:?}"), |w| w.pod("p").is_none().then_some(())).await;
    assert!(w.fake.containers().is_empty() && w.fake.sandboxes().is_empty(), "{p:?}");
    let left: Vec<_> = std::fs::read_dir(w.root().join("pods")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{p:?} left {left:?}");
    w.kill_agent();
}

fn made(w: &World) -> Vec<&'static str> {
    w.fake.calls().iter().map(|c| c.method).collect()
}

async fn all<F: Future<Output = ()>>(points: Vec<Point>, least: usize, life: impl Fn(Point) -> F) {
    assert!(points.len() >= least, "only {points:?}");
    futures::stream::iter(points).for_each_concurrent(AT_ONCE, life).await;
}

#[tokio::test]
async fn in_every_call_of_a_start() {
    let mut w = world().await;
    w.create("p", spec());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    let calls = made(&w);
    w.kill_agent();
    // A sandbox, four containers.
    all(points(&calls), 2 * 9, killed_while_starting).await;
}

#[tokio::test]
async fn in_every_call_of_an_end() {
    let mut w = world().await;
    w.create("p", spec());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.clear_calls();
    w.delete("p", 30);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    let calls = made(&w);
    w.kill_agent();
    // Three that run, four in all, a sandbox.
    all(points(&calls), 2 * 9, killed_while_ending).await;
}
