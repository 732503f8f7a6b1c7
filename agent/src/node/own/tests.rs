use super::*;
use crate::api::snapshot::{ObjectKey, Snapshot};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

fn snapshot(node: serde_json::Value) -> Arc<Snapshot<Node>> {
    let key = ObjectKey { namespace: String::new(), name: "n".into() };
    let node: Node = serde_json::from_value(node).unwrap();
    Arc::new(Snapshot { synced: true, items: [(Arc::new(key), Arc::new(node))].into(), ..Snapshot::default() })
}

#[tokio::test]
async fn zone_and_eligibility_follow_the_object() {
    let (nodes, watched) = watch::channel(Arc::new(Snapshot::default()));
    let (inputs, mut inbox) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let (mut states, task) = spawn(watched, inputs, cancel.clone());
    assert!(!states.borrow().eligible());

    nodes.send_replace(snapshot(json!({"metadata": {"name": "n", "labels": {ZONE: "a"}}})));
    let sent = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await.unwrap();
    assert!(matches!(sent, Some(Input::NodeZone(Some(zone))) if zone == "a"));
    states.wait_for(|s| s.eligible()).await.unwrap();

    nodes.send_replace(snapshot(
        json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": TO_BE_DELETED, "effect": "NoSchedule"}]}}),
    ));
    let sent = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await.unwrap();
    assert!(matches!(sent, Some(Input::NodeZone(None))));
    states.wait_for(|s| s.known && !s.eligible()).await.unwrap();

    cancel.cancel();
    task.await.unwrap();
}
