//! The proxy task: the one owner of the tables and of what is installed.
//!
//! Inputs queue up while a sync runs and are taken together by the next one. The work itself (compile, diff, netlink) runs on a
//! blocking thread. Cancelled by its token between two syncs; the rules stay in the kernel.

pub mod board;
mod core;
pub mod explain;
mod resync;
pub mod stats;

use crate::error::Error;
use crate::health::{HealthChecks, Progress};
use crate::local::{LocalTraffic, PodTraffic};
use crate::model::Key;
use crate::netlink::{Netlink, Watch};
use crate::ruleset::Policy;
use crate::trace::{Packet, Verdict};
use crate::wire;
use board::OwnPods;
use core::Core;
pub use core::{Kernel, Layout};
use explain::Explained;
use ipnet::IpNet;
use stats::Stats;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How many inputs one sync takes at most, so that a flood cannot keep the first one waiting.
const BATCH: usize = 4096;
/// From one repair of what others changed to the next.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// After stale flows could not be removed.
const RETRY_FLOWS: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name, as endpoints carry it.
    pub node_name: String,
    /// How pods' packets are told apart.
    pub local: LocalTraffic,
    /// Pod ranges, for `LocalTraffic::ClusterCidrs`; empty if unknown.
    pub cluster_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    pub masquerade_mark: u32,
    /// Whether conntrack.tcpBeLiberal is set: packets that conntrack calls invalid are then not dropped, nor are they where the
    /// sysctl is set at the start.
    pub tcp_be_liberal: bool,
    pub node_port_addresses: NodePortAddresses,
}

/// On which of this host's own addresses node ports answer; never on loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    #[default]
    All,
    /// The first of each family in `Input::NodeAddresses`.
    Primary,
    Within(Vec<IpNet>),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            node_name: String::new(),
            local: LocalTraffic::default(),
            cluster_cidrs: Vec::new(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            tcp_be_liberal: false,
            node_port_addresses: NodePortAddresses::All,
        }
    }
}

impl Config {
    /// What of this decides rules, on this host and in this network namespace. A host without IPv6 gets no IPv6 table.
    pub fn policy(&self) -> Policy {
        let mut policy = Policy {
            pods: match &self.local {
                LocalTraffic::ClusterCidrs => PodTraffic::Sources(self.cluster_cidrs.clone()),
                LocalTraffic::NodeCidrs => PodTraffic::Sources(Vec::new()),
                LocalTraffic::Bridge(name) => PodTraffic::Interface(name.clone()),
                LocalTraffic::InterfacePrefix(prefix) => PodTraffic::InterfacePrefix(prefix.clone()),
            },
            masquerade_all: self.masquerade_all,
            masquerade_mark: self.masquerade_mark,
            tcp_be_liberal: self.tcp_be_liberal,
            node_port_ranges: match &self.node_port_addresses {
                NodePortAddresses::All => None,
                NodePortAddresses::Primary => Some(Vec::new()),
                NodePortAddresses::Within(ranges) => Some(ranges.clone()),
            },
            ..Policy::default()
        };
        // Whoever set it, as with kube-proxy.
        let liberal = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal");
        policy.tcp_be_liberal |= liberal.is_ok_and(|value| value.trim() != "0");
        if !std::path::Path::new("/proc/net/if_inet6").exists() {
            policy.families.remove(&crate::model::Family::V6);
        }
        policy
    }
}

/// What the proxy is told. Nothing is programmed before both complete lists have come.
#[derive(Debug, Clone)]
pub enum Input {
    /// The complete list; what is not in it is gone.
    Services(Vec<wire::Service>),
    Service(Key, Option<wire::Service>),
    /// The complete list; what is not in it is gone.
    Slices(Vec<wire::EndpointSlice>),
    Slice(Key, Option<wire::EndpointSlice>),
    /// All of this host's own addresses, the primary one of each family before the others of its family.
    NodeAddresses(Vec<IpAddr>),
    /// The node's label topology.kubernetes.io/zone.
    NodeZone(Option<String>),
    /// The Node's spec.podCIDRs. With `LocalTraffic::NodeCidrs` nothing is programmed before they are told, be it that there are
    /// none; otherwise they are ignored.
    NodePodCidrs(Vec<IpNet>),
    /// The ranges of all ServiceCIDR objects: new connections to addresses in them that no service has are dropped.
    ServiceCidrs(Vec<IpNet>),
}

enum Query {
    Describe(oneshot::Sender<String>),
    Trace(Packet, oneshot::Sender<Verdict>),
    Explain(Packet, oneshot::Sender<Explained>),
}

/// The other end of a running proxy.
#[derive(Debug, Clone)]
pub struct Handle {
    /// True once everything the API listed at the start is in the kernel; stays true.
    pub synced: watch::Receiver<bool>,
    /// Services with a `healthCheckNodePort`, and their endpoints on this node.
    pub health_checks: watch::Receiver<Arc<HealthChecks>>,
    /// Whether the rules are kept up.
    pub progress: watch::Receiver<Progress>,
    /// Takes what the agent knows of its pods.
    pub own_pods: OwnPods,
    stats: watch::Receiver<Arc<Stats>>,
    queries: mpsc::Sender<Query>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Query")
    }
}

impl Handle {
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.borrow().clone()
    }

    /// Waits for stats newer than those last seen by this handle.
    pub async fn stats_changed(&mut self) -> bool {
        self.stats.changed().await.is_ok()
    }

    /// What is programmed, for people. `None` once the proxy has ended.
    pub async fn describe(&self) -> Option<String> {
        let (tx, rx) = oneshot::channel();
        self.queries.send(Query::Describe(tx)).await.ok()?;
        rx.await.ok()
    }

    /// What the rules do to a packet. `None` once the proxy has ended.
    pub async fn trace(&self, packet: Packet) -> Option<Verdict> {
        let (tx, rx) = oneshot::channel();
        self.queries.send(Query::Trace(packet, tx)).await.ok()?;
        rx.await.ok()
    }

    /// The same with all endpoints it could meet, whatever the packet's random number is. `None` once the proxy has ended.
    pub async fn explain(&self, packet: Packet) -> Option<Explained> {
        let (tx, rx) = oneshot::channel();
        self.queries.send(Query::Explain(packet, tx)).await.ok()?;
        rx.await.ok()
    }
}

pub struct Proxy;

impl Proxy {
    /// Starts the task; rules go to the network namespace of the calling thread.
    pub fn spawn(
        config: Config,
        inputs: mpsc::Receiver<Input>,
        cancel: CancellationToken,
    ) -> Result<(Handle, JoinHandle<()>), Error> {
        let kernel = Netlink::open()?;
        let watch = match kernel.watch() {
            Ok(watch) => Some(watch),
            Err(e) => {
                warn!(error = %Chain(&e), "changes of the service rules by others will only be noticed when they get in the way");
                None
            }
        };
        Ok(Self::start(config, Box::new(kernel), watch, inputs, cancel))
    }

    /// The same over another kernel.
    pub fn spawn_on(
        config: Config,
        kernel: Box<dyn Kernel>,
        inputs: mpsc::Receiver<Input>,
        cancel: CancellationToken,
    ) -> (Handle, JoinHandle<()>) {
        Self::start(config, kernel, None, inputs, cancel)
    }

    fn start(
        config: Config,
        kernel: Box<dyn Kernel>,
        others: Option<Watch>,
        inputs: mpsc::Receiver<Input>,
        cancel: CancellationToken,
    ) -> (Handle, JoinHandle<()>) {
        let (synced_tx, synced) = watch::channel(false);
        let (stats_tx, stats) = watch::channel(Arc::new(Stats::default()));
        let (queries, queries_rx) = mpsc::channel(16);
        let (own_pods, words) = board::channel();
        let (checks_tx, health_checks) = watch::channel(Arc::default());
        let started = Progress { families: config.policy().families, ..Progress::default() };
        let (progress_tx, progress) = watch::channel(started);
        let task = Task {
            inputs,
            queries: queries_rx,
            others,
            words,
            synced: synced_tx,
            checks: checks_tx,
            progress: progress_tx,
            stats: stats_tx,
            cancel,
        };
        let core = Box::new(Core::new(&config, kernel));
        (Handle { synced, health_checks, progress, own_pods, stats, queries }, tokio::spawn(task.run(core)))
    }
}

struct Task {
    inputs: mpsc::Receiver<Input>,
    queries: mpsc::Receiver<Query>,
    others: Option<Watch>,
    words: board::Reader,
    synced: watch::Sender<bool>,
    checks: watch::Sender<Arc<HealthChecks>>,
    progress: watch::Sender<Progress>,
    stats: watch::Sender<Arc<Stats>>,
    cancel: CancellationToken,
}

impl Task {
    async fn run(mut self, mut core: Box<Core>) {
        let mut retry: Option<Duration> = None;
        let mut repair: Option<Instant> = None;
        let mut repaired: Option<Instant> = None;
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                Some(query) = self.queries.recv() => {
                    answer(&core, query);
                    continue;
                }
                n = self.inputs.recv_many(&mut batch, BATCH) => if n == 0 {
                    // The senders are gone: nothing can change any more.
                    self.cancel.cancelled().await;
                    return;
                },
                () = wait(retry) => {}
                () = self.words.changed() => {}
                () = until(core.words_due().map(Instant::from_std)) => {}
                () = others(&mut self.others) => {
                    // Two programs that put each other right must not keep the kernel busy.
                    let now = Instant::now();
                    repair = repair.or_else(|| Some(repaired.map_or(now, |last| now.max(last + REPAIR_INTERVAL))));
                    continue;
                }
                () = until(repair) => {
                    warn!("the service rules were changed by somebody else, putting them right");
                    repair = None;
                    repaired = Some(Instant::now());
                    core.forget_installed();
                }
            }
            self.progress.send_if_modified(|p| {
                let first = p.pending.is_none();
                p.pending.get_or_insert_with(std::time::Instant::now);
                first
            });
            let board = self.words.read();
            let (change, now) = (board.change, Instant::now().into_std());
            let work = tokio::task::spawn_blocking(move || {
                core.take_words(&board, now);
                core.take(batch);
                let outcome = core.sync();
                (core, outcome)
            });
            let outcome = match work.await {
                Ok((back, outcome)) => {
                    core = back;
                    outcome
                }
                // The blocking half panicked; the state is lost, and an ended task ends the process.
                Err(_) => return,
            };
            self.stats.send_replace(Arc::new(core.stats.clone()));
            self.checks.send_if_modified(|old| core.health_checks_changed(old));
            retry = match outcome {
                Ok(ready) => {
                    self.progress.send_modify(|p| {
                        p.pending = None;
                        p.updated = if ready { Some(SystemTime::now()) } else { p.updated };
                    });
                    if ready {
                        self.words.installed(change);
                    }
                    if ready && self.synced.send_if_modified(|s| !std::mem::replace(s, true)) {
                        info!(
                            services = core.stats.services,
                            endpoints = core.stats.endpoints,
                            "service rules are in the kernel"
                        );
                    }
                    core.flows_are_left().then_some(RETRY_FLOWS)
                }
                Err(e) => {
                    error!(error = %Chain(&e), "service rules could not be programmed, trying again");
                    Some(retry.map_or(RETRY_FIRST, |r| (r * 2).min(RETRY_MOST)))
                }
            };
        }
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(e) = next {
            write!(f, ": {e}")?;
            next = e.source();
        }
        Ok(())
    }
}

/// Returns when others changed our tables; never without a socket that tells.
async fn others(watch: &mut Option<Watch>) {
    if let Some(open) = watch {
        match open.changed().await {
            Ok(()) => return,
            Err(e) => warn!(error = %e, "changes of the service rules by others are not noticed any more"),
        }
        *watch = None;
    }
    std::future::pending().await
}

async fn until(time: Option<Instant>) {
    match time {
        Some(t) => tokio::time::sleep_until(t).await,
        None => std::future::pending().await,
    }
}

async fn wait(time: Option<Duration>) {
    match time {
        Some(t) => tokio::time::sleep(t).await,
        None => std::future::pending().await,
    }
}

fn answer(core: &Core, query: Query) {
    // A caller that went away needs no answer.
    match query {
        Query::Describe(to) => drop(to.send(core.describe())),
        Query::Trace(packet, to) => drop(to.send(core.trace(&packet))),
        Query::Explain(packet, to) => drop(to.send(core.explain(packet))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
