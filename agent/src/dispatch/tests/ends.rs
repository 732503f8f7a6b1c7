//! How pods end: hooks, turns, deadlines that come sooner, and what never started.

use super::ready;
use super::world::World;
use ferrolet_cri::fake::{Fault, OnTerm, Outcome, Profile, Program};
use ferrolet_cri::types::ContainerState;
use serde_json::{Value, json};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn runs(name: &str) -> Value {
    json!({"name": name, "image": "web:1", "imagePullPolicy": "IfNotPresent", "command": ["/web", name],
        "lifecycle": {"preStop": {"exec": {"command": ["/web", "before", name]}}}})
}

/// Two sidecars and a main container, all with hooks of this kind.
async fn with_sidecars(hook: Program) -> World {
    let w = World::start(Profile::containerd_1_6()).await;
    for name in ["a", "b", "main"] {
        w.fake.script(&["/web", name], Program::runs());
        w.fake.script(&["/web", "before", name], hook.clone());
    }
    w.fake.script(&["/web", "main"], Program { on_term: OnTerm::Exit { after: SECOND, code: 0 }, ..Program::runs() });
    let sidecars: Vec<Value> = ["a", "b"]
        .map(|name| {
            let mut c = runs(name);
            c["restartPolicy"] = json!("Always");
            c
        })
        .into();
    w.create("p", json!({"initContainers": sidecars, "containers": [runs("main")]}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.clear_calls();
    w
}

/// The calls of one method by the names of their containers, in the order in which they began.
fn order(w: &World, method: &str) -> Vec<String> {
    let containers = w.fake.containers();
    let name = |id: &String| containers.iter().find(|c| c.id == *id).map(|c| c.config.name.clone());
    let mut calls: Vec<_> = w.fake.calls().into_iter().filter(|c| c.method == method).collect();
    calls.sort_by_key(|c| c.at);
    calls.iter().filter_map(|c| name(&c.ids[0])).collect()
}

#[tokio::test]
async fn the_hooks_of_sidecars_begin_at_once_and_their_signals_wait() {
    let w = with_sidecars(Program::ends(0, "", "")).await;
    w.delete("p", 30);
    let hooks = w.until("hooks", |w| (w.fake.count("ExecSync") == 3).then(|| order(w, "ExecSync"))).await;
    let mut names = hooks;
    names.sort();
    assert_eq!(names, ["a", "b", "main"]);
    let first = w.until("signal", |w| Some(order(w, "StopContainer")).filter(|s| !s.is_empty())).await;
    assert_eq!(first, ["main"], "the hooks of all have begun while main still ends");
    let stops = w.until("told to end", |w| Some(order(w, "StopContainer")).filter(|s| s.len() == 3)).await;
    assert_eq!(stops, ["main", "b", "a"]);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    assert_eq!(w.fake.count("ExecSync"), 3, "each hook once");
}

#[tokio::test]
async fn a_hook_that_does_not_end_is_cut_with_its_container() {
    let w = with_sidecars(Program::runs().ignoring_term()).await;
    w.delete("p", 1);
    w.until("told to end", |w| (w.fake.count("StopContainer") == 3).then_some(())).await;
    let hooks: Vec<Outcome> = w.fake.calls().iter().filter(|c| c.method == "ExecSync").map(|c| c.outcome).collect();
    assert!(!hooks.contains(&Outcome::Answered), "{hooks:?}");
    let calls = w.fake.calls();
    let graces: Vec<&str> = calls.iter().filter(|c| c.method == "StopContainer").map(|c| c.ids[1].as_str()).collect();
    assert_eq!(graces, ["2", "2", "2"], "nobody is left less");
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
}

#[tokio::test]
async fn a_sooner_deadline_holds_for_what_is_under_way() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.script(&["/web", "main"], Program::runs().ignoring_term());
    w.fake.script(&["/web", "before", "main"], Program::sleeps(SECOND, 0));
    w.create("p", json!({"containers": [runs("main")]}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.clear_calls();
    w.delete("p", 300);
    w.until("hook", |w| (w.fake.count("ExecSync") == 1).then_some(())).await;
    // The hook goes on: there is still time for it.
    w.delete("p", 200);
    w.until("told to end", |w| (w.fake.count("StopContainer") == 1).then_some(())).await;
    let hook = w.fake.calls().into_iter().find(|c| c.method == "ExecSync").unwrap();
    assert_eq!((hook.outcome, w.fake.count("ExecSync")), (Outcome::Answered, 1));
    // And later asks for more change nothing.
    w.delete("p", 250);
    w.delete("p", 0);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    let graces: Vec<u64> =
        w.fake.calls().iter().filter(|c| c.method == "StopContainer").map(|c| c.ids[1].parse().unwrap()).collect();
    assert!(matches!(graces[..], [196..=200, 2]), "{graces:?}");
    let told = w.api.reasons().iter().filter(|r| *r == "Killing").count();
    assert_eq!(told, 1, "it is killed once");
}

#[tokio::test]
async fn a_container_that_was_made_and_never_started_goes_too() {
    for profile in [Profile::containerd_1_6(), Profile::containerd_2()] {
        let w = World::start(profile).await;
        w.fake.inject_first("StartContainer", 1, Fault::Hang);
        w.create("p", json!({"containers": [runs("main")]}));
        w.until("start", |w| (w.fake.count("StartContainer") == 1).then_some(())).await;
        w.delete("p", 30);
        w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
        assert_eq!(w.fake.count("ExecSync"), 0, "no hook in what does not run");
        assert!(w.fake.containers().is_empty() && w.fake.sandboxes().is_empty());
        let last = w.api.statuses("p").pop().unwrap();
        assert_eq!(last["status"]["phase"], "Failed");
        assert_eq!(last["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    }
}

#[tokio::test]
async fn a_failed_post_start_hook_ends_its_container_with_its_other_hook() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.script(&["/web", "main"], Program::runs());
    w.fake.script(&["/web", "before", "main"], Program::ends(0, "", ""));
    w.fake.script(&["/web", "begun"], Program::ends(3, "out", "err"));
    let mut main = runs("main");
    main["lifecycle"]["postStart"] = json!({"exec": {"command": ["/web", "begun"]}});
    w.create("p", json!({"restartPolicy": "Never", "containers": [main]}));
    let failed = w
        .until("told why", |w| {
            let all = w.api.statuses("p");
            let waits = |s: &Value| s["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PostStartHookError";
            let over = |s: &Value| s["status"]["phase"] == "Succeeded";
            all.iter().any(|s| waits(s) || over(s)).then_some(all)
        })
        .await;
    assert_eq!(w.fake.count("StopContainer"), 1);
    assert_eq!(w.fake.count("ExecSync"), 2, "{failed:#?}");
    let events = w.api.messages();
    assert!(events.contains(&"PostStartHook failed".to_owned()) && events.contains(&"FailedPostStartHook".to_owned()));
    assert!(!events.iter().any(|m| m.contains("out")), "what hooks write is not for events: {events:?}");
}

#[tokio::test]
async fn a_pod_is_over_once_its_sandbox_is_and_only_then() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.script(&["/web", "main"], Program::ends(0, "", ""));
    w.fake.inject_first("StopPodSandbox", 1, Fault::error(ferrolet_cri::Code::Unknown, "the network is stuck"));
    w.create("p", json!({"restartPolicy": "Never", "containers": [runs("main")]}));
    w.until("tried", |w| (w.fake.count("StopPodSandbox") == 1).then_some(())).await;
    assert!(w.api.statuses("p").iter().all(|s| s["status"]["phase"] != "Succeeded"));
    w.until("over", |w| w.pod("p").filter(|p| p["status"]["phase"] == "Succeeded")).await;
    assert_eq!(w.fake.count("StopPodSandbox"), 2);
}

#[tokio::test]
async fn what_the_runtime_says_of_an_end_is_told() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.script(&["/web", "main"], Program::runs());
    for (name, code, reason) in [("p", 137, "OOMKilled"), ("q", 128, "ContainerCannotRun"), ("r", 128, "StartError")] {
        w.create(name, json!({"restartPolicy": "Never", "containers": [runs("main")]}));
        w.until("ready", |w| w.pod(name).filter(ready)).await;
        let running = w.fake.containers().into_iter().find(|c| c.state == ContainerState::Running).unwrap();
        assert!(w.fake.exit_container(&running.id, code, reason));
        let pod = w.until("over", |w| w.pod(name).filter(|p| p["status"]["phase"] == "Failed")).await;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((ended["reason"].as_str(), ended["exitCode"].as_i64()), (Some(reason), Some(i64::from(code))));
    }
}

#[tokio::test]
async fn a_runtime_that_cannot_be_looked_at_is_said_and_nothing_is_concluded() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", json!({"containers": [{"name": "web", "image": "web:1"}]}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.inject("ListContainers", Fault::error(ferrolet_cri::Code::Unavailable, "the runtime is busy"));
    w.delete("p", 1);
    w.until("told", |w| w.api.reasons().contains(&"FailedSync".to_owned()).then_some(())).await;
    let text = "error determining status: ";
    assert!(w.api.messages().iter().any(|m| m.starts_with(text) && m.contains("the runtime is busy")), "{:?}", w.api.messages());
    assert!(w.pod("p").is_some(), "it may still run");
    w.fake.clear_faults();
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
}
