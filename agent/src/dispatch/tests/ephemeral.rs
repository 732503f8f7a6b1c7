//! Ephemeral containers: added to a pod that runs, started once, counted for nothing.

use super::ready;
use super::world::World;
use ferrolet_cri::fake::{Fault, ImageConfig, Profile};
use ferrolet_cri::types::{ContainerState, NamespaceMode};
use serde_json::{Value, json};

fn plain() -> Value {
    json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]})
}

fn debug(extra: Value) -> Value {
    let mut c = json!({"name": "debug", "image": "web:1", "imagePullPolicy": "IfNotPresent"});
    for (key, value) in extra.as_object().unwrap() {
        c[key] = value.clone();
    }
    c
}

fn status(pod: &Value) -> Value {
    pod["status"]["ephemeralContainerStatuses"][0].clone()
}

fn waits(pod: &Value) -> (String, String) {
    let waiting = &status(pod)["state"]["waiting"];
    let text = |field: &str| waiting[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn made(w: &World, name: &str) -> Vec<ferrolet_cri::fake::ContainerView> {
    w.fake.containers().into_iter().filter(|c| c.config.name == name).collect()
}

async fn running(w: &World) -> Value {
    w.until("the debugger runs", |w| w.pod("p").filter(|p| status(p)["state"]["running"].is_object())).await
}

#[tokio::test]
async fn one_is_added_to_a_running_pod_and_ends_once() {
    for profile in [Profile::containerd_1_6(), Profile::containerd_2(), Profile::crio()] {
        let mut w = World::start(profile).await;
        w.create("p", plain());
        let before = w.until("ready", |w| w.pod("p").filter(ready)).await;
        w.debug(
            "p",
            debug(json!({"targetContainerName": "main", "command": ["/web"], "args": ["sleep", "1000"], "stdin": true,
            "stdinOnce": true, "tty": true, "workingDir": "/tmp", "env": [{"name": "A", "value": "x"}],
            "securityContext": {"privileged": true}})),
        );
        let pod = running(&w).await;
        let (target, c) = (made(&w, "main").remove(0), made(&w, "debug").remove(0));
        assert_eq!(c.config.security.namespaces.pid, NamespaceMode::Target(target.id));
        assert_eq!((c.config.log_path.as_str(), c.config.attempt), ("debug/0.log", 0));
        assert!(c.config.stdin && c.config.stdin_once && c.config.tty && c.config.security.privileged);
        assert_eq!(
            (c.config.working_dir.as_str(), c.config.args.as_slice()),
            ("/tmp", ["sleep".into(), "1000".into()].as_slice())
        );
        assert!(c.config.env.iter().any(|e| e.name == "A" && e.value == "x"));
        let s = status(&pod);
        assert_eq!((&s["restartCount"], &s["ready"], &s["started"]), (&json!(0), &json!(false), &Value::Null));
        assert!(s["containerID"].as_str().unwrap().ends_with(&c.id) && !s["imageID"].as_str().unwrap().is_empty());
        for field in ["phase", "conditions", "containerStatuses"] {
            assert_eq!(without_generation(&pod["status"][field]), without_generation(&before["status"][field]), "{field}");
        }
        for reason in ["Pulled", "Created", "Started"] {
            w.until("told", |w| about(w, reason).contains(&"spec.ephemeralContainers{debug}".to_owned()).then_some(())).await;
        }

        w.stop_agent().await;
        w.start_agent();
        w.until("observed", |w| w.observed().then_some(())).await;
        assert!(w.fake.exit_container(&c.id, 3, ""));
        let ended = |p: &Value| status(p)["state"]["terminated"]["exitCode"] == 3;
        let pod = w.until("ended", |w| w.pod("p").filter(ended)).await;
        assert!(ready(&pod) && pod["status"]["phase"] == "Running");

        // Neither another agent nor a crash of the main container nor a new sandbox nor a lost record starts it again.
        w.stop_agent().await;
        w.start_agent();
        w.fake.kill_sandbox(&w.fake.sandboxes()[0].id);
        let again = |p: &Value| ready(p) && p["status"]["podIP"] != before["status"]["podIP"];
        w.until("ready again", |w| w.pod("p").filter(again)).await;
        w.fake.forget_container(&c.id);
        w.look("p").await;
        w.debug("p", json!({"name": "second", "image": "web:1", "imagePullPolicy": "IfNotPresent"}));
        let second = |p: &Value| p["status"]["ephemeralContainerStatuses"][1]["state"]["running"].is_object();
        let pod = w.until("a second one runs", |w| w.pod("p").filter(second)).await;
        assert!(ended(&pod), "{}", status(&pod));
        assert!(made(&w, "debug").is_empty());

        w.delete("p", 1);
        w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
        w.until("empty", |w| (w.fake.containers().is_empty() && w.fake.sandboxes().is_empty()).then_some(())).await;
        assert!(about(&w, "Killing").contains(&"spec.ephemeralContainers{second}".to_owned()));
        assert!(std::fs::read_dir(w.logs()).unwrap().next().is_none(), "logs are left");
    }
}

/// Field paths of the events with this reason.
fn about(w: &World, reason: &str) -> Vec<String> {
    let events = w.api.events();
    let found = events.iter().filter(|e| e["reason"] == reason);
    found.filter_map(|e| e["involvedObject"]["fieldPath"].as_str().map(str::to_owned)).collect()
}

fn without_generation(value: &Value) -> Value {
    let mut value = value.clone();
    for entry in value.as_array_mut().into_iter().flatten() {
        entry.as_object_mut().unwrap().remove("observedGeneration");
    }
    value
}

#[tokio::test]
async fn it_runs_while_init_containers_do_and_waits_for_a_target_that_does_not() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = plain();
    spec["initContainers"] = json!([{"name": "init", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]);
    spec["ephemeralContainers"] = json!([debug(json!({"targetContainerName": "main"})), {"name": "free", "image": "web:1",
        "imagePullPolicy": "IfNotPresent"}]);
    w.create("p", spec);
    w.until("runs beside", |w| {
        let free = made(w, "free").first().is_some_and(|c| c.state == ContainerState::Running);
        (free && made(w, "init").first().is_some_and(|c| c.state == ContainerState::Running)).then_some(())
    })
    .await;
    let wanted = ("CreateContainerConfigError".to_owned(), "unable to find target container main".to_owned());
    let pod = w.until("waits", |w| w.pod("p").filter(|p| waits(p) == wanted)).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let text = "Error: unable to find target container main";
    w.until("told", |w| w.api.messages().contains(&text.to_owned()).then_some(())).await;
    assert_eq!(w.fake.count("CreateContainer"), 2);
    assert!(w.fake.exit_container(&made(&w, "init")[0].id, 0, ""));
    let pod = running(&w).await;
    assert_eq!(w.fake.count("CreateContainer"), 4, "{}", pod["status"]);
    let target = made(&w, "main").remove(0).id;
    assert_eq!(made(&w, "debug")[0].config.security.namespaces.pid, NamespaceMode::Target(target));
}

#[tokio::test]
async fn a_crash_loop_does_not_keep_it_away() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = plain();
    spec["containers"][0]["args"] = json!(["/web", "exit", "1"]);
    spec["containers"][0]["command"] = json!(["/web", "exit", "1"]);
    w.create("p", spec);
    let main = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    w.until("crash loop", |w| w.pod("p").filter(main)).await;
    w.debug("p", debug(json!({"targetContainerName": "main"})));
    let wanted = ("CreateContainerError".to_owned(), "target container main is not running".to_owned());
    w.until("waits", |w| w.pod("p").filter(|p| waits(p) == wanted)).await;
    w.debug("p", json!({"name": "free", "image": "web:1", "imagePullPolicy": "IfNotPresent"}));
    w.until("runs", |w| made(w, "free").first().filter(|c| c.state == ContainerState::Running).map(drop)).await;
    assert!(main(&w.pod("p").unwrap()));
}

#[tokio::test]
async fn a_start_that_was_interrupted_is_finished_and_not_done_again() {
    for profile in [Profile::containerd_1_6(), Profile::containerd_2()] {
        let mut w = World::start(profile).await;
        w.create("p", plain());
        w.until("ready", |w| w.pod("p").filter(ready)).await;
        w.fake.inject("StartContainer", Fault::Hang);
        w.debug("p", debug(json!({})));
        w.until("created", |w| made(w, "debug").first().filter(|c| c.state == ContainerState::Created).map(drop)).await;
        w.look("p").await;
        w.stop_agent().await;
        w.fake.clear_faults();
        w.start_agent();
        running(&w).await;
        assert_eq!((w.fake.count("CreateContainer"), made(&w, "debug").len()), (2, 1));
        assert_eq!(w.fake.count("StopContainer") + w.fake.count("RemoveContainer"), 0);
    }
}

#[tokio::test]
async fn its_image_its_fields_and_its_start_fail_alone() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", plain());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    let devices = json!([{"name": "v", "devicePath": "/dev/v"}]);
    w.debug("p", debug(json!({ "image": "nowhere:1", "imagePullPolicy": "Always" })));
    w.debug("p", json!({"name": "refused", "image": "web:1", "imagePullPolicy": "IfNotPresent", "volumeDevices": devices}));
    w.debug(
        "p",
        json!({"name": "rootless", "image": "web:1", "imagePullPolicy": "IfNotPresent",
        "securityContext": {"runAsNonRoot": true, "runAsUser": 0}}),
    );
    w.until("pull error", |w| w.pod("p").filter(|p| waits(p).0 == "ErrImagePull")).await;
    let reason = |p: &Value, i: usize| p["status"]["ephemeralContainerStatuses"][i]["state"]["waiting"]["reason"].clone();
    // By name: debug, refused, rootless.
    let both = |p: &Value| (1..3).all(|i| reason(p, i) == "CreateContainerConfigError");
    let pod = w.until("refused", |w| w.pod("p").filter(both)).await;
    assert!(ready(&pod));
    let text = "Error: cannot find volume \"v\" to mount into container \"refused\"";
    w.until("told", |w| w.api.messages().iter().any(|m| m == text).then_some(())).await;
    w.fake.add_to_registry("nowhere:1", ImageConfig::default());
    assert_eq!(w.fake.count("CreateContainer"), 1);
}

#[tokio::test]
async fn it_does_not_keep_a_pod_from_its_end() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = plain();
    spec["restartPolicy"] = json!("Never");
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.debug("p", debug(json!({})));
    running(&w).await;
    assert!(w.fake.exit_container(&made(&w, "main")[0].id, 0, ""));
    let over = |p: &Value| p["status"]["phase"] == "Succeeded" && status(p)["state"]["terminated"].is_object();
    w.until("succeeded", |w| w.pod("p").filter(over)).await;
    assert_eq!(w.fake.count("CreateContainer"), 2);
}

#[tokio::test]
async fn the_hung_start_of_another_container_does_not_hold_it_up() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.inject_first("StartContainer", 1, Fault::Hang);
    w.create("p", plain());
    w.until("hangs", |w| (w.fake.count("StartContainer") == 1).then_some(())).await;
    w.debug("p", debug(json!({})));
    let pod = running(&w).await;
    assert!(!ready(&pod));
    assert_eq!(made(&w, "main")[0].state, ContainerState::Created);
}
