//! `metadata`: what all kinds share in preparation and validation.

use super::{FieldError, Op, Sub};
use serde_json::{Value, json};

pub type Fields = Vec<(&'static str, String)>;

/// A field as the text field selectors compare with: empty where it is missing.
pub fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    }
}

pub fn selectable_namespaced(o: &Value) -> Fields {
    vec![("metadata.name", text(o, "/metadata/name")), ("metadata.namespace", text(o, "/metadata/namespace"))]
}

pub fn selectable_cluster(o: &Value) -> Fields {
    vec![("metadata.name", text(o, "/metadata/name"))]
}

pub fn no_defaults(_: &mut Value) {}

pub fn no_prepare(_: Op, _: Option<Sub>, _: &mut Value, _: Option<&Value>) {}

pub fn validate_nothing(_: Op, _: Option<Sub>, _: &Value, _: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}

/// Preparation of a kind with spec, status and generation.
pub fn prepare_spec_status(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => {
            if let Some(map) = new.as_object_mut() {
                map.insert("status".to_string(), json!({}));
            }
            set_generation(new, 1);
        }
        (Op::Update, Some(Sub::Status), Some(old)) => keep_all_but_status(new, old),
        (Op::Update, _, Some(old)) => {
            keep(new, old, "status");
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
            set_generation(new, if new.get("spec") == old.get("spec") { generation } else { generation + 1 });
        }
    }
}

fn set_generation(object: &mut Value, generation: i64) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.insert("generation".to_string(), json!(generation));
    }
}

/// Takes a top-level field from the stored object, whatever the request says.
pub fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(v) => {
            map.insert(field.to_string(), v.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

/// A status write changes the status only; of the metadata, what is not the object's spec in disguise.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let resource_version = new["metadata"]["resourceVersion"].clone();
    *new = old.clone();
    if let Some(status) = status {
        new["status"] = status;
    }
    if !resource_version.is_null() {
        new["metadata"]["resourceVersion"] = resource_version;
    }
}
