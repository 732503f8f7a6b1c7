//! Somebody sets the clock while pods wait for something. The runtime's clock is not set in these tests.

use super::*;
use crate::clock::testing::set;
use jiff::SignedDuration;

const JUMPS: [i64; 4] = [3600, -3600, 365 * 86400, -365 * 86400];

fn jump(seconds: i64) {
    set(SignedDuration::from_secs(seconds));
}

async fn world() -> World {
    jump(0);
    World::start(Profile::containerd_2()).await
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_as_long_as_it_should() {
    for by in JUMPS {
        let w = world().await;
        w.create("p", plain());
        crash(&w, "p", 3).await;
        crash(&w, "p", 3).await;
        w.until("crash loop", |w| w.pod("p").filter(|p| waiting(p) == "CrashLoopBackOff")).await;
        let since = tokio::time::Instant::now();
        tokio::time::sleep(seconds(2)).await;
        jump(by);
        // Something happens to the pod: it is planned anew.
        w.look("p").await;
        w.resize("p", json!({}));
        eventually(&w, seconds(12), "restarted", |w| w.pod("p").filter(|p| ready(p) && restarts(p) == 2)).await;
        let waited = since.elapsed();
        assert!((9..12).contains(&waited.as_secs()), "{by}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sandbox_is_tried_again_in_time() {
    for by in JUMPS {
        let w = world().await;
        w.fake.inject("RunPodSandbox", Fault::error(ferrolet_cri::Code::Unknown, BROKEN));
        w.create("p", plain());
        tokio::time::sleep(seconds(30)).await;
        jump(by);
        w.look("p").await;
        let tries = w.fake.count("RunPodSandbox");
        w.resize("p", json!({}));
        tokio::time::sleep(seconds(30)).await;
        let more = w.fake.count("RunPodSandbox") - tries;
        assert!((2..=4).contains(&more), "{by}: tried {more} times in half a minute");
        w.fake.clear_faults();
        eventually(&w, seconds(11), "ready", |w| w.pod("p").filter(ready)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_grace_period_is_as_long_as_it_was_given() {
    for by in JUMPS {
        let w = world().await;
        let mut spec = plain();
        spec["containers"][0]["command"] = json!(["/web", "ignore-term", "100000"]);
        spec["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 4}}});
        w.create("p", spec);
        w.until("ready", |w| w.pod("p").filter(ready)).await;
        w.delete("p", 10);
        let since = tokio::time::Instant::now();
        tokio::time::sleep(seconds(1)).await;
        jump(by);
        w.look("p").await;
        eventually(&w, seconds(20), "gone", |w| w.pod("p").is_none().then_some(())).await;
        let took = since.elapsed();
        assert!((9..13).contains(&took.as_secs()), "{by}: {took:?}");
        let stops: Vec<_> = w.fake.calls().into_iter().filter(|c| c.method == "StopContainer").collect();
        assert!(stops.iter().all(|c| c.ids[1] == "6"), "{by}: {stops:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_active_deadline_counts_what_has_passed() {
    for by in JUMPS {
        let w = world().await;
        let mut spec = plain();
        spec["activeDeadlineSeconds"] = json!(60);
        w.create("p", spec.clone());
        w.until("ready", |w| w.pod("p").filter(ready)).await;
        tokio::time::sleep(seconds(20)).await;
        jump(by);
        w.look("p").await;
        w.resize("p", json!({}));
        tokio::time::sleep(seconds(30)).await;
        assert!(ready(&w.pod("p").unwrap()), "{by}: ended too early");
        let over = |w: &World| w.pod("p").filter(|p| p["status"]["phase"] == "Failed");
        let pod = eventually(&w, seconds(20), "over", over).await;
        assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    }
}
