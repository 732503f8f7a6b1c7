mod silent;

use super::super::snapshot::{self, Snapshot};
use super::super::testing::{Answer, Server, Then, until};
use super::*;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch::Receiver;

fn pod(name: &str, revision: u64) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "d", "resourceVersion": revision.to_string()}})
}

fn bad_pod(name: &str, revision: u64) -> Value {
    let mut pod = pod(name, revision);
    pod["spec"] = json!({"containers": 5});
    pod
}

fn line(kind: &str, object: Value) -> String {
    json!({ "type": kind, "object": object }).to_string() + "\n"
}

fn end(revision: u64) -> String {
    let meta = json!({"resourceVersion": revision.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
    line("BOOKMARK", json!({ "kind": "Pod", "apiVersion": "v1", "metadata": meta }))
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "scripted"})
}

struct Watching {
    seen: Receiver<Arc<Snapshot<Pod>>>,
    cancel: CancellationToken,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn start(server: &Server) -> Watching {
    let cancel = CancellationToken::new();
    let (seen, _) = snapshot::spawn::<Pod>(server.client(), Selector::fields("spec.nodeName=n"), cancel.clone());
    Watching { seen, cancel }
}

impl Watching {
    async fn has(&self, names: &[&str]) {
        until(&format!("{names:?}"), || {
            let seen = self.seen.borrow();
            seen.synced && seen.items.keys().map(|key| key.name.as_str()).collect::<Vec<_>>() == names
        })
        .await;
    }
}

#[tokio::test]
async fn a_streaming_list_goes_over_into_changes() {
    let lines = vec![
        line("ADDED", pod("a", 3)),
        line("ADDED", pod("b", 4)),
        end(5),
        line("DELETED", pod("a", 6)),
        line("ADDED", pod("c", 7)),
    ];
    let server = Server::queue(vec![Answer::Stream(lines, Then::Hang)]).await;
    let watching = start(&server);
    watching.has(&["b", "c"]).await;
    assert!(server.uris()[0].contains("sendInitialEvents=true"));
}

#[tokio::test]
async fn nothing_is_published_before_the_list_is_complete() {
    let server = Server::queue(vec![
        Answer::Stream(vec![line("ADDED", pod("a", 3))], Then::Break),
        Answer::Stream(vec![line("ADDED", pod("a", 3)), line("ADDED", pod("b", 4)), end(5)], Then::Hang),
    ])
    .await;
    let mut watching = start(&server);
    watching.seen.changed().await.unwrap();
    assert_eq!(watching.seen.borrow().items.len(), 2, "the first thing published is the whole list");
    assert!(watching.seen.borrow().synced);
}

#[tokio::test]
async fn servers_without_streaming_lists_are_paged() {
    let page = |items: Vec<Value>, next: &str| {
        Answer::Json(200, json!({"metadata": {"resourceVersion": "9", "continue": next}, "items": items}))
    };
    let server = Server::queue(vec![
        Answer::Json(422, status(422, "Invalid")),
        page(vec![pod("a", 1), pod("b", 2)], "more"),
        page(vec![pod("c", 3)], ""),
        Answer::Stream(vec![line("ADDED", pod("e", 10))], Then::Hang),
    ])
    .await;
    let watching = start(&server);
    watching.has(&["a", "b", "c", "e"]).await;
    let uris = server.uris();
    assert!(uris[2].contains("continue=more"), "{uris:?}");
    assert!(uris[3].contains("resourceVersion=9"), "{uris:?}");
}

/// An API server whose etcd cannot report progress answers so for ever; one in trouble does for a while.
#[tokio::test]
async fn servers_that_fail_to_stream_are_paged_and_asked_again_when_that_fails_too() {
    let failed = || Answer::Json(500, status(500, "InternalError"));
    let page = Answer::Json(200, json!({"metadata": {"resourceVersion": "9"}, "items": [pod("a", 1)]}));
    let changes = Answer::Stream(vec![line("ADDED", pod("b", 10))], Then::Hang);
    let server = Server::queue(vec![failed(), failed(), failed(), page, changes]).await;
    let watching = start(&server);
    watching.has(&["a", "b"]).await;
    let streaming: Vec<bool> = server.uris().iter().map(|uri| uri.contains("sendInitialEvents")).collect();
    assert_eq!(streaming, [true, false, true, false, false]);
}

#[tokio::test]
async fn a_watch_that_breaks_in_an_object_goes_on_from_the_last_whole_one() {
    let whole = line("ADDED", pod("b", 6));
    let (half, _) = whole.split_at(40);
    let server = Server::queue(vec![
        Answer::Stream(vec![line("ADDED", pod("a", 3)), end(5), line("MODIFIED", pod("a", 6)), half.to_owned()], Then::Break),
        Answer::Stream(vec![line("ADDED", pod("b", 7))], Then::Hang),
    ])
    .await;
    let watching = start(&server);
    watching.has(&["a", "b"]).await;
    assert!(server.uris()[1].contains("resourceVersion=6"), "{:?}", server.uris());
}

#[tokio::test]
async fn an_expired_revision_means_reading_anew() {
    for gone in
        [Answer::Json(410, status(410, "Expired")), Answer::Stream(vec![line("ERROR", status(410, "Expired"))], Then::Close)]
    {
        let server = Server::queue(vec![
            Answer::Stream(vec![line("ADDED", pod("a", 3)), end(5)], Then::Break),
            gone,
            Answer::Stream(vec![line("ADDED", pod("b", 30)), end(31)], Then::Hang),
        ])
        .await;
        let watching = start(&server);
        watching.has(&["b"]).await;
        assert!(server.uris()[2].contains("sendInitialEvents"), "{:?}", server.uris());
    }
}

#[tokio::test]
async fn a_malformed_object_stays_as_it_was_and_stops_nobody() {
    let server = Server::queue(vec![
        Answer::Stream(
            vec![line("ADDED", pod("a", 3)), line("ADDED", bad_pod("x", 4)), end(5), line("MODIFIED", bad_pod("a", 6))],
            Then::Break,
        ),
        Answer::Stream(vec![line("ADDED", pod("b", 7))], Then::Break),
        Answer::Json(410, status(410, "Expired")),
        Answer::Stream(vec![line("ADDED", bad_pod("a", 6)), line("ADDED", pod("c", 8)), end(9)], Then::Hang),
    ])
    .await;
    let watching = start(&server);
    watching.has(&["a", "c"]).await;
    let uris = server.uris();
    assert!(uris[1].contains("resourceVersion=6"), "a malformed object's revision counts: {uris:?}");
}

#[tokio::test]
async fn damaged_bytes_are_asked_for_again_and_given_up_in_the_end() {
    let server = Server::start(|asked| {
        Some(match (asked.uri.contains("watch=true"), asked.uri.contains("resourceVersion=20")) {
            (true, true) => Answer::Stream(vec![line("ADDED", pod("b", 21))], Then::Hang),
            (true, false) if asked.uri.contains("sendInitialEvents") => Answer::Stream(vec![end(5)], Then::Break),
            (true, false) => Answer::Stream(vec!["{damaged\n".to_owned()], Then::Close),
            (false, _) => Answer::Json(200, json!({"metadata": {"resourceVersion": "20"}, "items": []})),
        })
    })
    .await;
    let watching = start(&server);
    watching.has(&["b"]).await;
}

#[tokio::test]
async fn an_api_that_is_gone_for_a_while_is_found_again() {
    // A runtime of its own: ending it cuts the connections too, as a killed server's kernel would.
    let life = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first =
        life.spawn(Server::queue(vec![Answer::Stream(vec![line("ADDED", pod("a", 3)), end(5)], Then::Hang)])).await.unwrap();
    let address = first.address;
    let watching = start(&first);
    watching.has(&["a"]).await;
    life.shutdown_background();
    let listener = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(watching.seen.borrow().synced, "an outage makes nothing unknown");
    let script = |asked: &super::super::testing::Asked| {
        Some(match asked.uri.contains("resourceVersion=5") {
            true => Answer::Stream(vec![line("ADDED", pod("b", 51))], Then::Hang),
            false => Answer::Json(500, status(500, "InternalError")),
        })
    };
    let second = Server::on(listener, Arc::new(script));
    watching.has(&["a", "b"]).await;
    second.task.abort();
}

#[test]
fn waiting_grows_is_bounded_and_spread() {
    let (mut least, mut most) = (Vec::new(), Vec::new());
    for failures in 1..40 {
        least.push(delay(failures, 0));
        most.push(delay(failures, 999));
    }
    assert!(least.is_sorted() && most.is_sorted());
    assert!(least[0] >= Duration::from_millis(100) && most[0] <= Duration::from_millis(300));
    assert!(*most.last().unwrap() < Duration::from_secs(15));
}
