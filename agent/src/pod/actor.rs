//! The actor of one pod: a task that waits, plans, and keeps the planned actions under way.
//!
//! Owns the pod's lifecycle, its backoffs, what the agent prepared for it, and the status last computed. Each action runs
//! in a task of its own, at most one a key, so that a call that hangs never keeps the actor from a deletion. After every
//! action the pod is looked at in the runtime before the key is free again: a plan never rests on a state older than what
//! the actor itself has done. It never ends because of an error. Cancelled by its token at any await; what runs in the
//! runtime stays as it is and is adopted by the next actor.

mod changes;
mod deeds;
mod jumps;
mod resize;
mod standing;
mod words;

use crate::clock::{self, Jumps};
use crate::events::Severity;
use crate::pod::backoff::Backoffs;
use crate::pod::container::ImageFacts;
use crate::pod::desired::{Desired, Ended};
use crate::pod::execute::{self, Shared};
use crate::pod::explain::Standing;
use crate::pod::lifecycle::{DEADLINE_EXCEEDED, Lifecycle, Why};
use crate::pod::observed::{Local, Observed, Verdicts};
use crate::pod::plan::{Key, plan};
use crate::pod::resize::{Grant, Record};
use crate::pod::timeline::Timeline;
use crate::pod::traffic::Traffic;
use crate::pod::{PodId, Time, health, status};
use crate::report::{Recipient, Reporter};
use crate::volume::Prepared;
use deeds::{Done, Running};
use ferrolet_probes::{InitialVerdicts, Probe};
use k8s_openapi::api::core::v1 as api;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the dispatcher gives an actor.
pub struct Inputs {
    pub id: PodId,
    /// `None`: the API has no such pod.
    pub pod: watch::Receiver<Option<Arc<api::Pod>>>,
    /// The object in the API that stands for a static pod; `None` for a pod of the API.
    pub mirror: Option<Mirror>,
    /// The runtime's snapshot of this pod may have changed.
    pub runtime: Arc<Notify>,
    /// No new pod starts before this is true.
    pub gate: watch::Receiver<bool>,
    /// Once there is something in it the pod fails with it.
    pub ended: watch::Receiver<Option<Ended>>,
    pub over: Over,
    /// What the node has granted the pod.
    pub grants: watch::Receiver<Grant>,
    /// What an earlier agent wrote down of that.
    pub record: Record,
    /// Whoever wants to know how the pod stands.
    pub asks: mpsc::Receiver<oneshot::Sender<Standing>>,
}

/// Tells the dispatcher that nothing of the pod runs any more and nothing will.
#[derive(Debug, Clone, Default)]
pub struct Over {
    flag: Arc<AtomicBool>,
    settled: Arc<AtomicI64>,
    wake: Arc<Notify>,
}

impl Over {
    /// All that come from one tell the same listener.
    pub fn listener(wake: &Arc<Notify>) -> Over {
        Over { wake: wake.clone(), ..Over::default() }
    }

    fn tell(&self) {
        if !self.flag.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// The pod has what it was granted by this generation.
    fn settle(&self, generation: i64) {
        if self.settled.swap(generation, Ordering::Relaxed) != generation {
            self.wake.notify_one();
        }
    }

    pub fn settled(&self) -> i64 {
        self.settled.load(Ordering::Relaxed)
    }

    pub fn told(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

/// Runs until nothing is left of the pod on the node and the API object is gone, or until cancelled.
pub async fn run(shared: Arc<Shared>, inputs: Inputs, cancel: CancellationToken) {
    let mut actor = Actor::new(shared, inputs).await;
    tokio::select! {
        () = cancel.cancelled() => {}
        () = actor.run() => {}
    }
}

struct Actor {
    shared: Arc<Shared>,
    inputs: Inputs,
    desired: Arc<Desired>,
    lifecycle: Lifecycle,
    backoffs: Backoffs,
    local: Local,
    /// Sandboxes by id that this actor has told to end.
    stopped: BTreeSet<String>,
    prepared: Arc<Prepared>,
    images: BTreeMap<String, ImageFacts>,
    status: api::PodStatus,
    running: BTreeMap<Key, Running>,
    tasks: JoinSet<Done>,
    keys: HashMap<tokio::task::Id, Key>,
    /// Actions cut off whose effect has not been looked at yet: the snapshot counts as stale until then.
    unknown: usize,
    /// When the first of these was cut off.
    unsure: Time,
    begun: Time,
    clock: Jumps,
    /// By how much the clock was moved since the actor began.
    moved: jiff::SignedDuration,
    /// When the pod came into its present part of life.
    entered: Time,
    verdicts: watch::Receiver<Arc<ferrolet_probes::Verdicts>>,
    probes: Vec<Probe>,
    carried: InitialVerdicts,
    reporter: Reporter,
    timeline: Timeline,
    traffic: Traffic,
    /// What the user has been told is refused, left out or missing.
    told: BTreeSet<String>,
    /// The ConfigMaps and Secrets that the pod names.
    objects: crate::objects::Held,
    /// Changes when another pod's volumes have been removed.
    removed: watch::Receiver<u64>,
    /// What volumes show changed while they were being prepared.
    outdated: bool,
}

impl Actor {
    async fn new(shared: Arc<Shared>, mut inputs: Inputs) -> Actor {
        let pod = inputs.pod.borrow_and_update().clone();
        let known = pod.as_ref().and_then(|p| p.status.clone()).unwrap_or_default();
        let mut desired = match &pod {
            Some(pod) => desired_of(&inputs.grants.borrow_and_update().allocation.apply(pod)),
            None => Desired::orphan(inputs.id.clone()),
        };
        desired.ended = inputs.ended.borrow_and_update().clone();
        let slots = shared.report_slots.clone();
        let to = match &inputs.mirror {
            Some(mirror) => Recipient::Mirror(mirror.clone()),
            None => Recipient::Own(Box::new(known.clone())),
        };
        let uid = match &mut inputs.mirror {
            Some(mirror) => mirror_uid(mirror),
            None => Some(inputs.id.uid.clone()),
        };
        let reporter = Reporter::spawn(shared.kube.clone(), slots, inputs.id.clone(), to, &shared.reporters);
        let verdicts = shared.probes.verdicts(&inputs.id.uid).await;
        let backoffs = Backoffs { crash_max: shared.config.max_container_restart_period, ..Default::default() };
        let now = clock::now();
        Actor {
            traffic: Traffic::new(shared.own_pods.clone(), uid, &known),
            timeline: Timeline::new(now, &known),
            carried: health::carried(&known),
            desired: Arc::new(desired),
            lifecycle: Lifecycle::Active,
            backoffs,
            local: Local { resize: resize::known(&mut inputs), ..Local::default() },
            stopped: BTreeSet::new(),
            prepared: Arc::default(),
            images: BTreeMap::new(),
            status: known,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            keys: HashMap::new(),
            unknown: 0,
            unsure: now,
            begun: now,
            clock: Jumps::from(now),
            moved: jiff::SignedDuration::ZERO,
            entered: now,
            verdicts,
            probes: Vec::new(),
            reporter,
            told: BTreeSet::new(),
            objects: Default::default(),
            removed: shared.volumes.removed(),
            outdated: false,
            shared,
            inputs,
        }
    }

    async fn run(&mut self) {
        self.hold_objects();
        // What runs already keeps the health that the API knows: the verdicts must be there before the first status.
        let observed = self.observe();
        if self.desired.terminal {
            // An agent before this one saw to it.
            self.stopped = observed.local.lost.clone();
        }
        self.set_probes(&observed).await;
        self.verdicts = self.shared.probes.verdicts(&self.inputs.id.uid).await;
        loop {
            let now = self.now();
            let observed = self.observe();
            self.note_ends(&observed, now);
            let verdicts = health::verdicts(&self.verdicts.borrow_and_update(), &self.carried, &observed, &self.lifecycle);
            let step = plan(&self.desired, &self.lifecycle, &observed, &verdicts, &self.backoffs, now);
            if step.lifecycle != self.lifecycle {
                tracing::debug!(pod = %self.desired.id, from = ?self.lifecycle, to = ?step.lifecycle, "lifecycle");
            }
            if step.lifecycle.rank() != self.lifecycle.rank() {
                self.entered = now;
            }
            if let (true, Some(Why::Failed { reason, message })) = (self.lifecycle.active(), step.lifecycle.why())
                && reason == DEADLINE_EXCEEDED
            {
                self.shared.events.pod(&self.desired.id, None, Severity::Normal, DEADLINE_EXCEEDED, message.clone());
            }
            self.lifecycle = step.lifecycle.clone();
            if self.lifecycle.rank() >= 2 {
                self.objects = Default::default();
                self.inputs.over.tell();
            }
            self.report(&observed, &verdicts, now);
            self.settle(&observed);
            self.set_probes(&observed).await;
            let observed = Arc::new(observed);
            self.reconcile(&step, &observed);
            if matches!(self.lifecycle, Lifecycle::Finished { .. }) {
                return self.finish().await;
            }
            self.wait(step.wake_at, now).await;
        }
    }

    fn observe(&self) -> Observed {
        let snapshot = self.shared.runtime.snapshot.borrow().clone();
        let pod = snapshot.pods.get(self.inputs.id.uid.as_str());
        let mut local = self.local.clone();
        local.gate_open = *self.inputs.gate.borrow();
        let sandboxes = pod.map(|p| p.sandboxes.clone()).unwrap_or_default();
        let lost = sandboxes.iter().filter(|s| !s.ready && !self.stopped.contains(&s.id));
        local.lost = lost.map(|s| s.id.clone()).collect();
        Observed {
            sandboxes,
            containers: pod.map(|p| p.containers.clone()).unwrap_or_default(),
            local,
            stale: snapshot.stale.is_some() || self.unknown > 0,
        }
    }

    async fn wait(&mut self, wake_at: Option<Time>, now: Time) {
        let sleep = wake_at.map(|at| crate::pod::elapsed(now, at).max(Duration::from_millis(1)));
        tokio::select! {
            changed = self.inputs.pod.changed() => match changed {
                Ok(()) => self.new_pod(),
                // The dispatcher has ended; so will we.
                Err(_) => std::future::pending().await,
            },
            Ok(()) = self.inputs.grants.changed() => self.granted(),
            () = self.inputs.runtime.notified() => {}
            Some(ask) = self.inputs.asks.recv() => self.tell(ask),
            uid = next_mirror(&mut self.inputs.mirror) => self.traffic.known_as(uid),
            Ok(()) = self.inputs.gate.changed() => {}
            Ok(()) = self.inputs.ended.changed() => self.ended(),
            () = self.objects.changed() => self.other_objects(),
            Ok(()) = self.removed.changed(), if self.waits_for_a_volume() => self.volumes_outdated(),
            Ok(()) = self.verdicts.changed() => {}
            Ok(()) = self.reporter.taken.changed() => {
                let taken = self.reporter.taken.borrow_and_update().clone();
                if let Some(status) = &taken.status {
                    self.timeline.reported(&self.desired.id, status, clock::now());
                    self.traffic.taken(status);
                }
            }
            Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.done(done),
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
        }
    }

    /// Computes the status and hands it to the reporter; tells of what has newly to be waited for.
    fn report(&mut self, observed: &Observed, verdicts: &Verdicts, now: Time) {
        for what in self.desired.unsupported.iter().chain(&self.desired.passed_over) {
            if self.told.insert(what.field.clone()) {
                self.shared.events.pod(&self.desired.id, None, Severity::Warning, "FailedValidation", what.to_string());
            }
        }
        let inputs = status::Inputs {
            desired: &self.desired,
            lifecycle: &self.lifecycle,
            observed,
            verdicts,
            backoffs: &self.backoffs,
            prev: &self.status,
            node: &self.shared.node,
            now,
        };
        let next = status::status(&inputs);
        for (name, why) in status::untargeted(&inputs) {
            if self.told.insert(format!("{name}: {why}")) {
                let path = execute::field_path(&self.desired, &name);
                self.shared.events.pod(&self.desired.id, path, Severity::Warning, "Failed", format!("Error: {why}"));
            }
        }
        self.waiting_events(&next);
        self.resize_events(&next);
        self.timeline.observed(observed);
        self.status = next;
        self.traffic.update(!self.lifecycle.active(), &self.status);
        if self.desired.started.is_none() {
            let mut desired = Desired::clone(&self.desired);
            desired.started = self.started();
            self.desired = Arc::new(desired);
        }
        if !self.desired.orphan {
            let finished = matches!(self.lifecycle, Lifecycle::Finished { .. });
            let status = Arc::new(self.status.clone());
            self.reporter.report(&status, finished);
            if self.inputs.mirror.is_some() {
                self.shared.statuses.say(&self.inputs.id.uid, Some(&status));
            }
        }
    }

    async fn set_probes(&mut self, observed: &Observed) {
        if observed.stale {
            return;
        }
        let periods = health::Periods::of(&self.desired);
        for wrong in &periods.wrong {
            if self.told.insert(wrong.clone()) {
                self.shared.events.pod(&self.desired.id, None, Severity::Warning, "InvalidProbePeriod", wrong.clone());
            }
        }
        let of_sandbox = || observed.newest_sandbox().and_then(|s| s.ips.first()).map(String::as_str);
        let address = self.status.pod_ip.as_deref().or_else(of_sandbox);
        let probes = health::probes(&self.desired, &self.lifecycle, observed, address, &periods);
        if probes != self.probes {
            self.probes = probes.clone();
            self.shared.probes.set(&self.inputs.id.uid, probes, self.carried.clone()).await;
        }
    }

    /// Nothing is left here; the object goes last.
    async fn finish(&mut self) {
        self.shared.probes.remove(&self.inputs.id.uid).await;
        if !self.desired.orphan {
            loop {
                let gone_elsewhere = async {
                    let _ = self.inputs.pod.wait_for(Option::is_none).await;
                };
                let ask = tokio::select! {
                    () = self.reporter.gone() => break,
                    () = gone_elsewhere => break,
                    Some(ask) = self.inputs.asks.recv() => ask,
                };
                self.tell(ask);
            }
        }
        self.traffic.gone();
        self.shared.statuses.say(&self.inputs.id.uid, None);
        tracing::debug!(pod = %self.inputs.id, "finished");
    }
}

type Mirror = watch::Receiver<Option<Arc<api::Pod>>>;

fn mirror_uid(mirror: &mut Mirror) -> Option<String> {
    mirror.borrow_and_update().as_ref().and_then(|m| m.metadata.uid.clone())
}

/// The uid of the next mirror, or that there is none any more. Never for a pod of the API.
async fn next_mirror(mirror: &mut Option<Mirror>) -> Option<String> {
    if let Some(mirror) = mirror
        && mirror.changed().await.is_ok()
    {
        return mirror_uid(mirror);
    }
    std::future::pending().await
}

fn desired_of(pod: &Arc<api::Pod>) -> Desired {
    let mut desired = Desired::of(pod);
    for u in crate::volume::unsupported(pod) {
        if !desired.unsupported.iter().any(|known| known.field == u.field) {
            desired.unsupported.push(crate::pod::desired::Unsupported { field: u.field, reason: u.reason });
        }
    }
    desired
}
