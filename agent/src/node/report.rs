//! The task that registers the Node and keeps its status true in the API.
//!
//! Owns when it last wrote. Level-triggered: whatever woke it, it composes the whole status and writes what differs from
//! what the API has. It never deletes a Node, and never makes one again that somebody deleted while it was running:
//! that is how an administrator takes a node out.

use super::facts::{self, Machine};
use super::runtime::{Health, ListedImage};
use super::status::{self, Inputs};
use super::words::{self, Word, Words};
use crate::api::snapshot::{ObjectKey, Watched};
use crate::api::watch::chain;
use crate::config::Config;
use crate::events::EventRecorder;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long after the start a node may still be looked at before it is told to be not ready.
const SETTLE: Duration = Duration::from_secs(15);

/// What the status is made of, as far as it changes.
pub struct Sources {
    pub runtime: watch::Receiver<Arc<Health>>,
    pub images: watch::Receiver<Arc<Vec<ListedImage>>>,
    pub services_synced: watch::Receiver<bool>,
    /// Our own Node as the API has it; only ever looked at.
    pub node: Watched<Node>,
}

pub struct Reporter {
    pub config: Arc<Config>,
    pub client: kube::Client,
    pub machine: Arc<Machine>,
    pub sources: Sources,
    pub events: EventRecorder,
    /// Whether the pods' cgroups are of the old kind.
    pub cgroup_v1: bool,
    /// Told the Node's uid once it is registered.
    pub node_uid: watch::Sender<Option<String>>,
}

/// What other parts may want to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub registered: bool,
    /// Whether the API took a status that says Ready.
    pub ready: bool,
}

/// Runs until cancelled.
pub fn spawn(reporter: Reporter, cancel: CancellationToken) -> (watch::Receiver<Progress>, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Progress::default());
    let task = tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = reporter.run(sender) => {}
        }
    });
    (receiver, task)
}

impl Reporter {
    async fn run(mut self, progress: watch::Sender<Progress>) {
        let api: Api<Node> = Api::all(self.client.clone());
        let mut base = self.register(&api).await;
        progress.send_modify(|p| p.registered = true);
        self.tell(&base, words::starting(self.cgroup_v1));
        let mut words = Words::default();
        self.settle(&base).await;
        let mut reported: Option<Instant> = None;
        let mut failures = 0u32;
        loop {
            self.see(&mut base);
            self.tell(&base, words.seen(&self.config.node_name, &base, &self.machine.boot_id));
            let force = reported.is_none_or(|at| at.elapsed() >= self.config.node.status_report_frequency);
            let (patch, ready) = self.compose(&base, force);
            match self.write(&api, patch).await {
                Ok(written) => {
                    if let Some(node) = written {
                        self.tell(&node, words::ready_changed(&self.config.node_name, &base, &node));
                        base = node;
                        reported = Some(Instant::now());
                        progress.send_if_modified(|p| std::mem::replace(&mut p.ready, ready) != ready);
                    }
                    failures = 0;
                    self.wait(Instant::now() + self.config.node.status_update_frequency).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures.is_power_of_two() {
                        warn!(node = self.config.node_name, error = %chain(&error), failures, "cannot write the node's status");
                    }
                    sleep(pause(failures)).await;
                    // Whatever we based the patch on may be old.
                    if let Ok(Some(node)) = api.get_opt(&self.config.node_name).await {
                        base = node;
                    }
                }
            }
        }
    }

    fn tell(&self, node: &Node, words: impl IntoIterator<Item = Word>) {
        for Word { severity, reason, message } in words {
            self.events.node(&self.config.node_name, node.metadata.uid.clone(), severity, reason, message);
        }
    }

    /// Creates the Node or adopts the one that is there; tries until it works.
    async fn register(&mut self, api: &Api<Node>) -> Node {
        let mut failures = 0u32;
        loop {
            match self.try_register(api).await {
                Ok(Some(node)) => {
                    self.node_uid.send_replace(node.metadata.uid.clone());
                    return node;
                }
                Ok(None) => debug!("the node does not exist yet, and registerNode is false"),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures.is_power_of_two() {
                        warn!(node = self.config.node_name, error = %chain(&error), failures, "cannot register the node");
                    }
                }
            }
            sleep(pause(failures.max(1))).await;
        }
    }

    async fn try_register(&mut self, api: &Api<Node>) -> Result<Option<Node>, kube::Error> {
        let name = self.config.node_name.clone();
        let (health, images) = self.latest();
        let inputs = self.inputs(&health, &images);
        let Some(existing) = api.get_opt(&name).await? else {
            if !self.config.node.register {
                return Ok(None);
            }
            let node = status::initial(&inputs, Timestamp::now());
            let created = api.create(&PostParams::default(), &node).await?;
            info!(node = name, "registered the node");
            return Ok(Some(created));
        };
        if !self.config.node.register {
            return Ok(Some(existing));
        }
        let Some(patch) = status::metadata_patch(&existing, &inputs) else {
            info!(node = name, "the node is registered already");
            return Ok(Some(existing));
        };
        info!(node = name, "the node is registered already, its labels are brought up to date");
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(Some)
    }

    /// A node that was ready before this process started is still believed to be while we find out: starting the agent
    /// again must not make anybody move pods.
    async fn settle(&mut self, base: &Node) {
        let conditions = base.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if !conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return;
        }
        let deadline = Instant::now() + SETTLE;
        loop {
            let (health, images) = self.latest();
            self.sources.services_synced.mark_unchanged();
            if Instant::now() >= deadline || status::not_ready_because(&self.inputs(&health, &images)).is_empty() {
                return;
            }
            self.wait(deadline).await;
        }
    }

    /// Takes the watched Node where it is newer than what we wrote last.
    fn see(&mut self, base: &mut Node) {
        let snapshot = self.sources.node.borrow_and_update().clone();
        let key = ObjectKey { namespace: String::new(), name: self.config.node_name.clone() };
        let Some(seen) = snapshot.items.get(&key) else { return };
        let revision = |node: &Node| node.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
        // Revisions are to be compared for equality only, but for numbers of one object the order holds, and the worst
        // that a wrong guess does is one patch too many.
        if revision(seen) > revision(base) {
            *base = Node::clone(seen);
        }
    }

    fn latest(&mut self) -> (Arc<Health>, Arc<Vec<ListedImage>>) {
        (self.sources.runtime.borrow_and_update().clone(), self.sources.images.borrow_and_update().clone())
    }

    fn inputs<'a>(&'a self, health: &'a Health, images: &'a [ListedImage]) -> Inputs<'a> {
        Inputs {
            config: &self.config,
            machine: &self.machine,
            node_fs: facts::file_system(&self.config.root_dir),
            runtime: health,
            services_synced: *self.sources.services_synced.borrow(),
            images,
        }
    }

    fn compose(&mut self, base: &Node, force: bool) -> (Option<Value>, bool) {
        let (health, images) = self.latest();
        self.sources.services_synced.mark_unchanged();
        let inputs = self.inputs(&health, &images);
        let desired = status::desired(&inputs, base.status.as_ref(), Timestamp::now());
        let ready = status::not_ready_because(&inputs).is_empty();
        (status::status_patch(base.status.as_ref(), &desired, force), ready)
    }

    async fn write(&self, api: &Api<Node>, patch: Option<Value>) -> Result<Option<Node>, kube::Error> {
        let Some(patch) = patch else { return Ok(None) };
        debug!(%patch, "writing the node's status");
        api.patch_status(&self.config.node_name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(Some)
    }

    /// Until something changes, or it is time to look anyway. A source that ended is only looked at by time. What others
    /// write to the Node is looked at by time too: answering at once would make two who disagree write without end.
    async fn wait(&mut self, until: Instant) {
        let Sources { runtime, images, services_synced, node: _ } = &mut self.sources;
        tokio::select! {
            () = sleep_until(until) => {}
            Ok(()) = runtime.changed() => {}
            Ok(()) = images.changed() => {}
            Ok(()) = services_synced.changed() => {}
        }
    }
}

fn pause(failures: u32) -> Duration {
    let base = Duration::from_millis(200).saturating_mul(1 << failures.saturating_sub(1).min(6));
    base.min(Duration::from_secs(10)).mul_f64(0.75 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests;
