//! What a status says, field by field; the phase of every pod in `phases`.

use super::*;
use crate::pod::backoff::Subject;
use crate::pod::desired::Ended;
use crate::pod::observed::{Container, Sandbox, State, Verdict};
use crate::pod::testing::{instance, pod, t};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

mod ephemeral;
mod pairs;
mod phases;
mod together;
mod waits;

struct World {
    desired: Desired,
    lifecycle: Lifecycle,
    observed: Observed,
    verdicts: Verdicts,
    backoffs: Backoffs,
    prev: api::PodStatus,
    now: Time,
}

impl World {
    fn new(spec: Value) -> World {
        World::empty(Desired::of(&pod(spec)))
    }

    fn empty(desired: Desired) -> World {
        let sandbox = Sandbox {
            id: "s".into(),
            attempt: 0,
            ready: true,
            created_at: t(0),
            host_network: false,
            ips: vec!["10.0.0.1".into()],
        };
        World {
            desired,
            lifecycle: Lifecycle::Active,
            observed: Observed { sandboxes: vec![sandbox], ..Default::default() },
            verdicts: Verdicts::default(),
            backoffs: Backoffs::default(),
            prev: api::PodStatus::default(),
            now: t(100),
        }
    }

    fn add(&mut self, name: &str, attempt: u32, state: State, backoff: u64) {
        self.observed.containers.push(Container {
            id: format!("{name}-{attempt}"),
            attempt,
            started_at: (state != State::Created).then(|| t(1)),
            image: "img:1".into(),
            image_id: "img@sha256:1".into(),
            backoff: Duration::from_secs(backoff),
            ..instance(name, state)
        });
    }

    fn status(&self) -> api::PodStatus {
        let node = NodeFacts { ips: vec!["192.0.2.1".parse().unwrap()], runtime: "containerd".into() };
        status(&Inputs {
            desired: &self.desired,
            lifecycle: &self.lifecycle,
            observed: &self.observed,
            verdicts: &self.verdicts,
            backoffs: &self.backoffs,
            prev: &self.prev,
            node: &node,
            now: self.now,
        })
    }

    /// The status, remembered as the one before.
    fn next(&mut self) -> api::PodStatus {
        self.prev = self.status();
        self.prev.clone()
    }
}

fn exited(code: i32) -> State {
    State::Exited {
        code,
        finished_at: t(99),
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
    }
}

fn condition<'a>(s: &'a api::PodStatus, name: &str) -> &'a api::PodCondition {
    s.conditions.as_ref().unwrap().iter().find(|c| c.type_ == name).unwrap()
}

fn main(s: &api::PodStatus) -> &api::ContainerStatus {
    s.container_statuses.as_ref().unwrap().iter().find(|c| c.name == "main").unwrap()
}

fn waiting(s: &api::PodStatus) -> (String, String) {
    let w = main(s).state.as_ref().unwrap().waiting.as_ref().unwrap();
    (w.reason.clone().unwrap_or_default(), w.message.clone().unwrap_or_default())
}

/// What one container may look like.
const LOOKS: [&str; 6] = ["none", "created", "running", "ok", "failed", "crashloop"];

fn look(w: &mut World, name: &str, look: &str) {
    match look {
        "none" => {}
        "created" => w.add(name, 0, State::Created, 0),
        "running" => w.add(name, 0, State::Running, 0),
        "ok" => w.add(name, 0, exited(0), 0),
        "failed" => w.add(name, 0, exited(1), 0),
        "crashloop" => w.add(name, 1, exited(1), 40),
        _ => unreachable!(),
    }
}

#[test]
fn a_running_pod_in_full() {
    let mut w = World::new(json!({"containers": [{"name": "main", "image": "img:1",
        "resources": {"requests": {"cpu": "100m"}}, "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}]}));
    w.add("main", 0, State::Running, 0);
    let s = w.status();
    let names: Vec<&str> = s.conditions.iter().flatten().map(|c| c.type_.as_str()).collect();
    assert_eq!(names, ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
    assert!(s.conditions.iter().flatten().all(|c| c.status == "True" && c.observed_generation == Some(1)));
    assert_eq!((s.pod_ip.as_deref(), s.host_ip.as_deref()), (Some("10.0.0.1"), Some("192.0.2.1")));
    assert_eq!((s.qos_class.as_deref(), s.observed_generation), (Some("Burstable"), Some(1)));
    let c = main(&s);
    assert!(c.ready && c.started == Some(true));
    assert_eq!(c.container_id.as_deref(), Some("containerd://main-0"));
    assert_eq!(c.image_id, "img@sha256:1");
    assert_eq!(c.allocated_resources.as_ref().unwrap()["cpu"].0, "100m");
    assert_eq!(c.volume_mounts.as_ref().unwrap()[0].recursive_read_only.as_deref(), Some("Disabled"));
}

#[test]
fn a_resize_shows_what_the_container_has_and_that_it_waits() {
    let with = |cpu: &str| json!({"containers": [{"name": "main", "image": "img:1", "resources": {"requests": {"cpu": cpu}}}]});
    let mut w = World::new(with("100m"));
    w.add("main", 0, State::Running, 0);
    let spec = w.desired.spec_of("main").unwrap().clone();
    w.observed.containers[0].resources = Some(crate::pod::resources::Resources::of(&spec));
    let pending = |s: &api::PodStatus| s.conditions.iter().flatten().find(|c| c.type_ == "PodResizePending").cloned();
    assert_eq!(pending(&w.next()), None);
    // Asked for and not granted: the pod is seen as it was granted.
    w.observed.local.resize.pending = Some(crate::pod::resize::Pending {
        infeasible: false,
        cause: "OutOfcpu".into(),
        message: "no room".into(),
        generation: 2,
        since: t(5),
    });
    let s = w.next();
    let c = pending(&s).unwrap();
    assert_eq!((c.status.as_str(), c.reason.as_deref(), c.message.as_deref()), ("True", Some("Deferred"), Some("no room")));
    assert_eq!((c.observed_generation, c.last_transition_time.unwrap().0), (Some(2), t(5)));
    // Granted and not there yet.
    w.observed.local.resize.pending = None;
    w.observed.local.resize.record.allocation.generation = 2;
    w.desired = Desired::of(&pod(with("200m")));
    let s = w.next();
    assert_eq!(pending(&s), None);
    let going = |s: &api::PodStatus| s.conditions.iter().flatten().find(|c| c.type_ == "PodResizeInProgress").cloned();
    assert_eq!(going(&s).unwrap().observed_generation, Some(2));
    assert_eq!(main(&s).resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "100m");
    assert_eq!(main(&s).allocated_resources.as_ref().unwrap()["cpu"].0, "200m");
    w.backoffs.failed(Subject::Resize, t(9), "Error", "cannot");
    let c = going(&w.next()).unwrap();
    assert_eq!((c.reason.as_deref(), c.message.as_deref()), (Some("Error"), Some("cannot")));
    // Done; what is read back counts where it is not what was set.
    let id = w.observed.containers[0].id.clone();
    let spec = w.desired.spec_of("main").unwrap().clone();
    let set = crate::pod::resources::Resources::of(&spec);
    w.observed.local.resize.record.actuated.insert(id.clone(), set);
    let s = w.next();
    assert_eq!((going(&s), main(&s).resources.clone()), (None, spec.resources));
    let real = crate::pod::resize::Real { cpu_request_milli: Some(150), ..Default::default() };
    w.observed.local.resize.record.real.insert(id, real);
    assert_eq!(main(&w.next()).resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "150m");
}

#[test]
fn probes_decide_started_and_ready() {
    let probe = json!({"exec": {"command": ["x"]}});
    for (startup, readiness, started, ready) in [
        (None, None, false, false),
        (Some(true), None, true, false),
        (Some(true), Some(true), true, true),
        (Some(true), Some(false), true, false),
        (Some(false), Some(true), false, false),
    ] {
        let mut w =
            World::new(json!({"containers": [{"name": "main", "image": "i", "startupProbe": probe, "readinessProbe": probe}]}));
        w.add("main", 0, State::Running, 0);
        let v = Verdict { container_id: "main-0".into(), startup, readiness, liveness: None };
        w.verdicts.0.insert("main".into(), v);
        let s = w.status();
        assert_eq!((main(&s).started, main(&s).ready), (Some(started), ready));
        assert_eq!(condition(&s, "Ready").status, if ready { "True" } else { "False" });
        if !ready {
            assert_eq!(condition(&s, "Ready").message.as_deref(), Some("containers with unready status: [main]"));
        }
    }
}

#[test]
fn last_state_outlives_the_runtimes_record() {
    let mut w = World::new(json!({}));
    w.add("main", 0, exited(3), 0);
    w.next();
    w.observed.containers.clear();
    w.add("main", 1, State::Running, 10);
    let s = w.next();
    assert_eq!(main(&s).last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    // And stays while nothing changes.
    assert_eq!(w.status(), s);
}

#[test]
fn a_container_that_the_runtime_forgot() {
    let mut w = World::new(json!({}));
    w.add("main", 0, State::Running, 0);
    w.next();
    w.observed.containers.clear();
    w.observed.stale = true;
    assert!(main(&w.status()).last_state.as_ref().unwrap().terminated.is_none(), "nothing is concluded while stale");
    w.observed.stale = false;
    let s = w.next();
    let t = main(&s).last_state.as_ref().unwrap().terminated.clone().unwrap();
    assert_eq!((t.reason.as_deref(), t.exit_code, main(&s).restart_count), (Some("ContainerStatusUnknown"), 137, 1));
    assert_eq!(s.phase.as_deref(), Some("Running"));
    assert_eq!(main(&w.status()).restart_count, 1, "counted once");
}

#[test]
fn a_stopped_container_keeps_its_message_when_the_file_is_gone() {
    let mut w = World::new(json!({"restartPolicy": "Never"}));
    let end = |message: &str| State::Exited { code: 1, finished_at: t(9), reason: "Error".into(), message: message.into() };
    w.add("main", 0, end("last words"), 0);
    w.next();
    w.observed.containers.clear();
    w.add("main", 0, end(""), 0);
    let s = w.status();
    assert_eq!(main(&s).state.as_ref().unwrap().terminated.as_ref().unwrap().message.as_deref(), Some("last words"));
}

#[test]
fn a_terminal_phase_is_never_left() {
    let mut w = World::new(json!({}));
    w.add("main", 0, State::Running, 0);
    w.prev.phase = Some("Failed".into());
    w.prev.reason = Some("Evicted".into());
    let s = w.status();
    assert_eq!((s.phase.as_deref(), s.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    let mut p = api::Pod::clone(&pod(json!({})));
    p.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    let mut w = World::new(json!({}));
    w.desired = Desired::of(&Arc::new(p));
    assert_eq!(w.status().phase.as_deref(), Some("Succeeded"));
}

/// What it holds may be given away once it is said to have failed.
#[test]
fn a_failure_by_the_node_is_told_once_nothing_runs() {
    let mut w = World::new(json!({}));
    w.add("main", 0, State::Running, 0);
    w.prev = w.status();
    let why = Why::Failed { reason: "DeadlineExceeded".into(), message: "m".into() };
    w.lifecycle = Lifecycle::Terminating { deadline: t(200), why: why.clone() };
    let s = w.next();
    assert_eq!((s.phase.as_deref(), s.reason.as_deref()), (Some("Running"), None));
    assert_eq!(condition(&s, "Ready").reason.as_deref(), Some("PodFailed"), "readiness ends at once");
    w.lifecycle = Lifecycle::Terminated { why };
    let s = w.next();
    assert_eq!((s.phase.as_deref(), s.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

/// The API refuses that one which its policy leaves ended runs again.
#[test]
fn between_two_containers_of_a_policy_that_would_leave_it_it_runs() {
    let probe = json!({"exec": {"command": ["x"]}});
    let spec =
        |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "main", "image": "i", "livenessProbe": probe}]});
    let ended = |w: &mut World| {
        w.observed.containers[0].state = exited(0);
        w.next()
    };
    let runs = |s: &api::PodStatus| main(s).state.as_ref().is_some_and(|s| s.running.is_some());
    let mut w = World::new(spec("Never"));
    w.add("main", 0, State::Running, 0);
    w.observed.containers[0].hash = Some("another".into());
    w.next();
    w.observed.local.replaced.insert(w.observed.containers[0].id.clone());
    let s = ended(&mut w);
    assert!(runs(&s) && !main(&s).ready);
    assert_eq!((s.phase.as_deref(), condition(&s, "Ready").status.as_str()), (Some("Running"), "False"));
    // Killed for its health it took the signal well.
    let mut w = World::new(spec("OnFailure"));
    w.add("main", 0, State::Running, 0);
    w.next();
    let v = Verdict { container_id: w.observed.containers[0].id.clone(), liveness: Some(false), ..Default::default() };
    w.verdicts.0.insert("main".into(), v);
    assert!(runs(&ended(&mut w)));
    w.verdicts.0.clear();
    assert!(!runs(&w.next()), "it ended by itself");
}

#[test]
fn disruption_is_told_with_the_end() {
    let mut w = World::new(json!({}));
    w.add("main", 0, State::Running, 0);
    w.desired.ended = Some(Ended { reason: "Preempting".into(), message: "m".into(), disruption: Some("why") });
    let why = Why::Failed { reason: "Preempting".into(), message: "m".into() };
    w.lifecycle = Lifecycle::Terminating { deadline: t(200), why: why.clone() };
    let told = |s: &api::PodStatus| s.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget").cloned();
    assert_eq!(told(&w.next()), None);
    w.lifecycle = Lifecycle::Terminated { why };
    let c = told(&w.next()).unwrap();
    let expected = (Some("TerminationByKubelet"), Some("why"), Some(1));
    assert_eq!((c.reason.as_deref(), c.message.as_deref(), c.observed_generation), expected);
}

#[test]
fn once_initialized_always_initialized_but_pending_while_it_is_done_again() {
    let mut w = World::new(json!({"initContainers": [{"name": "i", "image": "i"}, {"name": "j", "image": "i"}]}));
    for name in ["i", "j"] {
        look(&mut w, name, "ok");
    }
    look(&mut w, "main", "running");
    assert_eq!(w.next().phase.as_deref(), Some("Running"));
    // The sandbox was lost, and there is another one.
    look(&mut w, "main", "failed");
    w.observed.sandboxes[0].ready = false;
    w.next();
    let again = Sandbox { id: "s2".into(), attempt: 1, ready: true, ..w.observed.sandboxes[0].clone() };
    w.observed.sandboxes.push(again);
    for step in 0..3 {
        let s = w.next();
        assert_eq!(s.phase.as_deref(), Some("Pending"), "step {step}");
        assert_eq!(condition(&s, "Initialized").status, "True", "step {step}");
        if let Some(name) = ["i", "j"].get(step) {
            look(&mut w, name, "ok");
            let made = w.observed.containers.last_mut().unwrap();
            (made.sandbox_id, made.attempt) = ("s2".into(), 1);
            made.id = format!("{name}-1");
            if step == 1 {
                assert_eq!(w.next().phase.as_deref(), Some("Running"), "main restarts next");
                break;
            }
        }
    }
}

#[test]
fn messages_share_twelve_kib() {
    let mut w = World::new(json!({"containers": [{"name": "main", "image": "i"}, {"name": "b", "image": "i"},
        {"name": "c", "image": "i"}, {"name": "d", "image": "i"}], "restartPolicy": "Never"}));
    let long = "\u{e4}".repeat(2048);
    for name in ["main", "b", "c", "d"] {
        let reason = "Completed".to_owned();
        w.add(name, 0, State::Exited { code: 0, finished_at: t(9), reason, message: long.clone() }, 0);
    }
    w.lifecycle = Lifecycle::Terminated { why: Why::Completed };
    let message =
        |s: &api::ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.as_ref()?.message.clone()).unwrap_or_default();
    let all: Vec<usize> = w.status().container_statuses.unwrap().iter().map(|s| message(s).len()).collect();
    assert_eq!(all, [3072, 3072, 3072, 3072]);
}

#[test]
fn a_pod_that_was_deleted_before_it_began_has_failed() {
    let close = |spec: Value, prev_initialized: bool| {
        let mut w = World::new(spec);
        w.prev.phase = Some("Pending".into());
        if prev_initialized {
            let holds = json!([{"type": "Initialized", "status": "True"}]);
            w.prev.conditions = serde_json::from_value(holds).unwrap();
        }
        w.lifecycle = Lifecycle::Terminated { why: Why::Deleted };
        let s = w.status();
        assert_eq!(s.phase.as_deref(), Some("Failed"));
        let ended = |list: &Option<Vec<api::ContainerStatus>>| {
            let ended = |s: &api::ContainerStatus| s.state.as_ref().is_some_and(|s| s.terminated.is_some());
            list.iter().flatten().map(ended).collect::<Vec<_>>()
        };
        (ended(&s.init_container_statuses), ended(&s.container_statuses))
    };
    assert_eq!(close(json!({}), false), (vec![], vec![true]));
    // It ended at its first init container; what would have come after that has never been.
    let inits = json!({"initContainers": [{"name": "i", "image": "i"}, {"name": "j", "image": "i"}]});
    assert_eq!(close(inits.clone(), false), (vec![true, false], vec![false]));
    assert_eq!(close(inits, true), (vec![true, false], vec![true]));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut w = World::new(json!({}));
    let first = w.next();
    w.now = t(200);
    let second = w.next();
    assert_eq!(condition(&first, "Ready"), condition(&second, "Ready"));
    w.add("main", 0, State::Running, 0);
    w.now = t(300);
    let third = w.next();
    assert_eq!(condition(&third, "Ready").last_transition_time.as_ref().unwrap().0, t(300));
    assert_eq!(condition(&third, "PodScheduled").last_transition_time.as_ref().unwrap().0, t(100));
    assert_eq!(third.start_time, first.start_time);
}

#[test]
fn readiness_gates_and_foreign_conditions() {
    let mut p = api::Pod::clone(&pod(json!({"readinessGates": [{"conditionType": "lb.example/ok"}]})));
    let mut w = World::new(json!({}));
    w.desired = Desired::of(&Arc::new(p.clone()));
    w.add("main", 0, State::Running, 0);
    let s = w.status();
    assert_eq!(condition(&s, "ContainersReady").status, "True");
    assert_eq!(condition(&s, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    p.status = serde_json::from_value(json!({"conditions": [{"type": "lb.example/ok", "status": "True"}]})).unwrap();
    w.desired = Desired::of(&Arc::new(p));
    let s = w.status();
    assert_eq!((condition(&s, "Ready").status.as_str(), condition(&s, "lb.example/ok").status.as_str()), ("True", "True"));
}

#[test]
fn addresses() {
    let mut w = World::new(json!({}));
    w.observed.sandboxes[0].ips = vec!["fd00::1".into(), "10.0.0.1".into()];
    assert_eq!(w.next().pod_ips.unwrap()[0].ip, "10.0.0.1");
    w.observed.sandboxes[0].ready = false;
    assert_eq!(w.status().pod_ip.as_deref(), Some("10.0.0.1"), "kept while there is no other");
    assert_eq!(condition(&w.status(), "PodReadyToStartContainers").status, "False");
    let mut w = World::new(json!({"hostNetwork": true}));
    w.observed.sandboxes[0].host_network = true;
    w.observed.sandboxes[0].ips.clear();
    assert_eq!(w.status().pod_ip.as_deref(), Some("192.0.2.1"));
}

#[test]
fn the_same_world_gives_the_same_status_after_a_restart() {
    for a in LOOKS {
        let mut w = World::new(json!({"initContainers": [{"name": "i", "image": "i"}]}));
        look(&mut w, "i", "ok");
        look(&mut w, "main", a);
        let before = w.next();
        // The API gives back what it was given, as JSON.
        w.prev = serde_json::from_value(serde_json::to_value(&before).unwrap()).unwrap();
        w.now = t(101);
        assert_eq!(w.status(), before, "{a}");
    }
}
