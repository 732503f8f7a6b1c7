//! The decision: what to do next for one pod.
//!
//! `plan` is a pure function of whole snapshots; it is called after everything that may matter and may be called at any
//! time. It returns all actions that should be under way now: the actor starts those that are not, and cancels those
//! that are no longer wanted. Nothing here may read a clock, do I/O or remember anything.

mod action;
mod ending;

pub use action::{Action, Key, StopWhy};

use crate::pod::again::runs_again;
use crate::pod::backoff::{self, Backoffs, Subject};
use crate::pod::desired::{Container as Spec, Desired, RestartPolicy, Role};
use crate::pod::ephemeral;
use crate::pod::lifecycle::{DEADLINE_EXCEEDED, Lifecycle, Why};
use crate::pod::observed::{Container, Observed, State, UNKNOWN_CODE, Verdicts};
use crate::pod::resize;
use crate::pod::round::Round;
use crate::pod::{Time, after, elapsed};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub lifecycle: Lifecycle,
    pub actions: Vec<Action>,
    /// Plan again then at the latest, even if nothing happens.
    pub wake_at: Option<Time>,
}

pub fn plan(d: &Desired, life: &Lifecycle, o: &Observed, v: &Verdicts, b: &Backoffs, now: Time) -> Step {
    let mut p = Planner { d, o, v, b, now, round: Round::of(d, o), actions: Vec::new(), wake: None, held: false };
    let mut life = p.advance(life.clone());
    loop {
        let next = match &life {
            Lifecycle::Active => p.active().map(|why| life.clone().terminate(now, d.grace, why)),
            Lifecycle::Terminating { deadline, why } => p.stop_all(*deadline).then(|| Lifecycle::Terminated { why: why.clone() }),
            Lifecycle::Terminated { why } => p.take_down().then(|| Lifecycle::Finished { why: why.clone() }),
            Lifecycle::Finished { .. } => None,
        };
        match next {
            // What was planned for the old stage is void: it may have included starts.
            Some(next) => {
                p.actions.clear();
                p.wake = None;
                life = next;
            }
            None => return Step { lifecycle: life, actions: p.actions, wake_at: p.wake },
        }
    }
}

struct Planner<'a> {
    d: &'a Desired,
    o: &'a Observed,
    v: &'a Verdicts,
    b: &'a Backoffs,
    now: Time,
    round: Round,
    actions: Vec<Action>,
    wake: Option<Time>,
    /// A container before this one is about to start, and only its image is not there yet.
    held: bool,
}

impl Planner<'_> {
    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    /// Adds an action unless its last failure says to wait.
    fn act(&mut self, action: Action) {
        match self.b.blocked(&action.subject(), self.now) {
            Some(until) => self.wake_at(until),
            None => self.actions.push(action),
        }
    }

    /// Reasons from outside to end.
    fn advance(&mut self, life: Lifecycle) -> Lifecycle {
        if let Some(deletion) = self.d.deletion {
            return life.terminate(self.now, deletion.grace, Why::Deleted);
        }
        if !life.active() {
            return life;
        }
        if self.d.terminal {
            return life.terminate(self.now, self.d.grace, Why::Completed);
        }
        if let Some(ended) = &self.d.ended {
            let why = Why::Failed { reason: ended.reason.clone(), message: ended.message.clone() };
            return life.terminate(self.now, self.d.grace, why);
        }
        if let (Some(limit), Some(started)) = (self.d.active_deadline, self.d.started)
            && elapsed(started, self.now) >= limit
        {
            let why = Why::Failed {
                reason: DEADLINE_EXCEEDED.into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
            };
            return life.terminate(self.now, self.d.grace, why);
        }
        life
    }

    /// A pod that should run. `Some`: it should not any more.
    fn active(&mut self) -> Option<Why> {
        if let (Some(limit), Some(started)) = (self.d.active_deadline, self.d.started) {
            self.wake_at(after(started, limit));
        }
        if !self.d.unsupported.is_empty() || self.o.stale {
            return None;
        }
        if self.end_round() {
            return None;
        }
        if self.d.main().count() > 0 && self.d.main().all(|c| self.succeeded(c)) {
            return Some(Why::Completed);
        }
        match self.o.usable_sandbox(self.d.host_network).map(|s| s.id.clone()) {
            Some(sandbox) => self.in_sandbox(&sandbox),
            None => self.new_sandbox(),
        }
    }

    /// Ends what is left of the round before, the main containers first, without hooks and with the least grace. True while nothing
    /// of the next one may start.
    fn end_round(&mut self) -> bool {
        let (d, o, round) = (self.d, self.o, self.round);
        let main_left = round.left(d, o).any(|(c, _)| c.role == Role::Main);
        let mut left = false;
        for (_, n) in round.left(d, o).filter(|(c, _)| !main_left || c.role == Role::Main) {
            left = true;
            self.stop(n, self.now, StopWhy::Together, true);
        }
        match round.waits(d, o, self.now) {
            Some(at) if !left => {
                self.wake_at(at);
                true
            }
            _ => left,
        }
    }

    /// Ended well for good, in whichever sandbox that was.
    fn succeeded(&self, c: &Spec) -> bool {
        let ended = |n: &Container| n.exit_code() == Some(0) && !runs_again(c, n, self.o, self.v);
        let newest = self.o.newest(&c.name).filter(|n| self.round.has(n));
        c.restart == RestartPolicy::OnFailure && newest.is_some_and(ended)
    }

    /// There is no sandbox to work in: end what is left of the last one, then make another.
    fn new_sandbox(&mut self) -> Option<Why> {
        let attempt = self.o.newest_sandbox().map_or(0, |s| s.attempt + 1);
        let round = self.round;
        let ever_ran = self.o.containers.iter().any(|n| round.has(n));
        if attempt > 0 && self.d.restart == RestartPolicy::Never && ever_ran {
            return Some(Why::Completed);
        }
        let deadline = after(self.now, self.d.grace);
        let live: Vec<&Container> = self.o.live().collect();
        for c in &live {
            self.stop(c, deadline, StopWhy::SandboxGone, true);
        }
        let ready: Vec<String> = self.o.sandboxes.iter().filter(|s| s.ready).map(|s| s.id.clone()).collect();
        if live.is_empty() {
            for id in &ready {
                self.act(Action::StopSandbox { id: id.clone() });
            }
        }
        if !live.is_empty() || !ready.is_empty() || !self.o.local.gate_open {
            return None;
        }
        // Side by side: the sandbox, the volumes, and the images of what starts first.
        self.act(Action::RunSandbox { attempt });
        self.volumes();
        let first: Vec<&Spec> = match self.d.inits().next() {
            Some(init) => vec![init],
            None => self.d.main().filter(|c| !self.succeeded(c)).collect(),
        };
        for c in first {
            self.image(c, self.next_attempt(c));
        }
        self.prune();
        None
    }

    fn in_sandbox(&mut self, sandbox: &str) -> Option<Why> {
        self.volumes();
        self.end_strays(sandbox);
        self.resize();
        let initialized = self.d.main().any(|c| self.newest_in(&c.name, sandbox).is_some());
        let d = self.d;
        for c in d.ephemeral() {
            self.ephemeral(c, sandbox);
        }
        // That a later one was made says that the earlier ones were done, whether or not the runtime still knows of them.
        let made = |c: &Spec| self.newest_in(&c.name, sandbox).is_some();
        let reached = if initialized { usize::MAX } else { last_index(d.inits(), made).unwrap_or(0) };
        for (at, c) in d.inits().enumerate() {
            let passed = at < reached;
            if c.role == Role::Init && passed {
                continue;
            }
            match self.container(c, sandbox) {
                Progress::Failed => return Some(Why::Completed),
                Progress::Done | Progress::Up => {}
                // A sidecar that is down once its successors have begun is only restarted; before, everything waits for it.
                Progress::Coming if passed => {}
                Progress::Coming => {
                    self.prune();
                    return None;
                }
            }
        }
        let mut all_over = d.main().count() > 0;
        for c in d.main() {
            match self.container(c, sandbox) {
                Progress::Done | Progress::Failed => {}
                Progress::Up | Progress::Coming => all_over = false,
            }
        }
        if all_over {
            return Some(Why::Completed);
        }
        self.prune();
        None
    }

    /// One that runs beside the others: started once, whatever they do, and left alone from then on.
    fn ephemeral(&mut self, c: &Spec, sandbox: &str) {
        let o = self.o;
        let created = match o.newest(&c.name) {
            Some(n) if n.state == State::Created && n.sandbox_id == sandbox => Some(n.id.clone()),
            Some(_) => return,
            None if c.ephemeral.as_ref().is_some_and(|e| e.ran || !e.refused.is_empty()) => return,
            None => None,
        };
        if !o.local.volumes_ready || (created.is_none() && !self.image(c, 0)) {
            return;
        }
        let (name, sandbox_id) = (c.name.clone(), sandbox.to_owned());
        match ephemeral::target(self.d, c, o, sandbox) {
            Ok(target) => self.act(Action::StartEphemeral { name, sandbox_id, target, created }),
            // It has its place already, whatever became of its target.
            Err(_) if created.is_some() => self.act(Action::StartEphemeral { name, sandbox_id, target: None, created }),
            // Whatever changes that is seen.
            Err(_) => {}
        }
    }

    /// Live containers of other sandboxes, and second live instances.
    fn end_strays(&mut self, sandbox: &str) {
        let o = self.o;
        for c in o.live() {
            let newest = o.newest_in(&c.name, sandbox).is_some_and(|n| n.id == c.id);
            if !newest {
                let why = if c.sandbox_id == sandbox { StopWhy::Duplicate } else { StopWhy::SandboxGone };
                self.stop(c, after(self.now, self.d.grace), why, true);
            }
        }
    }

    /// The last instance in the sandbox that is of this round.
    fn newest_in<'a>(&'a self, name: &'a str, sandbox: &str) -> Option<&'a Container> {
        self.o.newest_in(name, sandbox).filter(|n| self.round.has(n))
    }

    /// One container in its sandbox: what it needs now, and how far it is.
    fn container(&mut self, c: &Spec, sandbox: &str) -> Progress {
        let o = self.o;
        let round = self.round;
        let Some(n) = o.newest_in(&c.name, sandbox).filter(|n| round.has(n)) else {
            // A main container that already succeeded in an earlier sandbox stays done.
            if c.role == Role::Main && self.succeeded(c) {
                return Progress::Done;
            }
            self.start(c, sandbox);
            return Progress::Coming;
        };
        match &n.state {
            State::Created if self.b.failures.contains_key(&Subject::Start(c.name.clone())) => {
                // Its start failed; a fresh one takes its place, with the same count: it never ran.
                self.act(Action::RemoveContainer { name: c.name.clone(), id: n.id.clone() });
                Progress::Coming
            }
            State::Created => {
                if o.local.volumes_ready && !self.starting() && !self.held {
                    self.act(Action::StartCreated { name: c.name.clone(), id: n.id.clone() });
                }
                Progress::Coming
            }
            State::Running => self.running(c, n),
            State::Exited { code, .. } => {
                if runs_again(c, n, o, self.v) {
                    self.start(c, sandbox);
                    Progress::Coming
                } else if *code == 0 {
                    Progress::Done
                } else {
                    Progress::Failed
                }
            }
            State::Unknown => {
                // It is reported as having failed: where that is no reason to run again it is known only once it has ended.
                let restarts = c.restarts(UNKNOWN_CODE);
                self.stop(n, after(self.now, self.d.grace), StopWhy::Unknown, restarts);
                Progress::Coming
            }
        }
    }

    /// What was granted, once those that are to be restarted for it have ended. Until it was tried nothing starts: a container would
    /// find the pod's old limits.
    fn resize(&mut self) {
        if !resize::due(self.d, self.o) {
            return;
        }
        self.held |= !self.b.failures.contains_key(&Subject::Resize);
        if !resize::running(self.d, self.o).any(|(c, n)| resize::restarts(c, n, self.o)) {
            self.act(Action::Resize);
        }
    }

    fn running(&mut self, c: &Spec, n: &Container) -> Progress {
        // An init container runs as it is, and again only if it fails.
        let changed = c.role != Role::Init && n.hash.as_ref().is_some_and(|h| *h != c.hash);
        let verdict = self.v.of(n);
        let failed = |answer: Option<bool>| answer == Some(false);
        let (why, grace) = if changed {
            (StopWhy::Changed, None)
        } else if verdict.is_some_and(|v| failed(v.liveness)) {
            (StopWhy::Liveness, c.liveness_grace)
        } else if verdict.is_some_and(|v| failed(v.startup)) {
            (StopWhy::Startup, c.startup_grace)
        } else if resize::restarts(c, n, self.o) {
            (StopWhy::Resized, None)
        } else {
            let started = !c.has_startup_probe || verdict.is_some_and(|v| v.startup == Some(true));
            // Only a sidecar holds up its successors until it has started; a plain init container until it has ended.
            let up = c.role == Role::Main || (c.role == Role::Sidecar && started);
            return if up { Progress::Up } else { Progress::Coming };
        };
        let restarts = changed || why == StopWhy::Resized || c.restart != RestartPolicy::Never;
        self.stop(n, after(self.now, grace.unwrap_or(self.d.grace)), why, restarts);
        Progress::Coming
    }

    fn next_attempt(&self, c: &Spec) -> u32 {
        self.o.newest(&c.name).map_or_else(|| c.first_attempt, |n| n.attempt + 1)
    }

    /// Whether a start is planned already: containers start one after the other.
    fn starting(&self) -> bool {
        self.actions.iter().any(|a| a.key() == Key::Start)
    }

    fn start(&mut self, c: &Spec, sandbox: &str) {
        // Whatever the reason for starting, never beside a live one.
        if self.o.instances(&c.name).any(Container::live) {
            return;
        }
        let last = self.o.newest(&c.name);
        let mut next = Duration::ZERO;
        if let Some(last) = last.filter(|n| !self.round.has(n)) {
            // A new round waits for no crash loop, but does not make one forgotten.
            next = last.backoff;
        } else if let Some(last) = last {
            let changed = last.hash.as_ref().is_some_and(|h| *h != c.hash) || resize::brings_back(c, last, self.o);
            let restart = backoff::restart(last, changed, self.b, self.now);
            if restart.at > self.now {
                return self.wake_at(restart.at);
            }
            next = restart.next;
        }
        let attempt = self.next_attempt(c);
        if let Some(until) = self.b.blocked(&Subject::Start(c.name.clone()), self.now) {
            return self.wake_at(until);
        }
        if !self.image(c, attempt) {
            // An image that cannot be had holds up nobody else.
            self.held |= !self.b.failures.contains_key(&Subject::Image(c.name.clone()));
            return;
        }
        if !self.o.local.volumes_ready || self.starting() || self.held {
            return;
        }
        let (name, sandbox_id) = (c.name.clone(), sandbox.to_owned());
        self.act(Action::StartContainer { name, sandbox_id, attempt, backoff: next, round: self.round.number() });
    }

    /// True if the image is there for this attempt; otherwise sees to it.
    fn image(&mut self, c: &Spec, attempt: u32) -> bool {
        if self.o.local.images.get(&c.name).is_some_and(|a| *a >= attempt) {
            return true;
        }
        let failure = self.b.failures.get(&Subject::Image(c.name.clone()));
        if let Some(at) = failure.and_then(backoff::failed_at).map(|at| after(at, backoff::FIRST_SHOWN))
            && at > self.now
        {
            // The waiting reason changes then.
            self.wake_at(at);
        }
        self.act(Action::PullImage { container: c.name.clone(), attempt });
        false
    }

    fn volumes(&mut self) {
        let due = self.o.local.renew_at.is_some_and(|at| at <= self.now);
        if !self.o.local.volumes_ready || due {
            return self.act(Action::PrepareVolumes);
        }
        if let Some(at) = self.o.local.renew_at {
            self.wake_at(at);
        }
    }

    fn stop(&mut self, c: &Container, deadline: Time, why: StopWhy, restarts: bool) {
        let (name, id) = (c.name.clone(), c.id.clone());
        self.act(Action::StopContainer { name, id, deadline, why, restarts, follows: Vec::new() });
    }

    /// Keeps the last ended instance of each container for its logs and last state, and drops older ones and the
    /// sandboxes that nothing belongs to.
    fn prune(&mut self) {
        let o = self.o;
        for c in &o.containers {
            let newer = |n: &Container| (n.attempt, n.created_at, n.id.as_str()) > (c.attempt, c.created_at, c.id.as_str());
            if !c.live() && o.instances(&c.name).any(|n| !n.live() && newer(n)) {
                self.act(Action::RemoveContainer { name: c.name.clone(), id: c.id.clone() });
            }
        }
        let newest = o.newest_sandbox().map(|s| s.id.as_str());
        for s in o.sandboxes.iter().filter(|s| !s.ready && Some(s.id.as_str()) != newest) {
            if !o.containers.iter().any(|c| c.sandbox_id == s.id) {
                self.act(Action::RemoveSandbox { id: s.id.clone() });
            }
        }
    }
}

fn last_index<T>(all: impl Iterator<Item = T>, mut is: impl FnMut(T) -> bool) -> Option<usize> {
    all.enumerate().filter_map(|(at, one)| is(one).then_some(at)).last()
}

/// How far a container is.
enum Progress {
    /// Running, and for a sidecar started.
    Up,
    /// Not there yet.
    Coming,
    /// Ended well and stays so.
    Done,
    /// Ended badly and stays so.
    Failed,
}

#[cfg(test)]
mod tests;
