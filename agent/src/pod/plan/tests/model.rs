//! A runtime as a value, and an agent around the plan that may fail and restart.

use super::*;
use crate::pod::observed::{Local, Sandbox, Verdict};
use crate::pod::testing::{desired, instance};
use k8s_openapi::api::core::v1 as api;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Shape {
    /// One entry an init container; true for a sidecar.
    pub sidecars: Vec<bool>,
    pub mains: usize,
    /// One entry an ephemeral container; true for one that is to see the first main container's processes.
    pub ephemeral: Vec<bool>,
    pub policy: &'static str,
    /// Bit by bit, init containers first: those with a rule that has all containers restart on exit code 2.
    pub all: u8,
    /// `activeDeadlineSeconds`.
    pub deadline: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub desired: Desired,
    pub lifecycle: Lifecycle,
    pub observed: Observed,
    pub verdicts: Verdicts,
    pub backoffs: Backoffs,
    /// What was reported last, and what the API has of it.
    pub reported: api::PodStatus,
    pub now: Time,
    /// Ephemeral containers that were made, whether or not they are still there.
    made: BTreeSet<String>,
    ids: u32,
    random: u64,
    quiet: bool,
    /// The runtime told the end of a container once the pod was ending, and then that it does not know.
    pub taken_back: bool,
}

impl Model {
    pub fn new(shape: &Shape, seed: u64) -> Model {
        let container = |name: String, number: usize| {
            let mut c = json!({"name": name, "image": "img:1", "livenessProbe": {"exec": {"command": ["x"]}}});
            if shape.all >> number & 1 == 1 {
                c["restartPolicy"] = json!(shape.policy);
                c["restartPolicyRules"] =
                    json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [2]}}]);
            }
            c
        };
        let inits: Vec<_> = shape
            .sidecars
            .iter()
            .enumerate()
            .map(|(i, sidecar)| {
                let mut c = container(format!("i{i}"), i);
                if *sidecar {
                    c["restartPolicy"] = json!("Always");
                } else if c["restartPolicy"] == "Always" {
                    c["restartPolicy"] = json!("OnFailure");
                }
                c
            })
            .collect();
        let mains: Vec<_> = (0..shape.mains).map(|i| container(format!("m{i}"), shape.sidecars.len() + i)).collect();
        let looks = |(i, aimed): (usize, &bool)| {
            let target = if *aimed { "m0" } else { "" };
            json!({"name": format!("e{i}"), "image": "img:1", "targetContainerName": target})
        };
        let ephemeral: Vec<_> = shape.ephemeral.iter().enumerate().map(looks).collect();
        Model {
            desired: desired(json!({"restartPolicy": shape.policy, "initContainers": inits, "containers": mains,
                "ephemeralContainers": ephemeral, "activeDeadlineSeconds": shape.deadline})),
            lifecycle: Lifecycle::Active,
            observed: Observed { local: Local { gate_open: true, ..Default::default() }, ..Default::default() },
            verdicts: Verdicts::default(),
            backoffs: Backoffs::default(),
            reported: api::PodStatus::default(),
            now: Time::from_second(1_000_000).unwrap(),
            made: BTreeSet::new(),
            ids: 0,
            random: seed | 1,
            quiet: false,
            taken_back: false,
        }
    }

    /// Below `n`.
    pub fn draw(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % n
    }

    fn fails(&mut self) -> bool {
        !self.quiet && self.draw(5) == 0
    }

    pub fn delete(&mut self, grace: u64) {
        self.desired.deletion = Some(crate::pod::desired::Deletion { grace: Duration::from_secs(grace) });
    }

    pub fn plan(&self) -> Step {
        plan(&self.desired, &self.lifecycle, &self.observed, &self.verdicts, &self.backoffs, self.now)
    }

    /// Something bad, or just time.
    pub fn chaos(&mut self) {
        match self.draw(14) {
            0 | 1 => {
                let code = i32::try_from(self.draw(3)).unwrap();
                self.exit_one(code);
            }
            2 => self.lose_sandbox(),
            3 => self.restart(),
            4 => self.fail_liveness(),
            6 if !self.observed.containers.is_empty() => {
                // The runtime was wrong about one that it said had ended, or a cancelled call came through late.
                let at = self.draw(self.observed.containers.len() as u64) as usize;
                self.taken_back |= !self.lifecycle.active();
                self.observed.containers[at].state = State::Unknown;
            }
            5 => {
                let live: Vec<usize> = self.live();
                if !live.is_empty() {
                    let at = live[self.draw(live.len() as u64) as usize];
                    self.observed.containers[at].state = State::Unknown;
                }
            }
            7 => self.change_image(),
            8 if !self.observed.containers.is_empty() => {
                // Somebody removed one that waits for its restart, behind the agent's back.
                let at = self.draw(self.observed.containers.len() as u64) as usize;
                let c = &self.observed.containers[at];
                let spec = self.desired.container(&c.name).filter(|s| s.role != Role::Ephemeral);
                if spec.zip(c.exit_code()).is_some_and(|(spec, code)| spec.restarts(code)) {
                    self.observed.containers.remove(at);
                }
            }
            _ => self.now = after(self.now, Duration::from_secs(self.draw(40))),
        }
    }

    /// The agent is killed and starts again: only what the runtime and the API hold is left.
    pub fn restart(&mut self) {
        self.lifecycle = Lifecycle::Active;
        self.backoffs = Backoffs::default();
        self.observed.local = Local { gate_open: true, ..Default::default() };
        self.verdicts = Verdicts::default();
        self.reported = self.desired.pod.status.clone().unwrap_or_default();
        self.read(api::Pod::clone(&self.desired.pod));
    }

    fn change_image(&mut self) {
        let mut pod = api::Pod::clone(&self.desired.pod);
        let spec = pod.spec.as_mut().unwrap();
        let at = self.draw(spec.containers.len() as u64) as usize;
        spec.containers[at].image = Some(format!("img:{}", self.draw(3)));
        self.read(pod);
    }

    /// As the actor reads a new object.
    pub fn read(&mut self, pod: api::Pod) {
        let mut next = Desired::of(&Arc::new(pod));
        next.started = self.reported.start_time.as_ref().map(|t| t.0);
        next.deletion = self.desired.deletion;
        self.desired = next;
    }

    fn live(&self) -> Vec<usize> {
        (0..self.observed.containers.len()).filter(|i| self.observed.containers[*i].live()).collect()
    }

    fn exit_one(&mut self, code: i32) {
        let live = self.live();
        if !live.is_empty() {
            let at = live[self.draw(live.len() as u64) as usize];
            self.exit(at, code);
        }
    }

    fn exit(&mut self, at: usize, code: i32) {
        let finished_at = self.now;
        self.observed.containers[at].state = State::Exited { code, finished_at, reason: "Error".into(), message: String::new() };
    }

    fn lose_sandbox(&mut self) {
        let Some(id) = self.observed.newest_sandbox().map(|s| s.id.clone()) else { return };
        self.observed.sandboxes.iter_mut().filter(|s| s.id == id).for_each(|s| s.ready = false);
        for at in self.live() {
            // Now and then a container outlives its sandbox.
            if self.observed.containers[at].sandbox_id == id && self.draw(4) > 0 {
                self.exit(at, 137);
            }
        }
    }

    fn fail_liveness(&mut self) {
        let running: Vec<&Container> = self.observed.containers.iter().filter(|c| c.running()).collect();
        let Some(c) = running.first() else { return };
        let verdict = Verdict { container_id: c.id.clone(), liveness: Some(false), ..Default::default() };
        self.verdicts.0.insert(c.name.clone(), verdict);
    }

    /// Plans and carries out one random action of the plan.
    pub fn step(&mut self) -> Result<Step, TestCaseError> {
        let step = self.plan();
        prop_assert!(step.lifecycle.rank() >= self.lifecycle.rank());
        if !step.lifecycle.active() {
            prop_assert!(!step.actions.iter().any(Action::starts), "started while ending: {step:?}");
        }
        let starts = step.actions.iter().filter(|a| a.key() == Key::Start).count();
        prop_assert!(starts <= 1, "two starts at once: {step:?}");
        self.lifecycle = step.lifecycle.clone();
        if !step.actions.is_empty() {
            let at = self.draw(step.actions.len() as u64) as usize;
            self.apply(&step.actions[at])?;
        }
        self.check()?;
        self.report()?;
        Ok(step)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let ready = self.observed.sandboxes.iter().filter(|s| s.ready).count();
        prop_assert!(ready <= 1, "two ready sandboxes");
        Ok(())
    }

    fn apply(&mut self, action: &Action) -> Result<(), TestCaseError> {
        let subject = action.subject();
        if action.replaces()
            && let Action::StopContainer { id, .. } = action
        {
            self.observed.local.replaced.insert(id.clone());
        }
        // Failing before anything happened, or after it did: the agent cannot tell.
        let (before, answer) = (self.fails(), self.fails());
        if !before {
            self.effect(action)?;
        }
        if before || answer {
            self.backoffs.failed(subject, self.now, "Error", "injected");
        } else {
            self.backoffs.succeeded(&subject);
        }
        self.now = after(self.now, Duration::from_millis(10));
        Ok(())
    }

    fn effect(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::PrepareVolumes => self.observed.local.volumes_ready = true,
            Action::PullImage { container, attempt } => {
                self.observed.local.images.insert(container.clone(), *attempt);
            }
            Action::RunSandbox { attempt } => {
                prop_assert!(self.observed.sandboxes.iter().all(|s| s.attempt < *attempt), "attempt used again");
                self.ids += 1;
                self.observed.sandboxes.push(Sandbox {
                    id: format!("s{}", self.ids),
                    attempt: *attempt,
                    ready: true,
                    created_at: self.now,
                    host_network: false,
                    ips: vec!["10.0.0.1".into()],
                });
            }
            Action::StartContainer { name, sandbox_id, attempt, backoff, round } => {
                prop_assert_eq!(*round, self.round().number(), "{} started in another round", name);
                let left = self.round().left(&self.desired, &self.observed).count();
                prop_assert_eq!(left, 0, "{} started beside containers of the round before", name);
                prop_assert!(!self.made.contains(name) && !name.starts_with('e'), "{name} started like the others");
                self.check_order(name, sandbox_id)?;
                prop_assert!(!self.observed.instances(name).any(Container::live), "{name} started beside a live instance");
                let taken = self.observed.instances(name).any(|c| c.attempt >= *attempt);
                prop_assert!(!taken, "the count of {name} does not grow");
                self.make(name, sandbox_id, *attempt, (*backoff, *round));
            }
            Action::StartEphemeral { name, sandbox_id, target, created: None } => {
                prop_assert!(self.made.insert(name.clone()), "{name} made a second time");
                let id = target.as_deref();
                let aimed = self.desired.container(name).and_then(|c| c.ephemeral.as_ref()?.target.clone());
                let found = self.observed.containers.iter().find(|c| Some(c.id.as_str()) == id).filter(|c| c.running());
                prop_assert_eq!(found.map(|c| c.name.clone()), aimed, "{} does not see what it is to see", name);
                self.make(name, sandbox_id, 0, (Duration::ZERO, 0));
            }
            Action::StartEphemeral { created: Some(id), .. } => {
                let state = self.observed.containers.iter().find(|c| c.id == *id).map(|c| c.state.clone());
                prop_assert_eq!(state, Some(State::Created));
                self.each(id, |c| c.state = State::Running);
            }
            Action::StartCreated { id, .. } => self.each(id, |c| c.state = State::Running),
            // It still waits for its turn.
            Action::StopContainer { follows, deadline, .. }
                if *deadline > self.now && self.observed.live().any(|c| follows.contains(&c.id)) => {}
            Action::StopContainer { id, .. } => {
                let code = if self.draw(2) == 0 { 0 } else { 137 };
                let at = self.observed.containers.iter().position(|c| c.id == *id);
                if let Some(at) = at {
                    self.exit(at, code);
                }
            }
            Action::RemoveContainer { id, .. } => {
                // One that was made and never started may go.
                let may_run = self.observed.live().any(|c| c.id == *id && c.state != State::Created);
                prop_assert!(!may_run, "a live container removed");
                self.observed.containers.retain(|c| c.id != *id);
            }
            Action::StopSandbox { id } => {
                prop_assert!(!self.observed.live().any(|c| c.sandbox_id == *id), "a sandbox stopped under its containers");
                self.observed.sandboxes.iter_mut().filter(|s| s.id == *id).for_each(|s| s.ready = false);
            }
            Action::RemoveSandbox { id } => self.observed.sandboxes.retain(|s| s.id != *id),
            Action::RemoveVolumes => {
                prop_assert!(self.observed.live().next().is_none(), "volumes removed under a container");
                self.observed.local.volumes_removed = true;
            }
            Action::Resize => self.observed.local.resize.record.unsettled = false,
            Action::RemoveCgroup => self.observed.local.cgroup_removed = true,
            Action::RemoveFolders => self.observed.local.folders_removed = true,
        }
        Ok(())
    }

    /// In the runtime, where a start may end half-way.
    fn make(&mut self, name: &str, sandbox_id: &str, attempt: u32, (backoff, round): (Duration, u32)) {
        self.ids += 1;
        let started = self.quiet || self.draw(6) > 0;
        self.observed.containers.push(Container {
            id: format!("c{}", self.ids),
            sandbox_id: sandbox_id.to_owned(),
            attempt,
            created_at: self.now,
            started_at: Some(self.now),
            hash: self.desired.container(name).map(|c| c.hash.clone()),
            backoff,
            round,
            ..instance(name, if started { State::Running } else { State::Created })
        });
    }

    fn each(&mut self, id: &str, change: impl Fn(&mut Container)) {
        self.observed.containers.iter_mut().filter(|c| c.id == id).for_each(change);
    }

    fn round(&self) -> Round {
        Round::of(&self.desired, &self.observed)
    }

    /// The last instance there of the round that is under way.
    fn newest_in<'a>(&'a self, name: &'a str, sandbox: &str) -> Option<&'a Container> {
        self.observed.newest_in(name, sandbox).filter(|n| self.round().has(n))
    }

    /// What must have happened in this sandbox and round before `name` may start there.
    fn check_order(&self, name: &str, sandbox: &str) -> Result<(), TestCaseError> {
        let initialized = self.desired.main().any(|c| self.newest_in(&c.name, sandbox).is_some());
        if initialized {
            return Ok(());
        }
        let inits: Vec<&Spec> = self.desired.inits().collect();
        for (at, c) in self.desired.containers.iter().enumerate() {
            if c.name == name {
                break;
            }
            // That a later one was made stands for it.
            if inits.iter().skip(at + 1).any(|later| self.newest_in(&later.name, sandbox).is_some()) {
                continue;
            }
            match c.role {
                Role::Main | Role::Ephemeral => {}
                Role::Init => {
                    let code = self.newest_in(&c.name, sandbox).and_then(Container::exit_code);
                    prop_assert_eq!(code, Some(0), "{} started before {} was done", name, &c.name);
                }
                Role::Sidecar => {
                    let up = self.newest_in(&c.name, sandbox).is_some_and(Container::running);
                    prop_assert!(up, "{} started before {} was up", name, c.name);
                }
            }
        }
        Ok(())
    }

    /// Nothing fails any more and init containers succeed: plan and apply until there is nothing to do.
    pub fn calm(&mut self) -> Result<(), TestCaseError> {
        if self.calm_for(2000)? {
            return Ok(());
        }
        prop_assert!(false, "never at rest: {:#?} {self:#?}", self.plan());
        Ok(())
    }

    /// The same for so many steps at most; true once there is nothing to do.
    pub fn calm_for(&mut self, steps: usize) -> Result<bool, TestCaseError> {
        self.quiet = true;
        for _ in 0..steps {
            let step = self.step()?;
            let due: Vec<usize> = (0..self.observed.containers.len())
                .filter(|i| {
                    let c = &self.observed.containers[*i];
                    let init = self.desired.container(&c.name).is_some_and(|s| s.role == Role::Init);
                    init && c.running()
                })
                .collect();
            let idle = step.actions.is_empty() && due.is_empty();
            due.into_iter().for_each(|at| self.exit(at, 0));
            if idle {
                match step.wake_at {
                    Some(at) => self.now = at.max(self.now),
                    None => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    /// One instance of each at most.
    pub fn no_twins(&self) -> bool {
        self.desired.containers.iter().all(|c| self.observed.instances(&c.name).filter(|c| c.live()).count() <= 1)
    }

    fn is_up(&self, c: &Spec) -> bool {
        let settled = |n: &Container| n.running() || n.exit_code().is_some_and(|code| !c.restarts(code));
        self.observed.newest(&c.name).is_some_and(|n| self.round().has(n) && settled(n))
    }

    /// Whatever became of it, it was started if it could be.
    fn looked(&self, c: &Spec) -> bool {
        let aimed = c.ephemeral.as_ref().and_then(|e| e.target.as_deref());
        let blind = aimed.is_some_and(|name| !self.observed.newest(name).is_some_and(Container::running));
        let created = self.observed.newest(&c.name).is_some_and(|n| n.state == State::Created);
        (self.made.contains(&c.name) || blind) && !created
    }

    /// A pod that is wanted: all main containers run, or have ended for good.
    pub fn at_rest(&self) -> bool {
        match self.lifecycle {
            Lifecycle::Active => self.desired.main().all(|c| self.is_up(c)) && self.desired.ephemeral().all(|c| self.looked(c)),
            Lifecycle::Terminated { .. } => self.observed.live().next().is_none(),
            _ => false,
        }
    }
}
