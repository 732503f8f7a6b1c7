//! What the node, its pods and their containers use: `/stats/summary`, `/metrics/resource`, `/metrics/cadvisor`.
//!
//! Read when somebody asks, from cgroups and `/proc`, and from the runtime only what is nowhere else (its writable layers and the
//! images). Nothing is kept but the last sample, which those who ask within a second share and rates are against, and the sizes of
//! volumes, which are walked apart. `summary`, `resource` and `cadvisor` are pure: a sample in, a page out.

pub mod cadvisor;
mod host;
mod page;
pub mod resource;
pub mod sample;
pub mod summary;
pub mod volumes;

use crate::cgroup::{self, PodUsage, Usage};
use crate::node::facts;
use crate::pod::container::pod_logs;
use crate::pod::desired::id_of;
use crate::pod::status::all_containers;
use host::{Network, read_network};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use sample::{Layer, Node, Sample, Tracked};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use volumes::Volumes;

/// Whoever asks within this time of another gets the same answer.
const SHARED: Duration = Duration::from_secs(1);
/// How long the runtime may take to tell the sizes of layers; runtimes measure them themselves every ten seconds or so.
const LAYERS: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Stats {
    inner: Arc<Inner>,
}

struct Inner {
    cgroups: cgroup::Manager,
    cri: ferrolet_cri::Client,
    node_name: String,
    root_dir: PathBuf,
    logs_dir: PathBuf,
    last: Mutex<Option<(Instant, Arc<Sample>)>>,
    volumes: Arc<Volumes>,
}

/// A container that runs, as the pod's status has it.
#[derive(Debug, Clone)]
struct Running {
    name: String,
    id: String,
    image: String,
    started: Option<jiff::Timestamp>,
}

impl Stats {
    pub fn new(cgroups: cgroup::Manager, cri: ferrolet_cri::Client, config: &crate::config::Config) -> Stats {
        let inner = Inner {
            cgroups,
            cri,
            node_name: config.node_name.clone(),
            root_dir: config.root_dir.clone(),
            logs_dir: config.pod_logs_dir.clone(),
            last: Mutex::default(),
            volumes: Volumes::new(config.root_dir.clone()),
        };
        Stats { inner: Arc::new(inner) }
    }

    /// What is used now, by the node and by these pods.
    pub async fn sample(&self, pods: &[Arc<Pod>]) -> Arc<Sample> {
        let mut last = self.inner.last.lock().await;
        if let Some((at, sample)) = last.as_ref().filter(|(at, _)| at.elapsed() < SHARED) {
            tracing::trace!(age = ?at.elapsed(), "a sample is shared");
            return sample.clone();
        }
        let before = last.take();
        let now = Instant::now();
        let mut sample = self.inner.read(pods).await;
        if let Some((at, before)) = before {
            sample.rate_against(&before, now - at);
        }
        let sample = Arc::new(sample);
        *last = Some((now, sample.clone()));
        sample
    }

    /// The sizes of what containers have written, and of the images, where the runtime tells them in time; and of volumes, as far as
    /// they were measured.
    pub async fn layers(&self, pods: &[Arc<Pod>]) -> sample::Layers {
        let volumes = self.inner.volumes.of(pods);
        let cri = &self.inner.cri;
        let filter = ferrolet_cri::types::ContainerStatsFilter::default();
        let asked = async { tokio::join!(cri.list_container_stats(&filter), cri.image_fs_info()) };
        let Ok((containers, images)) = tokio::time::timeout(LAYERS, asked).await else {
            return sample::Layers { volumes, ..sample::Layers::default() };
        };
        let layer = |usage: ferrolet_cri::types::FilesystemUsage| Layer {
            bytes: usage.used_bytes,
            inodes: usage.inodes_used,
            on: facts::file_system(Path::new(&usage.mountpoint)),
        };
        let of_containers = containers.unwrap_or_default().into_iter();
        let mut images = images.unwrap_or_default();
        sample::Layers {
            containers: of_containers.filter_map(|c| Some((c.id, layer(c.writable_layer?)))).collect(),
            images: images.image_filesystems.pop().map(layer),
            volumes,
        }
    }
}

impl Inner {
    async fn read(&self, pods: &[Arc<Pod>]) -> Sample {
        let node = self.cgroups.node();
        let known: Vec<(Arc<Pod>, cgroup::PodCgroup, Vec<Running>)> = pods
            .iter()
            .filter_map(|pod| Some((pod.clone(), cgroup::plan(pod, node).ok()?, running(pod))))
            .filter(|(_, _, running)| !running.is_empty())
            .collect();
        let asked = known.iter().map(|(_, at, containers)| (at.clone(), containers.iter().map(|c| c.id.clone()).collect()));
        // Nothing where the hierarchy cannot be read: the pages say that by what they lack.
        let used = self.cgroups.usage(asked.collect()).await;
        let complete = used.is_ok();
        let (of_node, of_pods) = used.unwrap_or_default();
        let processes: Vec<Option<i32>> =
            known.iter().zip(&of_pods).map(|((pod, ..), used)| used.process.filter(|_| !on_host_network(pod))).collect();
        let logs = known.iter().map(|(pod, _, containers)| log_folders(&self.logs_dir, pod, containers)).collect();
        let root_dir = self.root_dir.clone();
        let read = tokio::task::spawn_blocking(move || FromFiles::read(&root_dir, &processes, logs)).await;
        let FromFiles { node, networks, logs } = read.unwrap_or_default();
        let mut networks = networks.into_iter();
        let mut logs = logs.into_iter();
        let mut of_pods = of_pods.into_iter();
        let pods = known.into_iter().map(|(pod, at, containers)| {
            let used = of_pods.next().unwrap_or_default();
            joined(&pod, &at, containers, used, networks.next().flatten(), logs.next().unwrap_or_default())
        });
        Sample {
            at: jiff::Timestamp::now(),
            complete,
            node: Node { name: self.node_name.clone(), used: Tracked::of(with_memory(of_node, node.memory)), ..node },
            pods: pods.collect(),
        }
    }
}

/// Where the root cgroup has no memory of its own (v2), the host's.
fn with_memory(used: Option<Usage>, host: Option<cgroup::Memory>) -> Option<Usage> {
    let mut used = used?;
    used.memory = used.memory.or(host);
    Some(used)
}

fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

fn running(pod: &Pod) -> Vec<Running> {
    let Some(status) = &pod.status else { return Vec::new() };
    all_containers(status).filter_map(running_one).collect()
}

fn running_one(status: &ContainerStatus) -> Option<Running> {
    let state = status.state.as_ref()?.running.as_ref()?;
    let (_, id) = status.container_id.as_deref()?.split_once("://")?;
    let started = state.started_at.as_ref().map(|t| t.0);
    Some(Running { name: status.name.clone(), id: id.to_owned(), image: status.image.clone(), started })
}

fn log_folders(logs: &Path, pod: &Pod, containers: &[Running]) -> Vec<PathBuf> {
    let folder = pod_logs(logs, &id_of(pod));
    containers.iter().map(|c| folder.join(&c.name)).collect()
}

fn joined(
    pod: &Pod,
    at: &cgroup::PodCgroup,
    containers: Vec<Running>,
    used: PodUsage,
    network: Option<Network>,
    logs: Vec<Layer>,
) -> sample::Pod {
    let mut used_by = used.containers.into_iter();
    let mut logs = logs.into_iter();
    let containers = containers.into_iter().map(|c| sample::Container {
        used: Tracked::since(used_by.next().flatten(), c.started),
        name: c.name,
        id: c.id,
        image: c.image,
        started: c.started,
        logs: logs.next(),
    });
    let status = pod.status.as_ref();
    let started = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    sample::Pod {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        cgroup: at.path.clone(),
        started,
        containers: containers.collect(),
        used: Tracked::since(used.pod, started),
        network,
    }
}

/// What is read from files other than cgroups.
#[derive(Default)]
struct FromFiles {
    node: Node,
    networks: Vec<Option<Network>>,
    /// For each pod, for each container.
    logs: Vec<Vec<Layer>>,
}

impl FromFiles {
    fn read(root_dir: &Path, processes: &[Option<i32>], logs: Vec<Vec<PathBuf>>) -> FromFiles {
        let node = Node {
            memory: host::memory(),
            memory_capacity: host::memory_capacity(),
            network: read_network(Path::new("/proc/self/net")),
            fs: facts::file_system(root_dir),
            pids: host::pids(),
            booted: host::booted(),
            ..Node::default()
        };
        let network = |pid: &Option<i32>| pid.and_then(|pid| read_network(&PathBuf::from(format!("/proc/{pid}/net"))));
        let networks = processes.iter().map(network).collect();
        // One lookup: logs lie on one file system.
        let on = logs.iter().flatten().next().and_then(|folder| facts::file_system(folder));
        let size = |folder: PathBuf| Layer { on, ..host::folder(&folder) };
        let logs = logs.into_iter().map(|pod| pod.into_iter().map(size).collect()).collect();
        FromFiles { node, networks, logs }
    }
}

#[cfg(test)]
mod tests;
