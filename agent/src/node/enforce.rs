//! Node allocatable, enforced: what all pods together may use, and what the node's own cgroups are kept to.
//!
//! Owns when it is tried and what is said of it; `cgroup` writes. The node's own cgroups are limited at the start, and a failure there
//! ends it: a node that is to be protected must not run unprotected. The pods' limit is tried each minute until the kernel takes it.

use crate::api::watch::chain;
use crate::cgroup::{self, enforce};
use crate::config::{Config, Existing};
use crate::events::{EventRecorder, Severity};
use crate::node::facts::{FileSystem, Machine};
use crate::node::status;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ENFORCED: &str = "NodeAllocatableEnforced";
const FAILED: &str = "FailedNodeAllocatableEnforcement";
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("systemReserved, kubeReserved and evictionHard keep {kept} of {resource}, and the node has {capacity}")]
    TooMuch { resource: String, kept: String, capacity: String },
    #[error("reservedSystemCPUs: this host has no cpu {0}")]
    NoCpu(u32),
    #[error("cannot limit {field} {name:?}")]
    Existing { field: &'static str, name: String, source: Box<cgroup::Error> },
}

/// Whether the node has at all what is kept from pods.
pub fn check(config: &Config, machine: &Machine, node_fs: Option<FileSystem>) -> Result<(), Error> {
    for (resource, capacity, kept) in status::kept(config, machine, node_fs) {
        if kept > capacity {
            return Err(Error::TooMuch { resource, kept: kept.to_string(), capacity: capacity.to_string() });
        }
    }
    let there = |cpu: &&u32| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists();
    match config.node.reserved.cpus.iter().find(|cpu| !there(cpu)) {
        Some(cpu) => Err(Error::NoCpu(*cpu)),
        None => Ok(()),
    }
}

pub struct Enforcer {
    pub config: Arc<Config>,
    pub machine: Arc<Machine>,
    pub cgroups: cgroup::Manager,
    pub events: EventRecorder,
}

impl Enforcer {
    /// Limits the node's own cgroups, then those of pods.
    pub async fn start(self, cancel: CancellationToken) -> Result<JoinHandle<()>, Error> {
        let reserved = &self.config.node.reserved;
        self.own("systemReservedCgroup", "system reserved", reserved.enforce.system.as_ref(), &reserved.system).await?;
        self.own("kubeReservedCgroup", "kube reserved", reserved.enforce.kube.as_ref(), &reserved.kube).await?;
        let limits = self.limits();
        // Before any pod starts, where the kernel takes it at once.
        let mut done = self.pods(&limits).await;
        Ok(tokio::spawn(async move {
            let again = async {
                while !done {
                    tokio::time::sleep(PAUSE).await;
                    done = self.pods(&limits).await;
                }
            };
            if cancel.run_until_cancelled(again).await.is_some() {
                cancel.cancelled().await;
            }
        }))
    }

    fn limits(&self) -> cgroup::Limits {
        let reserved = &self.config.node.reserved;
        let mut capacity = status::capacity(&self.config, &self.machine, None);
        if let Some(tasks) = tasks_max(Path::new("/proc/sys/kernel")) {
            capacity.insert("pid".into(), ferrolet_quantity::Quantity::from_units(tasks));
        }
        enforce::pods(&capacity, |name| match reserved.enforce.pods {
            true => reserved.of(name),
            false => ferrolet_quantity::Quantity::ZERO,
        })
    }

    async fn pods(&self, limits: &cgroup::Limits) -> bool {
        match self.cgroups.limit_pods(limits.clone()).await {
            Ok(()) => {
                self.say(Severity::Normal, ENFORCED, "Updated Node Allocatable limit across pods".to_owned());
                true
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "cannot set the limits of all pods together, trying again in a minute");
                self.say(Severity::Warning, FAILED, format!("Failed to update Node Allocatable Limits: {error}"));
                false
            }
        }
    }

    async fn own(
        &self,
        field: &'static str,
        words: &str,
        whose: Option<&Existing>,
        amounts: &std::collections::BTreeMap<String, ferrolet_quantity::Quantity>,
    ) -> Result<(), Error> {
        let Some(Existing { name, cpu_only }) = whose else { return Ok(()) };
        let limits = enforce::reserved(amounts, *cpu_only, self.config.memory_qos.is_some());
        match self.cgroups.limit_existing(name, limits).await {
            Ok(()) => {
                self.say(Severity::Normal, ENFORCED, format!("Updated limits on {words} cgroup {name}"));
                Ok(())
            }
            Err(source) => {
                self.say(
                    Severity::Warning,
                    FAILED,
                    format!("Failed to enforce limits on {words} cgroup {name}: {}", chain(&source)),
                );
                Err(Error::Existing { field, name: name.clone(), source: Box::new(source) })
            }
        }
    }

    fn say(&self, severity: Severity, reason: &str, message: String) {
        // Before the Node is known; its name is what such events go by.
        let name = &self.config.node_name;
        self.events.node(name, Some(name.clone()), severity, reason, message);
    }
}

/// How many tasks the kernel allows: the lesser of its two bounds.
fn tasks_max(kernel: &Path) -> Option<i64> {
    let read = |name: &str| std::fs::read_to_string(kernel.join(name)).ok()?.trim().parse::<i64>().ok();
    ["pid_max", "threads-max"].into_iter().filter_map(read).min()
}

#[cfg(test)]
mod tests;
