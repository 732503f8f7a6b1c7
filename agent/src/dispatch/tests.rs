//! The whole shell, dispatcher to reporter, over the fake runtime and an API in memory.

mod admission;
mod credentials;
mod ends;
mod ephemeral;
mod faults;
mod images;
mod kills;
mod random;
mod refusals;
mod resizes;
mod rules;
mod standing;
mod starts;
mod statics;
mod volumes;
mod world;

use ferrolet_cri::fake::{Fault, ImageConfig, Profile};
use ferrolet_cri::types::{ContainerState, SandboxState};
use serde_json::json;
use std::time::Duration;
use world::World;

fn web() -> serde_json::Value {
    json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "colour"}}}]}]})
}

fn ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn waiting(pod: &serde_json::Value) -> String {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_pod_becomes_ready_and_goes_without_a_trace() {
    for profile in [Profile::containerd_1_6(), Profile::containerd_2(), Profile::crio()] {
        let w = World::start(profile).await;
        w.api.put("configmaps", "m", json!({"data": {"colour": "blue"}}));
        w.create("p", web());
        w.until("ready", |w| w.pod("p").filter(ready)).await;
        let c = w.fake.containers().pop().unwrap();
        assert!(c.config.env.iter().any(|e| e.name == "COLOUR" && e.value == "blue"));
        assert_eq!(c.config.annotations["io.kubernetes.container.restartCount"], "0");
        assert_eq!(c.config.labels["io.kubernetes.pod.uid"], "uid-p");
        assert_eq!(c.config.log_path, "main/0.log");
        let pod = w.pod("p").unwrap();
        assert_eq!(pod["status"]["phase"], "Running");
        assert!(pod["status"]["podIP"].is_string());
        w.delete("p", 1);
        w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
        w.until("empty", |w| (w.fake.containers().is_empty() && w.fake.sandboxes().is_empty()).then_some(())).await;
        assert!(std::fs::read_dir(w.logs()).unwrap().next().is_none(), "logs are left");
        assert!(!w.root().join("pods/uid-p").exists());
        let reasons = w.api.reasons();
        for reason in ["Pulled", "Created", "Started", "Killing"] {
            assert!(reasons.contains(&reason.to_owned()), "{reason} in {reasons:?}");
        }
    }
}

#[tokio::test]
async fn a_new_agent_takes_over_without_a_change() {
    let mut w = World::start(Profile::containerd_2()).await;
    let mut spec = web();
    spec["containers"][0]["env"] = json!([]);
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["/web", "echo"]}, "periodSeconds": 1});
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    let before = w.pod("p").unwrap();
    w.stop_agent().await;
    w.fake.clear_calls();
    w.start_agent();
    w.until("observed", |w| (w.fake.count("ExecSync") > 1).then_some(())).await;
    for call in ["RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "StopPodSandbox", "RemoveContainer"] {
        assert_eq!(w.fake.count(call), 0, "{call}");
    }
    let after = w.pod("p").unwrap();
    assert_eq!(after["status"], before["status"]);
    assert!(w.api.statuses("p").iter().skip_while(|s| !ready(s)).all(ready), "readiness flipped");
}

#[tokio::test]
async fn a_status_that_is_due_is_brought_before_the_end() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create(
        "p",
        json!({"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}),
    );
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.api.away(true);
    assert!(w.fake.exit_container(&w.fake.containers()[0].id, 7, ""));
    // What it had is taken down once the status is due that says it is over.
    let over = |w: &World| w.api.refused() > 0 && !w.root().join("pods/uid-p").exists();
    w.until("due", |w| over(w).then_some(())).await;
    let ending = w.signal();
    let tried = w.api.refused();
    w.until("tried again after the signal", |w| (w.api.refused() > tried).then_some(())).await;
    assert!(!ending.is_finished() && ready(&w.pod("p").unwrap()));
    w.api.away(false);
    ending.await.unwrap();
    let pod = w.pod("p").unwrap();
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 7);
}

#[tokio::test]
async fn a_container_that_ends_runs_again() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = web();
    spec["containers"][0]["env"] = json!([]);
    w.create("p", spec);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    assert!(w.fake.exit_container(&w.fake.containers()[0].id, 3, ""));
    let count = |w: &World, n: i64| w.pod("p").filter(|p| ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == n);
    let pod = w.until("restarted", |w| count(w, 1)).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    let running = w.fake.containers().into_iter().find(|c| c.state == ContainerState::Running).unwrap();
    assert!(w.fake.exit_container(&running.id, 4, ""));
    w.until("crash loop", |w| w.pod("p").filter(|p| waiting(p) == "CrashLoopBackOff")).await;
    w.until("told", |w| w.api.reasons().contains(&"BackOff".to_owned()).then_some(())).await;
}

#[tokio::test]
async fn a_lost_sandbox_is_replaced() {
    let w = World::start(Profile::containerd_2()).await;
    let mut spec = web();
    spec["containers"][0]["env"] = json!([]);
    w.create("p", spec);
    let first = w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.kill_sandbox(&w.fake.sandboxes()[0].id);
    let again = |p: &serde_json::Value| ready(p) && p["status"]["podIP"] != first["status"]["podIP"];
    let pod = w.until("ready again", |w| w.pod("p").filter(again)).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(w.fake.sandboxes().iter().filter(|s| s.state == SandboxState::Ready).count(), 1);
}

#[tokio::test]
async fn images_that_cannot_be_had_are_named_and_harm_nobody() {
    let w = World::start(Profile::containerd_2()).await;
    let of = |image: &str, policy: &str| json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": policy}]});
    w.create("missing", of("nowhere:1", "Always"));
    w.create("never", of("absent:1", "Never"));
    w.create("bad", of("Not A Name", "IfNotPresent"));
    w.create("good", of("web:1", "IfNotPresent"));
    for (pod, reason) in [("missing", "ErrImagePull"), ("never", "ErrImageNeverPull"), ("bad", "InvalidImageName")] {
        w.until(reason, |w| w.pod(pod).filter(|p| waiting(p) == reason)).await;
    }
    w.until("ready", |w| w.pod("good").filter(ready)).await;
    w.until("back-off", |w| w.pod("missing").filter(|p| waiting(p) == "ImagePullBackOff")).await;
}

#[tokio::test]
async fn one_pull_serves_all_who_want_the_image() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.add_to_registry("shared:1", ImageConfig { pull_time: Duration::from_millis(300), ..Default::default() });
    for name in ["a", "b", "c"] {
        w.create(name, json!({"containers": [{"name": "main", "image": "shared:1", "imagePullPolicy": "IfNotPresent"}]}));
    }
    for name in ["a", "b", "c"] {
        w.until("ready", |w| w.pod(name).filter(ready)).await;
    }
    assert_eq!(w.fake.count("PullImage"), 1);
}

#[tokio::test]
async fn a_hung_sandbox_delays_neither_its_deletion_nor_other_pods() {
    let w = World::start(Profile::containerd_2()).await;
    let plain = json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]});
    w.fake.inject_first("RunPodSandbox", 1, Fault::Hang);
    w.create("hung", plain.clone());
    w.until("called", |w| (w.fake.count("RunPodSandbox") == 1).then_some(())).await;
    w.create("other", plain);
    w.until("ready", |w| w.pod("other").filter(ready)).await;
    w.delete("hung", 30);
    w.until("gone", |w| w.pod("hung").is_none().then_some(())).await;
}

#[tokio::test]
async fn a_runtime_that_is_away_for_a_while_changes_nothing() {
    let w = World::start(Profile::containerd_2()).await;
    let plain = json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]});
    w.create("p", plain.clone());
    let before = w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.fake.stop_server().await;
    w.create("q", plain);
    w.fake.start_server().unwrap();
    w.until("ready", |w| w.pod("q").filter(ready)).await;
    assert_eq!(w.pod("p").unwrap()["status"], before["status"]);
    assert_eq!(w.fake.containers().len(), 2);
}

#[tokio::test]
async fn orphans_end_once_the_api_is_known() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create("p", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.stop_agent().await;
    w.api.remove("p");
    w.set_synced(false);
    w.start_agent();
    w.until("listed", |w| w.observed().then_some(())).await;
    assert_eq!(w.fake.containers().len(), 1);
    w.set_synced(true);
    w.until("ended", |w| (w.fake.containers().is_empty() && w.fake.sandboxes().is_empty()).then_some(())).await;
}

#[tokio::test]
async fn a_mirror_pod_is_not_run_and_its_object_goes() {
    let w = World::start(Profile::containerd_2()).await;
    let plain = json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]});
    w.create_mirror("static-n", plain.clone());
    w.until("gone", |w| w.pod("static-n").is_none().then_some(())).await;
    w.create("p", plain);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    assert_eq!((w.fake.count("RunPodSandbox"), w.fake.containers().len()), (1, 1));
    assert!(w.api.statuses("static-n").is_empty());
}

#[tokio::test]
async fn a_pod_whose_object_cannot_be_read_is_no_orphan() {
    let mut w = World::start(Profile::containerd_2()).await;
    let plain = json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]});
    w.create("p", plain.clone());
    w.create("gone", plain.clone());
    w.until("ready", |w| w.pod("p").filter(ready).and(w.pod("gone").filter(ready))).await;
    w.stop_agent().await;
    std::fs::create_dir_all(w.root().join("pods/old")).unwrap();
    w.api.remove("gone");
    w.api.forget();
    w.api.malformed(&["p"]);
    w.fake.clear_calls();
    w.start_agent();
    w.create("q", plain);
    w.until("ready", |w| w.pod("q").filter(ready)).await;
    // The real orphan goes, which was found by the same look.
    w.until("ended", |w| {
        w.fake.containers().iter().all(|c| c.config.labels["io.kubernetes.pod.uid"] != "uid-gone").then_some(())
    })
    .await;
    let mine = |w: &World| w.fake.containers().into_iter().find(|c| c.config.labels["io.kubernetes.pod.uid"] == "uid-p").unwrap();
    assert_eq!(mine(&w).state, ContainerState::Running);
    assert!(w.root().join("pods/uid-p").exists() && w.root().join("pods/old").exists(), "whose folders are whose is not known");
    let id = mine(&w).id;
    w.api.malformed(&[]);
    w.until("swept", |w| (!w.root().join("pods/old").exists()).then_some(())).await;
    assert_eq!((mine(&w).id, mine(&w).state), (id, ContainerState::Running), "taken over as it was");
    w.delete("p", 1);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
}

#[tokio::test]
async fn what_gone_pods_left_on_the_host_is_removed_once_everything_is_known() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create("p", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.stop_agent().await;
    let folder = |w: &World, uid: &str| w.root().join("pods").join(uid);
    let cgroup = |w: &World, name: &str| w.cgroups().join("memory/kubepods").join(name);
    std::fs::create_dir_all(folder(&w, "old").join("volumes/kubernetes.io~empty-dir/v")).unwrap();
    std::fs::create_dir_all(folder(&w, "not a uid")).unwrap();
    let logs = |w: &World, name: &str| w.logs().join(name);
    std::fs::create_dir_all(logs(&w, "ns_gone_old/main")).unwrap();
    std::fs::create_dir_all(logs(&w, "somebody's")).unwrap();
    std::fs::create_dir_all(logs(&w, "ns_linked_old")).unwrap();
    std::fs::remove_dir(logs(&w, "ns_linked_old")).unwrap();
    std::os::unix::fs::symlink(w.logs(), logs(&w, "ns_linked_old")).unwrap();
    for name in ["podold", "burstable/podolder/container", "besteffort/podstuck", "besteffort/other"] {
        std::fs::create_dir_all(cgroup(&w, name)).unwrap();
    }
    // A cgroup that does not go holds nothing else up.
    std::fs::write(cgroup(&w, "besteffort/podstuck/file"), "").unwrap();
    w.set_synced(false);
    w.start_agent();
    w.until("listed", |w| w.observed().then_some(())).await;
    w.create("q", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("ready", |w| w.pod("q").filter(ready)).await;
    assert!(folder(&w, "old").exists(), "the api was not known yet");
    w.set_synced(true);
    let all = |w: &World| [folder(w, "old"), cgroup(w, "podold"), cgroup(w, "burstable/podolder"), logs(w, "ns_gone_old")];
    let gone = |w: &World| !all(w).iter().any(|p| p.exists());
    w.until("removed", |w| gone(w).then_some(())).await;
    assert!(cgroup(&w, "besteffort/podstuck").exists() && cgroup(&w, "besteffort/other").exists());
    for uid in ["uid-p", "uid-q"] {
        assert!(logs(&w, &format!("ns_{}_{uid}", &uid[4..])).exists(), "{uid}");
        assert!(folder(&w, uid).exists() && cgroup(&w, &format!("besteffort/pod{uid}")).exists(), "{uid}");
    }
    assert!(folder(&w, "not a uid").exists() && logs(&w, "somebody's").exists() && logs(&w, "ns_linked_old").is_symlink());
    // Folders only at the start: what comes later is left for the next one. Something could run in a cgroup.
    std::fs::create_dir_all(folder(&w, "later")).unwrap();
    std::fs::create_dir_all(cgroup(&w, "burstable/podlater/container")).unwrap();
    w.until("removed", |w| (!cgroup(w, "burstable/podlater").exists()).then_some(())).await;
    w.create("r", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("ready", |w| w.pod("r").filter(ready)).await;
    assert!(folder(&w, "later").exists());
}

#[tokio::test]
async fn no_pod_starts_before_services_can_answer() {
    let w = World::start(Profile::containerd_2()).await;
    w.gate(false);
    w.create("p", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    // The actor has planned for it, and plans again for every change of the object.
    w.until("waiting", |w| w.pod("p").filter(|p| waiting(p) == "ContainerCreating")).await;
    w.delete("p", 30);
    w.until("gone", |w| w.pod("p").is_none().then_some(())).await;
    assert_eq!(w.fake.count("RunPodSandbox"), 0);
    w.create("q", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("waiting", |w| w.pod("q").filter(|p| waiting(p) == "ContainerCreating")).await;
    assert_eq!(w.fake.count("RunPodSandbox"), 0);
    w.gate(true);
    w.until("ready", |w| w.pod("q").filter(ready)).await;
}

#[tokio::test]
async fn after_a_reboot_pods_wait_for_the_service_rules_too() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.create("p", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    w.stop_agent().await;
    w.gate(false);
    for c in w.fake.containers() {
        w.fake.exit_container(&c.id, 137, "");
    }
    for s in w.fake.sandboxes() {
        w.fake.kill_sandbox(&s.id);
    }
    w.fake.clear_calls();
    w.start_agent();
    w.until("seen down", |w| w.pod("p").filter(|p| !ready(p))).await;
    w.create("q", json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]}));
    w.until("waiting", |w| w.pod("q").filter(|p| waiting(p) == "ContainerCreating")).await;
    assert_eq!(w.fake.count("RunPodSandbox"), 0);
    w.gate(true);
    w.until("ready", |w| w.pod("p").filter(ready)).await;
}

#[tokio::test]
async fn a_missing_config_map_is_named_and_waited_for() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", web());
    let pod = w.until("waiting", |w| w.pod("p").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"m\" not found");
    w.api.put("configmaps", "m", json!({"data": {"colour": "red"}}));
    w.until("ready", |w| w.pod("p").filter(ready)).await;
}

#[tokio::test]
async fn a_job_succeeds_and_keeps_its_phase() {
    let w = World::start(Profile::containerd_2()).await;
    let spec = json!({"restartPolicy": "Never", "initContainers": [
        {"name": "first", "image": "web:1", "imagePullPolicy": "IfNotPresent", "args": ["echo", "hello"]}],
        "containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent", "args": ["exit", "0"]}]});
    w.create("p", spec);
    let pod = w.until("succeeded", |w| w.pod("p").filter(|p| p["status"]["phase"] == "Succeeded")).await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    w.until("stopped", |w| w.fake.sandboxes().iter().all(|s| s.state == SandboxState::NotReady).then_some(())).await;
    assert_eq!(w.fake.containers().len(), 2, "kept for their logs");
    assert_eq!(w.fake.count("StartContainer"), 2);
}

#[tokio::test]
async fn a_failing_liveness_probe_replaces_the_container() {
    let w = World::start(Profile::containerd_2()).await;
    w.create(
        "p",
        json!({"containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent",
        "livenessProbe": {"exec": {"command": ["/web", "exit", "1"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    );
    w.until("restarted", |w| w.pod("p").filter(|p| p["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)))
        .await;
    w.until("told", |w| w.api.reasons().contains(&"Unhealthy".to_owned()).then_some(())).await;
    assert!(w.api.messages().contains(&"Container main failed liveness probe, will be restarted".to_owned()));
}
