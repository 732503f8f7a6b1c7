//! Writes to pods that are no plain updates.

use serde_json::{Value, json};

use super::{Registry, WriteOptions, meta};
use crate::kinds::{self, Sub};
use crate::status::{ApiError, Cause};

impl Registry {
    /// Assigns a pod to a node, once.
    pub async fn bind(&self, namespace: &str, name: &str, binding: &Value, options: &WriteOptions) -> Result<(), ApiError> {
        let target = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let target_kind = binding.pointer("/target/kind").and_then(Value::as_str).unwrap_or_default();
        let refuse = |reason: &str, message: &str, field: &str| {
            let cause = Cause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
            Err(ApiError::invalid("", "Binding", name, vec![cause]))
        };
        if target.is_empty() {
            return refuse("FieldValueRequired", "Required value", "target.name");
        }
        if !matches!(target_kind, "" | "Node") {
            return refuse("FieldValueNotSupported", "Unsupported value: supported values: \"Node\"", "target.kind");
        }
        let uid = meta::uid(binding).to_owned();
        let now = meta::timestamp(jiff::Timestamp::now());
        let conflict = |why: &str| Err(ApiError::conflict("", "pods/binding", name, why));
        let edit = |old: &Value| {
            if !uid.is_empty() && uid != meta::uid(old) {
                return Err(meta::precondition(&kinds::POD, name, "UID", &uid, meta::uid(old)));
            }
            if meta::is_terminating(old) {
                return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
            }
            let assigned = old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
            if !assigned.is_empty() {
                return conflict(&format!("pod {name} is already assigned to node {assigned:?}"));
            }
            Ok(Some(bound(old, &target, binding, &now)))
        };
        self.change(&kinds::POD, namespace, name, Some(Sub::Binding), true, edit, options).await.map(|_| ())
    }
}

fn bound(old: &Value, node: &str, binding: &Value, now: &str) -> Value {
    let mut pod = old.clone();
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".to_owned(), json!(node));
    }
    for field in ["annotations", "labels"] {
        let Some(more) = binding.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_object) else { continue };
        let Some(metadata) = meta::metadata(&mut pod) else { continue };
        let into = metadata.entry(field).or_insert_with(|| json!({}));
        if let Some(into) = into.as_object_mut() {
            into.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
    let Some(map) = pod.as_object_mut() else { return pod };
    let status = map.entry("status").or_insert_with(|| json!({}));
    let conditions = status.as_object_mut().map(|s| s.entry("conditions").or_insert_with(|| json!([])));
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    }
    pod
}
