//! What `metadata` means on a write: pure functions over one object. Must never read a clock or draw a random number.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::status::{ApiError, Cause};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// The characters of generated names: no vowels and nothing that looks like another.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const GENERATED_BASE_MAX: usize = 58;

/// `metadata` as a map, made if missing. An object that is no map gets none.
pub fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let map = object.as_object_mut()?;
    let entry = map.entry("metadata").or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub fn is_terminating(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.get("metadata").and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

pub fn grace(object: &Value) -> Option<i64> {
    object.get("metadata").and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64)
}

/// The resourceVersion a client sent: nothing if absent or "0".
pub fn resource_version(object: &Value) -> Result<Option<u64>, ApiError> {
    parse_revision(text(object, "resourceVersion"), "metadata.resourceVersion")
}

pub fn parse_revision(text: &str, field: &str) -> Result<Option<u64>, ApiError> {
    match text {
        "" | "0" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("{field}: Invalid value: {text:?}: must be an unsigned integer"))),
    }
}

/// Seconds since 1970 as the API writes times.
pub fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn generated_name(base: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for _ in 0..5 {
        name.push(NAME_ALPHABET[random(NAME_ALPHABET.len()) % NAME_ALPHABET.len()] as char);
    }
    name
}

/// The URL decides where an object is; a body that says otherwise is refused.
pub fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
    let shape = |what: &str| ApiError::bad_request(format!("{what} must be a JSON object"));
    if !object.is_object() {
        return Err(shape("the body"));
    }
    let api_version = kind.api_version();
    for (field, want) in [("apiVersion", api_version.as_str()), ("kind", kind.kind)] {
        match object.get(field) {
            None | Some(Value::Null) => object[field] = json!(want),
            Some(Value::String(have)) if have == want => {}
            Some(have) => {
                let message = format!(
                    "{} in version {:?} cannot be handled as a {}: {field} is {have}",
                    object.get("kind").and_then(Value::as_str).unwrap_or("object"),
                    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default(),
                    kind.kind
                );
                return Err(ApiError::bad_request(message));
            }
        }
    }
    let Some(map) = metadata(object) else { return Err(shape("metadata")) };
    for field in ["name", "namespace", "generateName", "uid", "resourceVersion", "deletionTimestamp"] {
        if map.get(field).is_some_and(Value::is_null) {
            map.remove(field);
        } else if map.get(field).is_some_and(|v| !v.is_string()) {
            return Err(ApiError::bad_request(format!("metadata.{field} must be a string")));
        }
    }
    if !kind.namespaced {
        map.remove("namespace");
        return Ok(());
    }
    let said = map.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !said.is_empty() && said != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    map.insert("namespace".to_owned(), json!(namespace));
    Ok(())
}

/// What a client may not decide on a new object.
pub fn begin(object: &mut Value, uid: &str, now: &str) {
    let Some(map) = metadata(object) else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "resourceVersion"] {
        map.remove(field);
    }
    map.insert("uid".to_owned(), json!(uid));
    map.insert("creationTimestamp".to_owned(), json!(now));
}

/// What a client may not change on an update: taken from what is stored.
pub fn carry_over(kind: &Kind, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let name = name(old).to_owned();
    let said = uid(new);
    if !said.is_empty() && said != uid(old) {
        return Err(precondition(kind, &name, "UID", said, uid(old)));
    }
    let Some(map) = metadata(new) else { return Err(ApiError::bad_request("metadata must be a JSON object")) };
    map.remove("managedFields");
    map.remove("selfLink");
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "generation"] {
        match old["metadata"].get(field) {
            Some(value) => map.insert(field.to_owned(), value.clone()),
            None => map.remove(field),
        };
    }
    Ok(())
}

/// The generation is the registry's: `prepare` moves it, and a row that does not know generations keeps the old one.
pub fn check_update(kind: &Kind, new: &Value, old: &Value) -> Result<(), ApiError> {
    if !is_terminating(old) {
        return Ok(());
    }
    let before = finalizers(old);
    let added: Vec<&str> = finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
    if added.is_empty() {
        return Ok(());
    }
    let message =
        format!("Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
    let cause = Cause { reason: "FieldValueForbidden".into(), message, field: "metadata.finalizers".into() };
    Err(ApiError::invalid(kind.group, kind.kind, name(new), vec![cause]))
}

pub fn precondition(kind: &Kind, name: &str, what: &str, wanted: &str, have: &str) -> ApiError {
    let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}");
    ApiError::conflict(kind.group, kind.plural, name, &why)
}

/// Same but for the revision it was stored at.
pub fn same(a: &Value, b: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        if let Some(m) = metadata(&mut v) {
            m.remove("resourceVersion");
        }
        v
    };
    a == b || strip(a) == strip(b)
}
