//! The controllers of the control plane.
//!
//! Each one is a pure decision (`decide` in the module of its name: objects and the time in, a plan out) and a thin
//! shell (`shell/`) that runs it from a work queue. They are level-triggered: an event only puts a key on a queue, and a
//! decision reads whole snapshots. They hold no state that a restart may lose, except when they first saw a lease stand
//! still.

pub mod allocate;
pub mod cache;
pub mod csr;
pub mod deployment;
pub mod endpointslice;
pub mod events;
pub mod garbage;
pub mod meta;
pub mod node;
pub mod queue;
pub mod replicaset;
pub mod runner;
pub mod shell;
pub mod volumes;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::cache::Informer;
use self::events::Recorder;
use self::meta::Key;
use self::runner::WAKES;
use crate::kinds;
use crate::ranges::Ranges;
use crate::registry::Registry;

#[cfg(test)]
mod tests;

/// Keys that one controller works on at the same time.
const WORKERS: usize = 4;

/// What the controllers have to be told.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// The certificate that pods trust the API server by, as PEM.
    pub ca_pem: String,
    /// Nodes get /24 (or /64) parts of it as podCIDR; without it they get none.
    pub cluster_cidr: Option<Ranges>,
}

/// Starts all controllers. None of the tasks ends before the token is cancelled: one that does has failed.
pub fn spawn_all(registry: &Registry, params: Params, cancel: &CancellationToken) -> Vec<JoinHandle<()>> {
    let mut tasks = vec![];
    let mut pods = Informer::<Pod>::new(registry, &kinds::POD);
    let mut nodes = Informer::<Node>::new(registry, &kinds::NODE);
    workloads(registry, &mut pods, cancel, &mut tasks);
    endpoints(registry, &mut pods, &mut nodes, cancel, &mut tasks);
    keep_nodes(registry, &mut pods, &mut nodes, &params, cancel, &mut tasks);
    bind_volumes(registry, &mut pods, cancel, &mut tasks);
    lifetimes(registry, &params, cancel, &mut tasks);
    tasks.extend([pods.spawn(cancel), nodes.spawn(cancel)]);
    tasks
}

/// The key of a changed object itself.
fn itself<K: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>>(
    old: Option<&K>,
    new: Option<&K>,
) -> Vec<Key> {
    new.or(old).map(|o| Key::of(o.metadata())).into_iter().collect()
}

fn workloads(registry: &Registry, pods: &mut Informer<Pod>, cancel: &CancellationToken, tasks: &mut Vec<JoinHandle<()>>) {
    let (set_events, recorder) = Recorder::spawn(registry, "replicaset-controller", cancel);
    tasks.push(recorder);
    let (deployment_events, recorder) = Recorder::spawn(registry, "deployment-controller", cancel);
    tasks.push(recorder);
    let mut sets = Informer::<ReplicaSet>::new(registry, &kinds::REPLICA_SET);
    let mut deployments = Informer::<Deployment>::new(registry, &kinds::DEPLOYMENT);
    let set_shell =
        shell::replicaset::Shell { registry: registry.clone(), sets: sets.reader(), pods: pods.reader(), events: set_events };
    let deployment_shell = shell::deployment::Shell {
        registry: registry.clone(),
        deployments: deployments.reader(),
        sets: sets.reader(),
        pods: pods.reader(),
        events: deployment_events,
    };
    let (set_queue, set_keys) = mpsc::channel(WAKES);
    let (deployment_queue, deployment_keys) = mpsc::channel(WAKES);
    sets.wake(&set_queue, itself);
    let reader = sets.reader();
    pods.wake(&set_queue, move |old, new| shell::replicaset::wakes(&reader, old, new));
    deployments.wake(&deployment_queue, itself);
    let reader = deployments.reader();
    sets.wake(&deployment_queue, move |old, new| shell::deployment::wakes(&reader, old, new));
    let reader = sets.reader();
    pods.wake(&deployment_queue, move |old, new| shell::deployment::wakes_by_pod(&reader, old, new));
    let ready = (pods.reader(), sets.reader(), deployments.reader());
    let gate = std::sync::Arc::new(ready);
    let sets_gate = gate.clone();
    tasks.push(runner::spawn(
        "replicaset",
        WORKERS,
        set_keys,
        move |key| {
            let (shell, gate) = (set_shell.clone(), sets_gate.clone());
            async move {
                gate.0.synced().await;
                shell.sync(key).await
            }
        },
        cancel,
    ));
    tasks.push(runner::spawn(
        "deployment",
        WORKERS,
        deployment_keys,
        move |key| {
            let (shell, gate) = (deployment_shell.clone(), gate.clone());
            async move {
                gate.0.synced().await;
                gate.1.synced().await;
                shell.sync(key).await
            }
        },
        cancel,
    ));
    tasks.extend([sets.spawn(cancel), deployments.spawn(cancel)]);
}

fn endpoints(
    registry: &Registry,
    pods: &mut Informer<Pod>,
    nodes: &mut Informer<Node>,
    cancel: &CancellationToken,
    tasks: &mut Vec<JoinHandle<()>>,
) {
    let mut services = Informer::<Service>::new(registry, &kinds::SERVICE);
    let mut slices = Informer::<EndpointSlice>::new(registry, &kinds::ENDPOINT_SLICE);
    let shell = shell::endpointslice::Shell {
        registry: registry.clone(),
        services: services.reader(),
        slices: slices.reader(),
        pods: pods.reader(),
        nodes: nodes.reader(),
    };
    let (queue, keys) = mpsc::channel(WAKES);
    services.wake(&queue, itself);
    slices.wake(&queue, shell::endpointslice::wakes_by_slice);
    let reader = services.reader();
    pods.wake(&queue, move |old, new| shell::endpointslice::wakes(&reader, old, new));
    let reader = services.reader();
    nodes.wake(&queue, move |old, new| shell::endpointslice::wakes_by_node(&reader, old, new));
    tasks.push(runner::spawn(
        "endpointslice",
        WORKERS,
        keys,
        move |key| {
            let shell = shell.clone();
            async move {
                shell.services.synced().await;
                shell.slices.synced().await;
                shell.pods.synced().await;
                shell.nodes.synced().await;
                shell.sync(key).await
            }
        },
        cancel,
    ));
    tasks.extend([services.spawn(cancel), slices.spawn(cancel)]);
}

fn keep_nodes(
    registry: &Registry,
    pods: &mut Informer<Pod>,
    nodes: &mut Informer<Node>,
    params: &Params,
    cancel: &CancellationToken,
    tasks: &mut Vec<JoinHandle<()>>,
) {
    let (events, recorder) = Recorder::spawn(registry, "node-controller", cancel);
    let mut leases = Informer::<shell::node::Seen>::new(registry, &kinds::LEASE);
    let shell = shell::node::Shell {
        registry: registry.clone(),
        nodes: nodes.reader(),
        pods: pods.reader(),
        leases: leases.reader(),
        events,
        cluster_cidr: params.cluster_cidr,
        started: std::time::Instant::now(),
    };
    let (queue, keys) = mpsc::channel(WAKES);
    nodes.wake(&queue, itself);
    pods.wake(&queue, shell::node::wakes_by_pod);
    let reader = nodes.reader();
    leases.wake(&queue, move |old, new| shell::node::wakes_by_lease(&reader, old, new));
    tasks.push(runner::spawn("node", 1, keys, move |key| shell.clone().sync(key), cancel));
    tasks.extend([recorder, leases.spawn(cancel)]);
}

/// One key at a time, so that no volume is given away twice.
fn bind_volumes(registry: &Registry, pods: &mut Informer<Pod>, cancel: &CancellationToken, tasks: &mut Vec<JoinHandle<()>>) {
    let mut volumes = Informer::<PersistentVolume>::new(registry, &kinds::PERSISTENT_VOLUME);
    let mut claims = Informer::<PersistentVolumeClaim>::new(registry, &kinds::PERSISTENT_VOLUME_CLAIM);
    let shell = shell::volumes::Shell {
        registry: registry.clone(),
        volumes: volumes.reader(),
        claims: claims.reader(),
        pods: pods.reader(),
    };
    let (queue, keys) = mpsc::channel(WAKES);
    let reader = volumes.reader();
    claims.wake(&queue, move |old, new| shell::volumes::wakes(&reader, old, new));
    let reader = claims.reader();
    volumes.wake(&queue, move |old, new| shell::volumes::wakes_by_volume(&reader, old, new));
    pods.wake(&queue, |_, new: Option<&Pod>| new.map(|pod| volumes::own_claims(pod).collect()).unwrap_or_default());
    tasks.push(runner::spawn("volumes", 1, keys, move |key| shell.clone().sync(key), cancel));
    tasks.extend([volumes.spawn(cancel), claims.spawn(cancel)]);
}

/// Garbage collection and namespaces: both follow the metadata of all kinds.
fn lifetimes(registry: &Registry, params: &Params, cancel: &CancellationToken, tasks: &mut Vec<JoinHandle<()>>) {
    let (graph, mut metas) = shell::garbage::Graph::new(registry);
    let (garbage_queue, garbage_keys) = mpsc::channel(WAKES);
    let (namespace_queue, namespace_keys) = mpsc::channel(WAKES);
    for (at, (kind, informer)) in shell::garbage::watched().zip(&mut metas).enumerate() {
        let wakes = graph.clone();
        informer.wake(&garbage_queue, move |old, new| wakes.wakes(at, old, new));
        informer.wake(&namespace_queue, move |old, new| shell::namespace::wakes(kind, old, new));
    }
    let garbage = shell::garbage::Shell { registry: registry.clone(), graph, queue: garbage_queue };
    tasks.push(runner::spawn("garbage", WORKERS, garbage_keys, move |object| garbage.clone().sync(object), cancel));
    let mut namespaces = Informer::<Namespace>::new(registry, &kinds::NAMESPACE);
    namespaces.wake(&namespace_queue, itself);
    let shell =
        shell::namespace::Shell { registry: registry.clone(), namespaces: namespaces.reader(), ca_pem: params.ca_pem.clone() };
    tasks.push(runner::spawn("namespace", WORKERS, namespace_keys, move |key| shell.clone().sync(key), cancel));
    tasks.push(namespaces.spawn(cancel));
    tasks.extend(metas.into_iter().map(|m| m.spawn(cancel)));
}

/// Approves and signs certificate requests. Apart from the others because it needs the means to sign.
pub fn spawn_csr(registry: &Registry, sign: shell::csr::Sign, cancel: &CancellationToken) -> Vec<JoinHandle<()>> {
    let mut requests = Informer::new(registry, &kinds::CERTIFICATE_SIGNING_REQUEST);
    let (queue, keys) = mpsc::channel(WAKES);
    requests.wake(&queue, itself);
    let shell = shell::csr::Shell { registry: registry.clone(), requests: requests.reader(), sign };
    let runner = runner::spawn("csr", 1, keys, move |key| shell.clone().sync(key), cancel);
    vec![runner, requests.spawn(cancel)]
}
