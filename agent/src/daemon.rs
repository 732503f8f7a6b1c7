//! Builds, wires and supervises all tasks. What there is only with an API server is wired in `cluster`.
//!
//! Everything long-lived runs under one token tree. A task that ends or panics by itself ends the process with an error:
//! the supervisor outside starts it again, and nothing that runs on the node is disturbed by that. A signal ends it in
//! good order: pods and rules stay as they are, statuses that are due are written within a deadline.

mod cluster;
pub(crate) mod exec;

use crate::api;
use crate::cgroup;
use crate::config::{CgroupDriver, Config};
use crate::metrics::{self, Metrics};
use crate::node::{addresses, enforce, facts, report, status};
use crate::{commands, dispatch, memory, observe, pod, server, static_pods, stats, threads, userns, volume};
use cluster::Host;
use ferrolet_cri as cri;
use ferrolet_netproxy as netproxy;
use ferrolet_probes as probes;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long statuses may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// How long everything else may take to end.
const WIND_DOWN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot use the host's cgroups")]
    Cgroups(#[from] cgroup::Error),
    #[error("singleProcessOOMKill must not be false on a host with cgroup v1")]
    OomGroup,
    #[error("the host uses cgroup v1 and failCgroupV1 is true")]
    CgroupV1,
    #[error("node allocatable cannot be enforced")]
    Enforce(#[from] enforce::Error),
    #[error("user namespaces")]
    Users(#[from] userns::Error),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error("cannot use the container runtime")]
    Runtime(#[from] cri::Error),
    #[error("cannot program services: nf_tables over netlink is needed")]
    Proxy(#[from] netproxy::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("task {0} ended by itself")]
    Ended(&'static str),
    #[error("task {0} panicked")]
    Panicked(&'static str),
}

/// The tasks that are never to end before the process does.
#[derive(Default)]
struct Supervisor {
    tasks: JoinSet<(&'static str, Result<(), JoinError>)>,
}

impl Supervisor {
    fn watch(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// The first end of any of them.
    async fn first_end(&mut self) -> Error {
        match self.tasks.join_next().await {
            Some(Ok((name, Err(error)))) if error.is_panic() => Error::Panicked(name),
            Some(Ok((name, _))) => Error::Ended(name),
            Some(Err(_)) | None => Error::Ended("supervisor"),
        }
    }

    async fn wind_down(mut self, limit: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            warn!("some tasks did not end in time");
        }
    }
}

/// Runs the agent until a signal (`Ok`) or until something that must not end does.
pub async fn run(config: Config) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let (root, pods) = (CancellationToken::new(), CancellationToken::new());
    let mut supervisor = Supervisor::default();
    let Built { dispatcher, progress } = build(Arc::new(config), &mut supervisor, &root, &pods).await?;
    let mut dispatcher = Dispatcher(dispatcher);
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = supervisor.first_end() => Err(error),
        error = dispatcher.end() => Err(error),
        () = announce(progress, || ferrolet_systemd::ready("node is Ready")) => Ok(()),
    };
    info!("stopping; pods and rules stay as they are");
    ferrolet_systemd::stopping();
    pods.cancel();
    if outcome.is_ok() && !dispatcher.flush(FLUSH).await {
        warn!("not all statuses could be written in time");
    }
    root.cancel();
    supervisor.wind_down(WIND_DOWN).await;
    outcome
}

/// Says once that the API has taken a status that says Ready, or without an API that the runtime is well. Never returns: there is nothing to do afterwards.
async fn announce(mut progress: watch::Receiver<report::Progress>, ready: impl FnOnce()) {
    if progress.wait_for(|progress| progress.ready).await.is_ok() {
        ready();
    }
    std::future::pending().await
}

/// What `run` goes on to watch.
struct Built {
    dispatcher: JoinHandle<()>,
    progress: watch::Receiver<report::Progress>,
}

/// The task that is waited for apart from the others at the end.
struct Dispatcher(JoinHandle<()>);

impl Dispatcher {
    async fn end(&mut self) -> Error {
        match (&mut self.0).await {
            Err(error) if error.is_panic() => Error::Panicked("dispatcher"),
            _ => Error::Ended("dispatcher"),
        }
    }

    /// Whether all that was due has been written within the limit.
    async fn flush(&mut self, limit: Duration) -> bool {
        timeout(limit, self.end()).await.is_ok()
    }
}

async fn build(
    config: Arc<Config>,
    supervisor: &mut Supervisor,
    root: &CancellationToken,
    pods_token: &CancellationToken,
) -> Result<Built, Error> {
    supervisor.watch("kept thread", threads::keep_one(root.clone()));
    folder(&config.root_dir, 0o750)?;
    folder(&config.pod_logs_dir, 0o755)?;
    let user_ids = userns::host::range(config.ids_per_pod, config.max_pods).await?;
    let cri = cri::Client::connect(&config.container_runtime_endpoint, cri_options(&config))?;
    let machine = Arc::new(facts::read(&facts::Roots::default()));
    let cgroups = cgroups(&config, &cri, &machine).await?;
    let node_fs = facts::file_system(&config.root_dir);
    enforce::check(&config, &machine, node_fs)?;
    info!(
        node = config.node_name,
        addresses = ?config.node_ips,
        version = env!("CARGO_PKG_VERSION"),
        runtime = config.container_runtime_endpoint,
        "starting"
    );
    if !config.no_effect.is_empty() {
        let fields = config.no_effect.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        warn!(fields, "these fields of the configuration have no effect yet: no image or log is cleaned up, nothing is evicted");
    }
    let cgroup_v1 = cgroups.version() == cgroup::Version::V1;
    let host = Host { config, cri, machine, cgroup_v1 };
    let mut cluster = match host.config.kubeconfig.clone() {
        Some(kubeconfig) => host.join(&kubeconfig, supervisor, root).await?,
        None => host.alone(supervisor, root),
    };
    let Host { config, cri, machine, .. } = &host;
    let (events, machine_too) = (cluster.events.clone(), machine.clone());
    let enforcer = enforce::Enforcer { config: config.clone(), machine: machine_too, cgroups: cgroups.clone(), events };
    supervisor.watch("node allocatable", enforcer.start(root.clone()).await?);
    let (asker, asks) = dispatch::ask::channel();
    let answers = commands::socket::Daemon { proxy: cluster.proxy.take(), pods: asker };
    supervisor.watch("command socket", commands::socket::spawn(config.root_dir.clone(), answers, root.clone()));

    let (statics, sources) = static_pods::spawn(&config.static_pods, &config.node_name, root);
    for (name, task) in sources {
        supervisor.watch(name, task);
    }
    let (events, node) = (cluster.events.clone(), cluster.node.clone());
    let teller = static_pods::tell::spawn(statics.clone(), node, events, &config.node_name, root.clone());
    supervisor.watch("problems of static pods", teller);
    let said = statics.clone();
    cluster.metrics.push(Box::new(move |page| metrics::write_static_pods(said.borrow().problems.len(), page)));
    let statuses = static_pods::Statuses::default();
    let metrics = Arc::new(Metrics::new(&config.node_name, std::mem::take(&mut cluster.metrics))?);
    let user_counts = userns::Counts::new(&metrics)?;
    let resize_counts = metrics::resizes::Resizes::new(&metrics)?;
    let health = server::health::Checks::new(vec![("ping", Box::new(|| Ok(())))]);
    let exec = Arc::new(exec::CriExec { cri: cri.clone() });
    let (driver, probe_events, task) = probes::Driver::spawn(exec, probes::Limits::default(), root.clone());
    supervisor.watch("probe driver", task);
    let serving = server::Deps {
        config: config.clone(),
        cri: cri.clone(),
        client: cluster.client.clone(),
        pods: cluster.pods.clone(),
        statics: statics.clone(),
        statuses: statuses.clone(),
        metrics,
        probes: driver.clone(),
        stats: stats::Stats::new(cgroups.clone(), cri.clone(), config),
        health,
    };
    serve(serving, supervisor, root).await?;

    let (observed, task) = observe::spawn(cri.clone(), root.clone());
    supervisor.watch("observer", task);
    supervisor.watch("memory", memory::spawn(observed.snapshot.clone(), root.clone()));
    let allocatable = status::node_allocatable(config, machine, node_fs);
    let deps = pod::Deps {
        registered: status::registered(config, machine, &allocatable),
        allocatable,
        volumes: volume::Manager::new(config.root_dir.clone(), cluster.client.clone(), cluster.objects.clone()),
        objects: cluster.objects,
        user_ids,
        user_counts,
        resize_counts,
        kube: cluster.client,
        cri: cri.clone(),
        cgroups,
        probes: driver,
        probe_events,
        pods: cluster.pods,
        statics,
        statuses,
        node: cluster.node,
        gate: cluster.gate,
        own_pods: cluster.own_pods,
        events: cluster.events,
        runtime: observed,
        services: cluster.services,
        config: config.clone(),
        asks,
    };
    Ok(Built { dispatcher: dispatch::spawn(deps, pods_token.clone()), progress: cluster.progress })
}

/// The HTTPS server, the plain health server, and with a data plane its metrics on a port of their own.
async fn serve(deps: server::Deps, supervisor: &mut Supervisor, root: &CancellationToken) -> Result<(), Error> {
    let config = deps.config.clone();
    if let Some((address, port)) = config.server.healthz {
        let serving = server::serve_health((address, port).into(), deps.health.clone(), root.clone()).await?;
        supervisor.watch("health server", serving.task);
    }
    if let (Some(address), Some(_)) = (config.proxy.metrics, &config.kubeconfig) {
        let task = metrics::serve::spawn(address, config.proxy.hard_fail, deps.metrics.clone(), root.clone());
        supervisor.watch("metrics server", task);
    }
    if config.server.enabled {
        let serving = server::serve(deps, root.clone()).await?;
        info!(address = %serving.address, "serving");
        supervisor.watch("server", serving.task);
    }
    Ok(())
}

fn folder(path: &Path, mode: u32) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| Error::Folder { path: path.to_owned(), source })
}

/// What of the configuration shapes pods' cgroups.
pub(crate) fn node_cgroups(config: &Config) -> cgroup::NodeCgroups {
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => cgroup::Driver::Cgroupfs,
        CgroupDriver::Systemd => cgroup::Driver::Systemd,
    };
    cgroup::NodeCgroups {
        driver,
        root: config.cgroup_root.clone(),
        cpu_cfs_quota: config.cpu_cfs_quota,
        cpu_cfs_period_us: u64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000),
        pod_pids_limit: config.pod_pids_limit,
        memory_qos: config.memory_qos.is_some(),
        tiered: config.memory_qos.is_some_and(|(_, tiered)| tiered),
        page_sizes: Vec::new(),
    }
}

/// How the runtime names cgroups, where it says so. One that does not answer yet leaves it to the configuration.
async fn driver(cri: &cri::Client, configured: cgroup::Driver) -> cgroup::Driver {
    const PATIENCE: Duration = Duration::from_secs(5);
    let said = match tokio::time::timeout(PATIENCE, cri.runtime_config()).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => {
            warn!(%error, "the runtime does not say its cgroup driver: the configured one is used");
            None
        }
        Err(_) => {
            warn!("the runtime does not answer: the configured cgroup driver is used");
            None
        }
    };
    let said = match said {
        None => return configured,
        Some(cri::types::CgroupDriver::Systemd) => cgroup::Driver::Systemd,
        Some(cri::types::CgroupDriver::Cgroupfs) => cgroup::Driver::Cgroupfs,
    };
    if said != configured {
        warn!(runtime = ?said, ?configured, "the runtime has another cgroup driver than the configuration: the runtime's is used");
    }
    said
}

async fn cgroups(config: &Config, cri: &cri::Client, machine: &facts::Machine) -> Result<cgroup::Manager, Error> {
    let page_sizes = machine.hugepages.keys().filter_map(|name| cgroup::page_size_of(name)).collect();
    let node = cgroup::NodeCgroups { page_sizes, ..node_cgroups(config) };
    let driver = driver(cri, node.driver).await;
    let manager = cgroup::Manager::detect(cgroup::NodeCgroups { driver, ..node }).await?;
    if config.single_process_oom_kill == Some(false) && manager.version() == cgroup::Version::V1 {
        return Err(Error::OomGroup);
    }
    if config.fail_cgroup_v1 && manager.version() == cgroup::Version::V1 {
        return Err(Error::CgroupV1);
    }
    manager.ensure_roots().await?;
    Ok(manager)
}

fn cri_options(config: &Config) -> cri::Options {
    let other = config.image_service_endpoint != config.container_runtime_endpoint;
    // As kubelet: all of it beyond a container's grace, and twice that where the network plugins are waited for.
    let timeout = config.runtime_request_timeout;
    let deadlines = cri::Deadlines { mutate: timeout, stop_margin: timeout, sandbox: timeout * 2, ..cri::Deadlines::default() };
    cri::Options { image_endpoint: other.then(|| config.image_service_endpoint.clone()), deadlines, ..cri::Options::default() }
}

/// `bindAddressHardFail`: ends when the port cannot be had.
fn must_listen(mut failures: watch::Receiver<netproxy::health::Failures>, cancel: CancellationToken) -> JoinHandle<()> {
    let work = async move {
        let why = failures.wait_for(|failed| failed.node.is_some()).await.ok().and_then(|failed| failed.node.clone());
        match why {
            Some(why) => error!(why, "the health port must be opened, as bindAddressHardFail is set"),
            // The servers' end ends the process by itself.
            None => std::future::pending().await,
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    })
}

/// `bindAddress` takes the place of the address of its family.
fn primary(config: &Config) -> addresses::Primary {
    let bind = config.proxy.bind_address;
    if config.node_ips_given || bind.is_some() {
        return addresses::Primary::Given(bind.into_iter().chain(config.node_ips.iter().copied()).collect());
    }
    addresses::Primary::Found(config.node_ips.clone())
}

pub(crate) fn proxy_config(config: &Config) -> netproxy::Config {
    netproxy::Config {
        node_name: config.node_name.clone(),
        local: config.proxy.local.clone(),
        tcp_be_liberal: config.proxy.conntrack.tcp_be_liberal,
        cluster_cidrs: config.proxy.cluster_cidrs.clone(),
        masquerade_all: config.proxy.masquerade_all,
        masquerade_mark: 1 << config.proxy.masquerade_bit,
        node_port_addresses: config.proxy.node_port_addresses.clone(),
    }
}

#[cfg(test)]
mod tests;
