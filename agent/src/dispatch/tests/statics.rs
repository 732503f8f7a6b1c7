//! Static pods: with the API, without it, and over a restart of the agent.

use super::ready;
use super::world::World;
use ferrolet_cri::fake::Profile;
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "web-n";

fn manifest(image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": image}]}})
}

async fn world() -> World {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.add_image("docker.io/library/web:2", Default::default());
    w.fake.add_image("web:2", Default::default());
    w.api.node(json!({"metadata": {"name": "n", "uid": "node-uid"}}));
    w
}

fn images(w: &World) -> Vec<String> {
    w.fake.containers().iter().map(|c| c.config.image.image.clone()).collect()
}

fn uids(w: &World) -> Vec<String> {
    w.fake.sandboxes().iter().map(|s| s.config.metadata.uid.clone()).collect()
}

/// The runtime has this pod and no other.
fn only(w: &World, uid: &str) -> bool {
    uids(w) == [uid]
}

#[tokio::test]
async fn a_file_becomes_a_pod_and_the_api_shows_its_mirror() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    let mirror = w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    let uid = w.static_uid(NAME);
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.mirror"], json!(uid));
    assert_eq!(annotations["kubernetes.io/config.hash"], json!(uid));
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    let owner = &mirror["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"], &owner["uid"]), (&json!("Node"), &json!("n"), &json!("node-uid")));
    assert_eq!(mirror["status"]["phase"], "Running");
    assert_eq!(uids(&w), [uid.as_str()], "the runtime knows it by its own uid");
    // Its end takes everything along.
    w.manifests(&[]);
    w.until("gone", |w| (w.pod(NAME).is_none() && w.fake.sandboxes().is_empty()).then_some(())).await;
    assert!(!w.root().join("pods").join(&uid).exists());
    let graces: Vec<_> = w.fake.calls().iter().filter(|c| c.method == "StopContainer").map(|c| c.outcome).collect();
    assert_eq!(graces.len(), 1);
}

#[tokio::test]
async fn a_mirror_that_is_deleted_comes_again_and_the_pod_runs_on() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    // As kubectl does it, with a grace period that nobody waits for.
    w.delete(NAME, 30);
    let fresh = |w: &World| w.pod(NAME).filter(|p| p["metadata"]["uid"] == "mirror-2" && ready(p));
    w.until("made anew", fresh).await;
    // By force.
    w.api.remove(NAME);
    let fresh = |w: &World| w.pod(NAME).filter(|p| p["metadata"]["uid"] == "mirror-3" && ready(p));
    w.until("made anew", fresh).await;
    assert_eq!((w.fake.count("RunPodSandbox"), w.fake.count("StopContainer")), (1, 0));
}

#[tokio::test]
async fn a_mirror_of_another_hash_is_replaced() {
    let mut w = world().await;
    w.create_mirror(NAME, json!({"containers": [{"name": "main", "image": "web:1"}]}));
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    assert_eq!(w.pod(NAME).unwrap()["metadata"]["annotations"]["kubernetes.io/config.mirror"], json!(w.static_uid(NAME)));
    assert_eq!(w.api.mirrors(), 1);
}

#[tokio::test]
async fn a_changed_file_ends_the_old_pod_before_the_new_one_starts() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    let old = w.static_uid(NAME);
    w.manifests(&[("/m/web.yaml", &manifest("web:2"))]);
    let new = w.static_uid(NAME);
    assert_ne!(old, new);
    let is_new = |p: &Value| p["metadata"]["annotations"]["kubernetes.io/config.mirror"] == json!(new) && ready(p);
    w.until("replaced", |w| w.pod(NAME).filter(is_new)).await;
    assert_eq!(uids(&w), [new.as_str()]);
    assert_eq!(images(&w).len(), 1);
    let calls: Vec<&str> = w.fake.calls().iter().map(|c| c.method).collect();
    let at = |what: &str, nth: usize| calls.iter().enumerate().filter(|(_, c)| **c == what).nth(nth).unwrap().0;
    assert!(at("RemovePodSandbox", 0) < at("RunPodSandbox", 1), "{calls:?}");
    // And back again, which is the first one once more.
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    assert_eq!(w.static_uid(NAME), old);
    w.until("back", |w| (only(w, &old) && w.pod(NAME).is_some_and(|p| ready(&p))).then_some(())).await;
}

#[tokio::test]
async fn nothing_of_the_api_is_needed() {
    let mut w = world().await;
    w.stop_agent().await;
    w.set_synced(false);
    w.api.forget();
    w.api.node_unknown();
    w.api.away(true);
    w.gate(false);
    w.start_agent();
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    let runs = |w: &World| (w.fake.count("StartContainer") == 1).then_some(());
    w.until("running", runs).await;
    // A changed file counts as well.
    w.manifests(&[("/m/web.yaml", &manifest("web:2"))]);
    let new = w.static_uid(NAME);
    w.until("replaced", |w| (only(w, &new) && w.fake.count("StartContainer") == 2).then_some(())).await;
    // The API comes, and with it the mirror.
    w.api.away(false);
    w.api.node(json!({"metadata": {"name": "n", "uid": "node-uid"}}));
    w.set_synced(true);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    assert_eq!(w.fake.count("RunPodSandbox"), 2);
}

#[tokio::test]
async fn a_new_agent_adopts_without_a_change() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    let before = w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    w.stop_agent().await;
    w.fake.clear_calls();
    // As at every start, the folder is read before the API has answered.
    w.set_synced(false);
    w.api.forget();
    w.start_agent();
    w.until("observed", |w| w.observed().then_some(())).await;
    w.set_synced(true);
    // A further pod shows that the agent is past its first look.
    w.manifests(&[
        ("/m/web.yaml", &manifest("web:1")),
        ("/m/z.yaml", &{
            let mut other = manifest("web:1");
            other["metadata"]["name"] = json!("other");
            other
        }),
    ]);
    w.until("other", |w| w.pod("other-n").filter(ready)).await;
    assert_eq!((w.fake.count("RunPodSandbox"), w.fake.count("StopContainer")), (1, 0));
    let after = w.pod(NAME).unwrap();
    assert_eq!(after["status"], before["status"]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "the same mirror");
}

#[tokio::test]
async fn what_changed_while_no_agent_was_there_is_ended_first_also_without_the_api() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    w.stop_agent().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:2"))]);
    w.set_synced(false);
    w.api.forget();
    w.start_agent();
    let new = w.static_uid(NAME);
    w.until("replaced", |w| (only(w, &new) && w.fake.count("StartContainer") == 2).then_some(())).await;
}

#[tokio::test]
async fn what_cannot_be_read_ends_nothing() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    w.stop_agent().await;
    // The only file cannot be read by the next agent.
    w.manifests(&[]);
    w.broken_manifest();
    w.start_agent();
    w.create("p", json!({"containers": [{"name": "main", "image": "web:1"}]}));
    w.until("other ready", |w| w.pod("p").filter(ready)).await;
    assert_eq!(w.fake.count("StopContainer"), 0);
    assert!(w.pod(NAME).is_some(), "the mirror stays too");
    let mut other = manifest("web:1");
    other["metadata"]["name"] = json!("other");
    w.manifests(&[("/m/other.yaml", &other)]);
    w.until("ended", |w| (w.fake.count("StopContainer") == 1 && w.pod(NAME).is_none()).then_some(())).await;
}

#[tokio::test]
async fn a_broken_file_keeps_no_mirror_of_another_one() {
    let mut w = world().await;
    w.manifests(&[("/m/web.yaml", &manifest("web:1"))]);
    w.broken_manifest();
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    w.manifests(&[]);
    w.broken_manifest();
    w.until("gone", |w| (w.pod(NAME).is_none() && w.fake.sandboxes().is_empty()).then_some(())).await;
}

#[test]
fn a_pod_of_the_api_that_claims_to_be_static_is_none() {
    let mut pod = json!({"metadata": {"name": "p", "annotations": {"kubernetes.io/config.source": "file"}},
        "spec": {"containers": []}});
    assert!(crate::admission::is_static(&serde_json::from_value(pod.clone()).unwrap()));
    pod["metadata"]["resourceVersion"] = json!("7");
    let pod = serde_json::from_value(pod).unwrap();
    assert!(!crate::admission::is_static(&pod) && !crate::admission::critical(&pod));
}

#[tokio::test]
async fn one_that_completed_stays_completed() {
    let mut w = world().await;
    let mut once = manifest("web:1");
    once["spec"]["restartPolicy"] = json!("Never");
    w.manifests(&[("/m/web.yaml", &once)]);
    w.until("ready", |w| w.pod(NAME).filter(ready)).await;
    let id = w.fake.containers()[0].id.clone();
    w.fake.exit_container(&id, 0, "Completed");
    let done = |p: &Value| p["status"]["phase"] == "Succeeded";
    w.until("done", |w| w.pod(NAME).filter(done)).await;
    w.stop_agent().await;
    w.start_agent();
    w.until("observed", |w| w.observed().then_some(())).await;
    w.api.remove(NAME);
    w.until("told again", |w| w.pod(NAME).filter(done)).await;
    assert_eq!(w.fake.count("StartContainer"), 1);
    tokio::time::timeout(Duration::from_secs(10), async {
        w.manifests(&[]);
        w.until("gone", |w| w.pod(NAME).is_none().then_some(())).await;
    })
    .await
    .unwrap();
}
