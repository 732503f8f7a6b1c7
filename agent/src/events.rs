//! Events: what users read in `kubectl describe`.
//!
//! Owns the queue and the writing; what is counted together or held back is for `correlate`. `EventRecorder` never blocks and
//! never fails its caller: a full queue drops. One task writes, in order, and is cancelled by its token.
//! Without an API server they are said in the log instead.

mod correlate;

use crate::pod::PodId;
use crate::pod::status::whole_seconds;
use correlate::{Correlator, Verdict};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const QUEUE: usize = 1024;
const TRIES: u32 = 12;
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The API cuts messages at 1024 bytes.
const MESSAGE_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    object: api::ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    at: jiff::Timestamp,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    /// `None`: there is no API server to have them, so they are said in the log.
    queue: Option<mpsc::Sender<Item>>,
}

impl EventRecorder {
    /// Starts the writer. `host` is the node's name.
    pub fn spawn(kube: kube::Client, host: &str, cancel: CancellationToken) -> (EventRecorder, JoinHandle<()>) {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let writer = Writer { kube, host: host.to_owned(), correlator: Correlator::default() };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = writer.run(inbox) => {}
            }
        });
        (EventRecorder { queue: Some(queue) }, task)
    }

    /// A recorder whose events go nowhere.
    pub fn silent() -> EventRecorder {
        EventRecorder { queue: Some(mpsc::channel(1).0) }
    }

    /// A recorder that says its events in the log only.
    pub fn logged() -> EventRecorder {
        EventRecorder { queue: None }
    }

    pub fn record(&self, object: api::ObjectReference, severity: Severity, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            let mut cut = MESSAGE_MAX - 4;
            while !message.is_char_boundary(cut) {
                cut -= 1;
            }
            message.truncate(cut);
            message.push_str(" ...");
        }
        let api::ObjectReference { kind, namespace, name, field_path, .. } = &object;
        let Some(queue) = &self.queue else {
            tracing::info!(kind, namespace, name, field_path, severity = severity.name(), reason, message, "event");
            return;
        };
        tracing::debug!(kind, namespace, name, reason, message, "event");
        let item = Item { object, severity, reason: reason.to_owned(), message, at: jiff::Timestamp::now() };
        if queue.try_send(item).is_err() {
            tracing::debug!(reason, "event dropped, the queue is full");
        }
    }

    /// About a pod, or one of its containers given as a field path such as `spec.containers{web}`.
    pub fn pod(&self, id: &PodId, field_path: Option<String>, severity: Severity, reason: &str, message: impl Into<String>) {
        let object = api::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(id.name.clone()),
            namespace: Some(id.namespace.clone()),
            uid: Some(id.uid.clone()),
            field_path,
            ..Default::default()
        };
        self.record(object, severity, reason, message);
    }

    /// About the Node itself.
    pub fn node(&self, name: &str, uid: Option<String>, severity: Severity, reason: &str, message: impl Into<String>) {
        let object = api::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(name.to_owned()),
            uid,
            ..Default::default()
        };
        self.record(object, severity, reason, message);
    }
}

struct Writer {
    kube: kube::Client,
    host: String,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Item>) {
        while let Some(item) = inbox.recv().await {
            self.write(item).await;
        }
        // All recorders are gone: stay until cancelled, an end would count as a failure.
        std::future::pending::<()>().await;
    }

    async fn write(&mut self, item: Item) {
        let Some(verdict) = self.correlator.correlate(&item) else { return };
        if verdict.count == 1 || self.bump(&item, &verdict).await == Written::Gone {
            self.create(&item, &verdict).await;
        }
    }

    fn api(&self, item: &Item) -> Api<api::Event> {
        Api::namespaced(self.kube.clone(), namespace(item))
    }

    async fn bump(&self, item: &Item, v: &Verdict) -> Written {
        let at = ApiTime(whole_seconds(item.at));
        let patch = serde_json::json!({ "count": v.count, "lastTimestamp": at, "message": v.message });
        let api = self.api(item);
        let patch = Patch::Strategic(&patch);
        let params = PatchParams::default();
        retried(|| async { api.patch(&v.name, &params, &patch).await.map(drop) }).await
    }

    async fn create(&self, item: &Item, v: &Verdict) -> Written {
        let event = api::Event {
            metadata: ObjectMeta {
                name: Some(v.name.clone()),
                namespace: Some(namespace(item).to_owned()),
                ..Default::default()
            },
            involved_object: item.object.clone(),
            type_: Some(item.severity.name().to_owned()),
            reason: Some(item.reason.clone()),
            message: Some(v.message.clone()),
            count: Some(v.count),
            first_timestamp: Some(ApiTime(whole_seconds(v.first))),
            last_timestamp: Some(ApiTime(whole_seconds(item.at))),
            source: Some(api::EventSource { component: Some("kubelet".into()), host: Some(self.host.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.host.clone()),
            ..Default::default()
        };
        let api = self.api(item);
        let params = PostParams::default();
        retried(|| async { api.create(&params, &event).await.map(drop) }).await
    }
}

/// Cluster-scoped objects have their events in `default`.
fn namespace(item: &Item) -> &str {
    item.object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Taken,
    /// There is no such event any more.
    Gone,
    /// Refused, or the API was away for too long.
    Lost,
}

/// Tries while the API is away.
async fn retried<F: Future<Output = kube::Result<()>>>(attempt: impl Fn() -> F) -> Written {
    let mut pause = Duration::from_millis(200);
    for _ in 0..TRIES {
        match tokio::time::timeout(LIMIT, attempt()).await {
            Ok(Ok(())) => return Written::Taken,
            Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                tracing::debug!(code = status.code, message = status.message, "event refused");
                return if status.code == 404 { Written::Gone } else { Written::Lost };
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3).min(PAUSE_MAX);
    }
    Written::Lost
}

#[cfg(test)]
mod tests;
