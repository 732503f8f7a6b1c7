use super::*;
use crate::api::testing::{Answer, Server, until};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

fn heartbeat(server: &Server, duration: Duration) -> (Heartbeat, watch::Sender<Option<String>>) {
    let (uid, node_uid) = watch::channel(None);
    (Heartbeat { client: server.client(), node_name: "n".into(), duration, node_uid }, uid)
}

/// One Lease, with the API's rules for writing it.
fn registry() -> impl Fn(&crate::api::testing::Asked) -> Option<Answer> {
    let held: Arc<Mutex<(u64, Option<Value>)>> = Arc::default();
    move |asked| {
        let mut held = held.lock().unwrap();
        let status = |code, reason: &str| {
            Answer::Json(code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": ""}))
        };
        Some(match asked.method.as_str() {
            "GET" => held.1.clone().map_or(status(404, "NotFound"), |lease| Answer::Json(200, lease)),
            method => {
                let mut lease: Value = serde_json::from_str(&asked.body).unwrap();
                if method == "POST" && held.1.is_some() {
                    return Some(status(409, "AlreadyExists"));
                }
                if method == "PUT" && lease["metadata"]["resourceVersion"].as_str() != Some(&held.0.to_string()) {
                    return Some(status(409, "Conflict"));
                }
                held.0 += 1;
                // Somebody else writes now and then.
                let shown = held.0;
                if held.0.is_multiple_of(3) {
                    held.0 += 1;
                }
                lease["metadata"]["resourceVersion"] = json!(held.0.to_string());
                held.1 = Some(lease.clone());
                lease["metadata"]["resourceVersion"] = json!(shown.to_string());
                Answer::Json(200, lease)
            }
        })
    }
}

#[tokio::test]
async fn a_lease_is_made_and_renewed_through_conflicts() {
    let server = Server::start(registry()).await;
    let cancel = CancellationToken::new();
    let (heartbeat, uid) = heartbeat(&server, Duration::from_millis(80));
    let (renewed, task) = spawn(heartbeat, cancel.clone());
    until("first renewal", || renewed.borrow().is_some()).await;
    uid.send_replace(Some("u".into()));
    let writes = || server.asked.lock().unwrap().iter().filter(|asked| asked.method == "PUT").count();
    until("renewals", || writes() > 8).await;
    cancel.cancel();
    task.await.unwrap();
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked[0].uri, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n");
    let last: Value = serde_json::from_str(&asked.iter().rfind(|asked| asked.method == "PUT").unwrap().body).unwrap();
    assert_eq!(last["spec"]["holderIdentity"], "n");
    assert_eq!(last["metadata"]["ownerReferences"][0], json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}));
}

#[tokio::test]
async fn failures_are_tried_again_sooner_than_the_next_turn() {
    let refused = Mutex::new(3);
    let lease = registry();
    let server = Server::start(move |asked| {
        let mut left = refused.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Some(Answer::Json(
                500,
                json!({"kind": "Status", "status": "Failure", "code": 500, "reason": "InternalError", "message": ""}),
            ));
        }
        lease(asked)
    })
    .await;
    let (heartbeat, _uid) = heartbeat(&server, Duration::from_secs(400));
    let cancel = CancellationToken::new();
    let (renewed, _task) = spawn(heartbeat, cancel.clone());
    until("a renewal after three failures", || renewed.borrow().is_some()).await;
    cancel.cancel();
}

#[test]
fn pauses_stay_within_their_bounds() {
    let every = Duration::from_secs(10);
    for failures in 0..100 {
        assert!(retry(failures, every) <= Duration::from_millis(8750));
        assert!(retry(failures, every) >= Duration::from_millis(150));
        assert!(jitter(every) >= every && jitter(every) <= every.mul_f64(1.04));
    }
}
