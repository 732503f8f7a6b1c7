//! Events that tell users what controllers and scheduler did and why.
//!
//! Owns the counting: the same words about the same object raise the count of one Event, whose name is made of both, so
//! that this holds across restarts without any memory. Recording never blocks and never fails a controller: when far too
//! much is said at once, what does not fit is dropped.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kinds;
use crate::registry::{Registry, WriteOptions};

const WAITING: usize = 512;
const MAX_MESSAGE: usize = 1024;

#[derive(Debug)]
struct Record {
    about: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Where to say things; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Record>);

impl Recorder {
    /// `component` is what `kubectl describe` shows as the source.
    pub fn spawn(registry: &Registry, component: &'static str, cancel: &CancellationToken) -> (Recorder, JoinHandle<()>) {
        let (tx, mut rx) = mpsc::channel(WAITING);
        let (registry, cancel) = (registry.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    record = rx.recv() => match record {
                        Some(record) => write(&registry, component, record).await,
                        None => return,
                    }
                }
            }
        });
        (Recorder(tx), task)
    }

    pub fn say(&self, about: ObjectReference, warning: bool, reason: &str, message: impl Into<String>) {
        let record = Record { about, warning, reason: reason.into(), message: message.into(), at: Timestamp::now() };
        if self.0.try_send(record).is_err() {
            tracing::debug!(reason, "an event was dropped");
        }
    }
}

/// What an event is about.
pub fn reference(api_version: &str, kind: &str, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.into()),
        kind: Some(kind.into()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

async fn write(registry: &Registry, component: &str, mut record: Record) {
    if record.message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE - 3;
        while !record.message.is_char_boundary(end) {
            end -= 1;
        }
        record.message.truncate(end);
        record.message.push_str("...");
    }
    let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".into());
    let name = name(component, &record);
    let at = json!(Time(record.at));
    let event = json!({
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": record.about,
        "type": if record.warning { "Warning" } else { "Normal" },
        "reason": record.reason, "message": record.message, "count": 1,
        "firstTimestamp": at, "lastTimestamp": at,
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
    });
    let again = |event: &mut Value| {
        let count = event.get("count").and_then(Value::as_i64).unwrap_or(1);
        event["count"] = json!(count + 1);
        event["lastTimestamp"] = at.clone();
        true
    };
    let result = match registry.create(&kinds::EVENT, &namespace, event, &WriteOptions::default()).await {
        Err(error) if error.is_already_exists() => registry.modify(&kinds::EVENT, &namespace, &name, None, again).await,
        result => result,
    };
    if let Err(error) = result {
        tracing::debug!(%namespace, %name, %error, "an event could not be recorded");
    }
}

fn name(component: &str, record: &Record) -> String {
    let mut digest = Sha256::new();
    let uid = record.about.uid.as_deref().unwrap_or_default();
    for part in [component, uid, &record.reason, &record.message] {
        digest.update(part);
        digest.update([0]);
    }
    let hex: String = digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let object: String = record.about.name.as_deref().unwrap_or_default().chars().take(200).collect();
    format!("{object}.{hex}")
}
