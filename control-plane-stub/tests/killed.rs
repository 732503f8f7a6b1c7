//! kill -9 at random points: nothing that was answered is lost.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferrolet_stub::store::{Expect, Keep, Store};
use serde_json::json;

const ROUNDS: u32 = 6;

/// Run as a child of the test below, with the store's path in the environment: writes and says what was acknowledged.
#[tokio::test]
async fn writer() {
    let Ok(path) = std::env::var("FERROLET_STUB_KILL_TEST") else { return };
    let store = opened(path.as_ref()).await;
    let first = store.revision();
    loop {
        let writes = (0..4).map(|n| {
            let store = store.clone();
            async move {
                let name = format!("k{}", uuid::Uuid::new_v4());
                let item = store.put(&name, Expect::Absent, json!({"n": n, "first": first})).await.unwrap();
                println!("ack {name} {}", item.revision);
            }
        });
        futures::future::join_all(writes).await;
    }
}

/// The writing thread of a store lets go of the file a moment after the last handle was dropped.
async fn opened(path: &std::path::Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(path, Keep::default()) {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

fn spawn(path: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
        .env("FERROLET_STUB_KILL_TEST", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn nothing_answered_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = spawn(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different point each round, by what was answered and by a little time.
        let enough = acknowledged.len() + 1 + rand::random_range(0..200) as usize;
        let deadline = Instant::now() + Duration::from_secs(30);
        let note = |line: String, into: &mut Vec<(String, u64)>| {
            let Some((_, rest)) = line.split_once("ack ") else { return };
            if let Some((name, revision)) = rest.split_once(' ')
                && let Ok(revision) = revision.parse()
            {
                into.push((name.to_owned(), revision));
            }
        };
        while acknowledged.len() < enough && Instant::now() < deadline {
            match lines.next() {
                Some(Ok(line)) => note(line, &mut acknowledged),
                _ => break,
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was already in the pipe was answered too; a line cut short was not.
        for line in lines.map_while(Result::ok) {
            if line.rsplit(' ').next().is_some_and(|r| !r.is_empty()) {
                note(line, &mut acknowledged);
            }
        }
        assert!(!acknowledged.is_empty());
        let store = opened(&path).await;
        for (i, (name, revision)) in acknowledged.iter().enumerate() {
            let item = store.get(name).unwrap_or_else(|| panic!("round {round}: {name} of {i} is lost"));
            if item.revision != *revision {
                // Only a last line that the kill cut short may differ.
                assert!(i + 1 == acknowledged.len() && item.revision.to_string().starts_with(&revision.to_string()));
            }
        }
        acknowledged.retain(|(name, revision)| store.get(name).is_some_and(|i| i.revision == *revision));
    }
}
