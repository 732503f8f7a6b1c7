//! Single decisions, spelled out.

use super::*;
use crate::pod::observed::{Local, Sandbox, Verdict};
use crate::pod::testing::desired;
use serde_json::json;

pub(super) fn t(seconds: i64) -> Time {
    Time::from_second(1_000_000 + seconds).unwrap()
}

pub fn sandbox(ready: bool) -> Sandbox {
    Sandbox { id: "s".into(), attempt: 0, ready, created_at: t(0), host_network: false, ips: vec!["10.0.0.1".into()] }
}

pub(super) fn container(name: &str, state: State) -> Container {
    Container {
        id: format!("{name}-0"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt: 0,
        state,
        created_at: t(0),
        started_at: Some(t(0)),
        image: String::new(),
        image_id: String::new(),
        hash: None,
        backoff: Duration::ZERO,
        user: None,
        stop_signal: None,
        resources: None,
        round: 0,
    }
}

pub(super) fn exited(code: i32) -> State {
    State::Exited { code, finished_at: t(1), reason: String::new(), message: String::new() }
}

pub fn ready_local() -> Local {
    Local {
        gate_open: true,
        volumes_ready: true,
        images: [("main".to_owned(), 9), ("i".to_owned(), 9), ("side".to_owned(), 9), ("b".to_owned(), 9)].into(),
        ..Default::default()
    }
}

pub(super) fn at(d: &Desired, o: &Observed, v: &Verdicts, now: i64) -> Step {
    plan(d, &Lifecycle::Active, o, v, &Backoffs::default(), t(now))
}

pub(super) fn with(containers: Vec<Container>) -> Observed {
    Observed { sandboxes: vec![sandbox(true)], containers, local: ready_local(), stale: false }
}

#[derive(Debug, PartialEq)]
pub enum Next {
    Nothing,
    Starts,
    Ends,
}

pub fn next(step: &Step) -> Next {
    if !step.lifecycle.active() {
        Next::Ends
    } else if step.actions.iter().any(|a| matches!(a, Action::StartContainer { .. })) {
        Next::Starts
    } else {
        Next::Nothing
    }
}

#[test]
fn crash_loop_waits_and_wakes() {
    let mut c = container("main", exited(1));
    c.backoff = Duration::from_secs(20);
    let d = desired(json!({}));
    let step = at(&d, &with(vec![c.clone()]), &Verdicts::default(), 2);
    assert_eq!((next(&step), step.wake_at), (Next::Nothing, Some(t(21))));
    let step = at(&d, &with(vec![c]), &Verdicts::default(), 21);
    let expected = Action::StartContainer {
        name: "main".into(),
        sandbox_id: "s".into(),
        attempt: 1,
        backoff: Duration::from_secs(40),
        round: 0,
    };
    assert_eq!(step.actions, [expected]);
}

#[test]
fn a_new_pod_does_everything_side_by_side() {
    let o = Observed { local: Local { gate_open: true, ..Default::default() }, ..Default::default() };
    let step = at(&desired(json!({})), &o, &Verdicts::default(), 0);
    let pull = Action::PullImage { container: "main".into(), attempt: 0 };
    assert_eq!(step.actions, [Action::RunSandbox { attempt: 0 }, Action::PrepareVolumes, pull]);
    let closed = at(&desired(json!({})), &Observed::default(), &Verdicts::default(), 0);
    assert!(closed.actions.is_empty());
}

#[test]
fn nothing_is_concluded_from_a_stale_runtime() {
    let o = Observed { stale: true, local: ready_local(), ..Default::default() };
    let d = desired(json!({}));
    assert!(at(&d, &o, &Verdicts::default(), 0).actions.is_empty());
    let mut deleted = d;
    deleted.deletion = Some(crate::pod::desired::Deletion { grace: Duration::from_secs(1) });
    let step = at(&deleted, &o, &Verdicts::default(), 0);
    assert!(matches!(step.lifecycle, Lifecycle::Terminating { .. }), "{step:?}");
}

#[test]
fn health_kills_and_restarts() {
    let verdict = |liveness, startup| {
        let v = Verdict { container_id: "main-0".into(), liveness, startup, readiness: None };
        Verdicts([("main".to_owned(), v)].into())
    };
    for (v, why, policy, restarts) in [
        (verdict(Some(false), None), StopWhy::Liveness, "Always", true),
        (verdict(None, Some(false)), StopWhy::Startup, "OnFailure", true),
        (verdict(Some(false), None), StopWhy::Liveness, "Never", false),
    ] {
        let d = desired(json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 7}));
        let step = at(&d, &with(vec![container("main", State::Running)]), &v, 2);
        let stop = Action::StopContainer { name: "main".into(), id: "main-0".into(), deadline: t(9), why, restarts };
        assert_eq!(step.actions, [stop]);
        // It took the signal well: it runs again unless the policy is Never.
        let after_kill = at(&d, &with(vec![container("main", exited(0))]), &v, 2);
        assert_eq!(next(&after_kill), if restarts { Next::Starts } else { Next::Ends });
    }
    // The verdict on another instance says nothing.
    let mut other = verdict(Some(false), None);
    other.0.get_mut("main").unwrap().container_id = "gone".into();
    assert!(at(&desired(json!({})), &with(vec![container("main", State::Running)]), &other, 2).actions.is_empty());
}

#[test]
fn a_probe_grace_of_its_own() {
    let d = desired(json!({"containers": [{"name": "main", "image": "i",
        "livenessProbe": {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 3}}]}));
    let v = Verdict { container_id: "main-0".into(), liveness: Some(false), ..Default::default() };
    let step = at(&d, &with(vec![container("main", State::Running)]), &Verdicts([("main".to_owned(), v)].into()), 2);
    assert!(matches!(step.actions[..], [Action::StopContainer { deadline, .. }] if deadline == t(5)), "{step:?}");
}

#[test]
fn a_changed_image_replaces_the_container_whatever_the_policy() {
    let d = desired(json!({"restartPolicy": "Never"}));
    let mut c = container("main", State::Running);
    c.hash = Some("other".into());
    let step = at(&d, &with(vec![c.clone()]), &Verdicts::default(), 2);
    assert!(matches!(step.actions[..], [Action::StopContainer { why: StopWhy::Changed, .. }]), "{step:?}");
    // It was ended for that: it runs again however it took the signal. One that had ended by itself does not.
    c.state = exited(0);
    let mut o = with(vec![c]);
    assert_eq!(next(&at(&d, &o, &Verdicts::default(), 2)), Next::Ends);
    o.local.replaced.insert("main-0".into());
    assert_eq!(next(&at(&d, &o, &Verdicts::default(), 2)), Next::Starts);
}

fn with_inits() -> Desired {
    desired(json!({
        "restartPolicy": "Never",
        "initContainers": [
            {"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}},
            {"name": "i", "image": "i"}
        ],
        "containers": [{"name": "main", "image": "i"}, {"name": "b", "image": "i"}]
    }))
}

pub(super) fn started(step: &Step) -> Vec<&str> {
    let mut names = Vec::new();
    for action in &step.actions {
        if let Action::StartContainer { name, .. } = action {
            names.push(name.as_str());
        }
    }
    names
}

#[test]
fn init_order() {
    let d = with_inits();
    let none = Verdicts::default();
    assert_eq!(started(&at(&d, &with(vec![]), &none, 2)), ["side"]);
    let side = container("side", State::Running);
    assert!(started(&at(&d, &with(vec![side.clone()]), &none, 2)).is_empty(), "its startup probe has not succeeded");
    let v = Verdict { container_id: "side-0".into(), startup: Some(true), ..Default::default() };
    let v = Verdicts([("side".to_owned(), v)].into());
    assert_eq!(started(&at(&d, &with(vec![side.clone()]), &v, 2)), ["i"]);
    assert!(started(&at(&d, &with(vec![side.clone(), container("i", State::Running)]), &v, 2)).is_empty());
    let done = vec![side.clone(), container("i", exited(0))];
    assert_eq!(started(&at(&d, &with(done), &v, 2)), ["main"]);
    let failed = at(&d, &with(vec![side.clone(), container("i", exited(1))]), &v, 2);
    assert_eq!(next(&failed), Next::Ends);
    // A sidecar restarts in whatever the main containers do, but not for its own sake alone.
    let mains = |state: State| {
        vec![container("side", exited(1)), container("i", exited(0)), container("main", state), container("b", exited(0))]
    };
    assert_eq!(started(&at(&d, &with(mains(State::Running)), &none, 2)), ["side"]);
    assert_eq!(next(&at(&d, &with(mains(exited(0))), &none, 2)), Next::Ends);
}

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let d = desired(json!({
        "initContainers": [{"name": "a", "image": "i", "restartPolicy": "Always"}, {"name": "side", "image": "i", "restartPolicy": "Always"}],
    }));
    let life = Lifecycle::Terminating { deadline: t(30), why: Why::Deleted };
    let stops = |names: &[&str], now: i64| {
        let o = with(names.iter().map(|n| container(n, State::Running)).collect());
        let step = plan(&d, &life, &o, &Verdicts::default(), &Backoffs::default(), t(now));
        let mut out: Vec<String> = step
            .actions
            .iter()
            .filter_map(|a| if let Action::StopContainer { name, .. } = a { Some(name.clone()) } else { None })
            .collect();
        out.sort();
        out
    };
    assert_eq!(stops(&["a", "side", "main"], 2), ["main"]);
    assert_eq!(stops(&["a", "side"], 2), ["side"]);
    assert_eq!(stops(&["a"], 2), ["a"]);
    assert_eq!(stops(&["a", "side", "main"], 30), ["a", "main", "side"]);
}

#[test]
fn sandbox_lost() {
    let d = desired(json!({}));
    let lost = |containers| Observed { sandboxes: vec![sandbox(false)], containers, local: ready_local(), stale: false };
    let step = at(&d, &lost(vec![container("main", State::Running)]), &Verdicts::default(), 2);
    assert!(matches!(step.actions[..], [Action::StopContainer { why: StopWhy::SandboxGone, .. }]), "{step:?}");
    let step = at(&d, &lost(vec![container("main", exited(137))]), &Verdicts::default(), 2);
    assert_eq!(step.actions, [Action::RunSandbox { attempt: 1 }]);
    let never = desired(json!({"restartPolicy": "Never"}));
    assert_eq!(next(&at(&never, &lost(vec![container("main", exited(137))]), &Verdicts::default(), 2)), Next::Ends);
    let on_failure = desired(json!({"restartPolicy": "OnFailure"}));
    assert_eq!(next(&at(&on_failure, &lost(vec![container("main", exited(0))]), &Verdicts::default(), 2)), Next::Ends);
}

#[test]
fn active_deadline() {
    let mut d = desired(json!({"activeDeadlineSeconds": 10}));
    d.started = Some(t(0));
    let o = with(vec![container("main", State::Running)]);
    let step = at(&d, &o, &Verdicts::default(), 9);
    assert_eq!((next(&step), step.wake_at), (Next::Nothing, Some(t(10))));
    let step = at(&d, &o, &Verdicts::default(), 10);
    assert!(matches!(step.lifecycle.why(), Some(Why::Failed { reason, .. }) if reason == "DeadlineExceeded"));
}

#[test]
fn what_is_refused_starts_nothing() {
    let d = desired(json!({"hostUsers": false}));
    let o = Observed { local: ready_local(), ..Default::default() };
    assert!(at(&d, &o, &Verdicts::default(), 0).actions.is_empty());
}

#[test]
fn a_completed_pod_keeps_its_last_containers_until_it_is_deleted() {
    let mut d = desired(json!({"restartPolicy": "Never"}));
    let mut o = Observed {
        sandboxes: vec![sandbox(false)],
        containers: vec![container("main", exited(0))],
        local: ready_local(),
        stale: false,
    };
    (o.local.volumes_removed, o.local.cgroup_removed) = (true, true);
    let life = Lifecycle::Terminated { why: Why::Completed };
    let go = |d: &Desired, o: &Observed| plan(d, &life, o, &Verdicts::default(), &Backoffs::default(), t(5));
    assert!(go(&d, &o).actions.is_empty());
    d.deletion = Some(crate::pod::desired::Deletion { grace: Duration::ZERO });
    assert_eq!(go(&d, &o).actions, [Action::RemoveContainer { name: "main".into(), id: "main-0".into() }]);
    o.containers.clear();
    assert_eq!(go(&d, &o).actions, [Action::RemoveSandbox { id: "s".into() }]);
    o.sandboxes.clear();
    assert_eq!(go(&d, &o).actions, [Action::RemoveFolders]);
    o.local.folders_removed = true;
    assert!(matches!(go(&d, &o).lifecycle, Lifecycle::Finished { .. }));
}
