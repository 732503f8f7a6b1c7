use super::*;
use crate::api::snapshot::Snapshot;
use crate::static_pods::testing::Source;
use http_body_util::BodyExt;
use kube::client::Body;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

type Said = Arc<Mutex<Vec<String>>>;

fn recorder(cancel: &CancellationToken) -> (EventRecorder, Said) {
    let said = Said::default();
    let heard = said.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let heard = heard.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&event["involvedObject"]["kind"], &event["involvedObject"]["name"]), (&"Node".into(), &"n".into()));
            heard.lock().unwrap().push(format!("{} {}", event["reason"].as_str().unwrap(), event["message"].as_str().unwrap()));
            Ok::<_, kube::Error>(http::Response::builder().status(201).body(Body::from(body.to_vec())).unwrap())
        }
    });
    (EventRecorder::spawn(kube::Client::new(service, "default"), "n", cancel.clone()).0, said)
}

#[tokio::test]
async fn a_problem_is_an_event_once_the_api_is_there_and_only_once() {
    let cancel = CancellationToken::new();
    let _end = cancel.clone().drop_guard();
    let (events, said) = recorder(&cancel);
    let (source, all) = Source::new();
    let (api, node) = watch::channel(Arc::new(Snapshot::default()));
    drop(spawn(all, node, events, "n", cancel));
    let heard = async |count: usize| {
        let waited = async {
            while said.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap();
        said.lock().unwrap().clone()
    };
    source.say_broken(&[("/m/a.yaml", "no name")]);
    api.send_replace(Arc::new(Snapshot::none()));
    assert_eq!(heard(1).await, ["InvalidStaticPod /m/a.yaml: no name"]);
    source.say_broken(&[("/m/a.yaml", "no name"), ("/m/b.yaml", "no kind")]);
    assert_eq!(heard(2).await[1], "InvalidStaticPod /m/b.yaml: no kind");
    // Mended, and broken in another way.
    source.say_broken(&[("/m/b.yaml", "no kind")]);
    source.say_broken(&[("/m/a.yaml", "no containers"), ("/m/b.yaml", "no kind")]);
    assert_eq!(heard(3).await[2], "InvalidStaticPod /m/a.yaml: no containers");
}
