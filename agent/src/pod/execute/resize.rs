//! Resize in place: writes what was granted, in the order that `pod::resize::steps` gives, and reads back what came of it.

use super::{Failed, Job, Outcome, Tried, chain};
use crate::cgroup::{self, Limits, PodCgroup};
use crate::pod::container;
use crate::pod::desired::Container as Spec;
use crate::pod::observed::Container;
use crate::pod::resize::steps::{self, Step};
use crate::pod::resize::{self, Amounts, Real, Record, record};
use ferrolet_cri::types as cri;
use std::collections::{BTreeMap, BTreeSet};

/// The reason in the condition.
const ERROR: &str = "Error";

impl Job {
    /// A new pod's grant is written down before anything is made of it: its spec may be another by the time that a next agent looks.
    pub(super) async fn record_new(&self) -> Result<(), String> {
        let record = &self.observed.local.resize.record;
        if record.allocation.is_empty() {
            return Ok(());
        }
        self.write_record(record.clone()).await
    }

    async fn write_record(&self, record: Record) -> Result<(), String> {
        let folder = self.shared.volumes.pod_dir(&self.desired.id.uid).map_err(|e| e.to_string())?;
        let written = tokio::task::spawn_blocking(move || record::write(&folder, &record)).await;
        let written = written.map_err(|e| e.to_string())?;
        written.map_err(|e| format!("write what the pod was granted: {e}"))
    }

    pub(super) async fn resize(&self) -> Result<Outcome, Failed> {
        let mut record = self.observed.local.resize.record.clone();
        let known: BTreeSet<&str> = self.observed.containers.iter().map(|c| c.id.as_str()).collect();
        record.actuated.retain(|id, _| known.contains(id.as_str()));
        record.real.clear();
        record.unsettled = true;
        let begun = std::time::Instant::now();
        let done = self.resize_all(&mut record).await;
        self.shared.resize_counts.carried_out(begun.elapsed(), done.is_ok());
        let failed = match done {
            Ok(plan) => {
                record.unsettled = false;
                record.real = self.read_back(&plan).await;
                self.write_record(record.clone()).await.err()
            }
            Err(message) => Some(message),
        };
        let failed = failed.map(|message| Failed { reason: ERROR, message });
        Ok(Outcome::Resized(Box::new(Tried { record, failed })))
    }

    /// Adds to the record what was done, also where it fails later on.
    async fn resize_all(&self, record: &mut Record) -> Result<PodCgroup, String> {
        self.write_record(record.clone()).await?;
        let plan = cgroup::plan(&self.desired.pod, self.shared.cgroups.node()).map_err(|e| chain(&e))?;
        let found =
            self.shared.cgroups.read(&plan).await.map_err(|e| format!("unable to read the pod's cgroup: {}", chain(&e)))?;
        let all: Vec<(&Spec, &Container)> = resize::running(&self.desired, &self.observed).collect();
        let containers: Vec<steps::Container> = all.iter().map(|(c, n)| self.now_and_then(c, n)).collect();
        let (has, wants) = (terms(&found.limits), terms(&plan.limits));
        let mut used = Vec::new();
        for (_, n) in &all {
            used.push(self.shared.cgroups.read_container(&plan, &n.id).await.ok().flatten().and_then(|f| f.memory_used));
        }
        if let Some(wrong) = steps::too_small(has, wants, &containers, (found.memory_used, &used)) {
            return Err(wrong);
        }
        let mut now = plan.limits.clone();
        now.memory_bytes = has.memory;
        (now.cpu_quota_us, now.cpu_shares) = (found.limits.cpu_quota_us, found.limits.cpu_shares);
        for step in steps::steps(has, wants, &containers) {
            tracing::debug!(pod = %self.desired.id, ?step, "resize");
            match step {
                Step::PodMemory(to) => {
                    now.memory_bytes = Some(to);
                    self.resize_pod(&plan, &now, Limits { memory_bytes: Some(to), ..Limits::default() }, "memory").await?;
                }
                Step::PodQuota(to) => {
                    now.cpu_quota_us = Some(to);
                    let period = plan.limits.cpu_period_us.or(Some(self.shared.limits.cfs_period_us));
                    let limits = Limits { cpu_quota_us: Some(to), cpu_period_us: period, ..Limits::default() };
                    self.resize_pod(&plan, &now, limits, "cpu").await?;
                }
                Step::PodShares(to) => {
                    now.cpu_shares = Some(to);
                    self.resize_pod(&plan, &now, Limits { cpu_shares: Some(to), ..Limits::default() }, "cpu").await?;
                }
                Step::Container { name, id, amounts } => self.resize_container(record, &name, &id, &amounts).await?,
            }
        }
        Ok(plan)
    }

    fn now_and_then(&self, c: &Spec, n: &Container) -> steps::Container {
        let wants = Amounts::of(&c.resize.resources);
        // Of one that something else made nothing is known: all is written.
        let has = resize::given(n, &self.observed).map(Amounts::of).unwrap_or_default();
        steps::Container { name: c.name.clone(), id: n.id.clone(), has, wants }
    }

    /// The runtime is told first, so that it can refuse; one that does not know the call has nothing to say.
    async fn resize_pod(&self, plan: &PodCgroup, all: &Limits, change: Limits, what: &str) -> Result<(), String> {
        let sandbox = self.observed.newest_sandbox().map(|s| s.id.clone()).unwrap_or_default();
        let overhead = self.desired.pod.spec.as_ref().and_then(cgroup::overhead);
        let overhead = overhead.map(|o| container::sandbox_resources(o, &self.shared.limits));
        let told = self.shared.cri.update_pod_sandbox_resources(&sandbox, overhead.as_ref(), Some(&told(all))).await;
        match told {
            Ok(()) | Err(ferrolet_cri::Error::Unimplemented { .. }) => {}
            Err(error) => {
                let why = error.rpc_text();
                return Err(format!(
                    "failed to notify runtime for UpdatePodSandboxResources (resource={what}); resize rejected: {why}"
                ));
            }
        }
        self.shared.cgroups.create(&PodCgroup { limits: change, ..plan.clone() }).await.map_err(|e| chain(&e))
    }

    async fn resize_container(&self, record: &mut Record, name: &str, id: &str, amounts: &Amounts) -> Result<(), String> {
        let Some(wanted) = self.desired.container(name) else { return Ok(()) };
        let mut limits = container::limits(amounts, wanted, &self.shared.limits);
        if let Some(spec) = self.desired.spec_of(name) {
            let extras = cgroup::extras(&self.desired.pod, spec, amounts.memory_limit, &self.shared.memory);
            container::extend(&mut limits, cgroup::Extras { hugepages: BTreeMap::new(), ..extras });
        }
        let updated = self.shared.cri.update_container_resources(id, &limits, &cri::Labels::new()).await;
        updated.map_err(|e| e.rpc_text())?;
        let before = self.observed.containers.iter().find(|n| n.id == id).and_then(|n| resize::given(n, &self.observed));
        let mut set = before.cloned().unwrap_or_default();
        amounts.put(&mut set, &wanted.resize.resources);
        record.actuated.insert(id.to_owned(), set);
        self.write_record(record.clone()).await
    }

    /// What the runtime says of each container, or else the kernel.
    async fn read_back(&self, plan: &PodCgroup) -> BTreeMap<String, Real> {
        let mut all = BTreeMap::new();
        for (_, n) in resize::running(&self.desired, &self.observed) {
            let said = self.shared.cri.container_status(&n.id, false).await.ok().and_then(|s| s.resources);
            let real = match said {
                Some(said) => Some(of_runtime(&said)),
                None => self.shared.cgroups.read_container(plan, &n.id).await.ok().flatten().map(|f| real_of(&f.limits)),
            };
            all.extend(real.map(|real| (n.id.clone(), real)));
        }
        all
    }
}

fn terms(limits: &Limits) -> steps::Pod {
    steps::Pod {
        memory: limits.memory_bytes,
        cpu_quota: limits.cpu_quota_us.filter(|q| *q > 0),
        cpu_shares: limits.cpu_shares.unwrap_or(0),
    }
}

fn told(limits: &Limits) -> cri::LinuxResources {
    cri::LinuxResources {
        cpu_shares: limits.cpu_shares.and_then(|s| i64::try_from(s).ok()),
        cpu_quota: limits.cpu_quota_us,
        cpu_period: limits.cpu_period_us.and_then(|p| i64::try_from(p).ok()),
        memory_limit_bytes: limits.memory_bytes.and_then(|m| i64::try_from(m).ok()),
        ..Default::default()
    }
}

fn real_of(limits: &Limits) -> Real {
    let quota = limits.cpu_quota_us.filter(|q| *q > 0).zip(limits.cpu_period_us.and_then(|p| i64::try_from(p).ok()));
    Real {
        cpu_request_milli: limits.cpu_shares.and_then(|s| i64::try_from(s).ok()).map(milli),
        cpu_limit_milli: quota.filter(|(_, period)| *period > 0).map(|(quota, period)| quota.saturating_mul(1000) / period),
        memory_limit: limits.memory_bytes,
    }
}

pub(crate) fn of_runtime(said: &cri::LinuxResources) -> Real {
    real_of(&Limits {
        cpu_shares: said.cpu_shares.and_then(|s| u64::try_from(s).ok()),
        cpu_quota_us: said.cpu_quota,
        cpu_period_us: said.cpu_period.and_then(|p| u64::try_from(p).ok()),
        memory_bytes: said.memory_limit_bytes.and_then(|m| u64::try_from(m).ok()),
        ..Limits::default()
    })
}

/// Thousandths of cores for shares, rounded up: the way there rounds down.
fn milli(shares: i64) -> i64 {
    shares.saturating_mul(1000).saturating_add(1023) / 1024
}
