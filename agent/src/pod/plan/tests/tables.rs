//! Single decisions, spelled out.

use super::*;
use crate::pod::observed::{Local, Sandbox, Verdict};
pub(super) use crate::pod::testing::t;
use crate::pod::testing::{desired, instance};
use serde_json::json;

pub fn sandbox(ready: bool) -> Sandbox {
    Sandbox { id: "s".into(), attempt: 0, ready, created_at: t(0), host_network: false, ips: vec!["10.0.0.1".into()] }
}

pub(super) fn container(name: &str, state: State) -> Container {
    Container { started_at: Some(t(0)), ..instance(name, state) }
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
fn restart_decisions() {
    use Next::*;
    let table = [
        ("Always", exited(0), Starts),
        ("Always", exited(1), Starts),
        ("OnFailure", exited(0), Ends),
        ("OnFailure", exited(1), Starts),
        ("Never", exited(0), Ends),
        ("Never", exited(1), Ends),
        ("Always", State::Running, Nothing),
        ("OnFailure", State::Running, Nothing),
        ("Never", State::Running, Nothing),
    ];
    for (policy, state, expected) in table {
        let step = at(
            &desired(json!({"restartPolicy": policy})),
            &with(vec![container("main", state.clone())]),
            &Verdicts::default(),
            2,
        );
        assert_eq!(next(&step), expected, "{policy} {state:?}: {step:?}");
    }
}

#[test]
fn container_rules_win_over_the_policy() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "i", "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    let d = desired(spec);
    assert_eq!(next(&at(&d, &with(vec![container("main", exited(42))]), &Verdicts::default(), 2)), Next::Starts);
    assert_eq!(next(&at(&d, &with(vec![container("main", exited(1))]), &Verdicts::default(), 2)), Next::Ends);
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
        let (name, id, follows) = ("main".into(), "main-0".into(), vec![]);
        let stop = Action::StopContainer { name, id, deadline: t(9), why, restarts, follows };
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
    c.state = exited(0);
    let mut o = with(vec![c]);
    assert_eq!(next(&at(&d, &o, &Verdicts::default(), 2)), Next::Ends, "it had ended by itself before");
    o.local.replaced.insert("main-0".into());
    assert_eq!(next(&at(&d, &o, &Verdicts::default(), 2)), Next::Starts);
}

#[test]
fn a_changed_init_container_is_left_alone() {
    let d = with_inits();
    let mut i = container("i", State::Running);
    i.hash = Some("other".into());
    let v = Verdict { container_id: "side-0".into(), startup: Some(true), ..Default::default() };
    let v = Verdicts([("side".to_owned(), v)].into());
    let all = |i: &Container| with(vec![container("side", State::Running), i.clone()]);
    assert!(at(&d, &all(&i), &v, 2).actions.is_empty());
    i.state = exited(0);
    assert_eq!(started(&at(&d, &all(&i), &v, 2)), ["main"]);
    i.state = exited(1);
    assert_eq!(next(&at(&d, &all(&i), &v, 2)), Next::Ends);
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
    // Once its successors have begun a sidecar that is down holds up nothing.
    let down = Container { backoff: Duration::from_secs(10), ..container("side", exited(1)) };
    assert_eq!(started(&at(&d, &with(vec![down, container("i", exited(0))]), &none, 2)), ["main"]);
    // Nor does an init container that the runtime has forgotten run again.
    assert_eq!(started(&at(&d, &with(vec![container("i", exited(0))]), &none, 2)), ["side"]);
    // A sidecar restarts in whatever the main containers do, but not for its own sake alone.
    let mains = |state: State| {
        vec![container("side", exited(1)), container("i", exited(0)), container("main", state), container("b", exited(0))]
    };
    assert_eq!(started(&at(&d, &with(mains(State::Running)), &none, 2)), ["side"]);
    assert_eq!(next(&at(&d, &with(mains(exited(0))), &none, 2)), Next::Ends);
}

#[test]
fn main_containers_start_in_order_whoever_has_its_image_first() {
    let d = desired(json!({"containers": [{"name": "main", "image": "i"}, {"name": "b", "image": "i"}]}));
    let mut o = with(vec![]);
    o.local.images.remove("main");
    let none = Verdicts::default();
    let step = at(&d, &o, &none, 2);
    assert_eq!(step.actions, [Action::PullImage { container: "main".into(), attempt: 0 }]);
    // One that cannot be had holds up nobody.
    let mut b = Backoffs::default();
    b.failed(Subject::Image("main".into()), t(1), "ErrImagePull", "no such image");
    assert_eq!(started(&plan(&d, &Lifecycle::Active, &o, &none, &b, t(2))), ["b"]);
    assert_eq!(started(&plan(&d, &Lifecycle::Active, &o, &none, &b, t(60))), ["b"], "also while it is tried again");
}

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let d = desired(json!({
        "initContainers": [
            {"name": "a", "image": "i", "restartPolicy": "Always"},
            {"name": "i", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always"}
        ],
        "ephemeralContainers": [{"name": "e", "image": "i"}]
    }));
    let life = Lifecycle::Terminating { deadline: t(30), why: Why::Deleted };
    let stops = |names: &[&str]| {
        let o = with(names.iter().map(|n| container(n, State::Running)).collect());
        let step = plan(&d, &life, &o, &Verdicts::default(), &Backoffs::default(), t(2));
        let each = step.actions.iter().filter_map(|a| match a {
            Action::StopContainer { name, deadline, follows, .. } => {
                assert_eq!(*deadline, t(30));
                Some((name.clone(), follows.join(" ")))
            }
            _ => None,
        });
        each.map(|(name, follows)| format!("{name}: {follows}")).collect::<Vec<_>>()
    };
    // All hooks begin at once; the signals wait for those before them.
    let all = ["a", "side", "main", "e"];
    assert_eq!(stops(&all), ["a: main-0 side-0", "side: main-0", "main: ", "e: "]);
    assert_eq!(stops(&["a", "side"]), ["a: side-0", "side: "]);
    assert_eq!(stops(&["a"]), ["a: "]);
    assert_eq!(stops(&["a", "i"]), ["a: ", "i: "], "a plain init container holds up no sidecar");
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
    let d = desired(json!({"resourceClaims": [{"name": "x"}]}));
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
