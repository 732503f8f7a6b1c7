//! Who is let in, and what those see who are not.

use super::ready;
use super::world::World;
use ferrolet_cri::fake::Profile;
use serde_json::{Value, json};

fn asks(cpu: &str, priority: Option<i32>) -> Value {
    let resources = json!({"requests": {"cpu": cpu}});
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent", "resources": resources}]});
    if let Some(priority) = priority {
        spec["priority"] = json!(priority);
    }
    spec
}

fn failed(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed"
}

#[tokio::test]
async fn a_pod_without_room_fails_with_kubelets_words() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create("first", asks("1500m", None));
    w.until("ready", |w| w.pod("first").filter(ready)).await;
    w.create("second", asks("600m", None));
    let pod = w.until("refused", |w| w.pod("second").filter(failed)).await;
    let words = "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert_eq!(pod["status"]["message"], format!("Pod was rejected: {words}"));
    assert!(pod["status"]["containerStatuses"].is_null(), "{pod}");
    w.until("told", |w| w.api.messages().contains(&words.to_owned()).then_some(())).await;
    // Room that comes later changes nothing, nor does another agent.
    w.delete("first", 1);
    w.until("gone", |w| w.pod("first").is_none().then_some(())).await;
    let before = w.pod("second").unwrap();
    w.stop_agent().await;
    w.start_agent();
    w.create("third", asks("600m", None));
    w.until("ready", |w| w.pod("third").filter(ready)).await;
    assert_eq!(w.pod("second").unwrap()["status"], before["status"]);
    assert_eq!(w.fake.count("RunPodSandbox"), 2);
    w.delete("second", 30);
    w.until("gone", |w| w.pod("second").is_none().then_some(())).await;
}

#[tokio::test]
async fn several_at_once_do_not_share_the_same_room() {
    let w = World::start(Profile::containerd_2()).await;
    w.api.node_unknown();
    for name in ["a", "b", "c", "d"] {
        w.create(name, asks("900m", None));
    }
    w.api.node(Value::Null);
    for (name, fits) in [("a", true), ("b", true), ("c", false), ("d", false)] {
        w.until(name, |w| w.pod(name).filter(if fits { ready } else { failed })).await;
    }
}

#[tokio::test]
async fn a_new_agent_takes_what_runs_whatever_changed() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create("p", asks("100m", None));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.stop_agent().await;
    w.api.node(json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
    w.start_agent();
    w.create("q", asks("100m", None));
    let pod = w.until("refused", |w| w.pod("q").filter(failed)).await;
    assert_eq!(pod["status"]["reason"], "TaintToleration");
    assert!(w.pod("p").is_some_and(|p| ready(&p)));
    assert_eq!(w.fake.count("StopContainer"), 0);
}

#[tokio::test]
async fn a_critical_pod_makes_room() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("small", asks("300m", None));
    w.create("large", asks("1500m", None));
    w.until("ready", |w| w.pod("small").filter(ready)).await;
    w.until("ready", |w| w.pod("large").filter(ready)).await;
    w.create("critical", asks("1", Some(2_000_000_000)));
    w.until("ready", |w| w.pod("critical").filter(ready)).await;
    let victim = w.until("preempted", |w| w.pod("large").filter(failed)).await;
    assert_eq!(victim["status"]["reason"], "Preempting");
    let conditions = victim["status"]["conditions"].as_array().unwrap();
    let disruption = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(disruption["reason"], "TerminationByKubelet");
    assert_eq!(disruption["status"], "True");
    assert!(w.pod("small").is_some_and(|p| ready(&p)));
    assert!(w.api.reasons().contains(&"Preempting".to_owned()));
}
