//! What is said of pods to whoever asks, over the fake runtime: with an actor, before one, and after it.

use super::ready;
use super::world::World;
use crate::dispatch::ask::{Source, Told};
use crate::pod::Time;
use ferrolet_cri::fake::{Fault, Profile};
use serde_json::{Value, json};
use std::time::Duration;

fn plain() -> Value {
    json!({"terminationGracePeriodSeconds": 30, "containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]})
}

fn volume(config_map: &str) -> Value {
    let mut spec = plain();
    spec["volumes"] = json!([{"name": "config", "configMap": {"name": config_map}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "config", "mountPath": "/config"}]);
    spec
}

/// Asks until the first line has these words.
async fn says(w: &World, name: &str, words: &str) -> Told {
    let mut last = None;
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            last = w.standing(name).await;
            if let Some(told) = &last
                && told.standing.waits.first().is_some_and(|wait| wait.what.contains(words))
            {
                return told.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match found.await {
        Ok(told) => told,
        Err(_) => panic!("never said {words:?} of {name}, last was {last:#?}"),
    }
}

/// The wait goes on: asked again a second later it says the same beginning.
async fn since_stays(w: &World, name: &str, words: &str) {
    let first = says(w, name, words).await.standing.waits.remove(0).since;
    assert!(first <= Time::now());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(says(w, name, words).await.standing.waits.remove(0).since, first);
}

async fn waits_for_nothing(w: &World, name: &str, state: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let told = w.standing(name).await.unwrap();
        if told.standing.waits.is_empty() && told.standing.state == state {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{told:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_missing_volume_and_then_nothing() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", volume("settings"));
    let words = "its volumes are not ready: Unable to attach or mount volumes: MountVolume.SetUp failed for volume \"config\"";
    since_stays(&w, "p", words).await;
    let told = says(&w, "p", "settings").await;
    assert_eq!((told.standing.state.as_str(), told.source), ("Pending", Source::Api));
    w.api.put("configmaps", "settings", json!({"data": {"a": "b"}}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    waits_for_nothing(&w, "p", "Ready").await;
    assert!(w.standing("other").await.is_none());
}

#[tokio::test]
async fn calls_that_hang_are_named() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.inject_first("RunPodSandbox", 1, Fault::Delay(Duration::from_secs(3)));
    w.create("sandbox", plain());
    since_stays(&w, "sandbox", "its sandbox is made").await;
    w.until("ready", |w| w.pod("sandbox").filter(ready)).await;
    w.fake.inject("PullImage", Fault::Hang);
    let mut spec = plain();
    spec["containers"][0]["image"] = json!("other:1");
    w.create("pull", spec.clone());
    since_stays(&w, "pull", "container main: image other:1 is being pulled").await;
    // There are four places for pulls, and room for four pods: another image of the same pod has to wait.
    let more: Vec<Value> = (2..=6)
        .map(|n| json!({"name": format!("c{n}"), "image": format!("other:{n}"), "imagePullPolicy": "IfNotPresent"}))
        .collect();
    w.create("many", json!({ "containers": more }));
    let queued = async {
        loop {
            let told = w.standing("many").await;
            let all = told.into_iter().flat_map(|t| t.standing.waits);
            let queued = all.filter(|w| w.what.ends_with("waits for other images to be pulled")).count();
            if queued == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), queued).await.expect("two of six pulls wait for their turn");
    w.fake.clear_faults();
}

#[tokio::test]
async fn hooks_and_the_grace_of_one_that_ends() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = plain();
    spec["containers"][0]["lifecycle"] = json!({"postStart": {"sleep": {"seconds": 3}}, "preStop": {"sleep": {"seconds": 4}}});
    w.create("p", spec);
    since_stays(&w, "p", "postStart hook of main runs").await;
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    waits_for_nothing(&w, "p", "Ready").await;
    w.fake.inject("StopContainer", Fault::Hang);
    w.delete("p", 30);
    let told = says(&w, "p", "terminating: preStop hook of main runs").await;
    assert_eq!(told.standing.state, "Terminating");
    since_stays(&w, "p", "terminating: preStop hook of main runs").await;
    let told = says(&w, "p", "terminating: container main has ").await;
    assert!(told.standing.waits[0].what.contains(" of 30 s grace left"), "{told:#?}");
    w.fake.clear_faults();
}

#[tokio::test]
async fn a_runtime_that_does_not_answer() {
    let w = World::start(Profile::containerd_1_6()).await;
    w.create("p", plain());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.stop_server().await;
    since_stays(&w, "p", "the container runtime does not answer: ").await;
    w.create("q", plain());
    says(&w, "q", "the container runtime does not answer: ").await;
    w.delete("p", 1);
    says(&w, "p", "terminating: the container runtime does not answer: ").await;
    w.fake.start_server().unwrap();
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    w.until("ready", |w| w.pod("q").filter(ready)).await;
    waits_for_nothing(&w, "q", "Ready").await;
}

#[tokio::test]
async fn before_there_is_anyone_to_ask() {
    let mut w = World::start(Profile::containerd_1_6()).await;
    w.stop_agent().await;
    w.fake.stop_server().await;
    w.create("p", plain());
    w.start_agent();
    since_stays(&w, "p", "nothing starts before the container runtime has said what runs already").await;
    w.gate(false);
    w.api.node_unknown();
    w.fake.start_server().unwrap();
    since_stays(&w, "p", "is decided when the node's own object has come").await;
    w.api.node(Value::Null);
    since_stays(&w, "p", "no new pod starts before all Services are in this node's rules").await;
    w.gate(true);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
}

#[tokio::test]
async fn refused_and_made_room_for() {
    let asks = |cpu: &str, priority: i32| {
        let mut spec = plain();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        spec["priority"] = json!(priority);
        spec
    };
    let w = World::start(Profile::containerd_2()).await;
    w.create("first", asks("1500m", 0));
    w.until("ready", |w| w.pod("first").filter(ready)).await;
    w.create("second", asks("600m", 0));
    let told = says(&w, "second", "OutOfcpu: Pod was rejected: Node didn't have enough resource").await;
    assert_eq!(told.standing.state, "Failed");
    w.fake.inject("StopContainer", Fault::Hang);
    w.create("critical", asks("1", 2_000_000_000));
    since_stays(&w, "critical", "it starts when others have made room for it: ns/first").await;
    says(&w, "first", "ending: container main has ").await;
    w.fake.clear_faults();
}

#[tokio::test]
async fn the_api_away_and_finalizers() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", plain());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    waits_for_nothing(&w, "p", "Ready").await;
    w.api.away(true);
    let id = w.fake.containers()[0].id.clone();
    w.fake.exit_container(&id, 1, "Error");
    since_stays(&w, "p", "the API server has not taken the pod's status: cannot patch the status").await;
    w.api.away(false);
    waits_for_nothing(&w, "p", "Ready").await;
    w.api.finalize("p", &["example.com/keeps"]);
    w.delete("p", 1);
    let words = "nothing is left of it on this node; finalizers keep its object: example.com/keeps";
    since_stays(&w, "p", words).await;
    w.api.remove("p");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while w.standing("p").await.is_some() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn pods_that_the_api_has_no_longer_and_static_ones() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.fake.inject("PullImage", Fault::Hang);
    let mut spec = plain();
    spec["containers"][0]["image"] = json!("other:1");
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own", "namespace": "ns"}, "spec": spec});
    w.manifests(&[("own.yaml", &manifest)]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let told = loop {
        let found = w.standings().await.into_iter().find(|t| t.source == Source::Static);
        match found.filter(|t| !t.standing.waits.is_empty()) {
            Some(told) => break told,
            None => assert!(tokio::time::Instant::now() < deadline, "a static pod is not listed"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(told.id.name.starts_with("own"), "{told:?}");
    w.create("p", plain());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.clear_faults();
    w.fake.inject("StopContainer", Fault::Hang);
    w.api.remove("p");
    let told = says(&w, "p", "terminating: container main ").await;
    assert_eq!(told.source, Source::Gone);
    // Another agent finds it in the runtime alone.
    w.stop_agent().await;
    w.start_agent();
    assert_eq!(says(&w, "p", "terminating: container main ").await.source, Source::Runtime);
    w.fake.clear_faults();
}
