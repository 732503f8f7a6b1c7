//! From the bytes of a manifest to a pod of this node. Pure.
//!
//! Owns a static pod's identity: its uid is a digest of what the manifest says, of the node and of where it is from, so that an agent
//! that starts again finds its pods, and a changed manifest is another pod. Facts from kubelet (`pkg/kubelet/config/common.go`).

use super::{Kind, check, defaults};
use crate::api::wire::place;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The manifest is larger than this: it is none.
pub const MAX: u64 = 10 << 20;

pub const SOURCE: &str = "kubernetes.io/config.source";
pub const HASH: &str = "kubernetes.io/config.hash";
pub const SEEN: &str = "kubernetes.io/config.seen";
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Priorities that every cluster has; an API server would look them up.
const PRIORITIES: [(&str, i32); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// Where a manifest is from: the file's path, or the URL.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub kind: Kind,
    pub place: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("couldn't parse as pod({0}), please check config file")]
    Syntax(String),
    #[error("invalid pod: name is needed for the pod")]
    NoName,
    #[error("invalid pod: [{}]", .0.join(", "))]
    Invalid(Vec<String>),
    #[error("static pods may not reference {0}")]
    References(&'static str),
}

/// One pod, as a file has it.
pub fn read(data: &[u8], node: &str, source: Source<'_>) -> Result<Pod, Refusal> {
    pod(document(data)?, node, source)
}

/// One pod or a list of them, as a URL has it. One that is refused refuses the list.
pub fn read_all(data: &[u8], node: &str, source: Source<'_>) -> Result<Vec<Pod>, Refusal> {
    let mut document = document(data)?;
    if document["kind"] != "PodList" {
        return Ok(vec![pod(document, node, source)?]);
    }
    let items = match document["items"].take() {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        _ => return Err(Refusal::Syntax("items: expected a list".into())),
    };
    items.into_iter().map(|item| pod(with_kind(item), node, source)).collect()
}

/// Items of a list need not say what they are.
fn with_kind(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.entry("kind").or_insert_with(|| "Pod".into());
        fields.entry("apiVersion").or_insert_with(|| "v1".into());
    }
    item
}

/// The first document, YAML or JSON.
fn document(data: &[u8]) -> Result<Value, Refusal> {
    let wrong = |error: &dyn std::fmt::Display| Refusal::Syntax(error.to_string());
    let Some(first) = serde_yaml_ng::Deserializer::from_slice(data).next() else {
        return Err(wrong(&"the document is empty"));
    };
    let mut value = serde_yaml_ng::Value::deserialize(first).map_err(|e| wrong(&e))?;
    value.apply_merge().map_err(|e| wrong(&e))?;
    serde_yaml_ng::from_value(value).map_err(|e| wrong(&e))
}

fn pod(mut document: Value, node: &str, source: Source<'_>) -> Result<Pod, Refusal> {
    let (kind, version) = (document["kind"].as_str().unwrap_or_default(), document["apiVersion"].as_str().unwrap_or_default());
    if (kind, version) != ("Pod", "v1") {
        return Err(Refusal::Syntax(format!("expected kind Pod of apiVersion v1, found {kind:?} of {version:?}")));
    }
    defaults::quantities(&mut document);
    let pod: Pod = typed(&document)?;
    if pod.metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Err(Refusal::NoName);
    }
    let pod = identified(pod, node, source);
    let mut value = serde_json::to_value(&pod).map_err(|e| Refusal::Syntax(e.to_string()))?;
    defaults::fill(&mut value["spec"]);
    let pod: Pod = typed(&value)?;
    let problems = check::problems(&pod);
    if !problems.is_empty() {
        return Err(Refusal::Invalid(problems));
    }
    match check::reference(&pod) {
        Some(what) => Err(Refusal::References(what)),
        None => Ok(pod),
    }
}

fn typed(value: &Value) -> Result<Pod, Refusal> {
    place::read(&value.to_string()).map_err(|misfit| Refusal::Syntax(format!("{}: {}", misfit.field, misfit.detail)))
}

/// With name, namespace, node, uid and annotations of a pod that this node has by itself.
fn identified(mut pod: Pod, node: &str, source: Source<'_>) -> Pod {
    let uid = match pod.metadata.uid.take().filter(|uid| !uid.is_empty()) {
        Some(uid) => uid,
        None => digest(&pod, node, source),
    };
    let meta = &mut pod.metadata;
    meta.name = meta.name.take().map(|name| format!("{name}-{}", node.to_lowercase()));
    meta.namespace = meta.namespace.take().filter(|n| !n.is_empty()).or_else(|| Some("default".to_owned()));
    // What only an API server says of an object.
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.finalizers = None;
    meta.managed_fields = None;
    meta.resource_version = None;
    let annotations = meta.annotations.get_or_insert_default();
    annotations.remove(MIRROR);
    annotations.insert(HASH.to_owned(), uid.clone());
    annotations.insert(SOURCE.to_owned(), source.kind.name().to_owned());
    meta.uid = Some(uid);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    if source.kind == Kind::File {
        tolerate(spec.tolerations.get_or_insert_default());
    }
    let class = spec.priority_class_name.as_deref();
    spec.priority = spec.priority.or_else(|| PRIORITIES.iter().find(|(name, _)| class == Some(name)).map(|(_, p)| *p));
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
    pod
}

/// No taint ends it.
fn tolerate(all: &mut Vec<Toleration>) {
    let is = |t: &Toleration| {
        let none = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        none(&t.key) && none(&t.value) && t.operator.as_deref() == Some("Exists") && t.effect.as_deref() == Some("NoExecute")
    };
    if !all.iter().any(|t| is(t) && t.toleration_seconds.is_none()) {
        all.retain(|t| !is(t));
        let (operator, effect) = (Some("Exists".to_owned()), Some("NoExecute".to_owned()));
        all.push(Toleration { operator, effect, ..Toleration::default() });
    }
}

/// 32 hexadecimal digits, as kubelet's are.
fn digest(pod: &Pod, node: &str, source: Source<'_>) -> String {
    let mut hash = Sha256::new();
    // Serialising an object of our own types cannot fail; were it to, the place would still tell pods apart.
    hash.update(serde_json::to_vec(pod).unwrap_or_default());
    match source.kind {
        Kind::File => hash.update(format!("host:{node}file:{}", source.place)),
        Kind::Http => hash.update(format!("url:{}", source.place)),
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
