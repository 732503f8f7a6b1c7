//! A start under way is neither cut off nor done twice, whatever the runtime shows of it meanwhile.

use super::ready;
use super::world::World;
use crate::pod::observed::State;
use ferrolet_cri::fake::{Fault, Outcome, Profile};
use ferrolet_cri::types::SandboxState;
use serde_json::{Value, json};
use std::time::Duration;

const SLOW: Duration = Duration::from_millis(1500);

fn plain() -> Value {
    json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]})
}

/// One by its list alone, one by events.
fn profiles() -> [Profile; 2] {
    [Profile::containerd_1_6(), Profile::containerd_2()]
}

async fn shown(w: &World, wanted: State) {
    w.until("shown by the runtime", |w| w.seen("p").filter(|p| p.containers.iter().any(|c| c.state == wanted))).await;
}

/// It ran through as one: every call once, answered, and told of.
async fn one_start(w: &World) {
    let pod = w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.until("told", |w| w.api.reasons().contains(&"Started".to_owned()).then_some(())).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    for call in ["RunPodSandbox", "CreateContainer", "StartContainer"] {
        let calls: Vec<Outcome> = w.fake.calls().iter().filter(|c| c.method == call).map(|c| c.outcome).collect();
        assert_eq!(calls, [Outcome::Answered], "{call}");
    }
    for call in ["StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"] {
        assert_eq!(w.fake.count(call), 0, "{call}");
    }
}

#[tokio::test]
async fn a_created_container_shows_while_its_start_is_slow() {
    for profile in profiles() {
        let w = World::start(profile).await;
        w.fake.inject_first("StartContainer", 1, Fault::Delay(SLOW));
        w.create("p", plain());
        shown(&w, State::Created).await;
        one_start(&w).await;
    }
}

#[tokio::test]
async fn a_running_container_shows_while_its_start_does_not_answer() {
    for profile in profiles() {
        let w = World::start(profile).await;
        w.fake.inject_first("StartContainer", 1, Fault::HangAfter);
        w.create("p", plain());
        shown(&w, State::Running).await;
        // Its status goes by what the runtime shows.
        let pod = w.until("ready", |w| w.pod("p").filter(ready)).await;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        w.look("p").await;
        // Whatever else is planned for it, the call is left alone: its deadline ends it.
        w.create("other", plain());
        w.until("other ready", |w| w.pod("other").filter(ready)).await;
        let first = w.fake.calls().into_iter().find(|c| c.method == "StartContainer").unwrap();
        assert_eq!(first.outcome, Outcome::Running);
        assert_eq!(w.fake.count("StartContainer"), 2, "one for each pod");
        assert_eq!(w.fake.count("StopContainer") + w.fake.count("RemoveContainer"), 0);
    }
}

#[tokio::test]
async fn a_sandbox_shows_while_its_network_is_made() {
    for profile in profiles() {
        let w = World::start(profile).await;
        w.fake.inject_first("RunPodSandbox", 1, Fault::Delay(SLOW));
        w.create("p", plain());
        w.until("called", |w| (w.fake.count("RunPodSandbox") == 1).then_some(())).await;
        w.look("p").await;
        one_start(&w).await;
        assert_eq!(w.fake.sandboxes().len(), 1);
    }
}

#[tokio::test]
async fn a_sandbox_that_runs_but_was_never_answered_is_used() {
    for profile in profiles() {
        let w = World::start(profile).await;
        w.fake.inject_first("RunPodSandbox", 1, Fault::HangAfter);
        w.create("p", plain());
        w.until("shown", |w| w.seen("p").filter(|p| p.sandboxes.iter().any(|s| s.ready))).await;
        let pod = w.until("ready", |w| w.pod("p").filter(ready)).await;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        assert_eq!((w.fake.count("RunPodSandbox"), w.fake.count("StartContainer")), (1, 1));
        assert_eq!(w.fake.sandboxes().iter().filter(|s| s.state == SandboxState::Ready).count(), 1);
    }
}

#[tokio::test]
async fn a_post_start_hook_runs_once_and_to_its_end() {
    for profile in profiles() {
        let w = World::start(profile).await;
        let mut spec = plain();
        spec["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["/web", "echo"]}}});
        w.fake.inject_first("ExecSync", 1, Fault::Delay(SLOW));
        w.create("p", spec);
        shown(&w, State::Running).await;
        w.look("p").await;
        one_start(&w).await;
        let hooks =
            |w: &World| w.fake.calls().into_iter().filter(|c| c.method == "ExecSync").map(|c| c.outcome).collect::<Vec<_>>();
        w.until("hook done", |w| (hooks(w) == [Outcome::Answered]).then_some(())).await;
        assert_eq!(w.fake.count("StopContainer"), 0);
    }
}

/// A runtime whose call is broken off says that the container could not be started, though it was only told to end.
#[tokio::test]
async fn a_start_under_way_is_let_come_to_its_end_when_the_pod_is_deleted() {
    for profile in profiles() {
        let w = World::start(profile).await;
        w.fake.inject_first("StartContainer", 1, Fault::Delay(SLOW));
        w.create("p", plain());
        w.until("start", |w| (w.fake.count("StartContainer") == 1).then_some(())).await;
        w.delete("p", 1);
        w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
        let calls = w.fake.calls();
        let place = |method: &str| calls.iter().position(|c| c.method == method);
        let started = &calls[place("StartContainer").unwrap()];
        assert_eq!(started.outcome, Outcome::Answered);
        assert!(place("StopContainer") > place("StartContainer"), "one that runs is stopped with its grace");
    }
}

#[tokio::test]
async fn the_start_after_a_failed_one_is_not_taken_for_its_leftover() {
    for profile in profiles() {
        let w = World::start(profile).await;
        w.fake.inject_first("StartContainer", 1, Fault::error(ferrolet_cri::Code::Unknown, "no such command"));
        w.fake.inject_first("StartContainer", 1, Fault::Delay(SLOW));
        w.create("p", plain());
        w.until("second start", |w| (w.fake.count("StartContainer") == 2).then_some(())).await;
        w.look("p").await;
        let pod = w.until("ready", |w| w.pod("p").filter(ready)).await;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        assert_eq!(w.fake.count("StartContainer"), 2);
        assert_eq!(w.fake.count("RemoveContainer"), 1, "the first one's leftover");
    }
}

#[tokio::test]
async fn http_hooks_reach_the_container_and_a_failed_one_kills_it() {
    let w = World::start(Profile::containerd_2()).await;
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let requests = std::thread::spawn(move || {
        let paths = server.incoming().take(2).map(|stream| {
            let mut stream = stream.unwrap();
            let mut data = [0; 1024];
            let n = std::io::Read::read(&mut stream, &mut data).unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&data[..n]).split(' ').nth(1).unwrap().to_owned()
        });
        paths.collect::<Vec<_>>()
    });
    let mut spec = plain();
    spec["containers"][0]["ports"] = json!([{"name": "web", "containerPort": port}]);
    let hook = |path: &str| json!({"httpGet": {"host": "127.0.0.1", "port": "web", "path": path}});
    spec["containers"][0]["lifecycle"] = json!({"postStart": hook("/begun"), "preStop": hook("/ending")});
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.delete("p", 5);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    assert_eq!(requests.join().unwrap(), ["/begun", "/ending"]);

    // Nobody listens there any more.
    let mut spec = plain();
    spec["containers"][0]["lifecycle"] = json!({"postStart": {"httpGet": {"host": "127.0.0.1", "port": port}}});
    w.create("q", spec);
    w.until("told", |w| w.api.reasons().contains(&"FailedPostStartHook".to_owned()).then_some(())).await;
    w.until("killed", |w| (w.fake.count("StopContainer") >= 2).then_some(())).await;
}

#[tokio::test]
async fn volumes_of_a_running_pod_follow_what_they_show() {
    let w = World::start(Profile::containerd_2()).await;
    let map = |value: &str, revision: &str| json!({"metadata": {"name": "c", "resourceVersion": revision}, "data": {"k": value}});
    w.api.put("configmaps", "c", map("1", "1"));
    let mut spec = json!({"containers": [{"name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]});
    spec["volumes"] = json!([{"name": "v", "configMap": {"name": "c"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    let file = w.root().join("pods/uid-p/volumes/kubernetes.io~configmap/v/k");
    let shows = |value: &'static str| move |_: &World| (std::fs::read_to_string(&file).ok()? == value).then_some(());
    w.until("shown", shows.clone()("1")).await;
    w.api.put("configmaps", "c", map("2", "2"));
    w.until("followed", shows("2")).await;
    assert_eq!(w.fake.count("CreateContainer"), 1);
}
