//! The one owner of all probe machines: a task that starts checks when they are due and publishes verdicts.
//!
//! Each check runs in a task of its own, at most so many at once, and is given up after its timeout: a hung check never
//! delays another. What a replaced container's check finds is thrown away. The loop itself never waits for a check, an
//! event's reader or a verdict's reader. Cancelled by its token; dropping all handles does not stop it, so that verdicts
//! stand while pods are being torn down.

use crate::check::{self, Exec, Outcome};
use crate::machine::{Machine, Reading, State, Time};
use crate::spec::{Check, Kind, Probe, Spec};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod busy;
mod tally;

pub use busy::Precedence;
pub use tally::{BUCKETS, Tallied, Tally};

/// A check that takes longer is waiting for something, not using the host: it gives its slot to another and goes on until
/// its timeout. So hung checks never use up the slots, and there are never more of them than probes.
const SLOT_HOLD: Duration = Duration::from_secs(1);

/// Bounds of what runs at once; checks that hang do not count (see `SLOT_HOLD`).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Checks over the network.
    pub network: usize,
    /// Commands in containers, which cost a process each.
    pub exec: usize,
    /// Commands that begin at once, of containers that are well.
    pub begins: usize,
    /// Events kept for a slow reader; more are dropped, the next failure brings another.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Limits { network: 512, exec: 64, begins: cores.max(2), events: 256 }
    }
}

/// Verdicts known from before the agent started, by the runtime's container id: a container that was ready stays ready
/// until its probe says otherwise, one that was started is not held back again.
pub type InitialVerdicts = BTreeMap<(String, Kind), State>;

/// What a probe says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub container_id: String,
    pub state: State,
    /// Of the last check that did not succeed, also while it does not count yet; empty before one and for success. Readers
    /// are not woken for another text: it is there when they look.
    pub message: String,
    /// When the verdict became this one; `None` where it has been so from the beginning.
    pub since: Option<SystemTime>,
}

/// All verdicts of a pod, by container name.
pub type Verdicts = BTreeMap<(String, Kind), Verdict>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Reason `Unhealthy`.
    Failure,
    /// Reason `ProbeWarning`.
    Warning,
}

/// Something the user should read on the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeEvent {
    pub pod_uid: String,
    pub container: String,
    pub container_id: String,
    pub kind: Kind,
    pub outcome: EventKind,
    /// The whole text, as in `Readiness probe failed: HTTP probe failed with statuscode: 500`.
    pub message: String,
}

enum Command {
    Set { pod_uid: String, probes: Vec<Probe>, initial: InitialVerdicts },
    Remove { pod_uid: String },
    Verdicts { pod_uid: String, reply: oneshot::Sender<watch::Receiver<Arc<Verdicts>>> },
    Tallies { reply: oneshot::Sender<Vec<Tallied>> },
}

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    commands: mpsc::Sender<Command>,
    busy: busy::Busy,
}

impl Driver {
    /// Starts the task. Events come out of the returned receiver.
    pub fn spawn(
        exec: Arc<dyn Exec>,
        limits: Limits,
        cancel: CancellationToken,
    ) -> (Driver, mpsc::Receiver<ProbeEvent>, JoinHandle<()>) {
        let (commands, inbox) = mpsc::channel(64);
        let (events, event_reader) = mpsc::channel(limits.events.max(1));
        let busy = busy::Busy::new(limits.begins);
        let task = tokio::spawn(Task::new(exec, limits, events, busy.clone()).run(inbox, cancel));
        (Driver { commands, busy }, event_reader, task)
    }

    /// The full set of a pod's probes. Probes of the same container and settings go on untouched; with other settings they
    /// begin anew with the verdict that they had; those of other containers begin from nothing, those not named end.
    pub async fn set(&self, pod_uid: &str, probes: Vec<Probe>, initial: InitialVerdicts) {
        let _ = self.commands.send(Command::Set { pod_uid: pod_uid.to_owned(), probes, initial }).await;
    }

    /// Until what is returned is dropped, commands in containers that are well wait a little: at most a tenth of their period,
    /// and a second. For the start of pods, which others wait for.
    pub fn precede(&self) -> Precedence {
        self.busy.begin()
    }

    /// Ends all probes of the pod; its verdicts' readers see the channel closed.
    pub async fn remove(&self, pod_uid: &str) {
        let _ = self.commands.send(Command::Remove { pod_uid: pod_uid.to_owned() }).await;
    }

    /// How the checks of all probes have ended so far.
    pub async fn tallies(&self) -> Vec<Tallied> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Tallies { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// The pod's verdicts, now and as they change; empty before the pod's first `set`. All that was asked for before on
    /// this handle is in them. Closed once the pod is removed or the driver has ended.
    pub async fn verdicts(&self, pod_uid: &str) -> watch::Receiver<Arc<Verdicts>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Verdicts { pod_uid: pod_uid.to_owned(), reply }).await;
        answer.await.unwrap_or_else(|_| watch::channel(Arc::default()).1)
    }
}

/// A machine is known by a number that is never used again: late results and timers of an old one find nothing.
type Id = u64;

struct Entry {
    pod_uid: String,
    container: String,
    container_id: String,
    kind: Kind,
    spec: Arc<Spec>,
    machine: Machine,
    check: Option<AbortHandle>,
    /// When the check under way was due.
    asked: Instant,
    tally: Tally,
}

struct Pod {
    machines: BTreeMap<(String, Kind), Id>,
    verdicts: watch::Sender<Arc<Verdicts>>,
}

struct Task {
    exec: Arc<dyn Exec>,
    network_slots: Arc<Semaphore>,
    exec_slots: Arc<Semaphore>,
    busy: busy::Busy,
    events: mpsc::Sender<ProbeEvent>,
    pods: BTreeMap<String, Pod>,
    machines: BTreeMap<Id, Entry>,
    due: BTreeSet<(Time, Id)>,
    checks: JoinSet<Outcome>,
    checked: HashMap<tokio::task::Id, Id>,
    next_id: Id,
    started: Instant,
}

/// Within which all that is not known to be well is looked at after an agent's restart.
const SOON: Duration = Duration::from_secs(1);

/// The epoch lies well before the driver's start, so that containers older than it have a time too.
const BEFORE: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 100);

impl Task {
    fn new(exec: Arc<dyn Exec>, limits: Limits, events: mpsc::Sender<ProbeEvent>, busy: busy::Busy) -> Task {
        Task {
            exec,
            network_slots: Arc::new(Semaphore::new(limits.network.max(1))),
            exec_slots: Arc::new(Semaphore::new(limits.exec.max(1))),
            busy,
            events,
            pods: BTreeMap::new(),
            machines: BTreeMap::new(),
            due: BTreeSet::new(),
            checks: JoinSet::new(),
            checked: HashMap::new(),
            next_id: 0,
            started: Instant::now(),
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, cancel: CancellationToken) {
        loop {
            self.start_due();
            let next = self.due.first().map(|(time, _)| self.started + time.saturating_sub(BEFORE));
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(command) = inbox.recv() => self.on_command(command),
                Some(done) = self.checks.join_next_with_id(), if !self.checks.is_empty() => match done {
                    Ok((task, outcome)) => self.on_outcome(task, outcome),
                    Err(error) if error.is_cancelled() => { self.checked.remove(&error.id()); }
                    Err(error) => self.on_outcome(error.id(), Outcome::Error("the check ended unexpectedly".to_owned())),
                },
                () = tokio::time::sleep_until(next.unwrap_or(self.started)), if next.is_some() => {}
            }
        }
    }

    fn now(&self) -> Time {
        BEFORE + self.started.elapsed()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Set { pod_uid, probes, initial } => self.set(&pod_uid, probes, &initial),
            Command::Remove { pod_uid } => {
                for id in self.pods.remove(&pod_uid).into_iter().flat_map(|pod| pod.machines.into_values()) {
                    self.drop_machine(id);
                }
            }
            Command::Tallies { reply } => drop(reply.send(tally::all(&self.machines))),
            Command::Verdicts { pod_uid, reply } => {
                let _ = reply.send(self.pods.entry(pod_uid).or_insert_with(Pod::new).verdicts.subscribe());
            }
        }
    }

    fn set(&mut self, pod_uid: &str, probes: Vec<Probe>, initial: &InitialVerdicts) {
        let mut old = std::mem::take(&mut self.pods.entry(pod_uid.to_owned()).or_insert_with(Pod::new).machines);
        let mut wanted: BTreeMap<(String, Kind), Probe> =
            probes.into_iter().map(|p| ((p.container.clone(), p.kind), p)).collect();
        let mut kept = BTreeMap::new();
        old.retain(|key, id| {
            let same = wanted.get(key).zip(self.machines.get(id));
            let same = same.is_some_and(|(p, e)| p.container_id == e.container_id && p.spec == *e.spec);
            if same {
                wanted.remove(key);
                kept.insert(key.clone(), *id);
            }
            !same
        });
        let mut known = BTreeMap::new();
        for (key, id) in old {
            if let Some(entry) = self.drop_machine(id) {
                known.insert(key, (entry.container_id, entry.machine.state(), entry.tally));
            }
        }
        // In the order of kinds a container's startup probe comes first, so that its state is known to the others.
        for (key, probe) in wanted {
            let startup = kept.get(&(key.0.clone(), Kind::Startup)).and_then(|id| self.machines.get(id));
            let gated = startup.is_some_and(|s| s.machine.state() != State::Success);
            let before = known.get(&key);
            let asked_before = before.filter(|(id, ..)| *id == probe.container_id).map(|(_, state, _)| *state);
            let id = self.add(pod_uid, probe, initial, asked_before, gated);
            if let (Some(entry), Some((_, _, tally))) = (self.machines.get_mut(&id), before) {
                entry.tally = *tally;
            }
            kept.insert(key, id);
        }
        if let Some(pod) = self.pods.get_mut(pod_uid) {
            pod.machines = kept;
        }
        self.open_gates(pod_uid);
        self.publish(pod_uid, None);
    }

    fn add(&mut self, pod_uid: &str, probe: Probe, initial: &InitialVerdicts, asked_before: Option<State>, gated: bool) -> Id {
        let now = self.now();
        let age = SystemTime::now().duration_since(probe.started_at).unwrap_or_default();
        let started = now.saturating_sub(age);
        let carried = asked_before.or_else(|| initial.get(&(probe.container_id.clone(), probe.kind)).copied());
        // A container that ran before this agent did is probed at its own moment within the first period: after an agent's
        // restart all probes of a node would otherwise fire together. New containers do not wait, and those that wait to be
        // ready not for long.
        let running_before = asked_before.is_none() && started < BEFORE && now < BEFORE + probe.spec.period;
        let well = carried.unwrap_or(State::initial(probe.kind)) == State::Success;
        let within = if well { probe.spec.period } else { probe.spec.period.min(SOON) };
        let names = [pod_uid, &probe.container, probe.kind.as_str()];
        let not_before = if running_before { now + spread(&names, within) } else { Duration::ZERO };
        let machine = Machine::new(probe.kind, &probe.spec, started, not_before, carried, gated);
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry {
            pod_uid: pod_uid.to_owned(),
            container: probe.container,
            container_id: probe.container_id,
            kind: probe.kind,
            spec: Arc::new(probe.spec),
            machine,
            check: None,
            asked: Instant::now(),
            tally: Tally::default(),
        };
        self.machines.insert(id, entry);
        self.schedule(id);
        id
    }

    fn drop_machine(&mut self, id: Id) -> Option<Entry> {
        let entry = self.machines.remove(&id)?;
        if let Some(due) = entry.machine.next_deadline() {
            self.due.remove(&(due, id));
        }
        if let Some(check) = &entry.check {
            check.abort();
        }
        Some(entry)
    }

    fn schedule(&mut self, id: Id) {
        if let Some(due) = self.machines.get(&id).and_then(|e| e.machine.next_deadline()) {
            self.due.insert((due, id));
        }
    }

    /// Lets readiness and liveness begin where the container's startup probe has succeeded, or is gone.
    fn open_gates(&mut self, pod_uid: &str) {
        let now = self.now();
        let Some(pod) = self.pods.get(pod_uid) else { return };
        let mut opened = Vec::new();
        for ((container, kind), id) in &pod.machines {
            let startup = pod.machines.get(&(container.clone(), Kind::Startup)).and_then(|id| self.machines.get(id));
            if *kind != Kind::Startup && startup.is_none_or(|s| s.machine.state() == State::Success) {
                opened.push(*id);
            }
        }
        for id in opened {
            if let Some(entry) = self.machines.get_mut(&id) {
                entry.machine.open_gate(now);
                self.schedule(id);
            }
        }
    }

    fn start_due(&mut self) {
        let now = self.now();
        while let Some(&(time, id)) = self.due.first() {
            if time > now {
                break;
            }
            self.due.pop_first();
            let Some(entry) = self.machines.get_mut(&id) else { continue };
            if !entry.machine.begin(now) {
                continue;
            }
            let is_exec = matches!(entry.spec.check, Check::Exec { .. });
            let slots = if is_exec { &self.exec_slots } else { &self.network_slots };
            // Who waits to be ready is part of a start.
            let gives_way = (is_exec && entry.machine.state() == State::Success).then(|| self.busy.clone());
            let (slots, exec) = (slots.clone(), self.exec.clone());
            let (spec, container_id) = (entry.spec.clone(), entry.container_id.clone());
            let handle = self.checks.spawn(async move {
                let slot = slots.acquire_owned().await;
                let mut work = std::pin::pin!(check::run(&spec, &container_id, &exec));
                if let Some(busy) = gives_way {
                    let _turn = busy.turn(spec.period).await;
                    if let Ok(outcome) = tokio::time::timeout(busy::BEGINNING, &mut work).await {
                        return outcome;
                    }
                }
                match tokio::time::timeout(SLOT_HOLD, &mut work).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        drop(slot);
                        work.await
                    }
                }
            });
            self.checked.insert(handle.id(), id);
            entry.check = Some(handle);
            entry.asked = Instant::now();
        }
    }

    fn on_outcome(&mut self, task: tokio::task::Id, outcome: Outcome) {
        let now = self.now();
        let Some(id) = self.checked.remove(&task) else { return };
        let Some(entry) = self.machines.get_mut(&id) else { return };
        entry.check = None;
        match &outcome {
            Outcome::Success | Outcome::Warning(_) => entry.tally.count(true, entry.asked.elapsed()),
            Outcome::Failure(_) => entry.tally.count(false, Duration::ZERO),
            Outcome::Error(_) | Outcome::Unread(_) => {}
        }
        let kind = entry.kind.as_str();
        let (reading, message, event) = match outcome {
            Outcome::Success => (Reading::Success, String::new(), None),
            Outcome::Warning(why) => {
                (Reading::Success, String::new(), Some((EventKind::Warning, format!("{kind} probe warning: {why}"))))
            }
            Outcome::Failure(why) if entry.machine.forgives(now) => (Reading::Unknown, why, None),
            Outcome::Failure(why) => {
                let text = format!("{kind} probe failed: {why}");
                (Reading::Failure, why, Some((EventKind::Failure, text)))
            }
            Outcome::Error(why) => {
                let text = format!("{kind} probe errored and resulted in unknown state: {why}");
                (Reading::Unknown, why, Some((EventKind::Failure, text)))
            }
            Outcome::Unread(why) => {
                let text = format!("{kind} probe errored and resulted in failure state: {why}");
                (Reading::Unknown, why, Some((EventKind::Failure, text)))
            }
        };
        let changed = entry.machine.on_result(now, reading);
        if let (None, None, Some(due)) = (&changed, &event, entry.machine.next_deadline()) {
            // Nothing new: so it nearly always is.
            self.due.insert((due, id));
            return;
        }
        let key = (entry.container.clone(), entry.kind);
        let pod_uid = entry.pod_uid.clone();
        if let Some((outcome, message)) = event {
            tracing::debug!(pod_uid, container = key.0, message, "probe");
            let container_id = entry.container_id.clone();
            let event =
                ProbeEvent { pod_uid: pod_uid.clone(), container: key.0.clone(), container_id, kind: key.1, outcome, message };
            // A slow reader loses events rather than holding up probes.
            let _ = self.events.try_send(event);
        }
        self.schedule(id);
        if changed.is_some() {
            if key.1 == Kind::Startup {
                self.open_gates(&pod_uid);
            }
            self.publish(&pod_uid, Some((&key, &message)));
        } else {
            self.reword(&pod_uid, &key, message);
        }
    }

    /// The verdict stays, for another reason.
    fn reword(&self, pod_uid: &str, key: &(String, Kind), message: String) {
        let Some(pod) = self.pods.get(pod_uid).filter(|_| !message.is_empty()) else { return };
        pod.verdicts.send_if_modified(|verdicts| {
            let differs = verdicts.get(key).is_some_and(|v| v.state != State::Success && v.message != message);
            if differs && let Some(verdict) = Arc::make_mut(verdicts).get_mut(key) {
                verdict.message = message;
            }
            false
        });
    }

    /// Brings the pod's verdicts up to date; readers wake only if something changed.
    fn publish(&self, pod_uid: &str, changed: Option<(&(String, Kind), &str)>) {
        let Some(pod) = self.pods.get(pod_uid) else { return };
        let before = pod.verdicts.borrow().clone();
        let mut verdicts = Verdicts::new();
        for (key, entry) in pod.machines.iter().filter_map(|(key, id)| Some((key, self.machines.get(id)?))) {
            let state = entry.machine.state();
            let same = before.get(key).filter(|v| v.container_id == entry.container_id && v.state == state);
            let message = changed.filter(|(k, _)| *k == key).map(|(_, m)| m.to_owned());
            let verdict = same.cloned().unwrap_or_else(|| Verdict {
                container_id: entry.container_id.clone(),
                state,
                since: message.is_some().then(SystemTime::now),
                message: message.unwrap_or_default(),
            });
            verdicts.insert(key.clone(), verdict);
        }
        if *before != verdicts {
            pod.verdicts.send_replace(Arc::new(verdicts));
        }
    }
}

impl Pod {
    fn new() -> Pod {
        Pod { machines: BTreeMap::new(), verdicts: watch::channel(Arc::default()).0 }
    }
}

/// A moment within the period that depends on nothing but the names (FNV-1a).
fn spread(names: &[&str], period: Duration) -> Duration {
    let bytes = names.iter().flat_map(|n| n.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    period.mul_f64((hash >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests;
