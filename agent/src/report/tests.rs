use super::*;
use crate::api::testing::{Answer, Server};
use serde_json::json;

fn status(value: serde_json::Value) -> api::PodStatus {
    serde_json::from_value(value).unwrap()
}

#[test]
fn nothing_to_say() {
    let s = status(json!({"phase": "Running", "podIP": "1"}));
    assert_eq!(patch::between("u", &s, &s), None);
}

#[test]
fn only_what_differs_is_sent() {
    let from = status(json!({"phase": "Pending", "podIP": "1", "hostIP": "2", "message": "m",
        "conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "A", "status": "True"}, {"type": "other", "status": "True"}],
        "podIPs": [{"ip": "1"}]}));
    let to = status(json!({"phase": "Running", "podIP": "3", "hostIP": "2",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "A", "status": "True"}], "podIPs": [{"ip": "3"}]}));
    let patch = patch::between("u", &from, &to).unwrap();
    assert_eq!(
        patch,
        json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "podIP": "3", "message": null,
            "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            "podIPs": [{"ip": "3"}, {"$patch": "delete", "ip": "1"}]}})
    );
}

#[test]
fn a_resize_that_is_over_is_over() {
    let from = status(json!({"conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "A", "status": "True"}]}));
    let to = status(json!({"conditions": []}));
    let patch = patch::between("u", &from, &to).unwrap();
    assert_eq!(patch["status"], json!({"conditions": [{"$patch": "delete", "type": "PodResizePending"}]}));
}

#[test]
fn what_others_own_is_left_alone() {
    let from = status(json!({"phase": "Running", "nominatedNodeName": "n", "resize": ""}));
    let to = status(json!({"phase": "Running"}));
    assert_eq!(patch::between("u", &from, &to), None);
}

/// A pod that was deleted by force while it ran here, and whose name another pod has on another node, has nobody to report to.
#[tokio::test]
async fn a_name_that_went_to_another_node_is_nobody_here() {
    let message =
        "pods \"web-0\" is forbidden: node \"node-1\" can only update pod status for pods with spec.nodeName set to itself";
    let forbidden = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message});
    let server = Server::queue(vec![Answer::Json(403, forbidden)]).await;
    let id = PodId { namespace: "ns".into(), name: "web-0".into(), uid: "old".into() };
    let to = Recipient::Own(Box::default());
    let mut reporter = Reporter::spawn(server.client(), Arc::new(Semaphore::new(1)), id, to, &TaskTracker::new());
    reporter.report(&Arc::new(status(json!({"phase": "Failed"}))), true);
    tokio::time::timeout(Duration::from_secs(5), reporter.gone()).await.unwrap();
    assert_eq!(server.uris().len(), 1);
}
