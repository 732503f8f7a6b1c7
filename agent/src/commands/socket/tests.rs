use super::*;
use crate::api::testing::until;
use std::os::unix::fs::FileTypeExt;

struct Fixed;

impl Answers for Fixed {
    async fn trace(&self, ask: Ask) -> Answer {
        match ask.from.as_str() {
            "hang" => std::future::pending().await,
            from => Answer::Error(format!("seen {from}")),
        }
    }

    async fn pods(&self, ask: pod::Ask) -> Answer {
        Answer::Error(format!("seen {ask:?}"))
    }
}

fn request(from: &str) -> Request {
    Request::Trace(Ask { from: from.into(), to: "10.0.0.2:1".into(), interface: None })
}

async fn serving(root: &Path) -> (CancellationToken, JoinHandle<()>) {
    let cancel = CancellationToken::new();
    let task = spawn(root.to_owned(), Fixed, cancel.clone());
    let socket = root.join(NAME);
    until("the socket", || socket.symlink_metadata().is_ok_and(|m| m.file_type().is_socket())).await;
    (cancel, task)
}

async fn said(root: &Path, from: &str) -> String {
    match ask(root, &request(from)).await {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_line_in_one_line_out_and_gone_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    // Far longer than a socket's address may be.
    let root = dir.path().join("r".repeat(200));
    std::fs::create_dir(&root).unwrap();
    assert!(ask(&root, &request("a")).await.unwrap().is_none());
    let (cancel, task) = serving(&root).await;
    assert_eq!(std::fs::symlink_metadata(root.join(NAME)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(said(&root, "a").await, "seen a");
    assert_eq!(said(&root, "b").await, "seen b");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "nothing but the socket is left");
    cancel.cancel();
    task.await.unwrap();
    assert!(!root.join(NAME).exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    drop(std::os::unix::net::UnixListener::bind(root.join(NAME)).unwrap());
    assert!(ask(root, &request("a")).await.unwrap().is_none(), "nobody listens");
    let (cancel, task) = (CancellationToken::new(), ());
    let first = spawn(root.to_owned(), Fixed, cancel.clone());
    let () = task;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !is_served(root).await {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(matches!(bind(root).await, Err(Error::Taken(_))));
    assert_eq!(said(root, "a").await, "seen a");
    cancel.cancel();
    first.await.unwrap();
}

#[tokio::test]
async fn another_ones_socket_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (cancel, task) = serving(dir.path()).await;
    std::fs::remove_file(dir.path().join(NAME)).unwrap();
    std::fs::write(dir.path().join(NAME), "later").unwrap();
    cancel.cancel();
    task.await.unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join(NAME)).unwrap(), "later");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (cancel, task) = serving(dir.path()).await;
    // Says nothing, and keeps a place.
    let _silent = connect(dir.path()).await.unwrap();
    for bad in [&b"{}\n"[..], b"nonsense\n", &[b'x'; 10_000]] {
        let mut stream = connect(dir.path()).await.unwrap();
        // The server may have read enough before all of it is written.
        let _ = stream.write_all(bad).await;
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer).await;
        assert!(answer.is_empty() || answer.contains("not a request"), "{answer}");
    }
    assert_eq!(said(dir.path(), "a").await, "seen a");
    cancel.cancel();
    task.await.unwrap();
}
