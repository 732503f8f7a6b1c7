use crate::config::StaticPods as Settings;
use crate::static_pods::{StaticPods, spawn};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

type Answer = Arc<Mutex<(StatusCode, String, Vec<String>)>>;

async fn answer(State(said): State<Answer>, headers: HeaderMap) -> (StatusCode, String) {
    let mut said = said.lock().unwrap();
    said.2 = headers.get_all("x-token").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    (said.0, said.1.clone())
}

#[tokio::test]
async fn what_the_url_says_counts_until_it_says_something_else() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let said: Answer = Arc::new(Mutex::new((StatusCode::INTERNAL_SERVER_ERROR, String::new(), Vec::new())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pods", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/pods", axum::routing::get(answer)).with_state(said.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut headers = HeaderMap::new();
    headers.append("x-token", "a".parse().unwrap());
    headers.append("x-token", "b".parse().unwrap());
    let cancel = CancellationToken::new();
    let settings = Settings { url: Some(url), headers, http_check: Duration::from_millis(20), ..Settings::default() };
    let (mut pods, _) = spawn(&settings, "n", &cancel);
    let say = |status, text: &str| {
        let mut said = said.lock().unwrap();
        (said.0, said.1) = (status, text.to_owned());
        said.2.clear();
    };
    let asked = async || {
        let asked = async {
            while said.lock().unwrap().2.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
    };
    let pod = |name: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{"containers": [{{"name": "c", "image": "i"}}]}}}}"#
        )
    };
    let names = |all: &StaticPods| all.pods.values().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>();
    let limit = Duration::from_secs(10);

    asked().await;
    assert_eq!(said.lock().unwrap().2, ["a", "b"]);
    assert!(!pods.borrow().synced, "nothing is known before there was an answer");
    say(StatusCode::OK, &pod("a"));
    tokio::time::timeout(limit, pods.wait_for(|all| all.synced && names(all) == ["a-n"])).await.unwrap().unwrap();
    let first = pods.borrow_and_update().clone();
    let list = format!(r#"{{"apiVersion": "v1", "kind": "PodList", "items": [{}, {}]}}"#, pod("a"), pod("b"));
    say(StatusCode::OK, &list);
    tokio::time::timeout(limit, pods.wait_for(|all| all.pods.len() == 2)).await.unwrap().unwrap();
    let second = pods.borrow_and_update().clone();
    let a = |all: &StaticPods| all.named("default", "a-n").unwrap().clone();
    assert!(Arc::ptr_eq(&a(&first), &a(&second)));
    assert!(second.problems.is_empty());
    // Neither an error nor nonsense changes anything, but it is told.
    for (status, text) in [(StatusCode::NOT_FOUND, "gone"), (StatusCode::OK, "nonsense"), (StatusCode::OK, &list)] {
        say(status, text);
        asked().await;
        say(status, text);
        asked().await;
        assert_eq!(pods.borrow().pods.len(), 2);
    }
    tokio::time::timeout(limit, pods.wait_for(|all| all.problems.is_empty())).await.unwrap().unwrap();
    say(StatusCode::OK, "kind: Node");
    tokio::time::timeout(limit, pods.wait_for(|all| all.problems.len() == 1)).await.unwrap().unwrap();
    let problems = pods.borrow().problems.clone();
    let (place, why) = problems.iter().next().unwrap();
    assert!(place.starts_with("http://127.0.0.1:") && why.contains("expected kind Pod"), "{place}: {why}");
    // Nothing at all means none.
    say(StatusCode::OK, "");
    tokio::time::timeout(limit, pods.wait_for(|all| all.synced && all.pods.is_empty())).await.unwrap().unwrap();
    cancel.cancel();
    server.abort();
}

#[test]
fn what_is_shown_of_a_url_is_no_secret() {
    assert_eq!(super::shown("https://me:word@host:8443/pods?token=t#f"), "https://host:8443/pods");
}
