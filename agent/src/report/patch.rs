//! The smallest strategic merge patch from one status to another. Pure.

use crate::pod::status::conditions::OCCASIONAL;
use k8s_openapi::api::core::v1 as api;
use serde_json::{Map, Value, json};

/// Lists that the API merges by key: entries that are to go must be named.
const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// `None` if nothing differs. The uid makes the API refuse it for another pod of the same name.
pub(super) fn between(uid: &str, from: &api::PodStatus, to: &api::PodStatus) -> Option<Value> {
    let (from, to) = (object(from), object(to));
    let mut changes = Map::new();
    for (field, new) in &to {
        let old = from.get(field);
        if old == Some(new) {
            continue;
        }
        let merged = MERGED.iter().find(|(name, _)| name == field);
        let value = match (merged, old, new) {
            (Some((_, key)), old, Value::Array(new)) => {
                Value::Array(merge(key, old.and_then(Value::as_array).map_or(&[], Vec::as_slice), new))
            }
            _ => new.clone(),
        };
        if value != json!([]) || old.is_some() {
            changes.insert(field.clone(), value);
        }
    }
    for field in from.keys().filter(|f| !to.contains_key(*f) && ours(f)) {
        changes.insert(field.clone(), Value::Null);
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

/// Fields that this node alone writes; the others are left alone when we have nothing to say about them.
fn ours(field: &str) -> bool {
    !matches!(field, "nominatedNodeName" | "resourceClaimStatuses" | "resize" | "extendedResourceClaimStatus")
}

fn object(status: &api::PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// What changes in a keyed list: new and different entries as they should be, and those that go. A condition that is not
/// in the new list belongs to somebody else and stays, but for those of ours that come and go.
fn merge(key: &str, old: &[Value], new: &[Value]) -> Vec<Value> {
    let find = |list: &[Value], name: &Value| list.iter().find(|v| v.get(key) == Some(name)).cloned();
    let mut out = Vec::new();
    for entry in new {
        let Some(name) = entry.get(key) else { continue };
        match find(old, name) {
            Some(before) if before == *entry => {}
            // Fields that went away must be said too.
            Some(before) => {
                let mut entry = entry.clone();
                if let (Some(e), Some(b)) = (entry.as_object_mut(), before.as_object()) {
                    for gone in b.keys().filter(|k| !e.contains_key(*k)).cloned().collect::<Vec<_>>() {
                        e.insert(gone, Value::Null);
                    }
                }
                out.push(entry);
            }
            None => out.push(entry.clone()),
        }
    }
    for entry in old {
        let Some(name) = entry.get(key) else { continue };
        let ours = key != "type" || name.as_str().is_some_and(|name| OCCASIONAL.contains(&name));
        if ours && find(new, name).is_none() {
            out.push(json!({ "$patch": "delete", key: name }));
        }
    }
    out
}
