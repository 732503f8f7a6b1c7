//! Carries out one action of a plan. Every action may be interrupted at any point and done again.
//!
//! Owns no state: what an action needs is handed to it. It never decides whether something should be done. Cancelled by
//! dropping its future, when the plan no longer wants it or the agent stops; the actor then looks at the runtime again.

mod hook;
mod image;
mod resize;
mod start;
mod stop;

pub use stop::LONGEST;

use crate::api::snapshot::Watched;
use crate::config::Config;
use crate::events::{EventRecorder, Severity};
use crate::images::Images;
use crate::node::runtime::network_problem;
use crate::pod::container::{ConfigError, ImageFacts, NodeLimits};
use crate::pod::desired::{Desired, Role};
use crate::pod::observed::Observed;
use crate::pod::plan::Action;
use crate::pod::resize::Record;
use crate::pod::stage::{Progress, Stage};
use crate::pod::status::NodeFacts;
use crate::pod::traffic::Leaving;
use crate::pod::{container, dns};
use crate::volume::{PodContext, Prepared};
use crate::{cgroup, observe, userns, volume};
use ferrolet_cri::types as cri;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::node::v1::RuntimeClass;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What all pods share.
pub struct Shared {
    pub config: Arc<Config>,
    pub cri: ferrolet_cri::Client,
    pub kube: kube::Client,
    pub objects: crate::objects::Store,
    pub volumes: volume::Manager,
    pub user_ids: userns::Range,
    pub user_counts: userns::Counts,
    pub resize_counts: crate::metrics::resizes::Resizes,
    pub cgroups: cgroup::Manager,
    pub probes: ferrolet_probes::Driver,
    pub events: EventRecorder,
    pub images: Images,
    pub providers: crate::images::providers::Providers,
    pub runtime: observe::Handle,
    pub services: Option<Watched<ferrolet_netproxy::wire::Service>>,
    pub own_pods: ferrolet_netproxy::OwnPods,
    pub statuses: crate::static_pods::Statuses,
    pub allocatable: BTreeMap<String, Quantity>,
    pub node: NodeFacts,
    pub limits: NodeLimits,
    pub memory: cgroup::HostMemory,
    pub report_slots: Arc<tokio::sync::Semaphore>,
    /// The reporters, which may still have something to bring when their actors have ended.
    pub reporters: tokio_util::task::TaskTracker,
}

/// One action with what it needs to know.
pub struct Job {
    pub shared: Arc<Shared>,
    pub desired: Arc<Desired>,
    pub observed: Arc<Observed>,
    pub prepared: Arc<Prepared>,
    /// Of the container that the action is about.
    pub image: Option<ImageFacts>,
    /// Of a pull whose last failure is still to be waited for.
    pub held: Option<Held>,
    pub action: Action,
    /// Of a stop: as it is now, it may still come sooner.
    pub deadline: watch::Receiver<tokio::time::Instant>,
    /// Of a pod that ends: its way out of the service rules.
    pub leaving: Option<Leaving>,
    /// How far it is, for whoever asks.
    pub progress: watch::Sender<Progress>,
}

/// What an action brings that only the agent knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    Volumes(Prepared),
    Image {
        container: String,
        attempt: u32,
        facts: ImageFacts,
    },
    /// A pull that failed, and what it was tried with.
    NotPulled {
        container: String,
        /// What was to be pulled: the container's own image or one that it mounts.
        image: String,
        failed: Failed,
        credentials: u64,
    },
    /// What came of a resize, also of one that failed on the way.
    Resized(Box<Tried>),
    /// Nothing has changed that would let it succeed.
    StillHeld {
        container: String,
    },
}

/// The failure of a pull that is to be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub reason: String,
    pub message: String,
    /// What it was tried with; `None`: it is time to try again whatever has changed.
    pub credentials: Option<u64>,
}

/// The waiting reason of a container that is asked for in a way that cannot be done, or with what is not there.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// What came of a resize.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    pub record: Record,
    pub failed: Option<Failed>,
}

/// Why an action failed: a waiting reason and a message for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub reason: &'static str,
    pub message: String,
}

impl Failed {
    fn new(reason: &'static str, error: impl std::fmt::Display) -> Failed {
        Failed { reason, message: error.to_string() }
    }
}

pub async fn run(job: &Job) -> Result<Outcome, Failed> {
    // Commands of other pods' probes wait a moment: they would take the runtime's time from this.
    let pulls = matches!(job.action, Action::PullImage { .. });
    let _first = (job.action.starts() && !pulls).then(|| job.shared.probes.precede());
    let result = carry_out(job).await;
    job.count_own_users(result.is_err());
    result
}

async fn carry_out(job: &Job) -> Result<Outcome, Failed> {
    match &job.action {
        Action::PrepareVolumes => job.prepare_volumes().await,
        Action::RunSandbox { attempt } => job.run_sandbox(*attempt).await,
        Action::PullImage { container, attempt } => job.pull_image(container, *attempt).await,
        Action::StartContainer { name, sandbox_id, attempt, backoff, round } => {
            let instance = start::Instance { attempt: *attempt, backoff: *backoff, round: *round, target: None };
            job.start_container(name, sandbox_id, instance).await
        }
        Action::StartCreated { name, id } => job.start_created(name, id).await,
        Action::StartEphemeral { name, created: Some(id), .. } => job.start_created(name, id).await,
        Action::StartEphemeral { name, sandbox_id, target, created: None } => {
            let instance = start::Instance { target: target.as_deref(), ..Default::default() };
            job.start_container(name, sandbox_id, instance).await
        }
        Action::StopContainer { name, id, why, restarts, follows, deadline: _ } => {
            job.stop_container(name, id, *why, *restarts, follows).await
        }
        Action::RemoveContainer { name, id } => job.remove_container(name, id).await,
        Action::StopSandbox { id } => job.stop_sandbox(id).await,
        Action::RemoveSandbox { id } => {
            job.shared.cri.remove_pod_sandbox(id).await.map_err(|e| Failed::new("RemoveSandboxError", e))?;
            Ok(Outcome::Done)
        }
        Action::RemoveVolumes => {
            let removed = job.shared.volumes.teardown(&job.desired.id.uid).await;
            removed.map_err(|e| job.cleanup_failed("remove the pod's volumes", e))?;
            Ok(Outcome::Done)
        }
        Action::Resize => job.resize().await,
        Action::RemoveCgroup => job.remove_cgroup().await,
        Action::RemoveFolders => job.remove_folders().await,
    }
}

/// A path to the object in the form of events: `spec.containers{web}`.
pub fn field_path(d: &Desired, container: &str) -> Option<String> {
    let role = d.container(container)?.role;
    let list = match role {
        Role::Main => "containers",
        Role::Init | Role::Sidecar => "initContainers",
        Role::Ephemeral => "ephemeralContainers",
    };
    Some(format!("spec.{list}{{{container}}}"))
}

impl Job {
    pub fn at(&self, stage: Stage) {
        self.progress.send_replace(Progress { stage, since: crate::clock::now() });
    }

    fn normal(&self, container: Option<&str>, reason: &str, message: impl Into<String>) {
        let path = container.and_then(|c| field_path(&self.desired, c));
        self.shared.events.pod(&self.desired.id, path, Severity::Normal, reason, message);
    }

    fn warn(&self, container: Option<&str>, reason: &str, message: impl Into<String>) {
        let path = container.and_then(|c| field_path(&self.desired, c));
        self.shared.events.pod(&self.desired.id, path, Severity::Warning, reason, message);
    }

    fn context(&self) -> PodContext {
        let ips = self.observed.newest_sandbox().map(|s| s.ips.as_slice()).unwrap_or_default();
        let mut pod_ips: Vec<_> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if self.desired.host_network {
            pod_ips = self.shared.node.ips.clone();
        }
        PodContext {
            node_name: self.shared.config.node_name.clone(),
            host_ips: self.shared.node.ips.clone(),
            pod_ips,
            allocatable: self.shared.allocatable.clone(),
        }
    }

    async fn prepare_volumes(&self) -> Result<Outcome, Failed> {
        let pending = |names: &[&str]| self.at(Stage::Volumes(names.iter().map(|n| (*n).to_owned()).collect()));
        match self.shared.volumes.prepare_telling(&self.desired.pod, &self.context(), &pending).await {
            Ok(mut prepared) => {
                prepared.recursive_read_only = self.recursive_read_only().await?;
                Ok(Outcome::Volumes(prepared))
            }
            Err(error) => {
                let message = format!("Unable to attach or mount volumes: {}", chain(&error));
                self.warn(None, error.reason(), message.clone());
                Err(Failed { reason: "ContainerCreating", message })
            }
        }
    }

    /// Whether the pod's handler can do what some mount asks for. Asked only if one does.
    async fn recursive_read_only(&self) -> Result<bool, Failed> {
        let asks =
            |m: &k8s_openapi::api::core::v1::VolumeMount| m.recursive_read_only.as_deref().is_some_and(|mode| mode != "Disabled");
        let mut mounts = self.desired.all_specs().flat_map(|c| c.volume_mounts.iter().flatten());
        if !mounts.any(asks) {
            return Ok(false);
        }
        let waits = |e: String| Failed { reason: "ContainerCreating", message: e };
        let handler = self.runtime_handler().await.map_err(waits)?;
        let status = self.shared.cri.status(false).await.map_err(|e| waits(e.to_string()))?;
        Ok(status.handlers.get(&handler).is_some_and(|h| h.recursive_read_only_mounts))
    }

    /// The same for the sandbox itself, for pulls and for each container.
    async fn sandbox_config(&self, attempt: u32) -> Result<cri::SandboxConfig, ConfigError> {
        let config = &self.shared.config;
        let mut sandbox =
            container::sandbox(&self.desired, attempt, &config.cluster_domain, &config.pod_logs_dir, &self.shared.limits)?;
        let host_file = match &config.resolv_conf {
            Some(path) => Some(resolv_conf(path).await?),
            None => None,
        };
        let (servers, domain) = (&config.cluster_dns, &config.cluster_domain);
        let (resolv, warnings) = dns::config(&self.desired.pod, host_file.as_deref(), servers, domain, &self.shared.node.ips)?;
        if matches!(self.action, Action::RunSandbox { .. }) {
            for (reason, warning) in warnings {
                if reason == dns::MISSING {
                    let node = &self.shared.config.node_name;
                    self.shared.events.node(node, Some(node.clone()), Severity::Warning, reason, dns::FALLS_BACK);
                }
                self.warn(None, reason, warning);
            }
        }
        sandbox.dns = Some(resolv);
        sandbox.security.namespaces.user = self.user_namespace().await?;
        if let Ok(cgroup) = cgroup::plan(&self.desired.pod, self.shared.cgroups.node()) {
            sandbox.cgroup_parent = cgroup.parent;
        }
        Ok(sandbox)
    }

    async fn run_sandbox(&self, attempt: u32) -> Result<Outcome, Failed> {
        if attempt > 0 {
            self.normal(None, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
        let result = self.try_sandbox(attempt).await;
        result.map_err(|(reason, message)| {
            self.warn(None, reason, message.clone());
            Failed { reason: if reason == REFUSED { CONFIG_ERROR } else { "ContainerCreating" }, message }
        })
    }

    async fn try_sandbox(&self, attempt: u32) -> Result<Outcome, (&'static str, String)> {
        const SANDBOX: &str = "FailedCreatePodSandBox";
        let failed = |e: String| (SANDBOX, format!("Failed to create pod sandbox: {e}"));
        self.check_groups().await.map_err(failed)??;
        self.record_new().await.map_err(failed)?;
        let cgroup = async {
            let plan = cgroup::plan(&self.desired.pod, self.shared.cgroups.node())?;
            self.shared.cgroups.create(&plan).await
        };
        let cgroup = cgroup.await;
        cgroup.map_err(|e| ("FailedCreatePodContainer", format!("unable to ensure pod container exists: {}", chain(&e))))?;
        let handler = self.runtime_handler().await.map_err(failed)?;
        self.check_user_namespace(&handler).await.map_err(failed)?;
        let config = self.sandbox_config(attempt).await.map_err(|e| failed(e.to_string()))?;
        let logs = tokio::fs::create_dir_all(&config.log_directory).await;
        logs.map_err(|e| failed(format!("create {}: {e}", config.log_directory)))?;
        match self.shared.cri.run_pod_sandbox(&config, &handler).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) => Err(self.network_problem().await.unwrap_or_else(|| failed(error.rpc_text()))),
        }
    }

    /// Why no pod can have a network of its own here, if that is what is wrong.
    async fn network_problem(&self) -> Option<(&'static str, String)> {
        if self.desired.host_network {
            return None;
        }
        let status = self.shared.cri.status(false).await.ok()?;
        let problem = network_problem(&status)?;
        Some(("NetworkNotReady", format!("network is not ready: {problem}")))
    }

    /// A runtime that does not know the policy `Strict` would give containers groups that the pod wants them to be without.
    /// Asked each time: the runtime may be another one by then.
    async fn check_groups(&self) -> Result<Result<(), (&'static str, String)>, String> {
        let security = self.desired.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        if security.and_then(|s| s.supplemental_groups_policy.as_deref()) != Some("Strict") {
            return Ok(Ok(()));
        }
        let status = self.shared.cri.status(false).await.map_err(|e| e.to_string())?;
        let message = "spec.securityContext.supplementalGroupsPolicy: the container runtime of this node does not support Strict";
        Ok(if status.supplemental_groups_policy { Ok(()) } else { Err((REFUSED, message.to_owned())) })
    }

    fn own_users(&self) -> bool {
        self.desired.pod.spec.as_ref().and_then(|s| s.host_users) == Some(false)
    }

    /// A pod counts once for each sandbox, and as failed once for each of its sandboxes or first containers that is.
    fn count_own_users(&self, failed: bool) {
        let sandbox = matches!(self.action, Action::RunSandbox { .. });
        let first = matches!(self.action, Action::StartContainer { attempt: 0, .. });
        if self.own_users() && (sandbox || first) {
            self.shared.user_counts.started.inc_by(u64::from(sandbox));
            self.shared.user_counts.failed.inc_by(u64::from(failed));
        }
    }

    /// Asked each time, like the policy of groups.
    async fn check_user_namespace(&self, handler: &str) -> Result<(), String> {
        if !self.own_users() {
            return Ok(());
        }
        let status = self.shared.cri.status(false).await.map_err(|e| e.to_string())?;
        userns::unsupported(&status, handler).map_or(Ok(()), Err)
    }

    /// The pod's ids, the same for as long as it has a folder. A pull needs none.
    async fn user_namespace(&self) -> Result<Option<cri::UserNamespace>, ConfigError> {
        if !self.own_users() {
            return Ok(Some(cri::UserNamespace { mode: cri::NamespaceMode::Node, ..Default::default() }));
        }
        if matches!(self.action, Action::PullImage { .. }) {
            return Ok(None);
        }
        let block = self.shared.volumes.id_block(&self.desired.id.uid, self.shared.user_ids).await;
        block.map(|block| Some(block.namespace())).map_err(|e| ConfigError::UserNamespace(chain(&e)))
    }

    async fn runtime_handler(&self) -> Result<String, String> {
        let name = self.desired.pod.spec.as_ref().and_then(|s| s.runtime_class_name.clone()).unwrap_or_default();
        if name.is_empty() {
            return Ok(String::new());
        }
        let classes = kube::Api::<RuntimeClass>::all(self.shared.kube.clone());
        match classes.get(&name).await {
            Ok(class) => Ok(class.handler),
            Err(kube::Error::Api(s)) if s.code == 404 => Err(format!("runtimeclass.node.k8s.io {name:?} not found")),
            Err(error) => Err(format!("failed to lookup RuntimeClass {name}: {error}")),
        }
    }
}

/// The reason of an event that names a field which cannot be done here.
const REFUSED: &str = "FailedValidation";

/// What the host's resolver is told, which an administrator may have made as long as kubelet reads.
async fn resolv_conf(path: &std::path::Path) -> Result<String, ConfigError> {
    use tokio::io::AsyncReadExt;
    const MAX: u64 = 10 << 20;
    let failed = |why: String| ConfigError::ResolvConf { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(|e| failed(e.to_string()))?;
    file.take(MAX + 1).read_to_end(&mut bytes).await.map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > MAX {
        return Err(failed(format!("more than {MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}
