//! One look at what is used. Data only, and rates from two of them.

use super::host::{Network, Pids};
use crate::cgroup::{Memory, Usage};
use crate::node::facts::FileSystem;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub at: Timestamp,
    /// The cgroups could be read.
    pub complete: bool,
    pub node: Node,
    /// Those with a container that runs.
    pub pods: Vec<Pod>,
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: String,
    pub booted: Option<Timestamp>,
    pub used: Tracked,
    /// Of the host as a whole.
    pub memory: Option<Memory>,
    pub memory_capacity: Option<u64>,
    pub network: Option<Network>,
    /// The file system of the agent's folder.
    pub fs: Option<FileSystem>,
    pub pids: Pids,
}

#[derive(Debug, Clone)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Below the root of each hierarchy.
    pub cgroup: PathBuf,
    pub started: Option<Timestamp>,
    pub containers: Vec<Container>,
    pub used: Tracked,
    /// `None` on the host's network.
    pub network: Option<Network>,
}

#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started: Option<Timestamp>,
    pub used: Tracked,
    pub logs: Option<Layer>,
}

/// Bytes and inodes in use, and the file system they lie on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layer {
    pub bytes: Option<u64>,
    pub inodes: Option<u64>,
    pub on: Option<FileSystem>,
}

/// What is not in cgroups.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// By container id.
    pub containers: BTreeMap<String, Layer>,
    pub images: Option<Layer>,
    pub volumes: BTreeMap<super::volumes::Key, super::volumes::Measured>,
}

/// What is used, and how much processor time of late: nanoseconds a second.
#[derive(Debug, Clone, Default)]
pub struct Tracked {
    pub usage: Option<Usage>,
    pub nano_cores: Option<u64>,
}

impl Tracked {
    pub fn of(usage: Option<Usage>) -> Tracked {
        Tracked { usage, nano_cores: None }
    }

    /// Before there are two samples, the rate is that over its whole life.
    pub fn since(usage: Option<Usage>, started: Option<Timestamp>) -> Tracked {
        let age = started.and_then(|t| Duration::try_from(Timestamp::now().duration_since(t)).ok());
        let nano_cores = rate(0, usage.as_ref().and_then(|u| u.cpu_ns), age);
        Tracked { usage, nano_cores }
    }

    fn against(&mut self, before: Option<&Tracked>, apart: Duration) {
        let ns = |tracked: &Tracked| tracked.usage.as_ref().and_then(|u| u.cpu_ns);
        let Some(from) = before.and_then(ns) else { return };
        if let Some(rate) = rate(from, ns(self), Some(apart)) {
            self.nano_cores = Some(rate);
        }
    }
}

/// `None` for a counter that began anew.
fn rate(from: u64, to: Option<u64>, over: Option<Duration>) -> Option<u64> {
    let over = over?.as_nanos().max(1);
    let used = u128::from(to?.checked_sub(from)?);
    u64::try_from(used * 1_000_000_000 / over).ok()
}

impl Sample {
    /// Rates since an earlier sample, for what was there then already.
    pub fn rate_against(&mut self, before: &Sample, apart: Duration) {
        self.node.used.against(Some(&before.node.used), apart);
        let pods: BTreeMap<&str, &Pod> = before.pods.iter().map(|p| (p.uid.as_str(), p)).collect();
        for pod in &mut self.pods {
            let Some(then) = pods.get(pod.uid.as_str()) else { continue };
            pod.used.against(Some(&then.used), apart);
            for container in &mut pod.containers {
                let same = then.containers.iter().find(|c| c.id == container.id);
                container.used.against(same.map(|c| &c.used), apart);
            }
        }
    }
}
