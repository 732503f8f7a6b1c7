//! Each call of the runtime fails in turn, or is late beyond its deadline.

use super::*;
use crate::dispatch::tests::kills::WORK;
use ferrolet_cri::Code;
use ferrolet_cri::fake::{ImageConfig, Program};

/// The calls that change nothing but what images are there.
const LOOKS: [&str; 7] =
    ["Version", "ListPodSandbox", "ListContainers", "PodSandboxStatus", "ContainerStatus", "ImageStatus", "PullImage"];

/// All that a pod's life needs.
fn methods() -> impl Iterator<Item = &'static str> {
    LOOKS.into_iter().chain(WORK)
}

/// Longer than any delay between two tries.
const HEALED: Duration = Duration::from_secs(400);

async fn world() -> World {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.add_to_registry("pulled:1", ImageConfig::default());
    w.fake.script(&["/web", "init"], Program::ends(0, "", ""));
    w.create("other", plain());
    w.until("ready", |w| w.pod("other").filter(ready)).await;
    w
}

/// An init container, and an image that is to be pulled.
fn spec() -> Value {
    let mut spec = plain();
    spec["initContainers"] = json!([container("init", &["/web", "init"])]);
    spec["containers"][0]["image"] = json!("pulled:1");
    spec
}

fn error() -> Fault {
    Fault::error(Code::Unknown, BROKEN)
}

/// Somewhere it is said what is wrong: in the status, by an event, or when one asks.
async fn is_said(w: &World, words: &str) -> bool {
    let (told, standing) = (w.api.messages(), format!("{:?}", w.standings().await));
    let status = w.pod("p").unwrap_or_default().to_string();
    standing.contains(words) || status.contains(words) || told.iter().any(|message| message.contains(words))
}

async fn comes_up(w: &World, method: &str) {
    eventually(w, HEALED, &format!("ready after {method}"), |w| w.pod("p").filter(ready)).await;
    let runs: Vec<_> = w.fake.runs().into_iter().filter(|run| run.pod_uid == "uid-p").collect();
    assert!(runs.iter().all(|run| run.restart_count == "0") && runs.len() == 2, "{method}: {runs:#?}");
}

async fn goes(w: &World, method: &str) {
    eventually(w, HEALED, &format!("gone after {method}"), |w| w.pod("p").is_none().then_some(())).await;
    let left = |w: &World| (w.fake.containers().len(), w.fake.sandboxes().len());
    assert_eq!(left(w), (1, 1), "{method} left something");
    untouched(w, "other");
    assert!(!w.agent_ended(), "{method} ended the agent");
}

/// For so many calls, in the start and again in the end.
async fn for_some(method: &str, times: u32, fault: Fault) {
    let w = world().await;
    w.fake.inject_first(method, times, fault.clone());
    w.create("p", spec());
    comes_up(&w, method).await;
    w.fake.clear_faults();
    w.fake.inject_first(method, times, fault);
    w.delete("p", 5);
    goes(&w, method).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_once_is_made_again() {
    for method in methods() {
        for_some(method, 1, error()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_a_few_times_is_made_again() {
    for method in methods() {
        for_some(method, 3, error()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_works_and_says_it_failed_is_seen_to_have_worked() {
    for method in methods() {
        for_some(method, 1, Fault::ErrorAfter(Code::Unknown, BROKEN.to_owned())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_without_content_are_no_answers() {
    for method in methods() {
        // Emptiness is a valid answer to what has none to give.
        if !method.starts_with("Stop")
            && !method.starts_with("Remove")
            && method != "StartContainer"
            && !method.starts_with("List")
        {
            for_some(method, 1, Fault::Empty).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_for_a_minute_is_named_and_heals() {
    for method in methods() {
        let w = world().await;
        for part in ["start", "end"] {
            w.fake.clear_calls();
            w.fake.inject(method, error());
            if part == "start" {
                w.create("p", spec())
            } else {
                w.delete("p", 5)
            }
            tokio::time::sleep(seconds(60)).await;
            // The version is asked for only once, and what for its want is not known hurts nobody.
            let said = w.fake.count(method) == 0 || method == "Version" || is_said(&w, BROKEN).await;
            assert!(said, "nobody says that {method} fails at the {part}: {:#?} {:#?}", w.standings().await, w.api.messages());
            w.fake.clear_faults();
            if part == "start" { comes_up(&w, method).await } else { goes(&w, method).await }
        }
    }
}

/// Past its deadline; meanwhile another pod comes and goes as ever.
#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_holds_up_its_own_pod_alone() {
    for method in methods() {
        let w = world().await;
        // Nothing ends a pull but its end.
        let fault = if method == "PullImage" { Fault::Delay(seconds(600)) } else { Fault::Hang };
        for part in ["start", "end"] {
            w.fake.clear_calls();
            w.fake.inject_first(method, 1, fault.clone());
            if part == "start" {
                w.create("p", spec())
            } else {
                w.delete("p", 5)
            }
            if w.fake.wait(seconds(3), || (w.fake.count(method) > 0).then_some(())).await.is_none() {
                // It is not made in this part, and is not meant for the next pod.
                w.fake.clear_faults();
            }
            w.create("third", plain());
            eventually(&w, seconds(5), &format!("a third pod ready beside {method}"), |w| w.pod("third").filter(ready)).await;
            w.delete("third", 5);
            let gone = |w: &World| w.pod("third").is_none().then_some(());
            eventually(&w, seconds(10), &format!("a third pod gone beside {method}"), gone).await;
            if part == "start" {
                eventually(&w, seconds(900), method, |w| w.pod("p").filter(ready)).await;
            } else {
                eventually(&w, seconds(900), method, |w| w.pod("p").is_none().then_some(())).await;
                goes(&w, method).await;
            }
        }
    }
}
