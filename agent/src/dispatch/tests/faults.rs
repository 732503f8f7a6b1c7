//! What happens to pods while something they depend on fails: the runtime, the API, the clock. On a clock of tokio's own, which passes
//! minutes at once where nothing happens; the wall clock stands still beside it, or jumps.

mod away;
mod big;
mod clock;
mod events;
mod methods;

use super::world::World;
use super::{ready, waiting};
use ferrolet_cri::fake::{Fault, Profile};
use serde_json::{Value, json};
use std::time::Duration;

/// Words that only a test says.
const BROKEN: &str = "broken on purpose";

fn container(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": "web:1", "imagePullPolicy": "IfNotPresent", "command": command})
}

/// One that runs until it is told to end.
fn plain() -> Value {
    json!({"terminationGracePeriodSeconds": 5, "containers": [container("main", &["/pause"])]})
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Waits for a condition, for so long by tokio's clock.
async fn eventually<T>(w: &World, limit: Duration, what: &str, look: impl Fn(&World) -> Option<T>) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(found) = look(w) {
            return found;
        }
        if begun.elapsed() > limit {
            let pods = w.api.pods();
            panic!("never {what}; pods {pods:#?}; standing {:#?}; events {:#?}", w.standings().await, w.api.messages());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default()
}

/// The pod ran as it was made and nobody touched it: one run of each container, ready from the first time on.
fn untouched(w: &World, name: &str) {
    let uid = format!("uid-{name}");
    let runs: Vec<_> = w.fake.runs().into_iter().filter(|run| run.pod_uid == uid).collect();
    assert!(runs.iter().all(|run| run.restart_count == "0" && run.ended.is_none()), "{runs:#?}");
    assert_eq!(w.fake.sandboxes_made(&uid), 1);
    let statuses = w.api.statuses(name);
    assert!(statuses.iter().skip_while(|s| !ready(s)).all(ready), "readiness of {name} flipped");
    assert!(statuses.iter().any(ready), "{name} was never ready");
}

/// The container that runs for this pod.
fn running(w: &World, name: &str) -> Option<String> {
    let uid = format!("uid-{name}");
    w.fake.runs().into_iter().rev().find(|run| run.pod_uid == uid && run.ended.is_none()).map(|run| run.container_id)
}

async fn crash(w: &World, name: &str, code: i32) {
    let id = eventually(w, seconds(100), "running", |w| running(w, name)).await;
    assert!(w.fake.exit_container(&id, code, ""));
    let ended = |w: &World| w.fake.runs().iter().any(|run| run.container_id == id && run.ended.is_some()).then_some(());
    eventually(w, seconds(1), "ended", ended).await;
}
