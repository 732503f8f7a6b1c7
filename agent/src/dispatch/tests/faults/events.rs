//! The runtime's events are lost, doubled, late and out of order, and its lists lag behind them.

use super::*;
use ferrolet_cri::fake::{EventsCome, Program};

async fn world() -> World {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.script(&["/web", "init"], Program::ends(0, "", ""));
    w
}

fn spec() -> Value {
    let mut spec = plain();
    spec["initContainers"] = json!([container("init", &["/web", "init"])]);
    spec
}

/// A life with two crashes; each change is known within this.
async fn life(w: &World, known: Duration) {
    w.create("p", spec());
    eventually(w, known * 3, "ready", |w| w.pod("p").filter(ready)).await;
    for count in 1..=2 {
        crash(w, "p", 3).await;
        let again = |w: &World| w.pod("p").filter(|p| ready(p) && restarts(p) == count);
        eventually(w, known + seconds(12), "restarted", again).await;
    }
    let runs: Vec<_> = w.fake.runs().into_iter().filter(|run| run.pod_uid == "uid-p").collect();
    let counts: Vec<&str> = runs.iter().filter(|r| r.name == "main").map(|r| r.restart_count.as_str()).collect();
    assert_eq!((counts.as_slice(), runs.len()), (["0", "1", "2"].as_slice(), 4), "{runs:#?}");
    assert_eq!(w.fake.sandboxes_made("uid-p"), 1);
    w.delete("p", 5);
    eventually(w, known * 3, "gone", |w| w.pod("p").is_none().then_some(())).await;
    assert!(w.fake.containers().is_empty() && w.fake.sandboxes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_made_up_for_by_the_next_list() {
    let w = world().await;
    w.fake.lose_events(true);
    life(&w, seconds(61)).await;
}

#[tokio::test(start_paused = true)]
async fn events_that_come_twice_do_nothing_twice() {
    let w = world().await;
    w.fake.events_come(EventsCome::Twice);
    life(&w, seconds(1)).await;
}

#[tokio::test(start_paused = true)]
async fn events_out_of_order_and_late_are_hints_all_the_same() {
    let w = world().await;
    w.fake.events_come(EventsCome::Late(seconds(3)));
    life(&w, seconds(5)).await;
}

#[tokio::test(start_paused = true)]
async fn lists_behind_an_event_are_asked_again() {
    let w = world().await;
    w.create("p", spec());
    eventually(&w, seconds(5), "ready", |w| w.pod("p").filter(ready)).await;
    w.fake.lag_lists(true);
    crash(&w, "p", 3).await;
    tokio::time::sleep(seconds(1)).await;
    w.fake.lag_lists(false);
    eventually(&w, seconds(3), "restarted", |w| w.pod("p").filter(|p| ready(p) && restarts(p) == 1)).await;
}

#[tokio::test(start_paused = true)]
async fn lists_that_lag_while_a_pod_starts_make_nothing_twice() {
    for lag in [200, 1000, 4000] {
        // From before anything of it was there, from when it had a sandbox, and from when a container was made and not yet started.
        for method in ["RunPodSandbox", "CreateContainer", "StartContainer"] {
            let w = world().await;
            w.create("other", plain());
            w.until("ready", |w| w.pod("other").filter(ready)).await;
            w.fake.inject_first(method, 1, Fault::Delay(Duration::from_millis(5)));
            w.fake.clear_calls();
            w.create("p", spec());
            w.fake.wait_for_call(seconds(5), |call| call.method == method).await.unwrap();
            w.fake.lag_lists(true);
            tokio::time::sleep(Duration::from_millis(lag)).await;
            w.fake.lag_lists(false);
            eventually(&w, seconds(60), "ready", |w| w.pod("p").filter(ready)).await;
            let runs: Vec<_> = w.fake.runs().into_iter().filter(|run| run.pod_uid == "uid-p").collect();
            assert!(runs.len() == 2 && runs.iter().all(|r| !r.told), "{method} {lag}: {runs:#?}");
            assert_eq!(w.fake.sandboxes_made("uid-p"), 1, "{method} {lag}");
            untouched(&w, "other");
        }
    }
}
