//! Resizes in place, with an agent's dispatcher and actors on the fake runtime.

use super::ready;
use super::world::World;
use ferrolet_cri::Code;
use ferrolet_cri::fake::{Fault, Profile};
use serde_json::{Value, json};

fn asks(cpu: &str) -> Value {
    json!({"requests": {"cpu": cpu}})
}

fn pod(cpu: &[&str], extra: Value) -> Value {
    let one = |(i, cpu): (usize, &&str)| {
        let mut c = json!({"name": format!("c{i}"), "image": "web:1", "resources": asks(cpu)});
        for (field, value) in extra.as_object().into_iter().flatten() {
            c[field] = value.clone();
        }
        c
    };
    json!({"containers": cpu.iter().enumerate().map(one).collect::<Vec<_>>()})
}

fn condition(pod: &Value, kind: &str) -> Value {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

fn has(pod: &Value, at: usize) -> (&str, &str) {
    let s = &pod["status"]["containerStatuses"][at];
    (s["allocatedResources"]["cpu"].as_str().unwrap_or(""), s["resources"]["requests"]["cpu"].as_str().unwrap_or(""))
}

fn settled(pod: &Value) -> bool {
    condition(pod, "PodResizePending").is_null() && condition(pod, "PodResizeInProgress").is_null()
}

#[tokio::test]
async fn a_resize_is_carried_out_without_a_restart() {
    let w = World::start(Profile::containerd_1_6()).await;
    w.create("p", pod(&["100m"], json!(null)));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.resize("p", asks("200m"));
    let done = w.until("resized", |w| w.pod("p").filter(|p| has(p, 0) == ("200m", "200m") && settled(p))).await;
    assert_eq!(done["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!((w.fake.count("UpdateContainerResources"), w.fake.count("StopContainer")), (1, 0));
    w.until("told", |w| w.api.reasons().contains(&"ResizeCompleted".to_owned()).then_some(())).await;
    let messages = w.api.messages();
    let told = |title: &str| messages.iter().filter(|m| m.starts_with(title)).count();
    assert_eq!((told("Pod resize started: {\"containers\":["), told("Pod resize completed: {")), (1, 1), "{messages:?}");
}

#[tokio::test]
async fn what_finds_no_room_waits_for_it_across_agents_and_in_its_order() {
    let mut w = World::start(Profile::containerd_2()).await;
    for name in ["a", "b", "first"] {
        let mut spec = pod(&["600m"], json!(null));
        spec["priority"] = json!(i32::from(name == "first"));
        w.create(name, spec);
        w.until("ready", |w| w.pod(name).filter(ready)).await;
    }
    w.resize("b", asks("1"));
    let waiting = w.until("deferred", |w| w.pod("b").filter(|p| !condition(p, "PodResizePending").is_null())).await;
    let c = condition(&waiting, "PodResizePending");
    assert_eq!((c["reason"].as_str(), c["observedGeneration"].as_i64()), (Some("Deferred"), Some(2)));
    assert_eq!(c["message"], "Node didn't have enough resource: cpu, requested: 1000, used: 1200, capacity: 2000");
    assert_eq!(has(&waiting, 0), ("600m", "600m"));
    w.until("told", |w| w.api.reasons().contains(&"ResizeDeferred".to_owned()).then_some(())).await;
    assert!(w.api.messages().iter().any(|m| m.starts_with("Pod resize OutOfcpu: {")));
    // More than the node has waits too, and keeps nobody.
    w.resize("first", asks("5"));
    w.until("deferred too", |w| w.pod("first").filter(|p| condition(p, "PodResizePending")["reason"] == "Deferred")).await;
    w.stop_agent().await;
    w.resize("first", asks("900m"));
    w.start_agent();
    let c = w
        .until("seen", |w| w.pod("first").map(|p| condition(&p, "PodResizePending")).filter(|c| c["observedGeneration"] == 3))
        .await;
    assert_eq!(c["reason"], "Deferred");
    assert_eq!(has(&w.pod("b").unwrap(), 0), ("600m", "600m"), "an agent that starts again knows what was granted");
    // One of the two fits once the third pod is gone: the one of the higher priority.
    w.delete("a", 0);
    w.until("resized", |w| w.pod("first").filter(|p| has(p, 0) == ("900m", "900m") && settled(p))).await;
    w.until("resized as well", |w| w.pod("b").filter(|p| has(p, 0) == ("1", "1") && settled(p))).await;
    let deferred = w.api.reasons().iter().filter(|r| *r == "ResizeDeferred").count();
    assert_eq!(deferred, 3, "each generation once");
    // Taken back before there was room.
    w.resize("b", asks("3"));
    w.until("deferred", |w| w.pod("b").filter(|p| !condition(p, "PodResizePending").is_null())).await;
    w.resize("b", asks("1"));
    w.until("over", |w| w.pod("b").filter(settled)).await;
}

#[tokio::test]
async fn room_that_a_pod_gives_up_is_for_others_only_once_it_has() {
    let w = World::start(Profile::containerd_2()).await;
    for (name, cpu) in [("big", "1500m"), ("small", "400m")] {
        w.create(name, pod(&[cpu], json!(null)));
        w.until("ready", |w| w.pod(name).filter(ready)).await;
    }
    w.fake.inject("UpdateContainerResources", Fault::error(Code::Internal, "not now"));
    w.resize("big", asks("100m"));
    let failed = w.until("failed", |w| w.pod("big").filter(|p| condition(p, "PodResizeInProgress")["reason"] == "Error")).await;
    assert_eq!(
        (has(&failed, 0), condition(&failed, "PodResizeInProgress")["observedGeneration"].as_i64()),
        (("100m", "1500m"), Some(2))
    );
    assert!(condition(&failed, "PodResizeInProgress")["message"].as_str().unwrap().contains("not now"));
    w.resize("small", asks("1500m"));
    w.until("deferred", |w| w.pod("small").filter(|p| !condition(p, "PodResizePending").is_null())).await;
    w.fake.clear_faults();
    w.until("given up", |w| w.pod("big").filter(|p| has(p, 0) == ("100m", "100m") && settled(p))).await;
    w.until("taken", |w| w.pod("small").filter(|p| has(p, 0) == ("1500m", "1500m") && settled(p))).await;
    assert!(w.api.reasons().contains(&"ResizeError".to_owned()));
}

#[tokio::test]
async fn a_container_that_asks_for_it_is_restarted() {
    let policy = json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = pod(&["100m", "100m"], policy);
    spec["restartPolicy"] = json!("OnFailure");
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.resize("p", asks("200m"));
    let done = w.until("resized", |w| w.pod("p").filter(|p| has(p, 0) == ("200m", "200m") && settled(p) && ready(p))).await;
    let counts = [0, 1].map(|i| done["status"]["containerStatuses"][i]["restartCount"].as_i64());
    assert_eq!(counts, [Some(1), Some(0)], "it alone");
    assert_eq!(w.fake.count("UpdateContainerResources"), 0);
    assert!(w.api.messages().contains(&"Container c0 resize requires restart".to_owned()));
}

#[tokio::test]
async fn an_agent_that_starts_halfway_goes_on() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create("p", pod(&["100m", "100m"], json!(null)));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    // The second of two calls never answers.
    w.fake.inject_first("UpdateContainerResources", 1, Fault::Delay(std::time::Duration::from_millis(1)));
    w.fake.inject("UpdateContainerResources", Fault::Hang);
    w.resize_all("p", &[asks("150m"), asks("250m")]);
    w.until("halfway", |w| (w.fake.count("UpdateContainerResources") == 2).then_some(())).await;
    w.stop_agent().await;
    w.fake.clear_faults();
    // Its object changes once more while no agent is there, to more than there is.
    w.resize_all("p", &[asks("1"), asks("5")]);
    w.start_agent();
    let seen = w.until("goes on", |w| w.pod("p").filter(|p| has(p, 1) == ("250m", "250m") && has(p, 0).1 == "150m")).await;
    assert!(condition(&seen, "PodResizeInProgress").is_null() || condition(&seen, "PodResizePending").is_object());
    let c = w
        .until("deferred", |w| w.pod("p").map(|p| condition(&p, "PodResizePending")).filter(|c| c["reason"] == "Deferred"))
        .await;
    assert_eq!(c["observedGeneration"], 3);
    let now = w.until("settled", |w| w.pod("p").filter(|p| condition(p, "PodResizeInProgress").is_null())).await;
    assert_eq!((has(&now, 0), has(&now, 1)), (("150m", "150m"), ("250m", "250m")));
    assert_eq!(now["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!((w.fake.count("CreateContainer"), w.fake.count("StopContainer")), (2, 0));
}
