//! What a pod asks for that cannot be done is said on the pod, by the name of its field, and nowhere else does it matter.

use super::world::World;
use super::{ready, waiting};
use ferrolet_cri::fake::{Fault, Profile};
use serde_json::{Value, json};

fn with(extra: Value) -> Value {
    let mut c = json!({"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"});
    for (key, value) in extra.as_object().unwrap() {
        c[key] = value.clone();
    }
    json!({ "containers": [c] })
}

fn message(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_refused_pod_says_so_in_its_status() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = with(json!({}));
    spec["resourceClaims"] = json!([{"name": "x"}]);
    spec["volumes"] = json!([{"name": "v", "csi": {"driver": "d"}}]);
    w.create("p", spec);
    let pod = w.until("refused", |w| w.pod("p").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
    for field in ["spec.resourceClaims: ", "spec.volumes[0].csi: "] {
        assert!(message(&pod).contains(field), "{field} in {}", message(&pod));
        w.until("told", |w| w.api.messages().iter().any(|m| m.starts_with(field)).then_some(())).await;
    }
    assert_eq!(pod["status"]["phase"], "Pending");
    w.create("good", with(json!({})));
    w.until("ready", |w| w.pod("good").filter(ready)).await;
    assert_eq!(w.fake.count("RunPodSandbox"), 1);
    w.delete("p", 30);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
}

#[tokio::test]
async fn strict_groups_are_refused_where_the_runtime_would_merge_them() {
    let mut spec = with(json!({}));
    spec["securityContext"] = json!({"supplementalGroupsPolicy": "Strict"});
    let w = World::start(Profile::containerd_1_6()).await;
    w.create("p", spec.clone());
    let pod = w.until("refused", |w| w.pod("p").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
    let field = "spec.securityContext.supplementalGroupsPolicy: ";
    assert!(message(&pod).starts_with(field), "{}", message(&pod));
    w.until("told", |w| w.api.messages().iter().any(|m| m.starts_with(field)).then_some(())).await;
    assert!(w.api.reasons().contains(&"FailedValidation".to_owned()));
    assert_eq!(w.fake.count("RunPodSandbox"), 0);
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
}

#[tokio::test]
async fn user_namespaces_are_refused_where_the_runtime_has_none() {
    let w = World::start(Profile::containerd_1_6()).await;
    let mut spec = with(json!({}));
    spec["hostUsers"] = json!(false);
    w.create("p", spec);
    let why = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    let wanted = format!("Failed to create pod sandbox: {why}");
    w.until("told", |w| w.api.messages().contains(&wanted).then_some(())).await;
    let pod = w.until("waits", |w| w.pod("p").filter(|p| waiting(p) == "ContainerCreating")).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert!(w.api.reasons().contains(&"FailedCreatePodSandBox".to_owned()));
    assert_eq!(w.fake.count("RunPodSandbox"), 0);
    assert!(w.user_counts.started.get() > 0 && w.user_counts.failed.get() > 0);
    w.delete("p", 0);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
}

#[tokio::test]
async fn a_probe_of_a_port_that_does_not_exist_is_an_error_and_not_no_probe() {
    let w = World::start(Profile::containerd_2()).await;
    let probe = json!({"tcpSocket": {"port": "web"}, "periodSeconds": 1});
    w.create(
        "p",
        with(json!({"ports": [{"name": "http", "containerPort": 80}], "readinessProbe": probe, "livenessProbe": probe})),
    );
    for kind in ["Readiness", "Liveness"] {
        let text = format!(
            "{kind} probe errored and resulted in unknown state: tcpSocket.port: container \"main\" has no port named \"web\""
        );
        w.until("told", |w| w.api.messages().contains(&text).then_some(())).await;
    }
    assert!(w.api.reasons().contains(&"Unhealthy".to_owned()));
    let pod = w.pod("p").unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], true);
    assert!(!ready(&pod));
    assert_eq!(w.fake.count("StopContainer"), 0, "nothing is known against it");
}

#[tokio::test]
async fn an_environment_that_no_process_can_have_is_named() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", with(json!({"env": [{"name": "FINE", "value": "x"}, {"name": "ODD", "value": "a\u{0}b"}]})));
    let pod = w.until("refused", |w| w.pod("p").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
    assert_eq!(message(&pod), "env \"ODD\": the value holds a zero byte");
    assert_eq!(w.fake.count("CreateContainer"), 0);
}

#[tokio::test]
async fn a_huge_environment_gets_there_or_shows_the_runtimes_refusal() {
    let w = World::start(Profile::containerd_2()).await;
    let big = "x".repeat(1 << 20);
    w.create("fits", with(json!({"env": [{"name": "BIG", "value": big}]})));
    w.until("ready", |w| w.pod("fits").filter(ready)).await;
    assert_eq!(w.fake.containers()[0].config.env.iter().find(|e| e.name == "BIG").unwrap().value.len(), 1 << 20);
    let refusal = "exec /web: argument list too long";
    w.fake.inject("StartContainer", Fault::error(ferrolet_cri::Code::Unknown, refusal));
    w.create("p", with(json!({"env": [{"name": "BIG", "value": big}]})));
    let pod = w.until("refused", |w| w.pod("p").filter(|p| waiting(p) == "RunContainerError")).await;
    assert!(message(&pod).contains(refusal), "{}", message(&pod));
    assert!(message(&pod).len() < 1024, "the environment is not repeated");
}

/// In kubelet's words, and no longer than it lasts.
#[tokio::test]
async fn a_runtime_class_that_is_not_there_is_waited_for() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = with(json!({}));
    spec["runtimeClassName"] = json!("gone");
    w.create("p", spec);
    let text = "Failed to create pod sandbox: runtimeclass.node.k8s.io \"gone\" not found".to_owned();
    w.until("told", |w| w.api.messages().contains(&text).then_some(())).await;
    assert!(w.api.reasons().contains(&"FailedCreatePodSandBox".to_owned()));
    assert_eq!(w.fake.count("RunPodSandbox"), 0);
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gone"}, "handler": "runc"});
    w.api.put("runtimeclasses", "gone", class);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
}
