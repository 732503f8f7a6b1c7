//! One line for each state that a pod can wait in.

mod table;

use super::*;
use crate::pod::lifecycle::Why;
use crate::pod::observed::{Container, Sandbox, State, Verdict};
use crate::pod::plan::StopWhy;
use crate::pod::stage::Stage;
use crate::pod::testing::{instance, pod, t};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// A pod at second 100, seen first at second 2.
struct World {
    desired: Desired,
    lifecycle: Lifecycle,
    entered: Time,
    observed: Observed,
    verdicts: Verdicts,
    probes: ferrolet_probes::Verdicts,
    backoffs: Backoffs,
    under_way: Vec<(Action, Progress)>,
    status: api::PodStatus,
    runtime: Option<Trouble>,
    unsure: Option<Time>,
    report: Option<Trouble>,
}

impl World {
    /// With a sandbox and its volumes.
    fn new(spec: Value) -> World {
        let mut w = World::bare(spec);
        w.sandbox(0, true);
        w.observed.local.volumes_ready = true;
        w
    }

    fn bare(spec: Value) -> World {
        let mut observed = Observed::default();
        observed.local.gate_open = true;
        World {
            desired: Desired::of(&pod(spec)),
            lifecycle: Lifecycle::Active,
            entered: t(2),
            observed,
            verdicts: Verdicts::default(),
            probes: Default::default(),
            backoffs: Backoffs::default(),
            under_way: Vec::new(),
            status: api::PodStatus::default(),
            runtime: None,
            unsure: None,
            report: None,
        }
    }

    fn sandbox(&mut self, attempt: u32, ready: bool) {
        let (id, ips) = (format!("s{attempt}"), vec!["10.0.0.1".into()]);
        self.observed.sandboxes.push(Sandbox { id, attempt, ready, created_at: t(3), host_network: false, ips });
    }

    fn container(&mut self, name: &str, state: State) -> &mut Container {
        self.observed.containers.push(Container {
            id: format!("{name}-id"),
            sandbox_id: "s0".into(),
            started_at: (state != State::Created).then(|| t(10)),
            created_at: t(9),
            image: "img:1".into(),
            backoff: Duration::from_secs(40),
            ..instance(name, state)
        });
        self.observed.containers.last_mut().unwrap()
    }

    fn runs(spec: Value) -> World {
        let mut w = World::new(spec);
        w.container("main", State::Running);
        w
    }

    /// Under way since second 80, in this stage since second 90.
    fn does(mut self, action: Action, stage: Stage) -> World {
        self.under_way.push((action, Progress { stage, since: t(90) }));
        self
    }

    /// Failed first at second 70, last at 95, the next try being due after `delay`.
    fn fails(mut self, subject: Subject, delay: u64, reason: &str, message: &str) -> World {
        let (until, delay) = (t(95 + delay as i64), Duration::from_secs(delay));
        let failure = Failure { since: t(70), delay, until, reason: reason.into(), message: message.into() };
        self.backoffs.failures.insert(subject, failure);
        self
    }

    fn ends(mut self, why: Why) -> World {
        if why == Why::Deleted {
            self.desired.deletion = Some(crate::pod::desired::Deletion { grace: Duration::from_secs(30) });
        }
        self.lifecycle = Lifecycle::Terminating { deadline: t(112), why };
        self.entered = t(82);
        self
    }

    fn over(mut self, why: Why) -> World {
        self = self.ends(why.clone());
        self.lifecycle = Lifecycle::Terminated { why };
        self.observed.sandboxes.iter_mut().for_each(|s| s.ready = false);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut World)) -> World {
        change(&mut self);
        self
    }

    fn condition(&mut self, name: &str, status: &str, at: i64) {
        let condition = json!({"type": name, "status": status, "lastTransitionTime": t(at).to_string()});
        self.status.conditions.get_or_insert_default().push(serde_json::from_value(condition).unwrap());
    }

    fn standing(&self) -> Standing {
        let under_way: Vec<UnderWay<'_>> =
            self.under_way.iter().map(|(action, p)| UnderWay { action, since: t(80), progress: p.clone() }).collect();
        explain(&Inputs {
            desired: &self.desired,
            lifecycle: &self.lifecycle,
            entered: self.entered,
            begun: t(2),
            observed: &self.observed,
            verdicts: &self.verdicts,
            probes: &self.probes,
            backoffs: &self.backoffs,
            under_way: &under_way,
            status: &self.status,
            runtime: self.runtime.as_ref(),
            unsure: self.unsure,
            report: self.report.as_ref(),
            now: t(100),
        })
    }

    /// All that is said, with seconds since the beginning of time.
    fn said(&self) -> Vec<(String, i64)> {
        self.standing().waits.into_iter().map(|w| (w.what, w.since.as_second() - 1_000_000)).collect()
    }
}

#[test]
fn durations() {
    for (s, text) in [
        (0, "0 s"),
        (34, "34 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (86_400, "1 d"),
        (349_200, "4 d 1 h"),
    ] {
        assert_eq!(span(Duration::from_secs(s)), text);
    }
    assert_eq!(span(Duration::from_millis(200)), "1 s", "nothing is due in 0 s");
}

#[test]
fn hostile_words_stay_in_their_line() {
    assert_eq!(tidy("a\nb\r\x1b[31mc\u{202e}d\n"), "a b  [31mc d");
    assert_eq!(tidy(&"x".repeat(5000)).chars().count(), 1001);
    let w = World::new(json!({})).fails(Subject::Image("main".into()), 10, "ErrImagePull", "no\nsuch\x07 image");
    assert!(!w.said()[0].0.contains(|c: char| c.is_control()), "{:?}", w.said());
}

#[test]
fn what_failed_comes_before_what_only_lasts() {
    let w = World::bare(json!({"volumes": [{"name": "a", "configMap": {"name": "x"}}]}))
        .does(Action::RunSandbox { attempt: 0 }, Stage::Begun)
        .fails(Subject::Volumes, 30, "ContainerCreating", "no configmap x");
    let said = w.said();
    assert_eq!(said[0], ("its volumes are not ready: no configmap x; next try in 25 s".to_owned(), 70));
    assert_eq!(said[1], ("its sandbox is made".to_owned(), 90));
    let w = w.with(|w| w.runtime = Some(Trouble { since: t(50), why: "gone".into() }));
    assert_eq!(w.said()[0], ("the container runtime does not answer: gone".to_owned(), 50));
}

#[test]
fn states() {
    let mut w = World::runs(json!({}));
    w.condition("Ready", "True", 12);
    assert_eq!(w.standing(), Standing { state: "Ready".into(), waits: Vec::new() });
    let w = World::bare(json!({}));
    assert_eq!(w.standing().state, "Pending");
    assert_eq!(World::runs(json!({})).ends(Why::Deleted).standing().state, "Terminating");
    let done = World::new(json!({})).over(Why::Completed).with(|w| w.status.phase = Some("Succeeded".into()));
    assert_eq!(done.standing(), Standing { state: "Succeeded".into(), waits: Vec::new() });
}
