//! The proxy's state and one sync of it.
//!
//! Owns tables, ruleset, what is installed, and the kernel. Runs on a blocking thread; never waits for anything but the kernel.

use super::board::Board;
use super::explain::{Explained, unused};
use super::resync::{MOST_IN_A_CHANGE, MOST_PICKS};
use super::stats::Stats;
use super::{Config, Input, NodePortAddresses};
use crate::compile::update;
use crate::conntrack::{Flow, Gone, Kept, stale};
use crate::convert;
use crate::diff::{Held, Installed, Place, Transaction, diff_of};
use crate::error::Error;
use crate::health::{HealthCheck, HealthChecks};
use crate::local::{LocalTraffic, PodTraffic};
use crate::model::{Family, Key};
use crate::overlay::Overlay;
use crate::ruleset::{Policy, Ruleset};
use crate::tables::{Tables, Touched};
use crate::trace::{Outcome, Packet, Verdict, trace};
use crate::{describe, netlink, wire};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, error, warn};

/// What the proxy needs of a kernel. The real one is `netlink::Netlink`; tests have a model.
pub trait Kernel: Send {
    /// All or nothing.
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error>;
    /// Whether `commit` would succeed, without any effect.
    fn check(&mut self, tx: &Transaction) -> Result<(), Error>;
    /// What is there under our tables' names. A kernel that keeps nothing has nothing to say here.
    fn layout(&mut self, _: Place, _: Family) -> Result<Layout, Error> {
        Ok(Layout::Absent)
    }
    /// Tells every element of a family's table of our layout but what packets left. False: something changed meanwhile, so that
    /// this may be of no one moment.
    fn read(&mut self, _: Family, _each: &mut dyn FnMut(Held)) -> Result<bool, Error> {
        Ok(true)
    }
    /// How long the kernel was kept by the last transaction.
    fn held(&self) -> Duration {
        Duration::ZERO
    }
    /// Flows of connectionless protocols.
    fn flows(&mut self) -> Result<Vec<Flow>, Error>;
    /// One that is gone already is no error.
    fn delete_flow(&mut self, flow: &Flow) -> Result<(), Error>;
}

/// True if that changes anything.
fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    std::mem::replace(old, new) != *old
}

/// What stands under the name of one of our tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Absent,
    /// Of the layout this version makes, with no other sets in it.
    Ours,
    Other,
}

pub struct Core {
    pub(super) kernel: Box<dyn Kernel>,
    node_name: String,
    node_addresses: BTreeSet<IpAddr>,
    /// Node ports answer on the primary addresses only.
    primary: bool,
    /// Pods are told apart by what `Input::NodePodCidrs` says.
    by_node_cidrs: bool,
    have_pod_cidrs: bool,
    pub(super) tables: Tables,
    pub(super) ruleset: Ruleset,
    /// `None`: not known, everything has to be written.
    pub(super) installed: Option<Installed>,
    touched: Touched,
    /// With more chains that pick than this the tables are made anew, with those that are needed.
    pub(super) most_picks: usize,
    /// That is to be done.
    pub(super) crowded: bool,
    pub(super) set_aside: BTreeSet<Key>,
    have_services: bool,
    have_slices: bool,
    /// Flows are still to be looked at, these fronts being gone.
    pub(super) purge: Option<Gone>,
    kept: Kept,
    health: HealthChecks,
    overlay: Overlay,
    /// The number of the last change of the agent's words that is in it.
    words: u64,
    /// When what is not programmed yet changed in the cluster.
    changed_at: Vec<SystemTime>,
    began: SystemTime,
    pub stats: Stats,
}

/// While nothing can be programmed, this many changes are timed and no more.
const MOST_CHANGES: usize = 4096;

impl Core {
    pub fn new(config: &Config, kernel: Box<dyn Kernel>) -> Core {
        Core {
            kernel,
            node_name: config.node_name.clone(),
            primary: config.node_port_addresses == NodePortAddresses::Primary,
            by_node_cidrs: config.local == LocalTraffic::NodeCidrs,
            have_pod_cidrs: false,
            node_addresses: BTreeSet::new(),
            tables: Tables::default(),
            ruleset: Ruleset::new(config.policy()),
            installed: None,
            touched: Touched::new(),
            most_picks: MOST_PICKS,
            crowded: false,
            set_aside: BTreeSet::new(),
            have_services: false,
            have_slices: false,
            purge: None,
            kept: Kept::default(),
            health: HealthChecks::default(),
            overlay: Overlay::default(),
            words: 0,
            changed_at: Vec::new(),
            began: SystemTime::now(),
            stats: Stats::default(),
        }
    }

    pub fn take(&mut self, inputs: Vec<Input>) {
        if !inputs.is_empty() {
            self.stats.last_queued = Some(SystemTime::now());
        }
        for input in inputs {
            self.take_one(input);
        }
        // A service that changed deserves a new try.
        for key in &self.touched {
            self.set_aside.remove(key);
        }
    }

    fn take_one(&mut self, input: Input) {
        match input {
            Input::Services(all) => {
                let good: BTreeMap<_, _> =
                    all.iter().filter_map(|s| Some((convert::key(&s.metadata), self.service(s)?))).collect();
                self.tables.replace_services(good, &mut self.touched);
                let published = all.iter().filter(|s| s.spec.publish_not_ready_addresses == Some(true));
                let changed = self.overlay.publish_only(published.map(|s| convert::key(&s.metadata)).collect());
                self.lay_over(changed);
                self.have_services = true;
            }
            Input::Service(key, new) => {
                let published = new.as_ref().is_some_and(|s| s.spec.publish_not_ready_addresses == Some(true));
                let changed = self.overlay.publishes(&key, published);
                self.lay_over(changed);
                let new = new.and_then(|s| self.service(&s));
                let mut touched = Touched::new();
                self.tables.set_service(key, new, &mut touched);
                self.stats.service_changes += touched.len() as u64;
                self.stats.service_changes_pending += touched.len() as u64;
                self.touched.append(&mut touched);
            }
            Input::Slices(all) => {
                self.overlay.forget_slices();
                let good: BTreeMap<_, _> = all.iter().filter_map(|s| Some((convert::key(&s.metadata), self.slice(s)?))).collect();
                self.tables.replace_slices(good, &mut self.touched);
                self.have_slices = true;
            }
            Input::Slice(key, new) => {
                self.overlay.forget(&key);
                let changed_at = new.as_ref().and_then(|s| s.metadata.annotations.last_change.clone());
                let new = new.and_then(|s| self.slice(&s));
                let mut touched = Touched::new();
                self.tables.set_slice(key, new, &mut touched);
                if !touched.is_empty() {
                    self.stats.endpoint_changes += 1;
                    self.stats.endpoint_changes_pending += 1;
                    self.note_change(changed_at.as_deref());
                    self.touched.append(&mut touched);
                }
            }
            Input::NodeAddresses(all) => self.set_addresses(&all),
            Input::NodeZone(zone) => {
                let zone = zone.unwrap_or_default();
                if self.ruleset.policy.zone != zone {
                    self.ruleset.policy.zone = zone;
                    self.touch_all();
                }
            }
            Input::NodePodCidrs(ranges) => {
                if self.by_node_cidrs {
                    self.have_pod_cidrs = true;
                    self.change_rules(|policy| replace(&mut policy.pods, PodTraffic::Sources(ranges)));
                }
            }
            Input::ServiceCidrs(mut ranges) => {
                ranges.sort_unstable();
                self.change_rules(|policy| replace(&mut policy.service_ranges, ranges));
            }
        }
    }

    /// What was changed before this process began says nothing about it.
    fn note_change(&mut self, at: Option<&str>) {
        let at = at.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(SystemTime::from);
        if self.changed_at.len() < MOST_CHANGES {
            self.changed_at.extend(at.filter(|at| *at >= self.began));
        }
    }

    fn all_programmed(&mut self) {
        let now = SystemTime::now();
        for at in self.changed_at.drain(..) {
            self.stats.programming.observe(now.duration_since(at).unwrap_or_default());
        }
        self.stats.service_changes_pending = 0;
        self.stats.endpoint_changes_pending = 0;
    }

    /// Rules and not elements: if anything changes, all is written anew.
    fn change_rules(&mut self, change: impl FnOnce(&mut Policy) -> bool) {
        if change(&mut self.ruleset.policy) {
            self.installed = None;
        }
    }

    /// Others changed what is in the kernel.
    pub fn forget_installed(&mut self) {
        if self.installed.take().is_some() {
            self.stats.repairs += 1;
        }
    }

    /// Stores what is to be published if it differs.
    pub fn health_checks_changed(&self, published: &mut Arc<HealthChecks>) -> bool {
        let differs = **published != self.health;
        if differs {
            *published = Arc::new(self.health.clone());
        }
        differs
    }

    fn check_health(&mut self, touched: &Touched) {
        let policy = &self.ruleset.policy;
        let everywhere = |r: &&IpNet| r.prefix_len() == 0;
        let on = |ranges: &Vec<IpNet>| {
            // Listening on all addresses of a family needs no change when these change.
            let all: BTreeSet<IpAddr> = ranges.iter().filter(everywhere).map(IpNet::network).collect();
            let one_by_one = |ip: &&IpAddr| !all.iter().any(|any| Family::of(any) == Family::of(ip)) && policy.has_node_ports(ip);
            self.node_addresses.iter().filter(one_by_one).chain(&all).copied().collect()
        };
        self.health.listen = policy.node_port_ranges.as_ref().map(on);
        for key in touched {
            match self.tables.service(key).and_then(|s| s.health_check_node_port) {
                Some(port) => {
                    let count = |family| {
                        let slices = self.tables.slices_of(key).filter(|s| s.family == family);
                        let here = slices.flat_map(|s| s.endpoints.iter()).filter(|e| e.local && e.ready);
                        here.map(|e| e.ip).collect::<BTreeSet<_>>().len()
                    };
                    let check = HealthCheck { port, local_v4: count(Family::V4), local_v6: count(Family::V6) };
                    self.health.services.insert(key.clone(), check);
                }
                None => drop(self.health.services.remove(key)),
            }
        }
    }

    fn touch_all(&mut self) {
        self.touched.extend(self.tables.services().map(|(k, _)| k.clone()));
    }

    fn set_addresses(&mut self, all: &[IpAddr]) {
        self.node_addresses = all.iter().copied().collect();
        let first = |family| all.iter().copied().find(|ip| Family::of(ip) == family);
        let first: Vec<IpAddr> = Family::ALL.into_iter().filter_map(first).collect();
        // The node is known by its primary addresses; the others come and go with interfaces.
        if replace(&mut self.ruleset.policy.node_ips, first.iter().copied().collect()) {
            self.touch_all();
        }
        if self.primary {
            let ranges = Some(first.into_iter().map(IpNet::from).collect());
            self.change_rules(|policy| replace(&mut policy.node_port_ranges, ranges));
        }
    }

    fn service(&mut self, s: &wire::Service) -> Option<crate::model::Service> {
        let mut faults = Vec::new();
        let service = convert::service(s, &mut faults);
        self.bad_object(&faults);
        service
    }

    fn slice(&mut self, s: &wire::EndpointSlice) -> Option<crate::model::Slice> {
        let mut faults = Vec::new();
        let slice = convert::slice(s, &self.node_name, &mut faults);
        self.bad_object(&faults);
        let mut slice = slice?;
        self.overlay.see(&convert::key(&s.metadata), &mut slice, convert::pods_here(s, &self.node_name));
        Some(slice)
    }

    /// What the agent says of its pods now, or what time it is by which that counts.
    pub fn take_words(&mut self, board: &Board, now: Instant) {
        if board.change != self.words || self.words_due().is_some_and(|due| due <= now) {
            self.words = board.change;
            let changed = self.overlay.advance(&board.words, now);
            self.lay_over(changed);
        }
    }

    pub fn words_due(&self) -> Option<Instant> {
        self.overlay.due()
    }

    fn lay_over(&mut self, slices: BTreeSet<Key>) {
        for key in slices {
            let Some(mut slice) = self.tables.slice(&key).cloned() else { continue };
            self.overlay.apply(&key, &mut slice);
            self.tables.set_slice(key, Some(slice), &mut self.touched);
        }
    }

    fn bad_object(&mut self, faults: &[convert::ConvertError]) {
        self.stats.bad_objects += u64::from(!faults.is_empty());
        for e in faults {
            error!(error = %e, "left out of the service rules");
        }
    }

    /// Brings the kernel up to date. True once the kernel holds all that was listed.
    pub fn sync(&mut self) -> Result<bool, Error> {
        if !(self.have_services && self.have_slices && (self.have_pod_cidrs || !self.by_node_cidrs)) {
            return Ok(false);
        }
        let began = Instant::now();
        let touched = std::mem::take(&mut self.touched);
        self.check_health(&touched);
        let changed = update(&mut self.ruleset, &self.tables, &touched, &self.set_aside);
        let installed = self.installed.as_ref();
        self.kept.update(touched.union(&changed), installed, &self.ruleset, &self.tables, &mut self.purge);
        self.stats.services = self.tables.service_count();
        self.stats.endpoints = self.tables.endpoint_count();
        let done = self.install(&changed);
        if let Err(e) = &done {
            self.installed = None;
            self.stats.failures += 1;
            self.stats.last_error = Some(e.to_string());
        }
        let operations = done?;
        self.all_programmed();
        self.stats.set_aside = self.set_aside.iter().map(Key::to_string).collect();
        if let Some((operations, whole)) = operations {
            let took = began.elapsed();
            self.stats.syncs += 1;
            self.stats.durations.observe(took);
            if whole {
                self.stats.full_syncs += 1;
                self.stats.full_durations.observe(took);
                crate::memory::give_back();
            }
            self.stats.last_duration = Some(took);
            self.stats.last_sync = Some(SystemTime::now());
            self.stats.last_operations = operations;
            self.stats.operations += operations as u64;
            debug!(operations, whole, ?took, "service rules programmed");
        }
        self.purge_flows();
        Ok(true)
    }

    /// Number of operations and whether everything was written; `None` when there was nothing to do.
    fn install(&mut self, changed: &Touched) -> Result<Option<(usize, bool)>, Error> {
        let Some(installed) = &mut self.installed else { return self.install_all().map(|n| Some((n, true))) };
        let tx = diff_of(installed, &self.ruleset, changed);
        self.purge = Gone::of(installed, &self.ruleset, &self.tables, changed, self.purge.take());
        let operations = tx.len();
        if tx.is_empty() {
            installed.apply(tx);
            return Ok(None);
        }
        self.crowded = installed.picks() + tx.picks.len() > self.most_picks;
        if operations > MOST_IN_A_CHANGE || self.crowded {
            // Too much to hold the kernel for, or too many chains that nothing leads to: a resync goes in steps.
            self.installed = None;
            return self.install_all().map(|n| Some((n, true)));
        }
        match self.kernel.commit(&tx) {
            Ok(()) => {
                installed.apply(tx);
                Ok(Some((operations, false)))
            }
            Err(e) => {
                warn!(error = %e, operations, "a change of the service rules failed, comparing all of them with what the kernel has");
                self.stats.failures += 1;
                self.stats.last_error = Some(e.to_string());
                self.installed = None;
                self.install_all().map(|n| Some((n, true)))
            }
        }
    }

    /// Whether stale flows could not be removed.
    pub fn flows_are_left(&self) -> bool {
        self.purge.is_some()
    }

    /// A failure here leaves flows on gone endpoints until the next try; connections are not made to wait for it.
    fn purge_flows(&mut self) {
        let Some(gone) = self.purge.take() else { return };
        let began = Instant::now();
        let purged = self.try_purge(&gone);
        self.stats.purge_durations.observe(began.elapsed());
        match purged {
            Ok(n) => self.stats.flows_purged += n,
            Err(e) => {
                warn!(error = %e, "stale flows could not be removed, trying again");
                self.purge = Some(gone);
            }
        }
    }

    fn try_purge(&mut self, gone: &Gone) -> Result<u64, Error> {
        let mut purged = 0;
        for flow in self.kernel.flows()? {
            if stale(&flow, &self.ruleset, &self.tables, &self.node_addresses, gone) {
                self.kernel.delete_flow(&flow)?;
                purged += 1;
            }
        }
        Ok(purged)
    }

    pub fn describe(&self) -> String {
        describe::text(&self.ruleset, &self.set_aside)
    }

    pub fn trace(&self, packet: &Packet) -> Verdict {
        trace(&self.ruleset, &self.node_addresses, packet)
    }

    pub fn explain(&self, packet: Packet) -> Explained {
        let with = |random| self.trace(&Packet { random, ..packet.clone() });
        let verdict = with(0);
        let (mut endpoints, mut affinity, mut chain) = (Vec::new(), None, None);
        if let Outcome::Forward { front, .. } = verdict.outcome {
            affinity = self.ruleset.affinity(&front);
            let count = self.ruleset.endpoints(&front).map_or(0, |pool| pool.len() as u32);
            chain = Some(netlink::chain_of(&front, count, affinity));
            endpoints.extend((0..count).filter_map(|n| match with(n).outcome {
                Outcome::Forward { to, masquerade, .. } => Some((to, masquerade)),
                _ => None,
            }));
        }
        let family = Family::of(&packet.dst);
        let slices = |key| self.tables.slices_of(key).filter(|s| s.family == family);
        let left = verdict.service.as_ref().map(|key| unused(slices(key), &endpoints)).unwrap_or_default();
        let meant = |key: &&Key| {
            let at = |ip: &IpAddr| *ip == packet.dst;
            let service = self.tables.service(key);
            service.is_some_and(|s| [&s.cluster_ips, &s.external_ips, &s.load_balancer_ips].into_iter().flatten().any(at))
        };
        let set_aside = self.set_aside.iter().find(meant).cloned();
        Explained { verdict, endpoints, unused: left, chain, affinity, set_aside }
    }
}
