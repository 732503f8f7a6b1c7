//! What is reported along the model's way: the status and the plan tell one story, and a restart of the agent changes none of it.

use super::model::Model;
use super::*;
use crate::pod::status::{Inputs, NodeFacts, status};
use k8s_openapi::api::core::v1 as api;

fn over(status: &api::PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The lines that differ.
fn difference(a: &api::PodStatus, b: &api::PodStatus) -> String {
    let lines = |s| serde_json::to_string_pretty(s).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let (a, b) = (lines(a), lines(b));
    let only = |x: &[String], y: &[String]| x.iter().filter(|l| !y.contains(l)).cloned().collect::<Vec<_>>().join("\n");
    format!("<<<\n{}\n>>>\n{}\n", only(&a, &b), only(&b, &a))
}

fn counts(status: &api::PodStatus) -> impl Iterator<Item = (&str, i32)> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.map(|c| (c.name.as_str(), c.restart_count))
}

impl Model {
    fn status(&self, lifecycle: &Lifecycle) -> api::PodStatus {
        let node = NodeFacts { ips: vec!["192.0.2.1".parse().unwrap()], runtime: "containerd".into() };
        status(&Inputs {
            desired: &self.desired,
            lifecycle,
            observed: &self.observed,
            verdicts: &self.verdicts,
            backoffs: &self.backoffs,
            prev: &self.reported,
            node: &node,
            now: self.now,
        })
    }

    /// Reports, as the actor does after each plan.
    pub fn report(&mut self) -> Result<(), TestCaseError> {
        self.lifecycle = self.plan().lifecycle;
        let s = self.status(&self.lifecycle);
        if over(&self.reported) {
            prop_assert_eq!(&s.phase, &self.reported.phase, "a terminal phase was left");
        }
        for (name, count) in counts(&s) {
            let before = counts(&self.reported).find(|(n, _)| *n == name).map_or(0, |(_, c)| c);
            prop_assert!(count >= before, "the restart count of {} fell from {} to {}: {}", name, before, count, self.brief());
        }
        if over(&s) && !over(&self.reported) {
            // What it holds may be given away then.
            prop_assert!(self.lifecycle.rank() >= 2, "over, and not ended: {:?} {}", s.phase, self.brief());
            let runs = self.observed.live().next().is_some() || self.observed.sandboxes.iter().any(|s| s.ready);
            prop_assert!(!runs, "over while it runs: {}", self.brief());
        }
        if self.lifecycle.rank() >= 2 {
            prop_assert!(over(&s), "nothing runs any more, and the phase is {:?}", s.phase);
        }
        // What became of a container whose record was removed is told in two steps; then it stays said.
        self.reported = s;
        self.reported = self.status(&self.lifecycle);
        let again = self.status(&self.lifecycle);
        let differs = || difference(&self.reported, &again);
        prop_assert!(again == self.reported, "the second look differs: {} {}", differs(), self.brief());
        if self.draw(3) > 0 {
            let mut pod = api::Pod::clone(&self.desired.pod);
            pod.status = Some(self.reported.clone());
            self.read(pod);
            self.restarted()?;
        }
        Ok(())
    }

    fn brief(&self) -> String {
        format!(
            "{:?} {:?} {:#?} {:?} {:?}",
            self.desired.restart, self.lifecycle, self.observed, self.verdicts, self.backoffs.failures
        )
    }

    /// A new agent, which has what the runtime lists and what the API took, reports the same, but for what it cannot know.
    fn restarted(&self) -> Result<(), TestCaseError> {
        if self.unknown_to_others() {
            return Ok(());
        }
        let mut new = self.clone();
        new.restart();
        let lifecycle = new.plan().lifecycle;
        let mut after = new.status(&lifecycle);
        let mut before = self.reported.clone();
        // Whether its image was made sure of is not known yet, so not what else it waits for.
        for s in [&mut after, &mut before] {
            for c in s.ephemeral_container_statuses.iter_mut().flatten() {
                if let Some(w) = c.state.as_mut().and_then(|s| s.waiting.as_mut()) {
                    (w.reason, w.message) = (None, None);
                }
            }
        }
        let differs = || difference(&before, &after);
        prop_assert!(after == before, "a new agent reports something else: {} {}", differs(), self.brief());
        Ok(())
    }
}

/// What only this agent knows.
impl Model {
    fn unknown_to_others(&self) -> bool {
        let ended = |id: &String| self.observed.containers.iter().any(|c| c.id == *id && !c.live());
        let unhealthy = |c: &Container| self.verdicts.of(c).is_some_and(|v| v.liveness == Some(false)) && !c.live();
        let why = self.lifecycle.why().filter(|_| !over(&self.reported));
        let deadline = self.desired.active_deadline.zip(self.desired.started);
        // Why an attempt failed.
        !self.backoffs.failures.is_empty()
            // Whom it was about to replace.
            || self.observed.local.replaced.iter().any(ended)
            || self.observed.containers.iter().any(unhealthy)
            // That it had failed the pod before that was deleted.
            || (matches!(why, Some(Why::Failed { .. })) && self.desired.deletion.is_some())
            // That all was over before the deadline passed, and before the runtime changed its mind about a container.
            || (matches!(why, Some(Why::Completed))
                && (self.taken_back || deadline.is_some_and(|(limit, started)| after(started, limit) <= self.now)))
    }
}

/// Nothing fails; the agent is restarted once, after any number of steps. It ends as without, and nothing was started twice.
#[test]
fn a_restart_at_any_step_changes_nothing() {
    for policy in ["Always", "OnFailure", "Never"] {
        for sidecars in [vec![], vec![false], vec![true, false], vec![false, true, false]] {
            let shape = Shape { sidecars, mains: 2, ephemeral: vec![true], policy, all: 0, deadline: None };
            let mut plain = Model::new(&shape, 7);
            plain.calm().unwrap();
            let made = |m: &Model| {
                let mut names: Vec<(String, u32)> = m.observed.containers.iter().map(|c| (c.name.clone(), c.attempt)).collect();
                names.sort();
                (names, m.observed.sandboxes.len())
            };
            for before in 0..25 {
                let mut m = Model::new(&shape, 7);
                m.calm_for(before).unwrap();
                m.restart();
                m.calm().unwrap();
                assert!(m.at_rest() && m.no_twins(), "{before} {m:#?}");
                assert_eq!(made(&m), made(&plain), "after {before} steps of {shape:?}");
                assert!(counts(&m.reported).all(|(_, count)| count == 0), "{:#?}", m.reported);
            }
        }
    }
}
