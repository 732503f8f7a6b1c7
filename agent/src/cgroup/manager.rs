//! The writer: makes, limits, lists and removes pods' cgroups.
//!
//! Owns nothing in memory but where the hierarchies lie. Every call may be repeated and may be interrupted: what is there is
//! looked up again each time. Blocking file work runs on the blocking pool. Touches nothing outside `kubepods`, except that
//! what leads down to it must exist, and that v2 must enable controllers on the way.
//!
//! With the systemd driver the folders are those of slices that systemd is asked to make (`slices`); the values are written into
//! the files too, where systemd has no word for them or an older one.

use super::container::page_size_name;
use super::enforce;
use super::hierarchy::{Hierarchy, Level, V2_CONTROLLERS};
use super::plan::{Driver, Limits, NodeCgroups, PodCgroup, Weights, class_parts, cpu_weight, directory};
use super::qos::Qos;
use super::read::{self, Found};
use super::slices::Slices;
use super::usage::{self, PodUsage, Usage};
use super::{Error, Result};
use ferrolet_systemd::units::Units;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Which interface the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    V1,
    V2,
}

/// Removal is tried this often, with pauses that grow to the longest.
const TRIES: u32 = 40;
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: NodeCgroups,
    version: Version,
    hierarchies: Vec<Hierarchy>,
    /// With the systemd driver, but for tests on plain folders.
    slices: Option<Slices>,
}

impl Manager {
    /// Finds the hierarchies at their usual place, and systemd where its driver is used.
    pub async fn detect(node: NodeCgroups) -> Result<Manager> {
        Manager::find("/sys/fs/cgroup".into(), node, Units::default()).await
    }

    /// The same at other places.
    pub async fn find(mount: PathBuf, node: NodeCgroups, units: Units) -> Result<Manager> {
        let found = tokio::task::spawn_blocking(move || {
            let slices = match node.driver {
                Driver::Systemd => Some(Slices::find(units)?),
                Driver::Cgroupfs => None,
            };
            Manager::made(&mount, node, slices)
        });
        found.await.unwrap_or(Err(Error::Interrupted))
    }

    /// On folders alone, whatever the driver: for tests.
    pub fn at(mount: &Path, node: NodeCgroups) -> Result<Manager> {
        Manager::made(mount, node, None)
    }

    fn made(mount: &Path, node: NodeCgroups, slices: Option<Slices>) -> Result<Manager> {
        class_parts(&node, None)?;
        let (version, hierarchies) = Hierarchy::find(mount)?;
        Ok(Manager { inner: Arc::new(Inner { node, version, hierarchies, slices }) })
    }

    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// What `plan` needs.
    pub fn node(&self) -> &NodeCgroups {
        &self.inner.node
    }

    /// Makes `kubepods` and the two class cgroups below it.
    pub async fn ensure_roots(&self) -> Result<()> {
        self.blocking(|inner| {
            inner.make(&inner.class(Qos::Guaranteed)?, &Limits::default())?;
            inner.make(&inner.class(Qos::Burstable)?, &Limits::default())?;
            // Pods that ask for nothing get the least together, however many they are.
            let least = Limits { cpu_shares: Some(2), ..Limits::default() };
            inner.make(&inner.class(Qos::BestEffort)?, &least)
        })
        .await
    }

    /// What all pods together may use. Memory that they use already is not cut off: that is an error, to be tried again.
    pub async fn limit_pods(&self, limits: Limits) -> Result<()> {
        self.blocking(move |inner| {
            let path = inner.class(Qos::Guaranteed)?;
            inner.make(&path, &Limits::default())?;
            // The kernel refuses it by itself in v1; in v2 it would kill.
            if let (Version::V2, Some(limit)) = (inner.version, limits.memory_bytes) {
                let used = inner.hierarchies.iter().filter_map(|h| read::held(&h.folder(&path))).max().unwrap_or(0);
                if used > limit {
                    return Err(Error::InUse { path, used, limit });
                }
            }
            inner.make(&path, &limits)
        })
        .await
    }

    /// What a cgroup of the node's own may use, which others make.
    pub async fn limit_existing(&self, name: &str, limits: Limits) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |inner| {
            let path = enforce::place(inner.node.driver, &name)?;
            inner.existing(&path, &limits)
        })
        .await
    }

    /// What the pods of each class have together. What is kept for pods must be kept for those around them too.
    pub async fn weigh(&self, weights: Weights) -> Result<()> {
        self.blocking(move |inner| {
            let Weights { burstable_cpu_shares, burstable_memory, guaranteed_memory } = weights;
            let kept = |bytes: u64| Some(bytes).filter(|_| inner.node.memory_qos);
            if inner.node.memory_qos {
                let both = Limits { memory_min: kept(guaranteed_memory.saturating_add(burstable_memory)), ..Limits::default() };
                inner.make(&inner.class(Qos::Guaranteed)?, &both)?;
            }
            let burstable =
                Limits { cpu_shares: Some(burstable_cpu_shares), memory_low: kept(burstable_memory), ..Limits::default() };
            inner.make(&inner.class(Qos::Burstable)?, &burstable)
        })
        .await
    }

    /// Whether the kernel can bound swap. Asks below `kubepods`, which must have been made.
    pub async fn bounds_swap(&self) -> bool {
        let asked = self.blocking(|inner| {
            let (folder, file) = match inner.version {
                Version::V1 => (PathBuf::new(), "memory.memsw.limit_in_bytes"),
                Version::V2 => (inner.class(Qos::Guaranteed)?, "memory.swap.max"),
            };
            Ok(inner.hierarchies.iter().any(|h| h.folder(&folder).join(file).exists()))
        });
        asked.await.unwrap_or(false)
    }

    /// Makes the pod's cgroup, and what leads to it, and writes its limits.
    pub async fn create(&self, pod: &PodCgroup) -> Result<()> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            inner.check(&pod)?;
            inner.make(&pod.path, &pod.limits)
        })
        .await
    }

    /// What is in force in the pod's cgroup.
    pub async fn read(&self, pod: &PodCgroup) -> Result<Found> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            inner.check(&pod)?;
            read::folder(inner.version, &inner.hierarchies, &pod.path)
        })
        .await
    }

    /// What is in force in the cgroup of a container below the pod's; `None` if there is none that bears its id.
    pub async fn read_container(&self, pod: &PodCgroup, id: &str) -> Result<Option<Found>> {
        let (pod, id) = (pod.clone(), id.to_owned());
        self.blocking(move |inner| {
            inner.check(&pod)?;
            read::container(inner.version, &inner.hierarchies, &pod.path, &id)
        })
        .await
    }

    /// What the whole host uses, and what each of these pods does, with its containers of these ids.
    pub async fn usage(&self, pods: Vec<(PodCgroup, Vec<String>)>) -> Result<(Option<Usage>, Vec<PodUsage>)> {
        self.blocking(move |inner| {
            let (version, hierarchies) = (inner.version, &inner.hierarchies);
            let each = |(pod, ids): &(PodCgroup, Vec<String>)| match inner.check(pod) {
                Ok(()) => usage::of_pod(version, hierarchies, &pod.path, ids),
                Err(_) => PodUsage::default(),
            };
            Ok((usage::of(version, hierarchies, Path::new("")), pods.iter().map(each).collect()))
        })
        .await
    }

    /// Removes the pod's cgroup and all below it, killing what still runs there. Not being there is success. Processes that
    /// cannot die yet are waited for, for some seconds.
    pub async fn remove(&self, pod: &PodCgroup) -> Result<()> {
        let mut pause = Duration::from_millis(2);
        let mut left = Vec::new();
        for _ in 0..TRIES {
            let pod = pod.clone();
            match self.blocking(move |inner| inner.check(&pod).and_then(|()| inner.remove(&pod.path))).await? {
                None => return Ok(()),
                Some(pids) => left = pids,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(Error::Busy { path: pod.path.clone(), pids: left, tries: TRIES })
    }

    /// The cgroups of all pods that are there in any hierarchy, by uid, with empty limits: for finding orphans.
    pub async fn list(&self) -> Result<Vec<PodCgroup>> {
        self.blocking(|inner| {
            let mut found = BTreeMap::new();
            for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
                let class = inner.class(qos)?;
                for hierarchy in &inner.hierarchies {
                    for name in hierarchy.children(&class)? {
                        if let Some(uid) = pod_uid(inner.node.driver, &class, &name) {
                            let path = class.join(&name);
                            let parent = format!("/{}", path.display());
                            let pod = PodCgroup { uid: uid.clone(), qos, parent, path, limits: Limits::default() };
                            found.insert((uid, qos), pod);
                        }
                    }
                }
            }
            Ok(found.into_values().collect())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or(Err(Error::Interrupted))
    }
}

/// The uid in a pod cgroup's name, if it is one.
fn pod_uid(driver: Driver, class: &Path, name: &str) -> Option<String> {
    let uid = match driver {
        Driver::Cgroupfs => name.strip_prefix("pod")?.to_owned(),
        Driver::Systemd => {
            let class = class.file_name()?.to_str()?.strip_suffix(".slice")?;
            let rest = name.strip_prefix(class)?.strip_prefix("-pod")?.strip_suffix(".slice")?;
            rest.replace('_', "-")
        }
    };
    (!uid.is_empty() && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')).then_some(uid)
}

impl Inner {
    fn class(&self, qos: Qos) -> Result<PathBuf> {
        Ok(directory(self.node.driver, &class_parts(&self.node, Some(qos))?))
    }

    /// Refuses to touch anything that is not a pod's cgroup in its place.
    fn check(&self, pod: &PodCgroup) -> Result<()> {
        let class = self.class(pod.qos)?;
        let name = pod.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let fits = pod.path.parent() == Some(&class) && pod_uid(self.node.driver, &class, name).as_deref() == Some(&pod.uid);
        if fits { Ok(()) } else { Err(Error::Uid(pod.uid.clone())) }
    }

    fn make(&self, path: &Path, limits: &Limits) -> Result<()> {
        if let Some(slices) = &self.slices {
            slices.make(path, self.version, limits)?;
        }
        for hierarchy in &self.hierarchies {
            let leaf = hierarchy.make(path)?;
            self.write(&leaf, limits)?;
        }
        Ok(())
    }

    /// All that is asked for must be to be had: a limit that does nothing protects nobody.
    fn existing(&self, path: &Path, limits: &Limits) -> Result<()> {
        let levels = self.hierarchies.iter().map(|h| h.existing(path)).collect::<Result<Vec<_>>>()?;
        let levels: Vec<Level> = levels.into_iter().flatten().collect();
        if levels.is_empty() {
            return Err(Error::Missing { path: path.to_owned() });
        }
        let asked =
            [("cpu", limits.cpu_shares.is_some()), ("memory", limits.memory_bytes.is_some()), ("pids", limits.pids.is_some())];
        for (controller, _) in asked.into_iter().filter(|(_, asked)| *asked) {
            if !levels.iter().any(|level| level.controllers.contains(controller)) {
                return Err(Error::NoController { path: path.to_owned(), controller });
            }
        }
        if let Some(slices) = &self.slices {
            slices.limit(path, self.version, limits)?;
        }
        levels.iter().try_for_each(|level| self.write(level, limits))
    }

    fn write(&self, level: &Level, limits: &Limits) -> Result<()> {
        match self.version {
            Version::V1 => write_v1(level, limits),
            Version::V2 => write_v2(level, limits),
        }
    }

    /// One try; `None` if nothing is left, else the processes that were seen.
    fn remove(&self, path: &Path) -> Result<Option<Vec<i32>>> {
        let mut pids = Vec::new();
        if let Some(slices) = &self.slices {
            for hierarchy in &self.hierarchies {
                hierarchy.kill(path, &mut pids)?;
            }
            // Before the folder, by which it is found again.
            slices.stop(path)?;
        }
        let mut gone = true;
        for hierarchy in &self.hierarchies {
            gone &= hierarchy.remove(path, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok((!gone).then_some(pids))
    }
}

fn write_v1(leaf: &Level, limits: &Limits) -> Result<()> {
    let has = |controller: &str| leaf.controllers.contains(controller);
    if has("cpu") {
        leaf.set("cpu.shares", limits.cpu_shares)?;
        if let Some(quota) = limits.cpu_quota_us.filter(|q| *q != 0) {
            // The kernel checks the pair at each write, so an old small period must not meet a new large quota.
            leaf.set("cpu.cfs_quota_us", Some(-1))?;
            leaf.set("cpu.cfs_period_us", limits.cpu_period_us)?;
            leaf.set("cpu.cfs_quota_us", Some(quota))?;
        }
    }
    if has("memory") {
        leaf.set("memory.limit_in_bytes", limits.memory_bytes)?;
    }
    if has("pids") {
        leaf.set("pids.max", limits.pids)?;
    }
    if has("hugetlb") {
        for (size, bytes) in &limits.hugetlb {
            leaf.set(&format!("hugetlb.{}.limit_in_bytes", page_size_name(*size)), Some(*bytes))?;
        }
    }
    Ok(())
}

fn write_v2(leaf: &Level, limits: &Limits) -> Result<()> {
    let has = |controller: &str| V2_CONTROLLERS.contains(&controller) && leaf.controllers.contains(controller);
    if has("cpu") {
        leaf.set("cpu.weight", limits.cpu_shares.map(cpu_weight))?;
        if let Some(quota) = limits.cpu_quota_us.filter(|q| *q != 0) {
            let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
            leaf.set("cpu.max", Some(format!("{quota} {}", limits.cpu_period_us.unwrap_or(100_000))))?;
        }
    }
    if has("memory") {
        leaf.set("memory.max", limits.memory_bytes)?;
        leaf.set("memory.min", limits.memory_min)?;
        leaf.set("memory.low", limits.memory_low)?;
    }
    if has("pids") {
        leaf.set("pids.max", limits.pids)?;
    }
    if has("hugetlb") {
        for (size, bytes) in &limits.hugetlb {
            leaf.set(&format!("hugetlb.{}.max", page_size_name(*size)), Some(*bytes))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
