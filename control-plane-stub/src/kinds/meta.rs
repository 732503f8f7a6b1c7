//! What all kinds share: safe access to JSON, `metadata` in preparation and validation, selectable fields.

use super::field::{Errors, child, key};
use super::{FieldError, Op, Sub};
use serde_json::{Map, Value, json};

pub mod names;

pub type Fields = Vec<(&'static str, String)>;
pub type Object = Map<String, Value>;

/// The total size of all annotations, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A field as the text field selectors compare with: empty where it is missing.
pub fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    }
}

/// A text field of an object; empty where it is missing or something else.
pub fn str<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

/// The items of a list field; none where it is missing or something else.
pub fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn list_mut<'a>(object: &'a mut Object, field: &str) -> impl Iterator<Item = &'a mut Object> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// A field that is an object, made if it is missing; none where it is something else.
pub fn object_mut<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    let value = object.entry(field).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// A field that is an object, only where it is there.
pub fn existing<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    object.get_mut(field)?.as_object_mut()
}

pub fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        _ => false,
    }
}

/// Sets a field that is missing, null, or an empty text.
pub fn default(object: &mut Object, field: &str, value: impl Into<Value>) {
    if is_unset(object.get(field)) {
        object.insert(field.to_string(), value.into());
    }
}

pub fn selectable_namespaced(o: &Value) -> Fields {
    vec![("metadata.name", text(o, "/metadata/name")), ("metadata.namespace", text(o, "/metadata/namespace"))]
}

pub fn selectable_cluster(o: &Value) -> Fields {
    vec![("metadata.name", text(o, "/metadata/name"))]
}

pub fn no_prepare(_: Op, _: Option<Sub>, _: &mut Value, _: Option<&Value>) {}

/// Preparation of a kind with spec and status, without generation.
pub fn prepare_status(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => set(new, "status", json!({})),
        (Op::Update, Some(Sub::Status), Some(old)) => only_status(new, old),
        (Op::Update, _, Some(old)) => keep(new, old, "status"),
    }
}

/// Preparation of a kind with spec, status and generation.
pub fn prepare_spec_status(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    prepare_status(op, sub, new, old);
    bump_generation(new, old, &["spec"]);
}

/// `metadata.generation` is 1 for a new object, and one more whenever one of these top-level fields changed.
pub fn bump_generation(new: &mut Value, old: Option<&Value>, fields: &[&str]) {
    let generation = match old {
        None => 1,
        Some(old) => {
            let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
            if fields.iter().any(|f| new.get(f) != old.get(f)) { before + 1 } else { before }
        }
    };
    set_generation(new, generation);
}

pub fn set_generation(object: &mut Value, generation: i64) {
    if let Some(meta) = object.as_object_mut().and_then(|o| object_mut(o, "metadata")) {
        meta.insert("generation".to_string(), json!(generation));
    }
}

pub fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.to_string(), value);
    }
}

/// Takes a field from the stored object, whatever the request says.
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

/// A write of one part: everything but the metadata and this part is taken from the stored object, and of the metadata
/// what owns or ends the object.
pub fn only(new: &mut Value, old: &Value, part: &str) {
    let fields: Vec<String> = [new, old].iter().filter_map(|o| o.as_object()).flat_map(|o| o.keys().cloned()).collect();
    for field in fields.iter().filter(|f| !["metadata", "apiVersion", "kind", part].contains(&f.as_str())) {
        keep(new, old, field);
    }
    let Some(meta) = new.get_mut("metadata") else { return };
    for field in ["ownerReferences", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "labels"] {
        keep(meta, &old["metadata"], field);
    }
}

pub fn only_status(new: &mut Value, old: &Value) {
    only(new, old, "status");
}

/// How an object's name must look.
pub type NameRule = fn(&str) -> names::Problems;

/// The rules all objects share: name, generateName, labels, annotations, finalizers, owners; and on updates that the
/// name and uid stay.
pub fn validate(e: &mut Errors, new: &Value, old: Option<&Value>, rule: NameRule) {
    let meta = &new["metadata"];
    let generate = str(meta, "generateName");
    if !generate.is_empty() {
        // The suffix may follow a dash or a dot, so the prefix is looked at as if it went on.
        for problem in rule(&format!("{generate}a")) {
            e.invalid("metadata.generateName", generate, problem);
        }
    }
    let name = str(meta, "name");
    if name.is_empty() {
        e.required("metadata.name", "name or generateName is required");
    } else {
        for problem in rule(name) {
            e.invalid("metadata.name", name, problem);
        }
    }
    if let Some(namespace) = meta.get("namespace").and_then(Value::as_str).filter(|n| !n.is_empty()) {
        for problem in names::dns1123_label(namespace) {
            e.invalid("metadata.namespace", namespace, problem);
        }
    }
    labels(e, &meta["labels"], "metadata.labels");
    annotations(e, &meta["annotations"], "metadata.annotations");
    for (i, f) in list(meta, "finalizers").iter().enumerate() {
        let f = f.as_str().unwrap_or_default();
        for problem in names::qualified(f) {
            e.invalid(format!("metadata.finalizers[{i}]"), f, problem);
        }
    }
    owners(e, meta);
    if let Some(old) = old {
        for field in ["name", "namespace", "uid", "creationTimestamp"] {
            immutable(e, &meta[field], &old["metadata"][field], &child("metadata", field));
        }
        let before = list(&old["metadata"], "finalizers");
        if !old["metadata"]["deletionTimestamp"].is_null() {
            let added: Vec<&Value> = list(meta, "finalizers").iter().filter(|f| !before.contains(f)).collect();
            if !added.is_empty() {
                e.forbidden(
                    "metadata.finalizers",
                    format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"),
                );
            }
        }
    }
}

fn owners(e: &mut Errors, meta: &Value) {
    let mut controller: Option<&str> = None;
    for (i, owner) in list(meta, "ownerReferences").iter().enumerate() {
        let path = format!("metadata.ownerReferences[{i}]");
        for field in ["apiVersion", "kind", "name", "uid"] {
            if str(owner, field).is_empty() {
                e.invalid(child(&path, field), "", format!("{field} must not be empty"));
            }
        }
        if owner["controller"] == json!(true) {
            if let Some(first) = controller {
                e.invalid(
                    "metadata.ownerReferences",
                    meta["ownerReferences"].clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                        str(owner, "name")
                    ),
                );
            }
            controller = Some(str(owner, "name"));
        }
    }
}

pub fn labels(e: &mut Errors, labels: &Value, path: &str) {
    for (k, v) in labels.as_object().into_iter().flatten() {
        for problem in names::qualified(k) {
            e.invalid(path, k.as_str(), problem);
        }
        let v = v.as_str().unwrap_or_default();
        for problem in names::label_value(v) {
            e.invalid(path, v, problem);
        }
    }
}

pub fn annotations(e: &mut Errors, annotations: &Value, path: &str) {
    let mut size = 0;
    for (k, v) in annotations.as_object().into_iter().flatten() {
        for problem in names::qualified(&k.to_lowercase()) {
            e.invalid(path, k.as_str(), problem);
        }
        size += k.len() + v.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        e.too_long(path, ANNOTATIONS_MAX);
    }
}

/// The API's words for a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

pub fn immutable(e: &mut Errors, new: &Value, old: &Value, path: &str) {
    if new != old {
        e.invalid(path, new.clone(), IMMUTABLE);
    }
}

/// A text that must be one of a set; missing is an error only where `required`.
pub fn one_of(e: &mut Errors, object: &Value, field: &str, path: &str, allowed: &[&str], required: bool) {
    let value = str(object, field);
    if value.is_empty() {
        if required {
            e.required(child(path, field), "");
        }
    } else if !allowed.contains(&value) {
        e.not_supported(child(path, field), value, allowed);
    }
}

/// A number that may not be negative.
pub fn non_negative(e: &mut Errors, object: &Value, field: &str, path: &str) {
    if let Some(v) = object.get(field).and_then(Value::as_i64).filter(|v| *v < 0) {
        e.invalid(child(path, field), v, "must be greater than or equal to 0");
    }
}

/// A `LabelSelector` object.
pub fn label_selector(e: &mut Errors, selector: &Value, path: &str) {
    labels(e, &selector["matchLabels"], &child(path, "matchLabels"));
    for (i, req) in list(selector, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        let values = list(req, "values");
        match str(req, "operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    e.required(child(&path, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    e.forbidden(child(&path, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
            }
            other => e.invalid(child(&path, "operator"), other, "not a valid selector operator"),
        }
        let k = str(req, "key");
        for problem in names::qualified(k) {
            e.invalid(child(&path, "key"), k, problem);
        }
        for (i, v) in values.iter().enumerate() {
            let v = v.as_str().unwrap_or_default();
            for problem in names::label_value(v) {
                e.invalid(format!("{path}.values[{i}]"), v, problem);
            }
        }
    }
}

/// The path of an entry of a map, as in `data[key]`.
pub fn entry(path: &str, name: &str) -> String {
    key(path, name)
}

/// For kinds of which only the metadata is looked at.
pub fn validate_metadata(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    validate(&mut e, new, old, names::dns1123_subdomain);
    e.0
}

#[cfg(test)]
mod tests;
