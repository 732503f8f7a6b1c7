//! Events: what users read in `kubectl describe`.
//!
//! Owns the queue and the counting. `EventRecorder` never blocks and never fails its caller: a full queue drops. Equal
//! events within ten minutes become one with a count; an object that speaks too much is held back. One task writes, in
//! order, and is cancelled by its token. Without an API server they are said in the log instead.

use crate::pod::PodId;
use crate::pod::status::whole_seconds;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const QUEUE: usize = 1024;
const WINDOW: Duration = Duration::from_secs(600);
/// Known events, for counting.
const KNOWN_MAX: usize = 2048;
/// New events of one object at once, and how soon one more is allowed.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
const TRIES: u32 = 5;
const LIMIT: Duration = Duration::from_secs(10);
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
        let writer = Writer { kube, host: host.to_owned(), known: BTreeMap::new(), spent: BTreeMap::new() };
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
}

/// What makes two events equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    object: String,
    severity: Severity,
    reason: String,
    message: String,
}

struct Known {
    name: String,
    count: i32,
    last: jiff::Timestamp,
}

struct Writer {
    kube: kube::Client,
    host: String,
    known: BTreeMap<Likeness, Known>,
    /// By object: how many of its burst are used up, and when that was reckoned.
    spent: BTreeMap<String, (f64, jiff::Timestamp)>,
}

fn object_key(o: &api::ObjectReference) -> String {
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    [&o.kind, &o.namespace, &o.name, &o.uid, &o.field_path].map(part).join("/")
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
        let like = Likeness {
            object: object_key(&item.object),
            severity: item.severity,
            reason: item.reason.clone(),
            message: item.message.clone(),
        };
        if !self.allowed(&like.object, item.at) {
            return;
        }
        let fresh = |k: &&mut Known| crate::pod::elapsed(k.last, item.at) < WINDOW;
        let again = self.known.get_mut(&like).filter(fresh).map(|k| {
            k.count += 1;
            k.last = item.at;
            (k.name.clone(), k.count)
        });
        if let Some((name, count)) = again
            && self.bump(&item, &name, count).await
        {
            return;
        }
        let object_name = item.object.name.clone().unwrap_or_default();
        let name = format!("{object_name}.{:x}", item.at.as_nanosecond());
        if self.create(&item, &name).await {
            self.forget_old(item.at);
            self.known.insert(like, Known { name, count: 1, last: item.at });
        }
    }

    fn allowed(&mut self, object: &str, at: jiff::Timestamp) -> bool {
        let (used, since) = self.spent.entry(object.to_owned()).or_insert((0.0, at));
        let refilled = crate::pod::elapsed(*since, at).as_secs_f64() / REFILL.as_secs_f64();
        *used = (*used - refilled).max(0.0);
        *since = at;
        if *used >= BURST {
            return false;
        }
        *used += 1.0;
        true
    }

    fn forget_old(&mut self, now: jiff::Timestamp) {
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, k| crate::pod::elapsed(k.last, now) < WINDOW);
            self.spent.retain(|_, (_, since)| crate::pod::elapsed(*since, now) < WINDOW);
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
    }

    fn api(&self, item: &Item) -> Api<api::Event> {
        Api::namespaced(self.kube.clone(), namespace(item))
    }

    /// False if that event is not there any more.
    async fn bump(&self, item: &Item, name: &str, count: i32) -> bool {
        let at = ApiTime(whole_seconds(item.at));
        let patch = serde_json::json!({ "count": count, "lastTimestamp": at });
        let api = self.api(item);
        let patch = Patch::Strategic(&patch);
        let params = PatchParams::default();
        retried(|| async { api.patch(name, &params, &patch).await.map(drop) }).await
    }

    async fn create(&self, item: &Item, name: &str) -> bool {
        let at = ApiTime(whole_seconds(item.at));
        let event = api::Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace(item).to_owned()),
                ..Default::default()
            },
            involved_object: item.object.clone(),
            type_: Some(item.severity.name().to_owned()),
            reason: Some(item.reason.clone()),
            message: Some(item.message.clone()),
            count: Some(1),
            first_timestamp: Some(at.clone()),
            last_timestamp: Some(at),
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

/// Tries while the API is away; true once it took it.
async fn retried<F: Future<Output = kube::Result<()>>>(attempt: impl Fn() -> F) -> bool {
    let mut pause = Duration::from_millis(200);
    for _ in 0..TRIES {
        match tokio::time::timeout(LIMIT, attempt()).await {
            Ok(Ok(())) => return true,
            Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                tracing::debug!(code = status.code, message = status.message, "event refused");
                return false;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause *= 3;
    }
    false
}

#[cfg(test)]
mod tests;
