use super::*;
use crate::api::testing::{Answer, Server, Then};
use serde_json::{Value, json};

fn object(name: &str, revision: u32, cidrs: &[&str]) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": name, "resourceVersion": revision.to_string()}, "spec": {"cidrs": cidrs}})
}

async fn next(inbox: &mut mpsc::Receiver<Input>) -> Vec<String> {
    match tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.unwrap() {
        Some(Input::ServiceCidrs(ranges)) => ranges.iter().map(IpNet::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_ranges_are_told_and_their_changes() {
    let line = |kind: &str, object: Value| format!("{}\n", json!({"type": kind, "object": object}));
    let end = json!({"kind": "ServiceCIDR", "metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}});
    let lines = vec![
        line("ADDED", object("kubernetes", 5, &["fd00:96::/112", "10.96.0.0/12"])),
        line("BOOKMARK", end),
        line("ADDED", object("more", 10, &["10.200.0.1/16"])),
    ];
    let server = Server::start(move |asked| {
        Some(match asked.uri.contains("watch=true") {
            true => Answer::Stream(lines.clone(), Then::Hang),
            false => Answer::Json(200, json!({"metadata": {"resourceVersion": "9"}, "items": []})),
        })
    })
    .await;
    let (inputs, mut inbox) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let task = spawn(server.client(), inputs, cancel.clone());
    assert_eq!(next(&mut inbox).await, ["10.96.0.0/12", "fd00:96::/112"]);
    assert_eq!(next(&mut inbox).await, ["10.96.0.0/12", "10.200.0.0/16", "fd00:96::/112"]);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_server_without_the_kind_is_not_watched() {
    let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
    let server = Server::start(move |_| Some(Answer::Json(404, status.clone()))).await;
    let (inputs, mut inbox) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let task = spawn(server.client(), inputs, cancel.clone());
    crate::api::testing::until("the question", || !server.uris().is_empty()).await;
    cancel.cancel();
    task.await.unwrap();
    assert_eq!(server.uris(), ["/apis/networking.k8s.io/v1/servicecidrs?limit=1"]);
    assert!(inbox.try_recv().is_err());
}
