use super::*;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::mpsc;

/// An API whose Service `a` has a uid, and which hands on every event that is made.
fn api() -> (kube::Client, mpsc::UnboundedReceiver<Value>) {
    let (sender, events) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let sender = sender.clone();
        async move {
            let (parts, body) = request.into_parts();
            let found = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","uid":"u-a"}}"#;
            let (code, answer) = match (parts.method.as_str(), parts.uri.path()) {
                ("GET", "/api/v1/namespaces/ns/services/a") => (200, found.into()),
                ("GET", _) => (404, r#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404}"#.into()),
                _ => {
                    let bytes = body.collect().await?.to_bytes();
                    sender.send(serde_json::from_slice(&bytes).unwrap()).unwrap();
                    (201, bytes)
                }
            };
            Ok::<_, kube::Error>(http::Response::builder().status(code).body(Body::from(answer.to_vec())).unwrap())
        }
    });
    (kube::Client::new(service, "ns"), events)
}

#[tokio::test]
async fn a_service_set_aside_is_told_of_once_until_it_is_back() {
    let (kube, mut made) = api();
    let cancel = CancellationToken::new();
    let (events, task) = EventRecorder::spawn(kube.clone(), "n", cancel.clone());
    let mut teller = Teller::new(kube, events, "n");
    for now in [vec![], vec!["ns/a"], vec!["ns/a", "ns/b"], vec!["ns/b"], vec!["ns/b"]] {
        teller.tell(&now.into_iter().map(str::to_owned).collect::<Vec<_>>()).await;
    }
    // Equal events become a patch with a count.
    teller.tell(&["ns/a".to_owned()]).await;
    let mut of = Vec::new();
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(10), made.recv()).await.unwrap().unwrap();
        of.push((event["involvedObject"]["name"].clone(), event["involvedObject"]["uid"].clone(), event["count"].clone()));
    }
    assert_eq!(
        of,
        [("a".into(), "u-a".into(), 1.into()), ("b".into(), Value::Null, 1.into()), (Value::Null, Value::Null, 2.into())]
    );
    cancel.cancel();
    task.await.unwrap();
    assert!(made.try_recv().is_err());
}

#[tokio::test]
async fn a_health_check_port_that_is_not_open_is_told_once_for_each_change() {
    use ferrolet_netproxy::health::Failure;
    let (kube, mut made) = api();
    let cancel = CancellationToken::new();
    let (events, task) = EventRecorder::spawn(kube.clone(), "n", cancel.clone());
    let mut teller = Teller::new(kube, events, "n");
    let failures = |reason: Option<&str>| {
        let failure = |reason: &str| (netproxy::Key::new("ns", "a"), Failure { port: 30_123, reasons: vec![reason.to_owned()] });
        Failures { node: None, services: reason.map(failure).into_iter().collect() }
    };
    for now in [None, Some("in use"), Some("in use"), Some("forbidden"), None] {
        teller.tell_ports(&failures(now)).await;
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        let event = tokio::time::timeout(Duration::from_secs(10), made.recv()).await.unwrap().unwrap();
        assert_eq!(
            (&event["reason"], &event["involvedObject"]["uid"]),
            (&"FailedToStartServiceHealthcheck".into(), &"u-a".into())
        );
        told.push(event["message"].as_str().unwrap().to_owned());
    }
    let text = |why: &str| format!("node n failed to start healthcheck \"ns/a\" on port 30123: {why}");
    assert_eq!(told, [text("in use"), text("forbidden")]);
    cancel.cancel();
    task.await.unwrap();
    assert!(made.try_recv().is_err());
}
