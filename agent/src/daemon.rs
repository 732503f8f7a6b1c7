//! Builds, wires and supervises all tasks: the one wiring file.
//!
//! Everything long-lived runs under one token tree. A task that ends or panics by itself ends the process with an error:
//! the supervisor outside starts it again, and nothing that runs on the node is disturbed by that. A signal ends it in
//! good order: pods and rules stay as they are, statuses that are due are written within a deadline.

use crate::api::snapshot::{self, Watched};
use crate::api::transport::Transport;
use crate::api::watch::chain;
use crate::api::wire::Selector;
use crate::api::{self, feed};
use crate::cgroup;
use crate::config::{CgroupDriver, Config};
use crate::events::EventRecorder;
use crate::metrics::{self, Metrics};
use crate::node::{addresses, facts, lease, own, ranges, report, runtime, status};
use crate::{commands, dispatch, observe, pod, server, services, static_pods, sysctls, volume};
use ferrolet_cri as cri;
use ferrolet_netproxy as netproxy;
use ferrolet_probes as probes;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long statuses may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// How long everything else may take to end.
const WIND_DOWN: Duration = Duration::from_secs(3);
/// Changes of Services on their way to the data plane.
const INPUTS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot use the host's cgroups")]
    Cgroups(#[from] cgroup::Error),
    #[error("the host uses cgroup v1 and failCgroupV1 is true")]
    CgroupV1,
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

/// Says once that the API has taken a status that says Ready. Never returns: there is nothing to do afterwards.
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
    folder(&config.root_dir, 0o750)?;
    folder(&config.pod_logs_dir, 0o755)?;
    let cgroups = cgroups(&config).await?;
    let transport = Transport::new(&config.kubeconfig)?;
    let client = transport.client();
    let cri = cri::Client::connect(&config.container_runtime_endpoint, cri_options(&config))?;
    let machine = Arc::new(facts::read(&facts::Roots::default()));
    info!(
        node = config.node_name,
        addresses = ?config.node_ips,
        version = env!("CARGO_PKG_VERSION"),
        runtime = config.container_runtime_endpoint,
        "starting"
    );

    for notice in &config.proxy.notices {
        warn!("the configuration of kube-proxy: {notice}");
    }
    if !config.no_effect.is_empty() {
        let fields = config.no_effect.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        warn!(fields, "these fields of the configuration have no effect yet: no image or log is cleaned up, nothing is evicted");
    }
    let missing = sysctls::set(&config.proxy.conntrack, config.node_ips.iter().any(|ip| ip.is_ipv6()));
    if let Some(score) = config.proxy.oom_score_adj {
        sysctls::set_oom_score(score);
    }
    let (inputs, inbox) = mpsc::channel(INPUTS);
    let (proxy, task) = netproxy::Proxy::spawn(proxy_config(&config), inbox, root.clone())?;
    supervisor.watch("netproxy", task);
    // The rules bring the module of connection tracking, and that its settings.
    let mut synced = proxy.synced.clone();
    let later = async move {
        if synced.wait_for(|synced| *synced).await.is_ok() {
            sysctls::set_again(&missing);
        }
    };
    drop(tokio::spawn(root.clone().run_until_cancelled_owned(later)));
    // Before anybody else sends: node ports answer on the primary addresses.
    supervisor.watch("own addresses", addresses::spawn(primary(&config), inputs.clone(), root.clone()).await);
    supervisor.watch("command socket", commands::socket::spawn(config.root_dir.clone(), proxy.clone(), root.clone()));
    let (services, [service_task, slice_task]) = feed::spawn(&client, inputs.clone(), root);
    supervisor.watch("services watcher", service_task);
    supervisor.watch("endpointslices watcher", slice_task);

    supervisor.watch("service ranges", ranges::spawn(client.clone(), inputs.clone(), root.clone()));

    let bound = Selector::fields(format!("spec.nodeName={}", config.node_name));
    let (pods, task) = snapshot::spawn::<Pod>(client.clone(), bound, root.clone());
    supervisor.watch("pods watcher", task);
    let own = Selector::fields(format!("metadata.name={}", config.node_name));
    let (node, task) = snapshot::spawn::<Node>(client.clone(), own, root.clone());
    supervisor.watch("node watcher", task);

    let own_node = node.clone();
    let (state, task) = own::spawn(node.clone(), inputs, root.clone());
    supervisor.watch("own node", task);
    let bind = config.proxy.healthz;
    let health = netproxy::health::Options { bind, timeout: 2 * config.proxy.sync_period };
    let netproxy::health::Servers { failures, answered, task } = netproxy::health::spawn(health, &proxy, state, root.clone());
    supervisor.watch("service health servers", task);
    if config.proxy.hard_fail {
        supervisor.watch("/healthz of the data plane", must_listen(failures.clone(), root.clone()));
    }

    let (events, task) = EventRecorder::spawn(client.clone(), &config.node_name, root.clone());
    supervisor.watch("events", task);
    let parts = Parts { config: &config, client: &client, cri: &cri, proxy: &proxy, answered };
    let told = Told { events: events.clone(), cgroup_v1: cgroups.version() == cgroup::Version::V1 };
    let progress = parts.report_node(&machine, node, told, supervisor, root);
    let (statics, sources) = static_pods::spawn(&config.static_pods, &config.node_name, root);
    for (name, task) in sources {
        supervisor.watch(name, task);
    }
    parts.serve(pods.clone(), statics.clone(), supervisor, root).await?;

    let teller = services::Teller::new(client.clone(), events.clone(), &config.node_name);
    supervisor.watch("service events", services::spawn(proxy.clone(), failures, teller, root.clone()));
    let (observed, task) = observe::spawn(cri.clone(), root.clone());
    supervisor.watch("observer", task);
    let exec = Arc::new(CriExec { cri: cri.clone() });
    let (driver, probe_events, task) = probes::Driver::spawn(exec, probes::Limits::default(), root.clone());
    supervisor.watch("probe driver", task);
    let allocatable = status::node_allocatable(&config, &machine, facts::file_system(&config.root_dir));
    let deps = pod::Deps {
        registered: status::registered(&config, &machine, &allocatable),
        allocatable,
        volumes: volume::Manager::new(config.root_dir.clone(), client.clone()),
        kube: client,
        cri,
        cgroups,
        probes: driver,
        probe_events,
        pods,
        statics,
        node: own_node,
        gate: proxy.synced.clone(),
        own_pods: proxy.own_pods.clone(),
        events,
        runtime: observed,
        services: Some(services),
        config,
    };
    Ok(Built { dispatcher: dispatch::spawn(deps, pods_token.clone()), progress })
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
    }
}

async fn cgroups(config: &Config) -> Result<cgroup::Manager, Error> {
    let manager = cgroup::Manager::detect(node_cgroups(config))?;
    if config.fail_cgroup_v1 && manager.version() == cgroup::Version::V1 {
        return Err(Error::CgroupV1);
    }
    manager.ensure_roots().await?;
    Ok(manager)
}

fn cri_options(config: &Config) -> cri::Options {
    let other = config.image_service_endpoint != config.container_runtime_endpoint;
    let deadlines = cri::Deadlines { mutate: config.runtime_request_timeout, ..cri::Deadlines::default() };
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

/// What the parts that speak for the node share.
struct Parts<'a> {
    config: &'a Arc<Config>,
    client: &'a kube::Client,
    cri: &'a cri::Client,
    proxy: &'a netproxy::Handle,
    answered: Arc<netproxy::health::Answered>,
}

/// What the Node's events need.
struct Told {
    events: EventRecorder,
    cgroup_v1: bool,
}

impl Parts<'_> {
    /// Lease, runtime health and the Node's status.
    fn report_node(
        &self,
        machine: &Arc<facts::Machine>,
        node: Watched<Node>,
        told: Told,
        supervisor: &mut Supervisor,
        root: &CancellationToken,
    ) -> watch::Receiver<report::Progress> {
        let config = self.config;
        let runtime = runtime::spawn(self.cri.clone(), config.node.status_max_images, root.clone());
        supervisor.watch("runtime health", runtime.task);
        let (uid_out, node_uid) = watch::channel(None);
        let heartbeat = lease::Heartbeat {
            client: self.client.clone(),
            node_name: config.node_name.clone(),
            duration: config.node.lease_duration,
            node_uid,
        };
        let (_, task) = lease::spawn(heartbeat, root.clone());
        supervisor.watch("lease", task);
        let sources =
            report::Sources { runtime: runtime.health, images: runtime.images, services_synced: self.proxy.synced.clone(), node };
        let (client, machine) = (self.client.clone(), machine.clone());
        let Told { events, cgroup_v1 } = told;
        let config = config.clone();
        let reporter = report::Reporter { config, client, machine, sources, events, cgroup_v1, node_uid: uid_out };
        let (progress, task) = report::spawn(reporter, root.clone());
        supervisor.watch("node reporter", task);
        progress
    }

    /// The HTTPS server and the plain health server.
    async fn serve(
        &self,
        pods: Watched<Pod>,
        statics: static_pods::Watched,
        supervisor: &mut Supervisor,
        root: &CancellationToken,
    ) -> Result<(), Error> {
        let config = self.config;
        let health = server::health::Checks::new(vec![("ping", Box::new(|| Ok(())))]);
        if let Some((address, port)) = config.server.healthz {
            let serving = server::serve_health((address, port).into(), health.clone(), root.clone()).await?;
            supervisor.watch("health server", serving.task);
        }
        let (proxy, answered) = (self.proxy.clone(), self.answered.clone());
        let extra: metrics::Extra = Box::new(move |page| {
            metrics::proxy::write(&proxy.stats(), page);
            metrics::proxy::write_answered(&answered, page);
        });
        let metrics = Arc::new(Metrics::new(&config.node_name, vec![extra])?);
        if let Some(address) = config.proxy.metrics {
            let task = metrics::serve::spawn(address, config.proxy.hard_fail, metrics.clone(), root.clone());
            supervisor.watch("metrics server", task);
        }
        if config.server.enabled {
            let (cri, client) = (self.cri.clone(), self.client.clone());
            let deps = server::Deps { config: config.clone(), cri, client, pods, statics, metrics, health };
            let serving = server::serve(deps, root.clone()).await?;
            info!(address = %serving.address, "serving");
            supervisor.watch("server", serving.task);
        }
        Ok(())
    }
}

/// Probes run commands through the runtime.
struct CriExec {
    cri: cri::Client,
}

impl probes::Exec for CriExec {
    fn exec(
        &self,
        container_id: &str,
        command: &[String],
        limit: Duration,
    ) -> BoxFuture<'_, Result<probes::ExecOutcome, probes::ExecError>> {
        let (id, command) = (container_id.to_owned(), command.to_owned());
        Box::pin(async move {
            match self.cri.exec_sync(&id, &command, limit).await {
                Ok(output) => {
                    Ok(probes::ExecOutcome { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr })
                }
                Err(cri::Error::ExecTimeout { .. }) => Err(probes::ExecError::TimedOut(limit)),
                Err(error) => Err(probes::ExecError::Failed(chain(&error))),
            }
        })
    }
}

#[cfg(test)]
mod tests;
