//! Servers that stop talking: on bare sockets, as no HTTP server would do it.

use super::super::super::testing::{kubeconfig, until};
use super::super::super::transport::{Bounds, Transport};
use super::*;
use crate::api::snapshot::Publish;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a connection gets.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Silence,
    /// The connection goes within the body.
    Cut,
    /// The body ends as it should.
    End,
}

enum Talk {
    /// Not a byte, not even of the answer's head.
    Mute,
    Stream(String, Then),
    Page(Value),
}

/// Connections are treated in order; those after the last are mute.
struct Raw {
    address: std::net::SocketAddr,
    paths: Arc<std::sync::Mutex<Vec<String>>>,
    dir: tempfile::TempDir,
}

impl Raw {
    async fn start(talks: Vec<Talk>) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let paths: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let seen = paths.clone();
        tokio::spawn(async move {
            let mut talks = talks.into_iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let talk = talks.next().unwrap_or(Talk::Mute);
                tokio::spawn(talk_on(stream, talk, seen.clone()));
            }
        });
        Raw { address, paths, dir: tempfile::tempdir().unwrap() }
    }

    /// Watches with all bounds short.
    fn watch(&self) -> Watching {
        let path = self.dir.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig(&format!("http://{}", self.address), "{}")).unwrap();
        let short = Duration::from_millis(300);
        let transport = Transport::bounded(&path, Bounds { watch_start: short, ..Bounds::default() }).unwrap();
        let patience = Patience { initial: short, overdue: Duration::ZERO, watch_seconds: 1 };
        let (sender, seen) = tokio::sync::watch::channel(Arc::new(Snapshot::default()));
        let cancel = CancellationToken::new();
        let selector = Selector::fields("spec.nodeName=n");
        tokio::spawn(run_with::<Pod>(transport.client(), selector, patience, Publish { sender }, cancel.clone()));
        Watching { seen, cancel }
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

async fn talk_on(mut stream: TcpStream, talk: Talk, seen: Arc<std::sync::Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(head.split(' ').nth(1).unwrap().to_owned());
    match talk {
        Talk::Mute => std::future::pending().await,
        Talk::Stream(body, then) => {
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            let text = format!("{answer}{:x}\r\n{body}\r\n", body.len());
            stream.write_all(text.as_bytes()).await.unwrap();
            match then {
                Then::Silence => std::future::pending().await,
                Then::Cut => {}
                Then::End => stream.write_all(b"0\r\n\r\n").await.unwrap(),
            }
        }
        Talk::Page(page) => {
            let body = page.to_string();
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length:";
            stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        }
    }
}

fn half(line: &str) -> &str {
    &line[..line.len() / 2]
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_asked_again() {
    let whole = [line("ADDED", pod("a", 3)), end(5)].concat();
    let raw = Raw::start(vec![Talk::Mute, Talk::Mute, Talk::Stream(whole, Then::Silence)]).await;
    let watching = raw.watch();
    until("asked", || raw.paths().len() == 1).await;
    assert!(!watching.seen.borrow().synced, "silence is not an empty list");
    watching.has(&["a"]).await;
    assert!(raw.paths().iter().take(3).all(|p| p.contains("sendInitialEvents=true")), "{:?}", raw.paths());
}

#[tokio::test]
async fn a_list_that_stops_within_an_object_is_believed_in_nothing() {
    for then in [Then::Silence, Then::Cut, Then::End] {
        let begun = line("ADDED", pod("a", 3)) + half(&line("ADDED", pod("b", 4)));
        let rest = match then {
            // One that is too slow to stream its state may still be able to page it.
            Then::Silence => Talk::Page(json!({"metadata": {"resourceVersion": "9"}, "items": [pod("a", 3), pod("b", 4)]})),
            Then::Cut | Then::End => {
                Talk::Stream([line("ADDED", pod("a", 3)), line("ADDED", pod("b", 4)), end(9)].concat(), Then::Silence)
            }
        };
        let raw = Raw::start(vec![Talk::Stream(begun, then), rest]).await;
        let mut watching = raw.watch();
        watching.seen.changed().await.unwrap();
        let first = watching.seen.borrow().clone();
        assert!(first.synced && first.items.len() == 2, "the first thing published is the whole list");
    }
}

#[tokio::test]
async fn a_watch_that_stops_within_an_object_goes_on_from_the_last_whole_one() {
    for then in [Then::Silence, Then::Cut, Then::End] {
        let begun = [line("ADDED", pod("a", 3)), line("ADDED", pod("b", 4)), end(5), line("MODIFIED", pod("a", 6))].concat()
            + half(&line("DELETED", pod("b", 7)));
        let on = line("ADDED", pod("c", 8));
        let raw = Raw::start(vec![Talk::Stream(begun, then), Talk::Mute, Talk::Stream(on, Then::Silence)]).await;
        let watching = raw.watch();
        watching.has(&["a", "b"]).await;
        // Half a deletion deletes nothing, and nothing else is forgotten while nobody answers.
        until("asked again", || raw.paths().len() == 2).await;
        assert!(watching.seen.borrow().synced && watching.seen.borrow().items.len() == 2);
        watching.has(&["a", "b", "c"]).await;
        assert!(raw.paths()[1..3].iter().all(|p| p.contains("resourceVersion=6")), "{:?}", raw.paths());
    }
}
