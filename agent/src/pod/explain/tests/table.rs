//! The table: each state, the line that is said first, and since when.

use super::*;

fn pull() -> Action {
    Action::PullImage { container: "main".into(), attempt: 0 }
}

fn start(name: &str) -> Action {
    Action::StartContainer { name: name.into(), sandbox_id: "s0".into(), attempt: 0, backoff: Duration::ZERO, round: 0 }
}

fn stop(name: &str, why: StopWhy) -> Action {
    Action::StopContainer {
        name: name.into(),
        id: format!("{name}-id"),
        deadline: t(112),
        why,
        restarts: true,
        follows: Vec::new(),
    }
}

fn debug(container: Value) -> World {
    World::runs(json!({"ephemeralContainers": [container]}))
}

fn exited(code: i32) -> State {
    State::Exited { code, finished_at: t(94), reason: "Error".into(), message: String::new() }
}

fn probed(kind: ferrolet_probes::Kind, message: &str, since: Option<i64>) -> World {
    let probe = json!({"httpGet": {"port": 80}});
    let key = if kind == ferrolet_probes::Kind::Startup { "startupProbe" } else { "readinessProbe" };
    let mut w = World::runs(json!({"containers": [{"name": "main", "image": "img:1", key: probe}]}));
    let verdict = Verdict { container_id: "main-id".into(), readiness: Some(false), ..Default::default() };
    w.verdicts.0.insert("main".into(), verdict);
    let since = since.map(|s| SystemTime::from(t(s)));
    let (container_id, state) = ("main-id".to_owned(), ferrolet_probes::State::Failure);
    let told = ferrolet_probes::Verdict { container_id, state, message: message.into(), since };
    w.probes.insert(("main".into(), kind), told);
    w
}

fn gated(status: Option<&str>) -> World {
    let mut w = World::runs(json!({"readinessGates": [{"conditionType": "example.com/lb"}]}));
    w.condition("ContainersReady", "True", 40);
    if let Some(status) = status {
        w.condition("example.com/lb", status, 60);
    }
    w
}

#[rustfmt::skip]
fn starting() -> Vec<(World, &'static str, i64)> {
    use ferrolet_probes::Kind::{Readiness, Startup};
    let volumes = json!({"volumes": [{"name": "config", "configMap": {"name": "x"}}, {"name": "b", "emptyDir": {}}]});
    let two = json!({"containers": [{"name": "main", "image": "img:1"}, {"name": "b", "image": "img:1"}]});
    let init = json!({"initContainers": [{"name": "a", "image": "img:1"}]});
    let sidecar = json!({"initContainers": [{"name": "side", "image": "img:1", "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["x"]}}}]});
    vec![
        (World::bare(json!({})).with(|w| w.runtime = Some(Trouble { since: t(50), why: "connection refused".into() })),
            "the container runtime does not answer: connection refused", 50),
        (World::bare(json!({})).with(|w| w.unsure = Some(t(97))),
            "the container runtime is asked what came of an interrupted call", 97),
        (World::bare(json!({})).with(|w| w.observed.local.gate_open = false),
            "no new pod starts before all Services are in this node's rules", 2),
        (World::bare(json!({"resourceClaims": [{"name": "x"}]})), "refused: spec.resourceClaims", 2),
        (World::bare(json!({})).does(Action::RunSandbox { attempt: 0 }, Stage::Begun), "its sandbox is made", 90),
        (World::bare(json!({})).fails(Subject::Sandbox, 9, "ContainerCreating", "Failed to create pod sandbox: no CNI network"),
            "its sandbox cannot be made: Failed to create pod sandbox: no CNI network; next try in 4 s", 70),
        (World::bare(json!({})).with(|w| w.sandbox(0, false)).does(Action::RunSandbox { attempt: 1 }, Stage::Begun),
            "its sandbox is being replaced: a new one is made", 90),
        (World::bare(json!({})).with(|w| { w.sandbox(0, true); w.sandbox(1, true); })
            .does(Action::StopSandbox { id: "s0".into() }, Stage::Begun),
            "its sandbox is being replaced: the old one is stopped", 90),
        (World::bare(json!({})).with(|w| { w.sandbox(0, false); w.container("main", State::Running); })
            .does(stop("main", StopWhy::SandboxGone), Stage::Signalled { until: t(108) }),
            "container main has lost its sandbox: has 8 s grace left", 80),
        (World::bare(volumes.clone()).with(|w| w.sandbox(0, true)).does(Action::PrepareVolumes, Stage::Volumes(vec!["config".into()])),
            "volume config is prepared", 90),
        (World::bare(volumes.clone()).with(|w| w.sandbox(0, true)).does(Action::PrepareVolumes, Stage::Begun),
            "volumes config, b are prepared", 90),
        (World::bare(volumes).with(|w| w.sandbox(0, true))
            .fails(Subject::Volumes, 30, "ContainerCreating", "configMap \"x\" references non-existent config key: y"),
            "its volumes are not ready: configMap \"x\" references non-existent config key: y; next try in 25 s", 70),
        (World::new(json!({})).does(pull(), Stage::Begun), "container main: image img:1 is looked for", 90),
        (World::new(json!({})).does(pull(), Stage::Queued), "container main: image img:1 waits for other images to be pulled", 90),
        (World::new(json!({})).does(pull(), Stage::Pulling), "container main: image img:1 is being pulled", 90),
        (World::new(json!({})).fails(Subject::Image("main".into()), 20, "ErrImagePull", "not found"),
            "container main: image img:1 cannot be had: not found; next try in 15 s", 70),
        (World::new(json!({})).fails(Subject::Image("main".into()), 5, "ErrImagePull", "not found").does(pull(), Stage::Pulling),
            "container main: image img:1 cannot be had: not found; tried again now", 70),
        (World::new(json!({})).does(start("main"), Stage::Gathering), "container main: what it is to be given is gathered", 90),
        (World::new(json!({})).does(start("main"), Stage::Creating), "container main is created", 90),
        (World::new(json!({})).does(start("main"), Stage::Starting), "container main is started", 90),
        (World::new(json!({})).does(start("main"), Stage::PostStart), "postStart hook of main runs", 90),
        (World::new(json!({})).does(start("main"), Stage::HookFailed), "container main is ended, as its postStart hook failed", 90),
        (World::new(json!({})).does(start("main"), Stage::Looking),
            "container main has been started: the container runtime is asked how it is", 90),
        (World::new(json!({})).fails(Subject::Start("main".into()), 8, "CreateContainerConfigError", "configmap ns/x not found"),
            "container main: CreateContainerConfigError: configmap ns/x not found; next try in 3 s", 70),
        (World::new(json!({})).fails(Subject::Start("main".into()), 8, "RunContainerError", "no such file").does(start("main"), Stage::Creating),
            "container main is created; the last try failed: RunContainerError: no such file", 70),
        // The one before holds up the next.
        (World::new(two.clone()).with(|w| { w.container("main", State::Running); }).does(start("main"), Stage::PostStart),
            "postStart hook of main runs", 90),
        (World::new(two).with(|w| { w.container("main", State::Running); }).does(start("b"), Stage::Creating), "container b is created", 90),
        (World::new(init.clone()).with(|w| { w.container("a", State::Running); }), "init container a runs", 10),
        (World::new(init.clone()).with(|w| { w.container("a", exited(3)); }),
            "init container a: CrashLoopBackOff, next start in 34 s; it ended with code 3 (Error)", 94),
        (World::new(sidecar).with(|w| { w.container("side", State::Running); }), "startup probe of side has not succeeded yet", 10),
        (World::new(json!({})).with(|w| { w.container("main", exited(1)); }),
            "container main: CrashLoopBackOff, next start in 34 s; it ended with code 1 (Error)", 94),
        // Its sandbox is new: it waits out the delay in there, whatever its code was.
        (World::new(json!({})).with(|w| { w.container("main", exited(0)).sandbox_id = "older".into(); }),
            "container main: CrashLoopBackOff, next start in 34 s; it ended with code 0 (Error)", 94),
        (World::new(init.clone()).with(|w| {
            w.container("a", State::Running);
            w.container("main", exited(137)).sandbox_id = "older".into();
        }), "init container a runs", 10),
        (World::runs(json!({})).does(stop("main", StopWhy::Liveness), Stage::Signalled { until: t(112) }),
            "container main failed its liveness probe: has 12 s grace left", 80),
        (World::runs(json!({})).does(stop("main", StopWhy::Startup), Stage::PreStop),
            "container main failed its startup probe: preStop hook of main runs", 80),
        (World::runs(json!({})).does(stop("main", StopWhy::Changed), Stage::Signalled { until: t(99) }),
            "container main has another definition now: is being killed", 80),
        (World::runs(json!({})).does(stop("main", StopWhy::Duplicate), Stage::Begun), "container main runs twice: is told to end", 80),
        (World::new(json!({})).with(|w| { w.container("main", State::Unknown); }).does(stop("main", StopWhy::Unknown), Stage::Begun),
            "container main is in a state that the container runtime does not know: is told to end", 80),
        (World::runs(json!({})).fails(Subject::Stop("main-id".into()), 10, "KillContainerError", "no shim"),
            "container main must end, and cannot be stopped: no shim; next try in 5 s", 70),
        (probed(Readiness, "HTTP probe failed with statuscode: 503", None),
            "readiness probe of main fails: HTTP probe failed with statuscode: 503", 10),
        (probed(Readiness, "HTTP probe failed with statuscode: 503", Some(61)),
            "readiness probe of main fails: HTTP probe failed with statuscode: 503", 61),
        // It was ready before this agent started; the API knows when that ended.
        (probed(Readiness, "refused", None).with(|w| w.condition("ContainersReady", "False", 55)), "readiness probe of main fails: refused", 55),
        (probed(Readiness, "", None), "readiness probe of main has not succeeded yet", 10),
        (probed(Startup, "exit code 1", None), "startup probe of main fails: exit code 1", 10),
        (gated(None), "readiness gate example.com/lb is not set", 40),
        (gated(Some("False")), "readiness gate example.com/lb is False", 60),
        (debug(json!({"name": "d", "image": "img:2", "targetContainerName": "none"})),
            "ephemeral container d: unable to find target container none", 2),
        (debug(json!({"name": "d", "image": "img:2"})).does(Action::PullImage { container: "d".into(), attempt: 0 }, Stage::Pulling),
            "ephemeral container d: image img:2 is being pulled", 90),
        (World::runs(json!({})).with(|w| {
            w.condition("PodResizePending", "True", 33);
            w.status.conditions.as_mut().unwrap()[0].message = Some("not supported".into());
        }), "its resize is not carried out: not supported", 33),
        (World::runs(json!({})).with(|w| w.report = Some(Trouble { since: t(20), why: "cannot patch the status: timeout".into() })),
            "the API server has not taken the pod's status: cannot patch the status: timeout", 20),
        (World::runs(json!({})).fails(Subject::Volumes, 30, "ContainerCreating", "no token"),
            "its volumes cannot be renewed: no token; next try in 25 s", 70),
    ]
}

#[rustfmt::skip]
fn ending() -> Vec<(World, &'static str, i64)> {
    let deadline = || Why::Failed { reason: "DeadlineExceeded".into(), message: "too long".into() };
    let volumes = json!({"volumes": [{"name": "x", "emptyDir": {}}]});
    let sidecar = json!({"initContainers": [{"name": "side", "image": "img:1", "restartPolicy": "Always"}]});
    let end = |stage| World::runs(json!({})).ends(Why::Deleted).does(stop("main", StopWhy::PodEnds), stage);
    vec![
        (end(Stage::Rules), "terminating: container main waits until this node's service rules no longer lead to it", 90),
        (end(Stage::PreStop), "terminating: preStop hook of main runs, 12 s of its grace are left", 90),
        (end(Stage::Signalled { until: t(112) }), "terminating: container main has 12 s of 30 s grace left", 90),
        (end(Stage::Signalled { until: t(100) }), "terminating: container main is being killed", 90),
        (end(Stage::Looking), "terminating: container main has been stopped: the container runtime is asked how it is", 90),
        (World::runs(json!({})).ends(deadline()).does(stop("main", StopWhy::PodEnds), Stage::PreStop),
            "ending: preStop hook of main runs, 12 s of its grace are left", 90),
        (World::runs(json!({})).ends(Why::Deleted).fails(Subject::Stop("main-id".into()), 10, "KillContainerError", "no shim"),
            "terminating: container main cannot be stopped: no shim; next try in 5 s", 70),
        (World::runs(json!({})).ends(Why::Deleted).with(|w| w.runtime = Some(Trouble { since: t(50), why: "gone".into() })),
            "terminating: the container runtime does not answer: gone", 50),
        (World::new(sidecar).with(|w| { w.container("side", State::Running); w.container("main", State::Running); })
            .ends(Why::Deleted).does(stop("main", StopWhy::PodEnds), Stage::PreStop),
            "terminating: preStop hook of main runs, 12 s of its grace are left", 90),
        (World::new(json!({})).ends(Why::Deleted).does(Action::StopSandbox { id: "s0".into() }, Stage::Begun),
            "terminating: its sandbox is stopped", 90),
        (World::new(json!({})).ends(Why::Deleted).fails(Subject::Stop("s0".into()), 10, "KillPodSandboxError", "CNI: no IPAM"),
            "terminating: its sandbox cannot be stopped: CNI: no IPAM; next try in 5 s", 70),
        (World::new(volumes.clone()).over(Why::Deleted).does(Action::RemoveVolumes, Stage::Begun),
            "terminating: volume x is unmounted and removed", 90),
        (World::new(volumes.clone()).over(Why::Completed).does(Action::RemoveVolumes, Stage::Begun), "ending: volume x is unmounted and removed", 90),
        (World::new(volumes).over(Why::Deleted).fails(Subject::Cleanup, 10, "CleanupError", "cannot remove the pod's volumes: unmount /x: busy"),
            "terminating: cannot remove the pod's volumes: unmount /x: busy; next try in 5 s", 70),
        (World::new(json!({})).over(Why::Deleted).does(Action::RemoveCgroup, Stage::Begun), "terminating: its cgroup is removed", 90),
        (World::new(json!({})).over(Why::Deleted).does(Action::RemoveFolders, Stage::Begun), "terminating: its folder and its logs are removed", 90),
        (World::new(json!({})).with(|w| { w.container("main", exited(0)); }).over(Why::Deleted)
            .does(Action::RemoveContainer { name: "main".into(), id: "main-id".into() }, Stage::Begun),
            "terminating: ended container main is removed from the container runtime", 90),
        (World::new(json!({})).over(Why::Deleted).does(Action::RemoveSandbox { id: "s0".into() }, Stage::Begun),
            "terminating: its sandbox is removed from the container runtime", 90),
        (World::new(json!({})).over(Why::Deleted).fails(Subject::Stop("s0".into()), 10, "RemoveSandboxError", "busy"),
            "terminating: its sandbox cannot be removed from the container runtime: busy; next try in 5 s", 70),
        (World::bare(json!({})).over(Why::Deleted).with(|w| w.lifecycle = Lifecycle::Finished { why: Why::Deleted }),
            "terminating: nothing is left of it on this node; its object stays until the API server has deleted it", 82),
        (World::bare(json!({})).over(Why::Deleted).with(|w| {
            w.lifecycle = Lifecycle::Finished { why: Why::Deleted };
            w.report = Some(Trouble { since: t(84), why: "cannot delete: connection refused".into() });
        }), "terminating: nothing is left of it on this node; its object stays until the API server has deleted it: cannot delete: connection refused", 84),
        (World::bare(json!({})).over(Why::Failed { reason: "OutOfcpu".into(), message: "Pod was rejected: no CPU".into() }),
            "OutOfcpu: Pod was rejected: no CPU; it stays Failed until it is deleted", 2),
        // Said by an agent before this one.
        (World::bare(json!({})).over(Why::Completed).with(|w| {
            (w.status.phase, w.status.reason, w.status.message) = (Some("Failed".into()), Some("NodeAffinity".into()), Some("no".into()));
            w.condition("ContainersReady", "False", 8);
        }), "NodeAffinity: no; it stays Failed until it is deleted", 8),
    ]
}

#[test]
fn each_state_has_its_line() {
    for (w, wanted, since) in starting().into_iter().chain(ending()) {
        let said = w.said();
        let Some((what, at)) = said.first() else { panic!("nothing is said where it should be {wanted:?}") };
        let same = what == wanted || wanted.starts_with("refused: ") && what.starts_with(wanted);
        assert!(same && *at == since, "wanted {since} {wanted:?}\n   said {said:#?}");
    }
}

#[test]
fn a_pod_that_is_where_it_should_be_waits_for_nothing() {
    let ready = json!({"containers": [{"name": "main", "image": "img:1", "readinessProbe": {"exec": {"command": ["x"]}}}]});
    let verdict = Verdict { container_id: "main-id".into(), readiness: Some(true), ..Default::default() };
    let settled = [
        World::runs(json!({})),
        World::runs(ready).with(|w| drop(w.verdicts.0.insert("main".into(), verdict))),
        gated(Some("True")),
        // What it leaves behind is no wait, nor are volumes that are looked after once more.
        World::runs(json!({})).does(Action::RemoveContainer { name: "main".into(), id: "older".into() }, Stage::Begun),
        World::runs(json!({})).does(Action::PrepareVolumes, Stage::Begun),
        World::runs(json!({})).with(|w| w.observed.local.volumes_ready = false).does(Action::PrepareVolumes, Stage::Begun),
        World::new(json!({"restartPolicy": "Never"})).with(|w| drop(w.container("main", exited(1)).clone())),
        World::new(json!({})).over(Why::Completed),
        debug(json!({"name": "d", "image": "img:2"})).with(|w| drop(w.container("d", exited(1)).clone())),
    ];
    for (n, w) in settled.iter().enumerate() {
        assert_eq!(w.said(), Vec::new(), "number {n}");
    }
}

#[test]
fn a_container_that_is_started_at_once_says_so_only_while_it_is() {
    // The first restart has no delay: nothing is to be waited for but the start itself.
    let w = World::new(json!({})).with(|w| w.container("main", exited(1)).backoff = Duration::ZERO);
    assert_eq!(w.with(|w| w.under_way.clear()).said(), Vec::new());
    let w = World::new(json!({})).with(|w| w.container("main", exited(1)).backoff = Duration::ZERO);
    assert_eq!(w.does(start("main"), Stage::Creating).said(), vec![("container main is created".to_owned(), 90)]);
}
