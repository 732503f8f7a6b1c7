//! All containers of a pod restarted together: what is said of it.

use super::*;

fn together() -> World {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut w = World::new(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [
            {"name": "main", "image": "img:1", "restartPolicy": "Never", "restartPolicyRules": rules},
            {"name": "b", "image": "img:1"}],
    }));
    w.add("i", 0, exited(0), 0);
    w.add("main", 0, State::Running, 0);
    w.add("b", 0, State::Running, 0);
    w
}

/// As kubelet has it: the condition, the states, the counts, and a phase that never shows the pod as over.
#[test]
fn all_containers_restarted_together() {
    let mut w = together();
    let of = |s: &api::PodStatus, name: &str| {
        let all = [&s.container_statuses, &s.init_container_statuses];
        all.into_iter().flatten().flatten().find(|c| c.name == name).unwrap().clone()
    };
    let says = |s: &api::PodStatus| {
        let c = condition(s, "AllContainersRestarting");
        (c.status.clone(), c.reason.clone().unwrap_or_default(), c.observed_generation)
    };
    let before = w.next();
    assert_eq!(says(&before), ("False".into(), String::new(), None));

    w.observed.containers[1].state = exited(42);
    let s = w.next();
    assert_eq!(says(&s), ("True".into(), "RestartAllContainersStarted".into(), None));
    assert_eq!(condition(&s, "AllContainersRestarting").message.as_deref(), Some("container exited with restart policy rule"));
    assert_eq!(
        (s.phase.as_deref(), main(&s).state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code),
        (Some("Running"), 42)
    );

    w.observed.containers[2].state = exited(137);
    let s = w.next();
    assert_eq!((s.phase.as_deref(), says(&s).0), (Some("Running"), "True".into()));
    assert_eq!(condition(&s, "Initialized").status, "True", "what was initialized stays so");
    for name in ["i", "main", "b"] {
        let c = of(&s, name);
        let (state, last) = (c.state.unwrap().waiting.unwrap(), c.last_state.unwrap().terminated.unwrap());
        assert_eq!(
            (state.reason.as_deref(), last.reason.as_deref()),
            (Some("RestartingAllContainers"), Some("RestartingAllContainers"))
        );
        assert_eq!((last.exit_code, c.restart_count, c.ready), (137, 1, false), "{name}");
    }
    assert_eq!(w.next(), s, "nothing counts twice");
    // What keeps the next round from beginning is said.
    w.backoffs.failed(Subject::Image("main".into()), t(99), "ErrImagePull", "no");
    assert_eq!(waiting(&w.status()).0, "ErrImagePull");
    w.backoffs = Backoffs::default();

    w.add("i", 1, State::Running, 0);
    w.observed.containers.last_mut().unwrap().round = 1;
    let s = w.next();
    assert_eq!(says(&s).0, "False");
    assert_eq!((of(&s, "i").restart_count, of(&s, "i").last_state.unwrap().terminated.unwrap().exit_code), (1, 137));
    w.observed.containers.last_mut().unwrap().state = exited(0);
    for name in ["main", "b"] {
        w.add(name, 1, State::Running, 0);
        w.observed.containers.last_mut().unwrap().round = 1;
    }
    let s = w.next();
    assert_eq!((s.phase.as_deref(), main(&s).restart_count, says(&s).0), (Some("Running"), 1, "False".into()));
    let last = main(&s).last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.reason.as_deref(), Some("RestartingAllContainers"));

    let mut failed = together();
    failed.observed.containers[1].state = exited(1);
    failed.observed.containers[2].state = exited(1);
    failed.lifecycle = Lifecycle::Terminated { why: crate::pod::lifecycle::Why::Completed };
    assert_eq!(says(&failed.next()), ("False".into(), "PodFailed".into(), None));
}

/// Init containers that are ended with the others do not make the pod fail.
#[test]
fn a_pod_does_not_fail_while_all_is_ended() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut w = World::new(json!({
        "restartPolicy": "Never",
        "initContainers": [
            {"name": "side", "image": "i", "restartPolicy": "Always", "restartPolicyRules": rules},
            {"name": "i", "image": "i"}],
    }));
    w.add("side", 0, exited(42), 0);
    w.add("i", 0, State::Running, 0);
    assert_eq!(w.next().phase.as_deref(), Some("Pending"));
    w.observed.containers[1].state = exited(137);
    assert_eq!(w.next().phase.as_deref(), Some("Pending"));
    w.lifecycle = Lifecycle::Terminated { why: crate::pod::lifecycle::Why::Deleted };
    assert_eq!(w.next().phase.as_deref(), Some("Failed"), "one that is deleted then does not run again");
}
