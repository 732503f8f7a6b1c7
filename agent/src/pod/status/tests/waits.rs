//! What containers are said to wait for.

use super::*;

#[test]
fn waiting_reasons() {
    let mut w = World::new(json!({}));
    assert_eq!(waiting(&w.status()).0, "ContainerCreating");
    w.backoffs.failed(Subject::Image("main".into()), w.now, "ErrImagePull", "no route");
    assert_eq!(waiting(&w.status()), ("ErrImagePull".into(), "no route".into()));
    w.now = t(105);
    let (reason, message) = waiting(&w.status());
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("ImagePullBackOff", "Back-off pulling image \"img:1\": ErrImagePull: no route")
    );
    w.backoffs = Backoffs::default();
    w.backoffs.failed(Subject::Start("main".into()), w.now, "CreateContainerConfigError", "configmap \"x\" not found");
    assert_eq!(waiting(&w.status()).0, "CreateContainerConfigError");
    let mut w = World::new(json!({"initContainers": [{"name": "i", "image": "i"}]}));
    assert_eq!(waiting(&w.status()).0, "PodInitializing");
    w.lifecycle = Lifecycle::Terminated { why: Why::Deleted };
    assert_eq!(w.status().phase.as_deref(), Some("Failed"));
}

#[test]
fn crash_loops_show_the_last_end() {
    let mut w = World::new(json!({}));
    w.add("main", 2, exited(1), 20);
    let s = w.status();
    let (reason, message) = waiting(&s);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("CrashLoopBackOff", "back-off 20s restarting failed container=main pod=p_ns(u-1)")
    );
    assert_eq!(main(&s).last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    assert_eq!(main(&s).restart_count, 2);
    // Without a delay there is nothing to wait for: the end itself is shown.
    let mut w = World::new(json!({}));
    w.add("main", 0, exited(1), 0);
    assert!(main(&w.status()).state.as_ref().unwrap().terminated.is_some());
    assert_eq!(containers::go_duration(Duration::from_secs(160)), "2m40s");
    assert_eq!(containers::go_duration(Duration::from_secs(300)), "5m0s");
}

#[test]
fn one_that_was_ended_to_run_again_and_never_reported_as_running_waits() {
    // The API lets no container leave an end after which its policy has no restart.
    let mut w = World::new(json!({"restartPolicy": "Never"}));
    w.add("main", 0, exited(0), 0);
    w.observed.local.replaced.insert("main-0".into());
    let s = w.status();
    assert_eq!((s.phase.as_deref(), waiting(&s).0.as_str()), (Some("Running"), "ContainerCreating"));
    assert_eq!(main(&s).last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
}

#[test]
fn what_holds_up_the_whole_pod_is_said_where_kubelet_says_nothing() {
    let mut w = World::new(json!({"initContainers": [{"name": "a", "image": "img:1"}]}));
    w.observed.sandboxes.clear();
    let waits = |s: &api::PodStatus| {
        let all = s.container_statuses.iter().chain(&s.init_container_statuses).flatten();
        all.map(|s| s.state.clone().unwrap().waiting.unwrap()).map(|w| (w.reason.unwrap(), w.message)).collect::<Vec<_>>()
    };
    assert_eq!(waits(&w.status()), [("PodInitializing".to_owned(), None), ("PodInitializing".to_owned(), None)]);
    let failed = |id: &str| format!("Failed to create pod sandbox: setup network for sandbox \"{id}\": café: no IPAM");
    w.backoffs.failed(Subject::Sandbox, w.now, "ContainerCreating", failed(&"0a".repeat(32)));
    let first = waits(&w.status());
    let message = "Failed to create pod sandbox: setup network for sandbox \"...\": café: no IPAM";
    assert_eq!(
        first,
        [("PodInitializing".to_owned(), Some(message.to_owned())), ("PodInitializing".to_owned(), Some(message.to_owned()))]
    );
    w.backoffs.failed(Subject::Sandbox, w.now, "ContainerCreating", failed(&"1b".repeat(32)));
    assert_eq!(waits(&w.status()), first, "another id is no other reason");
    w.backoffs.failed(Subject::Volumes, w.now, "ContainerCreating", "no configmap");
    assert_eq!(waits(&w.status())[0].1.as_deref(), Some("no configmap"));
    w.observed.local.volumes_ready = true;
    assert_eq!(waits(&w.status()), first);
    w.backoffs.succeeded(&Subject::Sandbox);
    assert_eq!(waits(&w.status())[0].1, None);
}
