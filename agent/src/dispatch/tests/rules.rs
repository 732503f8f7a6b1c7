//! What the data plane of the node is told, and what waits for it.

use super::world::World;
use super::{ready, web};
use ferrolet_cri::fake::Profile;
use ferrolet_netproxy::PodWord;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn last(w: &World) -> Option<PodWord> {
    w.rules.said.lock().unwrap().last().and_then(|words| words.get("uid-p").cloned())
}

async fn running(readiness: bool) -> World {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = web();
    spec["containers"][0]["env"] = json!([]);
    if readiness {
        spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["/web", "echo"]}, "periodSeconds": 1});
    }
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w
}

#[tokio::test]
async fn a_pod_leaves_the_rules_before_it_is_told_to_end() {
    let w = running(false).await;
    w.rules.stuck.store(true, Ordering::SeqCst);
    w.delete("p", 30);
    let begun = w.until("said to end", |w| last(w).filter(|word| word.terminating).map(|_| Instant::now())).await;
    assert_eq!(last(&w).unwrap().ips.len(), 1);
    // Rules that are stuck hold it up, but not for long.
    w.until("told to end", |w| (w.fake.count("StopContainer") > 0).then_some(())).await;
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    // Nothing is kept of it.
    w.until("forgotten", |w| w.rules.said.lock().unwrap().last().is_some_and(|words| words.is_empty()).then_some(())).await;
}

#[tokio::test]
async fn readiness_is_said_at_once_and_again_once_the_api_was_told() {
    let mut w = running(true).await;
    let word = w.until("told", |w| last(w).filter(|word| word.told)).await;
    assert_eq!((word.ready, word.terminating), (Some(true), false));
    // A new agent that finds what the API has says nothing.
    w.stop_agent().await;
    w.rules.said.lock().unwrap().clear();
    w.fake.clear_calls();
    w.start_agent();
    w.until("probed", |w| (w.fake.count("ExecSync") > 1).then_some(())).await;
    assert!(w.rules.said.lock().unwrap().is_empty());
    // The API is away: the rules of this node know nevertheless.
    w.api.away(true);
    assert!(w.fake.exit_container(&w.fake.containers()[0].id, 1, ""));
    // The next container may be ready before anybody looks.
    let unready = |w: &World| {
        w.rules.said.lock().unwrap().iter().find_map(|words| words.get("uid-p").filter(|word| word.ready == Some(false)).cloned())
    };
    let word = w.until("not ready", unready).await;
    assert!(!word.told && !word.terminating);
    assert!(ready(&w.pod("p").unwrap()), "the API took it");
    w.api.away(false);
    w.until("ready again", |w| last(w).filter(|word| word.ready == Some(true) && word.told)).await;
}

#[tokio::test]
async fn a_static_pod_leaves_the_rules_by_the_uid_of_its_mirror() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.api.node(json!({"metadata": {"name": "n", "uid": "node-uid"}}));
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"containers": [{"name": "main", "image": "web:1"}]}});
    w.manifests(&[("/m/web.yaml", &manifest)]);
    w.until("ready", |w| w.pod("web-n").filter(ready)).await;
    let uid = w.static_uid("web-n");
    let word = |w: &World, uid: &str| w.rules.said.lock().unwrap().last().and_then(|words| words.get(uid).cloned());
    w.until("said to be ready", |w| word(w, "mirror-1").filter(|word| word.ready == Some(true) && word.told)).await;
    // Another object stands for it.
    w.api.remove("web-n");
    w.until("said again", |w| word(w, "mirror-2").filter(|word| word.told)).await;
    assert!(word(&w, "mirror-1").is_none());
    w.rules.stuck.store(true, Ordering::SeqCst);
    w.manifests(&[]);
    let begun = w.until("said to end", |w| word(w, "mirror-2").filter(|word| word.terminating).map(|_| Instant::now())).await;
    w.until("told to end", |w| (w.fake.count("StopContainer") > 0).then_some(())).await;
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
    w.until("forgotten", |w| w.rules.said.lock().unwrap().last().is_some_and(|words| words.is_empty()).then_some(())).await;
    assert!(!w.rules.said.lock().unwrap().iter().any(|words| words.contains_key(uid.as_str())), "no endpoint has that uid");
}
