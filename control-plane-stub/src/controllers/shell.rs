//! The shells: what carries out the decisions of the controllers. Each file turns events into keys and a plan into
//! writes, and waits to see its own writes before the key is looked at again. They decide nothing.

pub mod csr;
pub mod deployment;
pub mod endpointslice;
pub mod garbage;
pub mod namespace;
pub mod node;
pub mod replicaset;
pub mod volumes;

use serde_json::Value;

use super::meta;

/// The revision an answer of the registry carries.
pub(crate) fn revision_of(object: &Value) -> u64 {
    text(object, "resourceVersion").parse().unwrap_or(0)
}

pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// Puts a controller reference on an object that has none. False leaves the object alone.
pub(crate) fn adopt(object: &mut Value, owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference) -> bool {
    let owned = owners(object).any(|o| o.get("controller").and_then(Value::as_bool) == Some(true));
    if owned || !text(object, "deletionTimestamp").is_empty() {
        return false;
    }
    let Ok(owner) = serde_json::to_value(owner) else { return false };
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return false };
    match metadata.entry("ownerReferences").or_insert_with(|| Value::Array(vec![])) {
        Value::Array(list) => list.push(owner),
        other => *other = Value::Array(vec![owner]),
    }
    true
}

/// Takes the references to an owner off an object.
pub(crate) fn disown(object: &mut Value, uids: &[&str]) -> bool {
    let Some(list) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else { return false };
    let before = list.len();
    list.retain(|o| !o.get("uid").and_then(Value::as_str).is_some_and(|u| uids.contains(&u)));
    let changed = list.len() != before;
    if list.is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("ownerReferences");
    }
    changed
}

pub(crate) fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten()
}

/// Replaces the status of an object if it differs and the object is still the same one.
pub(crate) fn put_status(uid: &str, status: Value) -> impl FnMut(&mut Value) -> bool + Send {
    move |object| {
        if text(object, "uid") != uid || object.get("status") == Some(&status) {
            return false;
        }
        object["status"] = status.clone();
        true
    }
}

/// The key of the controller of an object, if it is of this kind.
pub(crate) fn owner_key(m: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, kind: &str) -> Option<meta::Key> {
    let owner = meta::controller_of(m).filter(|o| o.kind == kind)?;
    Some(meta::Key::new(meta::namespace(m), &owner.name))
}
