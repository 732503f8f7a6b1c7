//! Resizes in place: `admission` decides whether there is room, here its answer is carried out.
//!
//! A pod has what it was granted, whatever its spec asks for meanwhile. What cannot be granted is asked about again whenever
//! anything changes, in the order of `admission::resize::rank`.

use super::Dispatcher;
use super::entry::Entry;
use crate::admission::resize::{Rank, Verdict};
use crate::admission::{self, NodeView, resize};
use crate::cgroup::{self, Qos, Weights};
use crate::metrics::resizes::Trigger;
use crate::observe::PodRuntime;
use crate::pod::allocation::Allocation;
use crate::pod::resize::{Grant, Pending, Record};
use crate::pod::status::resize::PENDING;
use crate::pod::{Time, allocation};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// What one pod has been granted, and what it asks for.
pub(super) struct Room {
    grants: watch::Sender<Grant>,
    granted: Arc<Allocation>,
    /// Other than that.
    asked: Option<Arc<Allocation>>,
    pending: Option<Pending>,
    /// Since when it waits, by what the API knows.
    since: Option<Time>,
    /// What it had before: not free until the pod has given it up.
    held: Option<Arc<Allocation>>,
    /// Pods that end for it.
    victims: BTreeSet<String>,
    /// What it adds to its class: cpu to the weight of the Burstable pods, memory to what is kept for both.
    class: Option<Qos>,
    cpu: i64,
    memory: u64,
    /// As it was asked for last; nothing before the first look.
    seen: Option<Arc<Allocation>>,
}

impl Room {
    /// What an earlier agent wrote down counts, then what the runtime's containers were made with, then the spec.
    pub(super) fn new(
        pod: Option<&Arc<Pod>>,
        record: Option<&Record>,
        runtime: Option<&PodRuntime>,
    ) -> (Room, watch::Receiver<Grant>) {
        let granted = match (record, pod) {
            (Some(record), _) => record.allocation.clone(),
            (None, Some(pod)) => of_runtime(pod, runtime),
            (None, None) => Allocation::default(),
        };
        let since = pod.and_then(|p| p.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == PENDING));
        let since = since.and_then(|c| Some(c.last_transition_time.as_ref()?.0));
        let granted = Arc::new(granted);
        let (grants, receiver) = watch::channel(Grant { allocation: granted.clone(), pending: None });
        let room = Room {
            grants,
            granted,
            asked: None,
            pending: None,
            since,
            held: None,
            victims: BTreeSet::new(),
            class: None,
            cpu: 0,
            memory: 0,
            seen: None,
        };
        (room, receiver)
    }

    /// The pod's object may be another one.
    pub(super) fn look(&mut self, pod: &Arc<Pod>) {
        let asked = Allocation::of(pod);
        self.asked = (!asked.same(&self.granted)).then(|| Arc::new(asked));
        if self.asked.is_none() {
            self.since = None;
            self.refuse(None);
        }
        let qos = cgroup::qos(pod);
        let asks = qos != Qos::BestEffort;
        let requests = if asks { admission::requests(&self.granted.apply(pod)) } else { Default::default() };
        self.class = asks.then_some(qos);
        self.cpu = requests.get("cpu").map_or(0, Quantity::milli);
        self.memory = requests.get("memory").and_then(|q| u64::try_from(q.units()).ok()).unwrap_or(0);
    }

    /// What was asked for before, where the pod now asks for something else.
    fn asked_anew(&mut self) -> Option<(Arc<Allocation>, Arc<Allocation>)> {
        let now = self.asked.as_ref().unwrap_or(&self.granted);
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, now)) {
            return None;
        }
        let now = now.clone();
        let before = self.seen.replace(now.clone())?;
        (!before.same(&now)).then_some((before, now))
    }

    /// As it was granted, and all that it has not given up yet.
    pub(super) fn counted(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        match &self.held {
            // All that it asks for it has: there is nothing to compare.
            None if self.asked.is_none() => pod.clone(),
            None => self.granted.apply(pod),
            Some(held) => held.most(&self.granted).apply(pod),
        }
    }

    fn refuse(&mut self, pending: Option<Pending>) {
        if self.pending != pending {
            self.pending.clone_from(&pending);
            self.grants.send_modify(|grant| grant.pending = pending);
        }
    }

    fn grant(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        self.held = Some(std::mem::replace(&mut self.granted, asked));
        (self.pending, self.since) = (None, None);
        self.grants.send_replace(Grant { allocation: self.granted.clone(), pending: None });
    }
}

fn of_runtime(pod: &Pod, runtime: Option<&PodRuntime>) -> Allocation {
    let mut granted = Allocation::of(pod);
    for (name, own) in &mut granted.containers {
        let instances = runtime.into_iter().flat_map(|r| &r.containers).filter(|c| c.name == *name);
        let newest = instances.max_by_key(|c| (c.attempt, c.created_at));
        if let Some(given) = newest.and_then(|c| c.resources.as_ref()) {
            *own = allocation::resizable(Some(&given.api()));
        }
    }
    granted
}

/// Writes the weights of the classes whenever they are others. A failure is a warning, and tried again with the next change.
pub(super) async fn weigh(cgroups: cgroup::Manager, mut weights: watch::Receiver<Option<Weights>>) {
    while weights.changed().await.is_ok() {
        let weights = *weights.borrow_and_update();
        if let Some(weights) = weights
            && let Err(error) = cgroups.weigh(weights).await
        {
            tracing::warn!(error = %crate::api::watch::chain(&error), "cannot set the weights of the classes of pods");
        }
    }
    std::future::pending().await
}

impl Dispatcher {
    /// The class of Burstable pods weighs what they ask for together, and each class is protected as its pods are.
    pub(super) fn weigh(&self) {
        let (mut cpu, mut weights) = (0, Weights::default());
        for room in self.actors.values().filter(|entry| entry.holds_room()).map(|entry| &entry.room) {
            match room.class {
                Some(Qos::Burstable) => {
                    cpu += room.cpu;
                    weights.burstable_memory = weights.burstable_memory.saturating_add(room.memory);
                }
                _ => weights.guaranteed_memory = weights.guaranteed_memory.saturating_add(room.memory),
            }
        }
        weights.burstable_cpu_shares = cgroup::cpu_shares(cpu);
        if !self.shared.cgroups.node().tiered {
            // Nobody is protected: no reason to write anything when memory alone is another.
            (weights.burstable_memory, weights.guaranteed_memory) = (0, 0);
        }
        self.weights.send_if_modified(|known| known.replace(weights) != Some(weights));
    }

    /// Nobody can be judged before all pods are known.
    pub(super) fn resizes(&mut self) {
        let mut waiting: Vec<(Rank, String)> = Vec::new();
        let live = self.actors.values().filter(|entry| entry.holds_room()).count();
        let fewer = live < std::mem::replace(&mut self.live, live);
        for (uid, entry) in &mut self.actors {
            if let Some((before, now)) = entry.room.asked_anew() {
                self.shared.resize_counts.requested(&before, &now);
            }
            if entry.room.held.is_some() && entry.settled() >= entry.room.granted.generation {
                entry.room.held = None;
            }
            if entry.room.asked.is_none() || !entry.holds_room() {
                continue;
            }
            let Some(pod) = entry.pod.borrow().clone() else { continue };
            if pod.metadata.deletion_timestamp.is_none() && !super::gatekeeper::terminal(&pod) {
                let granted = entry.room.granted.apply(&pod);
                waiting.push((resize::rank(&granted, &pod, entry.room.since), uid.clone()));
            }
        }
        if !waiting.is_empty() {
            waiting.sort();
            let view = self.view();
            for (_, uid) in waiting {
                self.resize(&view, &uid, fewer);
            }
        }
        self.count_resizes();
    }

    fn count_resizes(&self) {
        let (mut deferred, mut infeasible, mut held) = (0, 0, 0);
        for room in self.actors.values().filter(|entry| entry.holds_room()).map(|entry| &entry.room) {
            match &room.pending {
                Some(pending) if pending.infeasible => infeasible += 1,
                Some(_) => deferred += 1,
                None => {}
            }
            held += usize::from(room.held.is_some());
        }
        self.shared.resize_counts.standing(deferred, infeasible, held);
    }

    fn resize(&mut self, view: &NodeView, uid: &str, fewer: bool) {
        let Some(entry) = self.actors.get(uid) else { return };
        if entry.room.victims.iter().any(|victim| self.actors.get(victim).is_some_and(Entry::is_live)) {
            return;
        }
        let Some(asked) = entry.pod.borrow().clone() else { return };
        let granted = entry.room.granted.apply(&asked);
        let (uids, others) = self.active_beside(Some(uid));
        let others: Vec<&Pod> = others.iter().map(|p| &**p).collect();
        let swaps = |pod: &Pod, c: &Container| cgroup::swaps(pod, c, &self.shared.memory);
        let verdict = resize::decide(view, &others, &granted, &asked, swaps);
        let generation = asked.metadata.generation.unwrap_or(0);
        let (infeasible, cause, message) = match verdict {
            Verdict::Granted => {
                tracing::info!(pod = %entry.id, generation, "a resize is granted");
                if let Some(waited) = entry.room.pending.as_ref().filter(|pending| !pending.infeasible) {
                    let trigger = match fewer {
                        _ if waited.generation != generation => Trigger::PodUpdated,
                        true => Trigger::PodsRemoved,
                        false => Trigger::PodResized,
                    };
                    self.shared.resize_counts.accepted(trigger);
                }
                if let Some(entry) = self.actors.get_mut(uid) {
                    entry.room.grant();
                    entry.room.look(&asked);
                }
                return;
            }
            Verdict::After { victims } => {
                let victims: BTreeSet<String> = victims.into_iter().filter_map(|at| uids.get(at).cloned()).collect();
                victims.iter().for_each(|uid| self.preempt(uid));
                if let Some(entry) = self.actors.get_mut(uid) {
                    entry.room.victims = victims;
                }
                return;
            }
            Verdict::Deferred { cause, message } => (false, cause, message),
            Verdict::Infeasible { message } => (true, "Infeasible".to_owned(), message),
        };
        let Some(entry) = self.actors.get_mut(uid) else { return };
        if infeasible && entry.room.pending.as_ref().is_none_or(|p| !p.infeasible || p.generation != generation) {
            self.shared.resize_counts.infeasible();
        }
        let since = *entry.room.since.get_or_insert_with(Time::now);
        entry.room.refuse(Some(Pending { infeasible, cause, message, generation, since }));
    }
}
