//! Where a pod's cgroup lies and what limits it carries, from its spec alone. Pure.

use super::qos::{Qos, qos};
use super::{Error, Result};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How cgroups are named, which must agree with the runtime's own setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// Plain directories: `/kubepods/burstable/pod<uid>`.
    #[default]
    Cgroupfs,
    /// Slices: `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with underscores>.slice`.
    Systemd,
}

/// What of the node's configuration shapes a pod's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCgroups {
    pub driver: Driver,
    /// `cgroupRoot`: empty or `/` for the root of the hierarchy.
    pub root: String,
    /// `cpuCFSQuota`: whether CPU limits are enforced.
    pub cpu_cfs_quota: bool,
    /// `cpuCFSQuotaPeriod` in microseconds.
    pub cpu_cfs_period_us: u64,
    /// `podPidsLimit`; `None` is no limit.
    pub pod_pids_limit: Option<u64>,
    /// `MemoryQoS` is on, and `memoryReservationPolicy` is `TieredReservation`: memory that is asked for is protected.
    pub memory_qos: bool,
    pub tiered: bool,
    /// Sizes of huge pages in bytes.
    pub page_sizes: Vec<u64>,
}

impl Default for NodeCgroups {
    fn default() -> Self {
        NodeCgroups {
            driver: Driver::Cgroupfs,
            root: String::new(),
            cpu_cfs_quota: true,
            cpu_cfs_period_us: 100_000,
            pod_pids_limit: None,
            memory_qos: false,
            tiered: false,
            page_sizes: Vec::new(),
        }
    }
}

/// What is written into a cgroup; `None` leaves the kernel's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// In v1 shares; v2 gets the published conversion of it.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period; -1 is no limit.
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u64>,
    /// Page size in bytes to bytes allowed.
    pub hugetlb: BTreeMap<u64, u64>,
    /// What is never taken back, and what is taken back last: v2 alone.
    pub memory_min: Option<u64>,
    pub memory_low: Option<u64>,
}

/// What the pods of each class ask for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weights {
    pub burstable_cpu_shares: u64,
    /// Nothing unless memory is protected by class.
    pub burstable_memory: u64,
    pub guaranteed_memory: u64,
}

/// One pod's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodCgroup {
    pub uid: String,
    pub qos: Qos,
    /// What the runtime takes as the sandbox's `cgroup_parent`: a path for cgroupfs, a slice's name for systemd.
    pub parent: String,
    /// The directory below each controller's mount, without a leading slash.
    pub path: PathBuf,
    pub limits: Limits,
}

/// The kernel's least and greatest shares.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The kernel refuses a quota below one millisecond.
const MIN_QUOTA_US: i64 = 1000;

/// Millicores to v1 shares: 1024 for a core, within the kernel's bounds.
pub fn cpu_shares(milli: i64) -> u64 {
    let shares = u64::try_from(milli).unwrap_or(0).saturating_mul(1024) / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

/// v1 shares to v2 weight, by the conversion that runtimes publish: a curve through (2, 1), (1024, 100), (262144, 10000).
pub fn cpu_weight(shares: u64) -> u64 {
    if shares <= MIN_SHARES {
        return 1;
    }
    if shares >= MAX_SHARES {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// The way back: the least shares that give the weight.
pub fn cpu_shares_of_weight(weight: u64) -> u64 {
    let (mut low, mut high) = (MIN_SHARES, MAX_SHARES);
    while low < high {
        let middle = low.midpoint(high);
        if cpu_weight(middle) < weight { low = middle + 1 } else { high = middle }
    }
    low
}

/// Millicores to CFS quota for a period; 0 is "no limit asked for".
pub fn cpu_quota(milli: i64, period_us: u64) -> i64 {
    if milli <= 0 {
        return 0;
    }
    let period = i64::try_from(period_us).unwrap_or(i64::MAX);
    (milli.saturating_mul(period) / 1000).max(MIN_QUOTA_US)
}

/// Where the pod's cgroup lies and what it may use. Refuses a uid that could name anything but one new directory.
pub fn plan(pod: &Pod, node: &NodeCgroups) -> Result<PodCgroup> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if uid.is_empty() || !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Error::Uid(uid));
    }
    let qos = qos(pod);
    let (parent, path) = place(node, qos, &uid)?;
    Ok(PodCgroup { uid, qos, parent, path, limits: limits(pod, qos, node) })
}

/// The components of a class's cgroup below the hierarchy's root, in the driver-neutral form.
pub(super) fn class_parts(node: &NodeCgroups, qos: Option<Qos>) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    for part in node.root.split('/').filter(|p| !p.is_empty()) {
        if part == "." || part == ".." || part.contains('\0') {
            return Err(Error::Root(node.root.clone()));
        }
        parts.push(part.to_owned());
    }
    if !node.root.is_empty() && !node.root.starts_with('/') {
        return Err(Error::Root(node.root.clone()));
    }
    parts.push("kubepods".to_owned());
    match qos {
        Some(Qos::Burstable) => parts.push("burstable".to_owned()),
        Some(Qos::BestEffort) => parts.push("besteffort".to_owned()),
        Some(Qos::Guaranteed) | None => {}
    }
    Ok(parts)
}

/// The directory that stands for these components: as they are, or as nested slices where each name repeats its ancestors'.
pub(super) fn directory(driver: Driver, parts: &[String]) -> PathBuf {
    match driver {
        Driver::Cgroupfs => parts.iter().collect(),
        Driver::Systemd => {
            let mut name = String::new();
            let mut path = PathBuf::new();
            for part in parts {
                // A dash separates levels in a slice's name, so dashes inside a component become underscores.
                let part = part.trim_end_matches(".slice").replace('-', "_");
                if !name.is_empty() {
                    name.push('-');
                }
                name.push_str(&part);
                path.push(format!("{name}.slice"));
            }
            path
        }
    }
}

fn place(node: &NodeCgroups, qos: Qos, uid: &str) -> Result<(String, PathBuf)> {
    let mut parts = class_parts(node, Some(qos))?;
    parts.push(format!("pod{uid}"));
    let path = directory(node.driver, &parts);
    Ok((format!("/{}", path.display()), path))
}

/// Sums of one pod: millicores and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amounts {
    cpu: Quantity,
    memory: Quantity,
}

impl Amounts {
    fn of(list: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
        Amounts { cpu: amount(list, "cpu"), memory: amount(list, "memory") }
    }
    fn plus(self, other: Amounts) -> Amounts {
        Amounts { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }
    /// The other's where this says nothing.
    fn or(self, other: Amounts) -> Amounts {
        let pick = |own: Quantity, other: Quantity| if own.is_zero() { other } else { own };
        Amounts { cpu: pick(self.cpu, other.cpu), memory: pick(self.memory, other.memory) }
    }
    fn max(self, other: Amounts) -> Amounts {
        Amounts { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

/// None, or one that cannot be read, is zero.
pub fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Quantity {
    list.and_then(|l| l.get(name)).and_then(|q| q.0.parse().ok()).unwrap_or_default()
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A pod's total: containers and sidecars together, or the greatest moment of initialisation, where an init container runs
/// beside the sidecars started before it.
fn total(spec: &PodSpec, of: impl Fn(&ResourceRequirements) -> Amounts) -> Amounts {
    let of = |c: &Container| c.resources.as_ref().map(&of).unwrap_or_default();
    let mut running = spec.containers.iter().map(of).fold(Amounts::default(), Amounts::plus);
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for init in spec.init_containers.iter().flatten() {
        let mine = of(init);
        if is_sidecar(init) {
            running = running.plus(mine);
            sidecars = sidecars.plus(mine);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(mine.plus(sidecars));
        }
    }
    running.max(peak)
}

/// What containers ask for together; zero where nobody says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub cpu_request_milli: i64,
    pub cpu_limit_milli: i64,
    pub memory_limit_bytes: i64,
}

/// The memory that containers ask for together, whatever the pod as a whole does.
pub fn asked_by_containers(spec: &PodSpec) -> i64 {
    requested(spec).memory.units()
}

/// All containers of the pod, without what its runtime class costs.
pub fn asked(spec: &PodSpec) -> Asked {
    let (mut requests, mut limits) = (requested(spec), total(spec, |r| Amounts::of(r.limits.as_ref())));
    if let Some(whole) = &spec.resources {
        requests = Amounts::of(whole.requests.as_ref()).or(requests);
        limits = Amounts::of(whole.limits.as_ref()).or(limits);
    }
    Asked {
        cpu_request_milli: requests.cpu.milli(),
        cpu_limit_milli: limits.cpu.milli(),
        memory_limit_bytes: limits.memory.units(),
    }
}

/// What the pod's runtime class costs: asked for and never exceeded.
pub fn overhead(spec: &PodSpec) -> Option<Asked> {
    let overhead = Amounts::of(Some(spec.overhead.as_ref()?));
    let cpu = overhead.cpu.milli();
    Some(Asked { cpu_request_milli: cpu, cpu_limit_milli: cpu, memory_limit_bytes: overhead.memory.units() })
}

fn requested(spec: &PodSpec) -> Amounts {
    total(spec, |r| {
        let (asked, limit) = (Amounts::of(r.requests.as_ref()), Amounts::of(r.limits.as_ref()));
        let pick = |a: Quantity, l: Quantity| if a.is_zero() { l } else { a };
        // The API server defaults a missing request to the limit; a pod from a file has not been through it.
        let has = |name: &str| r.requests.as_ref().is_some_and(|q| q.contains_key(name));
        Amounts {
            cpu: if has("cpu") { asked.cpu } else { pick(asked.cpu, limit.cpu) },
            memory: if has("memory") { asked.memory } else { pick(asked.memory, limit.memory) },
        }
    })
}

/// What bounds the pod as a whole: cpu and memory, each where every container or the pod itself says so.
pub fn pod_limits(spec: &PodSpec) -> (Option<Quantity>, Option<Quantity>) {
    let (_, limits, declared) = bounds(spec);
    (Some(limits.cpu).filter(|q| declared.0 && !q.is_zero()), Some(limits.memory).filter(|q| declared.1 && !q.is_zero()))
}

/// Requests and limits with the overhead, and whether cpu and memory are limited.
fn bounds(spec: &PodSpec) -> (Amounts, Amounts, (bool, bool)) {
    let mut requests = requested(spec);
    let mut limits = total(spec, |r| Amounts::of(r.limits.as_ref()));
    let declared = |name: &str| {
        crate::pod::containers(spec).all(|c| !amount(c.resources.as_ref().and_then(|r| r.limits.as_ref()), name).is_zero())
    };
    let (mut cpu_declared, mut memory_declared) = (declared("cpu"), declared("memory"));
    if let Some(pod_level) = &spec.resources {
        let (asked, limit) = (Amounts::of(pod_level.requests.as_ref()), Amounts::of(pod_level.limits.as_ref()));
        if !asked.cpu.is_zero() {
            requests.cpu = asked.cpu;
        }
        if !limit.cpu.is_zero() {
            (limits.cpu, cpu_declared) = (limit.cpu, true);
        }
        if !limit.memory.is_zero() {
            (limits.memory, memory_declared) = (limit.memory, true);
        }
    }
    let overhead = Amounts::of(spec.overhead.as_ref());
    requests = requests.plus(overhead);
    // Overhead raises a limit that is there; it does not make one.
    if !limits.cpu.is_zero() {
        limits.cpu += overhead.cpu;
    }
    if !limits.memory.is_zero() {
        limits.memory += overhead.memory;
    }
    (requests, limits, (cpu_declared, memory_declared))
}

fn limits(pod: &Pod, qos: Qos, node: &NodeCgroups) -> Limits {
    let Some(spec) = &pod.spec else { return Limits::default() };
    let (requests, limits, (cpu_declared, memory_declared)) = bounds(spec);
    let mut out = Limits { pids: node.pod_pids_limit, hugetlb: hugetlb(spec), ..Limits::default() };
    // Of those that it does not ask for it has none.
    for size in &node.page_sizes {
        out.hugetlb.entry(*size).or_insert(0);
    }
    if let (true, Ok(asked @ 1..)) = (node.tiered, u64::try_from(requests.memory.units())) {
        match qos {
            Qos::Guaranteed => out.memory_min = Some(asked),
            Qos::Burstable => out.memory_low = Some(asked),
            Qos::BestEffort => {}
        }
    }
    if qos == Qos::BestEffort {
        out.cpu_shares = Some(MIN_SHARES);
        return out;
    }
    out.cpu_shares = Some(cpu_shares(requests.cpu.milli()));
    if cpu_declared || qos == Qos::Guaranteed {
        let quota = if node.cpu_cfs_quota { cpu_quota(limits.cpu.milli(), node.cpu_cfs_period_us) } else { -1 };
        out.cpu_quota_us = Some(quota);
        out.cpu_period_us = Some(node.cpu_cfs_period_us);
    }
    if memory_declared || qos == Qos::Guaranteed {
        out.memory_bytes = u64::try_from(limits.memory.units()).ok().filter(|b| *b > 0);
    }
    out
}

/// Huge pages by size: containers together, or the greatest init container.
fn hugetlb(spec: &PodSpec) -> BTreeMap<u64, u64> {
    let sizes = |resources: Option<&ResourceRequirements>| -> BTreeMap<u64, u64> {
        let list = resources.into_iter().flat_map(|r| r.limits.iter().flatten());
        list.filter_map(|(name, q)| {
            let bytes = q.0.parse::<Quantity>().ok()?.units();
            Some((super::container::page_size_of(name)?, u64::try_from(bytes).ok()?))
        })
        .collect()
    };
    let of = |c: &Container| sizes(c.resources.as_ref());
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for container in &spec.containers {
        for (size, bytes) in of(container) {
            *sums.entry(size).or_default() += bytes;
        }
    }
    for init in spec.init_containers.iter().flatten() {
        for (size, bytes) in of(init) {
            let sum = sums.entry(size).or_default();
            *sum = if is_sidecar(init) { *sum + bytes } else { (*sum).max(bytes) };
        }
    }
    // What the pod says as a whole goes before what its containers say.
    sums.extend(sizes(spec.resources.as_ref()));
    sums
}

#[cfg(test)]
mod tests;
