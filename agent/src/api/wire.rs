//! Lists and watch events of the watched kinds, taken apart object by object.
//!
//! Pure. An object that does not decode is reported with its name and the path of the field, and never stops the ones
//! next to it. Request paths are formed here too, so that what is asked is tested without a server.

pub mod place;

use super::snapshot::ObjectKey;
use ferrolet_netproxy::wire as lean;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A kind that can be watched.
pub trait Wire: DeserializeOwned + Send + Sync + 'static {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    const BASE: &'static str;
    const PLURAL: &'static str;
    /// Watched one by one: what happens to each is no news for the log.
    const MANY: bool = false;
}

impl Wire for Pod {
    const BASE: &'static str = "/api/v1";
    const PLURAL: &'static str = "pods";
}

impl Wire for Node {
    const BASE: &'static str = "/api/v1";
    const PLURAL: &'static str = "nodes";
}

impl Wire for ConfigMap {
    const BASE: &'static str = "/api/v1";
    const PLURAL: &'static str = "configmaps";
    const MANY: bool = true;
}

impl Wire for Secret {
    const BASE: &'static str = "/api/v1";
    const PLURAL: &'static str = "secrets";
    const MANY: bool = true;
}

impl Wire for PersistentVolumeClaim {
    const BASE: &'static str = "/api/v1";
    const PLURAL: &'static str = "persistentvolumeclaims";
    const MANY: bool = true;
}

impl Wire for lean::Service {
    const BASE: &'static str = "/api/v1";
    const PLURAL: &'static str = "services";
}

impl Wire for lean::EndpointSlice {
    const BASE: &'static str = "/apis/discovery.k8s.io/v1";
    const PLURAL: &'static str = "endpointslices";
}

/// Which objects of a kind; both in the API's own syntax.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// The only namespace to look into.
    pub namespace: Option<String>,
    pub fields: Option<String>,
    pub labels: Option<String>,
}

impl Selector {
    pub fn fields(selector: impl Into<String>) -> Self {
        Selector { fields: Some(selector.into()), ..Selector::default() }
    }

    pub fn labels(selector: impl Into<String>) -> Self {
        Selector { labels: Some(selector.into()), ..Selector::default() }
    }

    /// A single object of a kind that lives in namespaces; the form that a node's credentials are allowed to watch by.
    pub fn one(key: &ObjectKey) -> Self {
        Selector { namespace: Some(key.namespace.clone()), ..Selector::fields(format!("metadata.name={}", key.name)) }
    }
}

/// One GET of a list or watch.
#[derive(Debug, Clone, Copy)]
pub enum Ask<'a> {
    Page {
        limit: u32,
        cursor: Option<&'a str>,
    },
    /// Everything there is as events, then a marking bookmark, then changes.
    StreamingList {
        timeout_seconds: u32,
    },
    Watch {
        from: &'a str,
        timeout_seconds: u32,
    },
}

/// Path and query of a request.
pub fn uri<T: Wire>(selector: &Selector, ask: Ask<'_>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(fields) = &selector.fields {
        query.append_pair("fieldSelector", fields);
    }
    if let Some(labels) = &selector.labels {
        query.append_pair("labelSelector", labels);
    }
    match ask {
        Ask::Page { limit, cursor } => {
            query.append_pair("limit", &limit.to_string());
            if let Some(cursor) = cursor {
                query.append_pair("continue", cursor);
            }
        }
        Ask::StreamingList { timeout_seconds } => {
            // No resourceVersion: the most recent state, not whatever a stale cache holds.
            query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
            query.append_pair("sendInitialEvents", "true").append_pair("resourceVersionMatch", "NotOlderThan");
            query.append_pair("timeoutSeconds", &timeout_seconds.to_string());
        }
        Ask::Watch { from, timeout_seconds } => {
            query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
            query.append_pair("resourceVersion", from).append_pair("timeoutSeconds", &timeout_seconds.to_string());
        }
    }
    let namespace = selector.namespace.as_ref().map(|n| format!("/namespaces/{n}")).unwrap_or_default();
    format!("{}{namespace}/{}?{}", T::BASE, T::PLURAL, query.finish())
}

/// An object that is not what its kind says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {}/{}: {field}: {detail}", key.namespace, key.name)]
pub struct Malformed {
    pub kind: &'static str,
    pub key: ObjectKey,
    pub field: String,
    pub detail: String,
}

/// One object: who it is, and what it says if that could be read.
#[derive(Debug)]
pub struct Decoded<T> {
    pub key: ObjectKey,
    pub body: Result<T, Malformed>,
}

/// One line of a watch.
#[derive(Debug)]
pub enum Event<T> {
    Applied { object: Decoded<T>, revision: String },
    Deleted { key: ObjectKey, revision: String },
    Bookmark { revision: String, initial_end: bool },
    Failed(Status),
}

/// `metav1.Status`, as far as it decides anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub code: u16,
    pub reason: String,
    pub message: String,
}

/// Why a list or an event is of no use at all.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("not a {what}: {source}")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("{what} without metadata.{field}")]
    Missing { what: &'static str, field: &'static str },
    #[error("watch event of unknown type {0:?}")]
    EventType(String),
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Head {
    metadata: Option<HeadMeta>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    cursor: Option<String>,
    /// Only bookmarks' are read; any other shape than strings is an object's own problem.
    #[serde(deserialize_with = "lenient")]
    annotations: BTreeMap<String, String>,
}

fn lenient<'de, D: serde::Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    let value = serde_json::Value::deserialize(d)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Reads one line of a watch.
pub fn event<T: Wire>(line: &[u8]) -> Result<Event<T>, WireError> {
    let raw: RawEvent<'_> = serde_json::from_slice(line).map_err(|source| WireError::Json { what: "watch event", source })?;
    if raw.kind == "ERROR" {
        let status = serde_json::from_str(raw.object.get());
        return status.map(Event::Failed).map_err(|source| WireError::Json { what: "status", source });
    }
    let head = head(raw.object.get())?;
    let revision = head.resource_version.clone().filter(|revision| !revision.is_empty());
    let revision = revision.ok_or(WireError::Missing { what: "watch event", field: "resourceVersion" })?;
    match raw.kind.as_ref() {
        "ADDED" | "MODIFIED" => Ok(Event::Applied { object: object(raw.object.get(), &head)?, revision }),
        "DELETED" => Ok(Event::Deleted { key: key(&head, "deleted object")?, revision }),
        "BOOKMARK" => {
            let initial_end = head.annotations.get("k8s.io/initial-events-end").is_some_and(|value| value == "true");
            Ok(Event::Bookmark { revision, initial_end })
        }
        other => Err(WireError::EventType(other.chars().take(32).collect())),
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<Decoded<T>>,
    pub revision: String,
    pub cursor: Option<String>,
    /// Objects that do not even say who they are.
    pub unreadable: Vec<WireError>,
}

/// Reads one page of a list.
pub fn page<T: Wire>(body: &[u8]) -> Result<Page<T>, WireError> {
    #[derive(Deserialize)]
    struct RawList<'a> {
        metadata: HeadMeta,
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    let list: RawList<'_> = serde_json::from_slice(body).map_err(|source| WireError::Json { what: "list", source })?;
    let revision = list.metadata.resource_version.filter(|revision| !revision.is_empty());
    let revision = revision.ok_or(WireError::Missing { what: "list", field: "resourceVersion" })?;
    let (mut items, mut unreadable) = (Vec::new(), Vec::new());
    for raw in list.items.unwrap_or_default() {
        match head(raw.get()).and_then(|head| object(raw.get(), &head)) {
            Ok(object) => items.push(object),
            Err(error) => unreadable.push(error),
        }
    }
    Ok(Page { items, revision, unreadable, cursor: list.metadata.cursor.filter(|cursor| !cursor.is_empty()) })
}

fn head(text: &str) -> Result<HeadMeta, WireError> {
    let head: Head = serde_json::from_str(text).map_err(|source| WireError::Json { what: "object", source })?;
    Ok(head.metadata.unwrap_or_default())
}

fn key(head: &HeadMeta, what: &'static str) -> Result<ObjectKey, WireError> {
    let name = head.name.clone().filter(|name| !name.is_empty()).ok_or(WireError::Missing { what, field: "name" })?;
    Ok(ObjectKey { namespace: head.namespace.clone().unwrap_or_default(), name })
}

fn object<T: Wire>(text: &str, head: &HeadMeta) -> Result<Decoded<T>, WireError> {
    let key = key(head, "object")?;
    let body = place::read(text).map_err(|place::Misfit { field, detail }| Malformed {
        kind: T::PLURAL,
        key: key.clone(),
        field,
        detail,
    });
    Ok(Decoded { key, body })
}

#[cfg(test)]
mod tests;
