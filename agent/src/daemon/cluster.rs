//! What the agent has of a cluster: the API server, the data plane, which knows everything from it, and what the node says of itself.
//!
//! `join` starts all of it. `alone` starts none and gives what takes its place on a node without an API server, as a kubelet without a
//! kubeconfig beside no kube-proxy: no pods but the node's own, and not a rule or a setting of the kernel touched.

use super::{Error, Supervisor, must_listen, primary, proxy_config};
use crate::api::absent;
use crate::api::feed;
use crate::api::snapshot::{self, Snapshot, Watched};
use crate::api::transport::Transport;
use crate::api::wire::Selector;
use crate::config::Config;
use crate::events::EventRecorder;
use crate::node::{addresses, facts, lease, own, ranges, report, runtime};
use crate::objects::Store;
use crate::{metrics, services, sysctls};
use ferrolet_cri as cri;
use ferrolet_netproxy as netproxy;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Changes of Services on their way to the data plane.
const INPUTS: usize = 256;

/// The host that the agent runs on.
pub(super) struct Host {
    pub(super) config: Arc<Config>,
    pub(super) cri: cri::Client,
    pub(super) machine: Arc<facts::Machine>,
    pub(super) cgroup_v1: bool,
}

/// What the other parts of the agent have from here.
pub(super) struct Cluster {
    pub(super) client: kube::Client,
    /// The ConfigMaps and Secrets of pods.
    pub(super) objects: Store,
    /// The pods bound to this node.
    pub(super) pods: Watched<Pod>,
    pub(super) node: Watched<Node>,
    pub(super) services: Option<Watched<netproxy::wire::Service>>,
    /// The data plane.
    pub(super) proxy: Option<netproxy::Handle>,
    /// Services can answer.
    pub(super) gate: watch::Receiver<bool>,
    pub(super) own_pods: netproxy::OwnPods,
    pub(super) events: EventRecorder,
    pub(super) progress: watch::Receiver<report::Progress>,
    /// What the data plane tells of itself.
    pub(super) metrics: Vec<metrics::Extra>,
}

/// This node's object, and where to tell of the node.
struct Own {
    node: Watched<Node>,
    events: EventRecorder,
}

impl Host {
    pub(super) async fn join(
        &self,
        kubeconfig: &Path,
        supervisor: &mut Supervisor,
        root: &CancellationToken,
    ) -> Result<Cluster, Error> {
        let config = &self.config;
        let transport = Transport::new(kubeconfig)?;
        let client = transport.client();
        let main = client.clone();
        let another = move || match transport.another() {
            Ok(other) => other.client(),
            Err(error) => {
                warn!(%error, "no connection of its own for the watches of ConfigMaps and Secrets");
                main.clone()
            }
        };
        let objects = Store::new(client.clone(), config.object_changes, another);
        let (inputs, inbox) = mpsc::channel(INPUTS);
        let proxy = self.data_plane(inbox, supervisor, root)?;
        // Before anybody else sends: node ports answer on the primary addresses.
        supervisor.watch("own addresses", addresses::spawn(primary(config), inputs.clone(), root.clone()).await);
        let of_services = of_services(config.proxy.kubeconfig.as_deref(), &client)?;
        let (services, [service_task, slice_task]) = feed::spawn(&of_services, inputs.clone(), root);
        supervisor.watch("services watcher", service_task);
        supervisor.watch("endpointslices watcher", slice_task);
        supervisor.watch("service ranges", ranges::spawn(of_services, inputs.clone(), root.clone()));

        let bound = Selector::fields(format!("spec.nodeName={}", config.node_name));
        let (pods, task) = snapshot::spawn::<Pod>(client.clone(), bound, root.clone());
        supervisor.watch("pods watcher", task);
        let own = Selector::fields(format!("metadata.name={}", config.node_name));
        let (node, task) = snapshot::spawn::<Node>(client.clone(), own, root.clone());
        supervisor.watch("node watcher", task);

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
        let own = Own { node: node.clone(), events: events.clone() };
        let progress = self.report_node(&client, &proxy, own, supervisor, root);
        let teller = services::Teller::new(client.clone(), events.clone(), &config.node_name);
        supervisor.watch("service events", services::spawn(proxy.clone(), failures, teller, root.clone()));
        let (gate, own_pods) = (proxy.synced.clone(), proxy.own_pods.clone());
        let handle = proxy.clone();
        let page: metrics::Extra = Box::new(move |page| {
            metrics::proxy::write(&proxy.stats(), page);
            metrics::proxy::write_answered(&answered, page);
        });
        Ok(Cluster {
            client,
            objects,
            pods,
            node,
            services: Some(services),
            proxy: Some(handle),
            gate,
            own_pods,
            events,
            progress,
            metrics: vec![page],
        })
    }

    /// The rules of Services, and the settings of the kernel that they need.
    fn data_plane(
        &self,
        inbox: mpsc::Receiver<netproxy::Input>,
        supervisor: &mut Supervisor,
        root: &CancellationToken,
    ) -> Result<netproxy::Handle, Error> {
        let config = &self.config;
        for notice in &config.proxy.notices {
            warn!("the configuration of kube-proxy: {notice}");
        }
        let missing = sysctls::set(&config.proxy.conntrack, config.node_ips.iter().any(|ip| ip.is_ipv6()));
        if let Some(score) = config.proxy.oom_score_adj {
            sysctls::set_oom_score(score);
        }
        let (proxy, task) = netproxy::Proxy::spawn(proxy_config(config), inbox, root.clone())?;
        supervisor.watch("netproxy", task);
        // The rules bring the module of connection tracking, and that its settings.
        let mut synced = proxy.synced.clone();
        let later = async move {
            if synced.wait_for(|synced| *synced).await.is_ok() {
                sysctls::set_again(&missing);
            }
        };
        drop(tokio::spawn(root.clone().run_until_cancelled_owned(later)));
        Ok(proxy)
    }

    /// Lease, runtime health and the Node's status.
    fn report_node(
        &self,
        client: &kube::Client,
        proxy: &netproxy::Handle,
        own: Own,
        supervisor: &mut Supervisor,
        root: &CancellationToken,
    ) -> watch::Receiver<report::Progress> {
        let Own { node, events } = own;
        let (config, client, machine) = (self.config.clone(), client.clone(), self.machine.clone());
        let runtime = runtime::spawn(self.cri.clone(), config.node.status_max_images, root.clone());
        supervisor.watch("runtime health", runtime.task);
        let (uid_out, node_uid) = watch::channel(None);
        let heartbeat = lease::Heartbeat {
            client: client.clone(),
            node_name: config.node_name.clone(),
            duration: config.node.lease_duration,
            node_uid,
        };
        let (_, task) = lease::spawn(heartbeat, root.clone());
        supervisor.watch("lease", task);
        let sources =
            report::Sources { runtime: runtime.health, images: runtime.images, services_synced: proxy.synced.clone(), node };
        let cgroup_v1 = self.cgroup_v1;
        let reporter = report::Reporter { config, client, machine, sources, events, cgroup_v1, node_uid: uid_out };
        let (progress, task) = report::spawn(reporter, root.clone());
        supervisor.watch("node reporter", task);
        progress
    }

    pub(super) fn alone(&self, supervisor: &mut Supervisor, root: &CancellationToken) -> Cluster {
        let config = &self.config;
        info!("standalone mode: no API server, no Services; the static pods are all that runs");
        if config.static_pods.path.is_none() && config.static_pods.url.is_none() {
            warn!("no source of static pods is configured (staticPodPath, staticPodURL): nothing will run");
        }
        // No images are listed for anybody.
        let runtime = runtime::spawn(self.cri.clone(), Some(0), root.clone());
        supervisor.watch("runtime health", runtime.task);
        let (ready, progress) = watch::channel(report::Progress::default());
        let mut health = runtime.health;
        let follow = async move {
            loop {
                let well = health.borrow_and_update().problems().is_empty();
                ready.send_modify(|progress| progress.ready = well);
                if health.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let cancel = root.clone();
        let follow = tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = follow => {}
            }
        });
        supervisor.watch("readiness", follow);
        Cluster {
            client: absent::client(),
            objects: Store::new(absent::client(), config.object_changes, absent::client),
            pods: watch::channel(Arc::new(Snapshot::none())).1,
            node: watch::channel(Arc::new(Snapshot::none())).1,
            services: None,
            proxy: None,
            gate: watch::channel(true).1,
            own_pods: netproxy::board::channel().0,
            events: EventRecorder::logged(),
            progress,
            metrics: Vec::new(),
        }
    }
}

/// The way to Services and EndpointSlices: an identity that the operator gave for them, else the node's own. What kubeadm writes
/// names a file that only kube-proxy's pod has.
fn of_services(kubeconfig: Option<&Path>, node: &kube::Client) -> Result<kube::Client, Error> {
    let Some(file) = kubeconfig else { return Ok(node.clone()) };
    if !file.exists() {
        warn!(file = %file.display(), "clientConnection.kubeconfig of kube-proxy's configuration is not there: Services are read with the node's own identity");
        return Ok(node.clone());
    }
    Ok(Transport::new(file)?.client())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn services_are_read_with_an_identity_of_their_own_where_there_is_one() {
        let node = absent::client();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        assert!(of_services(None, &node).is_ok() && of_services(Some(&file), &node).is_ok());
        std::fs::write(&file, "clusters: nonsense").unwrap();
        let error = of_services(Some(&file), &node).map(drop).unwrap_err();
        assert!(crate::api::watch::chain(&error).contains("kubeconfig"), "{error}");
        let whole = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
                     clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n";
        std::fs::write(&file, whole).unwrap();
        assert!(of_services(Some(&file), &node).is_ok());
    }
}
