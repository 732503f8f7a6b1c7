//! The phase of every combination of policy, stage of life and container states, against rules worked out on their own.
//!
//! The rules here are kubelet's, told over what happened to each container; the code under test goes the way of the runtime's
//! records and the API's container statuses.

use super::*;
use crate::pod::lifecycle::Why;

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The runtime has never had one.
    None,
    Created,
    /// Runs, and its startup probe has not succeeded.
    Starting,
    Running,
    Ok,
    Failed,
    /// Ended again and again, and its next start is not due.
    LoopOk,
    LoopFailed,
    /// The runtime does not know, and it was never seen running.
    Unknown,
    /// The runtime does not know, and it was running before.
    UnknownRan,
    /// It was running before, and the runtime has no record any more.
    Gone,
}

use Look::*;

const ALL: [Look; 11] = [None, Created, Starting, Running, Ok, Failed, LoopOk, LoopFailed, Unknown, UnknownRan, Gone];
/// For the widest pods.
const FEW: [Look; 6] = [None, Starting, Running, Ok, LoopFailed, UnknownRan];

impl Look {
    /// Something of it may still run.
    fn live(self) -> bool {
        matches!(self, Created | Starting | Running | Unknown | UnknownRan)
    }

    /// The runtime has an instance.
    fn there(self) -> bool {
        !matches!(self, None | Gone)
    }

    /// The last exit code, if it has ended.
    fn code(self) -> Option<i32> {
        match self {
            Ok | LoopOk => Some(0),
            Failed | LoopFailed => Some(1),
            UnknownRan | Gone => Some(137),
            None | Created | Starting | Running | Unknown => Option::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Init,
    Sidecar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Active,
    Deleted,
    /// Nothing runs any more.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    const ALL: [Policy; 3] = [Policy::Always, Policy::OnFailure, Policy::Never];

    fn again(self, code: i32) -> bool {
        match self {
            Policy::Always => true,
            Policy::OnFailure => code != 0,
            Policy::Never => false,
        }
    }
}

/// What is told of it: that a pod is over only once nothing of it runs any more, and until then what was told before.
fn told(comes: &'static str, prev: Option<&'static str>, stage: Stage) -> &'static str {
    match (comes, prev) {
        (_, Some(over @ ("Succeeded" | "Failed"))) => over,
        ("Succeeded" | "Failed", prev) if stage != Stage::Over => {
            if prev == Some("Running") {
                "Running"
            } else {
                "Pending"
            }
        }
        _ => comes,
    }
}

/// Kubelet's rules.
fn oracle(policy: Policy, inits: &[(Kind, Look)], mains: &[Look], stage: Stage) -> &'static str {
    let made = mains.iter().any(|m| m.there() && !matches!(m, Unknown | UnknownRan));
    let began = mains.iter().any(|m| m.there());
    let waits = |l: Look| l.code().is_none() && !matches!(l, Starting | Running);
    let (mut init_pending, mut sidecar_pending, mut any_waits, mut any_runs) = (false, false, false, false);
    for &(kind, look) in inits {
        match kind {
            // No record of it and main containers: it must have succeeded.
            Kind::Init if !look.there() && made => {}
            Kind::Init => match look.code() {
                Some(code) if code != 0 && !policy.again(code) => return "Failed",
                Some(_) => {}
                Option::None => init_pending = true,
            },
            Kind::Sidecar => {
                any_runs |= matches!(look, Starting | Running);
                any_waits |= waits(look);
                sidecar_pending |= waits(look) || look == Starting;
            }
        }
    }
    any_waits |= mains.iter().any(|m| waits(*m));
    any_runs |= mains.iter().any(|m| matches!(m, Starting | Running));
    let over = stage == Stage::Over;
    if init_pending || (sidecar_pending && !began) || any_waits {
        return if over { "Failed" } else { "Pending" };
    }
    if any_runs || (!over && mains.iter().any(|m| m.code().is_some_and(|code| policy.again(code)))) {
        return "Running";
    }
    // One that will be started again has not succeeded, nor has one that nobody knows of.
    let well = |m: &Look| m.code() == Some(0);
    if mains.iter().all(well) { "Succeeded" } else { "Failed" }
}

/// Records and an earlier status that tell what happened.
fn apply(w: &mut World, name: &str, look: Look, init: bool) {
    match look {
        None | Gone => {}
        Created => w.add(name, 0, State::Created, 0),
        Starting | Running => w.add(name, 0, State::Running, 0),
        Ok => w.add(name, 0, exited(0), 0),
        Failed => w.add(name, 0, exited(1), 0),
        LoopOk => w.add(name, 1, exited(0), 40),
        LoopFailed => w.add(name, 1, exited(1), 40),
        Unknown | UnknownRan => w.add(name, 0, State::Unknown, 0),
    }
    if matches!(look, Starting | Running) {
        let v = Verdict { container_id: format!("{name}-0"), startup: Some(look == Running), ..Default::default() };
        w.verdicts.0.insert(name.into(), v);
    }
    if matches!(look, UnknownRan | Gone) {
        let running = api::ContainerStateRunning::default();
        let state = api::ContainerState { running: Some(running), ..Default::default() };
        let old = api::ContainerStatus { name: name.into(), state: Some(state), ..Default::default() };
        let list = if init { &mut w.prev.init_container_statuses } else { &mut w.prev.container_statuses };
        list.get_or_insert_default().push(old);
    }
}

/// All pods with these containers.
struct Table {
    desired: Desired,
    policy: Policy,
    kinds: Vec<Kind>,
    seen: usize,
}

impl Table {
    fn new(policy: Policy, kinds: &[Kind], mains: usize) -> Table {
        let probe = json!({"exec": {"command": ["x"]}});
        let inits: Vec<Value> = kinds
            .iter()
            .enumerate()
            .map(|(n, kind)| match kind {
                Kind::Init => json!({"name": format!("i{n}"), "image": "i"}),
                Kind::Sidecar => {
                    json!({"name": format!("i{n}"), "image": "i", "restartPolicy": "Always", "startupProbe": probe})
                }
            })
            .collect();
        let containers: Vec<Value> =
            (0..mains).map(|n| json!({"name": format!("m{n}"), "image": "i", "startupProbe": probe})).collect();
        let spec = json!({"restartPolicy": format!("{policy:?}"), "initContainers": inits, "containers": containers});
        Table { desired: Desired::of(&pod(spec)), policy, kinds: kinds.to_vec(), seen: 0 }
    }

    fn world(&self, inits: &[Look], mains: &[Look], stage: Stage) -> World {
        let mut w = World::empty(self.desired.clone());
        inits.iter().enumerate().for_each(|(n, look)| apply(&mut w, &format!("i{n}"), *look, true));
        mains.iter().enumerate().for_each(|(n, look)| apply(&mut w, &format!("m{n}"), *look, false));
        match stage {
            Stage::Active => {}
            Stage::Deleted => {
                w.desired.deletion = Some(crate::pod::desired::Deletion { grace: Duration::from_secs(30) });
                w.lifecycle = Lifecycle::Terminating { deadline: t(130), why: Why::Deleted };
            }
            Stage::Over => w.lifecycle = Lifecycle::Terminated { why: Why::Completed },
        }
        w
    }

    fn check(&mut self, inits: &[Look], mains: &[Look], prev: Option<&'static str>) {
        let pairs: Vec<(Kind, Look)> = self.kinds.iter().copied().zip(inits.iter().copied()).collect();
        // A plain init container has no startup probe.
        if pairs.contains(&(Kind::Init, Starting)) {
            return;
        }
        for stage in [Stage::Active, Stage::Deleted, Stage::Over] {
            if stage == Stage::Over && inits.iter().chain(mains).any(|l| l.live()) {
                continue;
            }
            let mut w = self.world(inits, mains, stage);
            w.prev.phase = prev.map(str::to_owned);
            let expected = told(oracle(self.policy, &pairs, mains, stage), prev, stage);
            let first = w.next();
            let case = || format!("{:?} {pairs:?} {mains:?} {stage:?} {prev:?}", self.policy);
            assert_eq!(first.phase.as_deref(), Some(expected), "{}", case());
            if stage == Stage::Over {
                // What was closed at the end does not change it either.
                assert_eq!(w.status().phase, first.phase, "once more: {}", case());
            }
            self.seen += 1;
        }
    }

    /// All looks of all containers.
    fn run(&mut self, looks: &[Look], mains: usize, prev: Option<&'static str>) {
        let n = self.kinds.len() + mains;
        let mut at = vec![0; n];
        loop {
            let all: Vec<Look> = at.iter().map(|i| looks[*i]).collect();
            let (inits, mains) = all.split_at(self.kinds.len());
            self.check(inits, mains, prev);
            let Some(place) = (0..n).find(|p| at[*p] + 1 < looks.len()) else { return };
            at[place] += 1;
            at[..place].fill(0);
        }
    }
}

const INITS: [&[Kind]; 7] = [
    &[],
    &[Kind::Init],
    &[Kind::Sidecar],
    &[Kind::Init, Kind::Init],
    &[Kind::Init, Kind::Sidecar],
    &[Kind::Sidecar, Kind::Init],
    &[Kind::Sidecar, Kind::Sidecar],
];

#[test]
fn every_phase() {
    let mut seen = 0;
    for policy in Policy::ALL {
        for kinds in INITS {
            for mains in [1, 2] {
                let looks: &[Look] = if kinds.len() + mains > 3 { &FEW } else { &ALL };
                let mut table = Table::new(policy, kinds, mains);
                table.run(looks, mains, Option::None);
                seen += table.seen;
            }
        }
    }
    assert!(seen > 50_000, "only {seen} pods");
}

#[test]
fn a_phase_before_counts_only_if_it_was_terminal() {
    for policy in Policy::ALL {
        for kinds in [&[][..], &[Kind::Init], &[Kind::Sidecar]] {
            for prev in ["Pending", "Running", "Unknown", "Succeeded", "Failed"] {
                Table::new(policy, kinds, 1).run(&ALL, 1, Some(prev));
            }
        }
    }
}
