//! Gives every pod its actor: pods of the API, static pods, and pods that only the runtime knows.
//!
//! Owns the map from uid to actor. It decides nothing about a pod, but that mirror pods are none of their own. Nobody is started before the runtime has been listed
//! once, so that what runs is adopted; a pod that only the runtime has becomes an orphan, which its actor ends, only once
//! the API list is complete, and never while the API has an unreadable object of its name; what else such pods left on the host
//! is removed once then. Cancelled by its token; the actors follow theirs, which are children of it.

pub mod ask;
mod entry;
mod gatekeeper;
mod leftovers;
mod mirror;
mod resizes;
mod seen;
mod statics;

use crate::admission::NodeView;
use crate::api::snapshot::{ObjectKey, Snapshot, Watched};
use crate::cgroup;
use crate::config::Config;
use crate::events::Severity;
use crate::images::Images;
use crate::images::providers::Providers;
use crate::node::facts::throttle_paths;
use crate::observe::{PodRuntime, RuntimeSnapshot};
use crate::pod::actor;
use crate::pod::container::NodeLimits;
use crate::pod::desired::{Ended, id_of};
use crate::pod::execute::Shared;
use crate::pod::resize::{Record, record};
use crate::pod::status::NodeFacts;
use crate::pod::{Deps, PodId, Time};
use crate::report;
use crate::static_pods::StaticPods;
use ask::Ask;
use entry::{Entry, Origin};
use ferrolet_probes::{EventKind, ProbeEvent};
use ferrolet_quantity::Quantity;
use gatekeeper::taken_before;
use k8s_openapi::api::core::v1::{Node, Pod};
use leftovers::Leftovers;
use seen::{Seen, alike, only_statuses};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts the dispatcher and the image puller. Once cancelled the task ends when all statuses that were due have been
/// taken by the API; the caller decides how long to wait for that.
pub fn spawn(deps: Deps, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let reporters = TaskTracker::new();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = run(deps, &cancel, reporters.clone()) => {}
        }
        reporters.close();
        reporters.wait().await;
    })
}

async fn run(deps: Deps, cancel: &CancellationToken, reporters: TaskTracker) {
    let Deps {
        config,
        cri,
        kube,
        objects,
        volumes,
        user_ids,
        user_counts,
        resize_counts,
        cgroups,
        probes,
        probe_events,
        registered,
        node: own_node,
        pods,
        statics,
        statuses,
        gate,
        own_pods,
        events,
        runtime,
        services,
        allocatable,
        mut asks,
    } = deps;
    let pulls = crate::images::Settings {
        parallel: config.max_parallel_image_pulls,
        policy: config.image_policy.clone(),
        root_dir: config.root_dir.clone(),
    };
    let (images, puller) = Images::spawn(cri.clone(), pulls, cancel.clone());
    let providers = Providers::new(&config.credential_providers, &config.credential_provider_dir, kube.clone());
    let node = NodeFacts { ips: config.node_ips.clone(), runtime: ask::runtime_name(&cri, &mut asks, &pods, &statics).await };
    let limits = NodeLimits {
        memory_bytes: node_memory(),
        cfs_quota: cgroups.node().cpu_cfs_quota,
        cfs_period_us: cgroups.node().cpu_cfs_period_us,
        seccomp_default: config.seccomp_default,
        throttle_paths: throttle_paths(Path::new("/sys")),
    };
    let memory = host_memory(&config, &cgroups, &allocatable).await;
    let (weights, weighed) = watch::channel(None);
    let pods_dir = config.root_dir.join("pods");
    let records = tokio::task::spawn_blocking(move || record::load(&pods_dir)).await.unwrap_or_default();
    let report_slots = Arc::new(tokio::sync::Semaphore::new(report::PARALLEL));
    let snapshots = runtime.snapshot.clone();
    let shared = Arc::new(Shared {
        config,
        cri,
        kube,
        objects,
        volumes,
        cgroups,
        probes,
        events,
        images,
        providers,
        runtime,
        services,
        own_pods,
        statuses,
        allocatable,
        node,
        limits,
        memory,
        user_ids,
        user_counts,
        resize_counts,
        report_slots,
        reporters,
    });
    let dispatcher = Dispatcher {
        shared,
        gate,
        cancel: cancel.clone(),
        actors: BTreeMap::new(),
        finished: BTreeMap::new(),
        unstarted: BTreeMap::new(),
        tasks: JoinSet::new(),
        uids: HashMap::new(),
        stale: false,
        sweep: Sweep::Due,
        swept_once: false,
        sweeper: JoinSet::new(),
        mirrors: mirror::Mirrors::default(),
        statics,
        departed: BTreeSet::new(),
        patience: Some(Instant::now() + statics::PATIENCE),
        node: own_node,
        registered,
        over: Arc::default(),
        awaiting: BTreeMap::new(),
        records,
        weights,
        live: 0,
    };
    let cgroups = dispatcher.shared.cgroups.clone();
    tokio::select! {
        () = dispatcher.run(pods, snapshots, probe_events, asks) => {}
        () = resizes::weigh(cgroups, weighed) => {}
        // The puller ends only by the token or by a panic, which must not go unnoticed.
        ended = puller => if let Err(error) = ended && error.is_panic() { std::panic::resume_unwind(error.into_panic()) },
    }
}

/// What of the host decides how much memory, swap and huge pages containers get.
async fn host_memory(config: &Config, cgroups: &cgroup::Manager, allocatable: &BTreeMap<String, Quantity>) -> cgroup::HostMemory {
    let v2 = cgroups.version() == cgroup::Version::V2;
    let machine = crate::node::facts::read(&crate::node::facts::Roots::default());
    let allocatable = allocatable.get("memory").map_or(0, Quantity::units);
    cgroup::HostMemory {
        v2,
        total: i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
        swap_controller: cgroups.bounds_swap().await,
        swap_total: i64::try_from(machine.swap_bytes).unwrap_or(i64::MAX),
        swap: config.swap,
        oom_group: v2 && config.single_process_oom_kill != Some(true),
        qos: config.memory_qos.map(|(throttling, tiered)| cgroup::MemoryQos { throttling, tiered, allocatable }),
        page_sizes: machine.hugepages.keys().filter_map(|name| cgroup::page_size_of(name)).collect(),
    }
}

fn node_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<i64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

struct Dispatcher {
    shared: Arc<Shared>,
    gate: watch::Receiver<bool>,
    cancel: CancellationToken,
    actors: BTreeMap<String, Entry>,
    /// Ended pods whose object the snapshot may still show, and when they ended.
    finished: BTreeMap<String, Time>,
    /// Pods without an actor, and since when.
    unstarted: BTreeMap<String, Time>,
    tasks: JoinSet<()>,
    uids: HashMap<tokio::task::Id, String>,
    stale: bool,
    sweep: Sweep,
    swept_once: bool,
    sweeper: JoinSet<Leftovers>,
    mirrors: mirror::Mirrors,
    statics: crate::static_pods::Watched,
    /// Static pods that have been ended while something of their sources could not be read: their mirrors go all the same.
    departed: BTreeSet<String>,
    /// Until then static pods that run already are adopted only with the status that the API has of them.
    patience: Option<Instant>,
    node: Watched<Node>,
    registered: NodeView,
    /// Some actor's pod is over.
    over: Arc<Notify>,
    /// Pods that have been taken, and those that must end before they start.
    awaiting: BTreeMap<String, (Arc<Pod>, BTreeSet<String>)>,
    /// What an earlier agent wrote down of pods that have no actor yet.
    records: BTreeMap<String, Record>,
    /// What all Burstable pods ask for, in shares.
    weights: watch::Sender<Option<cgroup::Weights>>,
    /// How many pods held room when resizes were looked at last.
    live: usize,
}

/// How far the search for what gone pods left has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Due,
    Listing,
    Removing,
    /// Until it is time for the next one.
    Resting(Instant),
}

/// Between two searches. A runtime that is killed while it starts something may go on with it when the pod has gone.
const SWEEP_AGAIN: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(60) };

impl Dispatcher {
    async fn run(
        mut self,
        mut pods: Watched<Pod>,
        mut snapshots: watch::Receiver<Arc<RuntimeSnapshot>>,
        mut probe_events: mpsc::Receiver<ProbeEvent>,
        mut asks: mpsc::Receiver<Ask>,
    ) {
        let (mut pods_open, mut events_open) = (true, true);
        // What was last looked at as a whole, unless something else than these has changed since.
        let mut whole: Option<Seen> = None;
        loop {
            let (api, runtime) = (pods.borrow_and_update().clone(), snapshots.borrow_and_update().clone());
            let statics = self.statics.borrow_and_update().clone();
            let changed = whole.as_ref().and_then(|(a, s, r)| {
                let same = Arc::ptr_eq(s, &statics) && alike(r, &runtime);
                if same { only_statuses(a, &api) } else { None }
            });
            let known = changed.is_some_and(|pods| self.told_of_own(&pods));
            if known {
                // Of most changes only one pod's actor is to hear: not all pods are looked at for each of them.
                self.wake(&runtime);
            } else if runtime.synced {
                self.reconcile(&api, &statics, &runtime);
            }
            if runtime.synced {
                // Whose folders an unreadable object owns is not known: then nothing is swept.
                let known = api.synced && api.malformed.is_empty() && statics.synced && !statics.broken;
                self.sweep(known && runtime.stale.is_none());
            }
            if !known {
                self.note_unstarted(&api, &statics);
            }
            whole = None;
            // Probe events and questions change nothing here.
            loop {
                let rested = match self.sweep {
                    Sweep::Resting(until) => Some(until),
                    Sweep::Due | Sweep::Listing | Sweep::Removing => None,
                };
                tokio::select! {
                    changed = pods.changed(), if pods_open => {
                        pods_open = changed.is_ok();
                        whole = Some((api, statics, runtime));
                        break;
                    }
                    Ok(()) = snapshots.changed() => {
                        whole = Some((api, statics, runtime));
                        break;
                    }
                    Ok(()) = self.node.changed() => break,
                    Ok(()) = self.statics.changed() => break,
                    () = tokio::time::sleep_until(self.patience.unwrap_or_else(Instant::now)), if self.patience.is_some() => {
                        self.patience = None;
                        break;
                    }
                    () = self.over.notified() => break,
                    () = tokio::time::sleep_until(rested.unwrap_or_else(Instant::now)), if rested.is_some() => {
                        self.sweep = Sweep::Due;
                        break;
                    }
                    Some(ask) = asks.recv() => self.tell(ask, &api, &statics, &runtime),
                    Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                        self.reap(done);
                        break;
                    }
                    Some(listed) = self.sweeper.join_next(), if !self.sweeper.is_empty() => match listed {
                        Ok(listed) => self.swept(listed),
                        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                        Err(_) => {}
                    },
                    event = probe_events.recv(), if events_open => match event {
                        Some(event) => self.probe_event(&event),
                        None => events_open = false,
                    },
                }
            }
        }
    }

    fn reconcile(&mut self, api: &Snapshot<Pod>, statics: &StaticPods, runtime: &RuntimeSnapshot) {
        let wanted: BTreeMap<&str, &Arc<Pod>> =
            api.items.values().filter_map(|p| Some((p.metadata.uid.as_deref().filter(|u| !u.is_empty())?, p))).collect();
        let (mirrors, wanted): (BTreeMap<_, _>, BTreeMap<_, _>) = wanted.into_iter().partition(|(_, pod)| mirror::is(pod));
        self.finished
            .retain(|uid, _| wanted.contains_key(uid.as_str()) || runtime.pods.contains_key(uid.as_str()) && !api.synced);
        let mut new = Vec::new();
        for (uid, pod) in &wanted {
            match self.actors.get_mut(*uid) {
                Some(entry) => entry.update(pod),
                None if self.finished.contains_key(*uid) => {}
                // What has been taken once stays taken, also by an agent that starts again.
                None if runtime.pods.contains_key(*uid) || taken_before(pod) => {
                    self.start(id_of(pod), Some((*pod).clone()), None)
                }
                None => new.push(*pod),
            }
        }
        self.awaiting.retain(|uid, _| wanted.contains_key(uid.as_str()) || statics.pods.contains_key(uid));
        self.end_static_orphans(statics, runtime, &wanted);
        let own = self.static_pods(statics, api, runtime);
        if api.synced && statics.synced {
            self.resizes();
        }
        self.admit(own.iter().chain(new).collect());
        self.weigh();
        self.mirror(statics, api, &mirrors);
        if api.synced {
            let unreadable = |id: &PodId| {
                let key = ObjectKey { namespace: id.namespace.clone(), name: id.name.clone() };
                api.malformed.contains(&key)
            };
            let ours = self.actors.iter().filter(|(_, entry)| !matches!(entry.origin, Origin::Static(_)));
            let gone = ours.filter(|(uid, entry)| !wanted.contains_key(uid.as_str()) && !unreadable(&entry.id));
            for (_, entry) in gone {
                entry.pod.send_if_modified(|pod| pod.take().is_some());
            }
            let nobodys = |p: &&Arc<PodRuntime>| !wanted.contains_key(p.id.uid.as_str()) && !statics.pods.contains_key(&p.id.uid);
            let orphans = runtime.pods.values().filter(nobodys).filter(|p| !unreadable(&p.id) && !p.is_static && statics.synced);
            let orphans: Vec<PodId> = orphans.filter(|p| !self.actors.contains_key(&p.id.uid)).map(|p| p.id.clone()).collect();
            for id in orphans {
                tracing::info!(pod = %id, "the runtime has a pod that the api does not know: it is ended");
                self.start(id, None, None);
            }
        }
        self.wake(runtime);
    }

    /// Hands these objects to their actors; false if one has none and never had.
    fn told_of_own(&mut self, pods: &[&Arc<Pod>]) -> bool {
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        let known = |pod: &&Arc<Pod>| self.actors.contains_key(&uid(pod)) || self.finished.contains_key(&uid(pod));
        if !pods.iter().all(known) {
            return false;
        }
        for pod in pods {
            if let Some(entry) = self.actors.get_mut(&uid(pod)) {
                entry.update(pod);
            }
        }
        true
    }

    /// Tells the actors of pods that are not in the runtime as they were.
    fn wake(&mut self, runtime: &RuntimeSnapshot) {
        let stale = runtime.stale.is_some();
        let all = stale != self.stale;
        self.stale = stale;
        for (uid, entry) in &mut self.actors {
            let now = runtime.pods.get(uid.as_str());
            let same = match (&entry.last, now) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            if all || !same {
                entry.last = now.cloned();
                entry.runtime.notify_one();
            }
        }
    }

    /// Looks for what gone pods left, as soon as everything that is there is known, and from time to time after that. Then it is
    /// for cgroups, where something may run: folders and logs are made by the agent alone.
    fn sweep(&mut self, known: bool) {
        if !known || self.sweep != Sweep::Due {
            return;
        }
        self.sweep = Sweep::Listing;
        let cgroups = self.shared.cgroups.clone();
        if self.swept_once {
            self.sweeper.spawn(Leftovers::list_cgroups(cgroups));
        } else {
            let logs = self.shared.config.pod_logs_dir.clone();
            self.sweeper.spawn(Leftovers::list(self.shared.volumes.clone(), cgroups, logs));
        }
    }

    /// The host has been listed: whatever no pod of now owns goes.
    fn swept(&mut self, listed: Leftovers) {
        if self.sweep != Sweep::Listing {
            self.swept_once = true;
            self.sweep = Sweep::Resting(Instant::now() + SWEEP_AGAIN);
            return;
        }
        self.sweep = Sweep::Removing;
        // Every pod of the API and of the runtime has an actor, or had one that has cleaned up already.
        let unowned = listed.without(|uid| self.actors.contains_key(uid) || self.finished.contains_key(uid));
        let (volumes, cgroups) = (self.shared.volumes.clone(), self.shared.cgroups.clone());
        self.sweeper.spawn(async move {
            unowned.remove(volumes, cgroups).await;
            Leftovers::default()
        });
    }

    fn start(&mut self, id: PodId, pod: Option<Arc<Pod>>, ended: Option<Ended>) {
        let uid = id.uid.clone();
        let record = self.records.remove(&uid);
        let runtime = self.shared.runtime.snapshot.borrow().pods.get(uid.as_str()).cloned();
        let (entry, inputs) = Entry::new(id, pod, ended, self.gate.clone(), &self.over, (record, runtime));
        let task = self.tasks.spawn(actor::run(self.shared.clone(), inputs, self.cancel.child_token()));
        self.uids.insert(task.id(), uid.clone());
        self.actors.insert(uid, entry);
    }

    fn reap(&mut self, done: Result<(tokio::task::Id, ()), JoinError>) {
        let id = match done {
            Ok((id, ())) => id,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => error.id(),
        };
        if let Some(uid) = self.uids.remove(&id) {
            let entry = self.actors.remove(&uid);
            match entry.map(|entry| entry.origin) {
                // A static pod may come back as the same one.
                Some(Origin::Static(_)) => drop(self.departed.insert(uid)),
                Some(Origin::Api | Origin::Runtime) | None => drop(self.finished.insert(uid, crate::clock::now())),
            }
        }
    }

    fn probe_event(&self, event: &ProbeEvent) {
        let Some(entry) = self.actors.get(&event.pod_uid) else { return };
        let reason = match event.outcome {
            EventKind::Failure => "Unhealthy",
            EventKind::Warning => "ProbeWarning",
        };
        let init = entry
            .pod
            .borrow()
            .as_ref()
            .and_then(|p| p.spec.as_ref())
            .is_some_and(|s| s.init_containers.iter().flatten().any(|c| c.name == event.container));
        let list = if init { "initContainers" } else { "containers" };
        let path = format!("spec.{list}{{{}}}", event.container);
        self.shared.events.pod(&entry.id, Some(path), Severity::Warning, reason, event.message.clone());
    }
}

#[cfg(test)]
mod tests;
