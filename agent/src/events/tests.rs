use super::*;
use std::sync::{Arc, Mutex};

/// What an API was asked; events cannot be patched when `lost`.
fn api(lost: bool) -> (kube::Client, Arc<Mutex<Vec<String>>>) {
    api_away(lost, 0)
}

/// The first requests are answered with 503.
fn api_away(lost: bool, away: usize) -> (kube::Client, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let method = request.method().to_string();
        log.lock().unwrap().push(method.clone());
        let unavailable = log.lock().unwrap().len() <= away;
        async move {
            let (code, body) = match method.as_str() {
                "PATCH" if lost => {
                    (404, r#"{"kind":"Status","status":"Failure","message":"gone","reason":"NotFound","code":404}"#)
                }
                _ if unavailable => {
                    (503, r#"{"kind":"Status","status":"Failure","message":"away","reason":"ServiceUnavailable","code":503}"#)
                }
                _ => (200, r#"{"metadata":{"name":"x"},"involvedObject":{}}"#),
            };
            let body = kube::client::Body::from(body.as_bytes().to_vec());
            Ok::<_, kube::Error>(http::Response::builder().status(code).body(body).unwrap())
        }
    });
    (kube::Client::new(service, "ns"), asked)
}

fn item(reason: &str, at: i64) -> Item {
    let object = api::ObjectReference { name: Some("p".into()), namespace: Some("ns".into()), ..Default::default() };
    let at = jiff::Timestamp::from_second(1_000_000 + at).unwrap();
    Item { object, severity: Severity::Normal, reason: reason.into(), message: "m".into(), at }
}

fn writer(kube: kube::Client) -> Writer {
    Writer { kube, host: "n".into(), correlator: Correlator::default() }
}

#[tokio::test]
async fn one_that_repeats_is_patched() {
    let (kube, asked) = api(false);
    let mut w = writer(kube);
    w.write(item("A", 0)).await;
    w.write(item("A", 1)).await;
    w.write(item("B", 1)).await;
    assert_eq!(*asked.lock().unwrap(), ["POST", "PATCH", "POST"]);
}

#[tokio::test]
async fn one_that_expired_in_the_api_is_made_anew() {
    let (kube, asked) = api(true);
    let mut w = writer(kube);
    w.write(item("A", 0)).await;
    w.write(item("A", 1)).await;
    assert_eq!(*asked.lock().unwrap(), ["POST", "PATCH", "POST"]);
}

#[test]
fn a_full_queue_never_blocks_and_long_messages_are_cut() {
    let (queue, mut inbox) = mpsc::channel(1);
    let recorder = EventRecorder { queue: Some(queue) };
    for _ in 0..3 {
        recorder.record(api::ObjectReference::default(), Severity::Warning, "R", "é".repeat(2000));
    }
    let first = inbox.try_recv().unwrap();
    assert!(first.message.len() <= MESSAGE_MAX && first.message.ends_with(" ..."));
    assert!(inbox.try_recv().is_err());
}

#[tokio::test]
async fn what_happened_while_the_api_was_away_is_written_after() {
    let (kube, asked) = api_away(false, 3);
    let (queue, inbox) = mpsc::channel(QUEUE);
    let recorder = EventRecorder { queue: Some(queue) };
    for reason in ["A", "B", "C"] {
        recorder.record(item(reason, 0).object, Severity::Normal, reason, "m");
    }
    let task = tokio::spawn(writer(kube).run(inbox));
    let written = async {
        while asked.lock().unwrap().len() < 3 + 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), written).await.unwrap();
    task.abort();
}
