use super::super::testing::{Answer, Server, Then, until};
use super::*;
use serde_json::json;

#[test]
fn headless_services_are_in_no_environment() {
    let service = |spec: serde_json::Value| -> wire::Service {
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "d", "labels": {"x": "y"}}, "spec": spec})).unwrap()
    };
    assert_eq!(address(&service(json!({"clusterIP": "None"}))), None);
    assert_eq!(address(&service(json!({"type": "ExternalName"}))), None);
    let known =
        address(&service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}))).unwrap();
    assert_eq!((known.spec.cluster_ip.as_deref(), known.spec.ports.len()), (Some("10.0.0.1"), 1));
    assert!(known.metadata.labels.is_empty() && known.spec.session_affinity.is_none(), "only what the environment needs is kept");
}

#[tokio::test]
async fn services_and_slices_arrive_whole_and_then_one_by_one() {
    let object = |name: &str, ip: &str, revision: u64| {
        json!({"metadata": {"name": name, "namespace": "d", "resourceVersion": revision.to_string()}, "addressType": "IPv4",
               "spec": {"clusterIP": ip}})
    };
    let line = |kind: &str, object: serde_json::Value| json!({"type": kind, "object": object}).to_string() + "\n";
    let end = json!({"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}});
    let lines = vec![
        line("ADDED", object("a", "10.0.0.1", 1)),
        line("BOOKMARK", end),
        line("ADDED", object("b", "10.0.0.2", 10)),
        line("MODIFIED", object("a", "None", 11)),
        line("DELETED", object("b", "10.0.0.2", 12)),
        line("ADDED", object("c", "10.0.0.3", 13)),
    ];
    let server = Server::start(move |_| Some(Answer::Stream(lines.clone(), Then::Hang))).await;
    let (sender, mut inputs) = mpsc::channel(2);
    let cancel = CancellationToken::new();
    let (known, tasks) = spawn(&server.client(), sender, &cancel);
    let (mut services, mut slices) = (Vec::new(), Vec::new());
    while services.len() + slices.len() < 10 {
        match inputs.recv().await.unwrap() {
            Input::Services(all) => services.push(format!("={}", all.len())),
            Input::Service(key, service) => services.push(format!("{}{}", if service.is_some() { '+' } else { '-' }, key.name)),
            Input::Slices(all) => slices.push(format!("={}", all.len())),
            Input::Slice(key, slice) => slices.push(format!("{}{}", if slice.is_some() { '+' } else { '-' }, key.name)),
            other => unreachable!("{other:?}"),
        }
    }
    assert_eq!(services, ["=1", "+b", "+a", "-b", "+c"]);
    assert_eq!(services, slices);
    until("the environment's view", || known.borrow().items.keys().map(|k| k.name.as_str()).eq(["c"])).await;
    assert!(server.uris().iter().any(|uri| uri.contains("endpointslices?labelSelector=%21service.kubernetes.io")));
    cancel.cancel();
    for task in tasks {
        task.await.unwrap();
    }
}
