//! The schemas of all kinds, and structural checks of a body against them: unknown fields, wrong types, normal form.
//!
//! Owns one lazily built store of definitions (about a thousand, taken from the published API types); patches and the
//! OpenAPI documents read the same store. Must never know what a field means: that is validation.

use super::field::{FieldReason, child, index};
use super::{FieldError, KINDS, Kind};
use base64::Engine;
use ferrolet_quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::OnceLock;

mod duplicates;

pub use duplicates::duplicate_fields;

/// The path of definitions in `$ref`s, as OpenAPI v3 wants it.
pub const REF_PREFIX: &str = "#/components/schemas/";

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

/// All definitions by name, and which one each (group, version, kind) has.
pub struct Store {
    pub definitions: Map<String, Value>,
    roots: HashMap<(&'static str, &'static str, &'static str), String>,
}

impl Store {
    fn build() -> Store {
        use k8s_openapi::api;
        use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
        let settings =
            schemars::generate::SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
        let mut generator = settings.into_generator();
        let mut roots = HashMap::new();
        for kind in KINDS {
            let schema = (kind.schema)(&mut generator).to_value();
            roots.insert((kind.group, kind.version, kind.kind), ref_name(&schema).unwrap_or_default().to_string());
        }
        let extra = [
            (("autoscaling", "v1", "Scale"), generator.subschema_for::<api::autoscaling::v1::Scale>()),
            (("", "v1", "Binding"), generator.subschema_for::<api::core::v1::Binding>()),
            (("policy", "v1", "Eviction"), generator.subschema_for::<api::policy::v1::Eviction>()),
            (("authentication.k8s.io", "v1", "TokenRequest"), generator.subschema_for::<api::authentication::v1::TokenRequest>()),
            (("", "v1", "Status"), generator.subschema_for::<meta::Status>()),
            (("", "v1", "DeleteOptions"), generator.subschema_for::<meta::DeleteOptions>()),
        ];
        generator.subschema_for::<meta::ListMeta>();
        for (gvk, schema) in extra {
            roots.insert(gvk, ref_name(&schema.to_value()).unwrap_or_default().to_string());
        }
        let definitions = generator.definitions().clone();
        Store { definitions, roots }
    }

    /// The name of a kind's definition.
    pub fn root(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        self.roots.iter().find(|((g, v, k), _)| *g == group && *v == version && *k == kind).map(|(_, name)| name.as_str())
    }

    /// Every (group, version, kind) with its definition.
    pub fn roots(&self) -> impl Iterator<Item = (&(&'static str, &'static str, &'static str), &str)> {
        self.roots.iter().map(|(gvk, name)| (gvk, name.as_str()))
    }

    fn node<'a>(&'a self, name: &'a str) -> Option<Node<'a>> {
        self.definitions.get(name).map(|schema| Node { name, schema })
    }
}

pub fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(Store::build)
}

/// The definition a schema refers to, by `$ref`.
pub fn ref_name(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REF_PREFIX)
}

/// A place in the schema: the nearest named definition (empty inside an anonymous one) and its schema.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub name: &'a str,
    schema: &'a Value,
}

impl<'a> Node<'a> {
    pub fn of_kind(kind: &Kind) -> Option<Node<'static>> {
        Self::of(kind.group, kind.version, kind.kind)
    }

    pub fn of(group: &str, version: &str, kind: &str) -> Option<Node<'static>> {
        let store = store();
        store.node(store.root(group, version, kind)?)
    }

    fn follow(schema: &'a Value) -> Node<'a>
    where
        'a: 'static,
    {
        match ref_name(schema).and_then(|name| store().node(name)) {
            Some(node) => node,
            None => Node { name: "", schema },
        }
    }
}

impl Node<'static> {
    /// The schema of a field of an object, `additionalProperties` included.
    pub fn field(self, name: &str) -> Option<Node<'static>> {
        let direct = self.schema.get("properties").and_then(|p| p.get(name));
        direct.or_else(|| self.schema.get("additionalProperties").filter(|v| v.is_object())).map(Node::follow)
    }

    /// The schema of a list's items.
    pub fn items(self) -> Option<Node<'static>> {
        self.schema.get("items").map(Node::follow)
    }

    /// An object of which the schema says nothing (a raw extension).
    fn is_open(self) -> bool {
        self.schema.get("properties").is_none() && self.schema.get("additionalProperties").is_none()
    }

    fn is_map(self) -> bool {
        self.schema.get("additionalProperties").is_some()
    }

    fn ty(self) -> &'static str {
        self.schema.get("type").and_then(Value::as_str).unwrap_or("")
    }

    fn format(self) -> &'static str {
        self.schema.get("format").and_then(Value::as_str).unwrap_or("")
    }
}

/// One text for each field the kind does not have: `unknown field "spec.foo"`.
pub fn unknown_fields(kind: &Kind, object: &Value) -> Vec<String> {
    Node::of_kind(kind).map_or_else(Vec::new, |node| unknown_fields_of(node, object))
}

/// The same for a body that is not a row of the table (`Scale`, `Binding`, `Eviction`, `DeleteOptions`, ...).
pub fn unknown_fields_of(node: Node<'static>, object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    collect_unknown(node, object, "", &mut out);
    out
}

fn collect_unknown(node: Node<'static>, value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !node.is_open() => {
            for (key, v) in map {
                let path = child(path, key);
                match node.field(key) {
                    Some(field) => collect_unknown(field, v, &path, out),
                    None => out.push(format!("unknown field \"{path}\"")),
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = node.items() else { return };
            for (i, v) in items.iter().enumerate() {
                collect_unknown(item, v, &index(path, i), out);
            }
        }
        _ => {}
    }
}

/// Brings an object into the form the API stores: no unknown fields, no nulls, quantities and times canonical.
/// Values of a wrong type are left for [`type_check`] to report.
pub fn normalize(kind: &Kind, object: &mut Value) {
    if let Some(node) = Node::of_kind(kind) {
        normalize_node(node, object, "");
    }
}

/// Removes the fields the kind does not have. Part of [`normalize`], which every row's `defaults` begins with.
pub fn prune(kind: &Kind, object: &mut Value) {
    normalize(kind, object);
}

fn normalize_node(node: Node<'static>, value: &mut Value, key: &str) {
    match value {
        Value::Object(map) if !node.is_open() => {
            let is_map = node.is_map();
            map.retain(|k, v| node.field(k).is_some() && (is_map || !v.is_null()));
            for (k, v) in map.iter_mut() {
                let Some(field) = node.field(k) else { continue };
                if v.is_null() && field.ty() == "string" {
                    *v = json!("");
                }
                let key = if matches!(k.as_str(), "limits" | "requests" | "capacity" | "allocatable") { k } else { key };
                normalize_node(field, v, key);
            }
        }
        Value::Array(items) => {
            let Some(item) = node.items() else { return };
            for v in items.iter_mut() {
                normalize_node(item, v, key);
            }
        }
        _ => normalize_leaf(node, value, key),
    }
}

fn normalize_leaf(node: Node<'static>, value: &mut Value, key: &str) {
    if node.name == QUANTITY {
        let text = match &*value {
            Value::String(s) => s.clone(),
            Value::Number(n) => n.to_string(),
            _ => return,
        };
        if let Ok(quantity) = text.parse::<Quantity>() {
            *value = json!(canonical_quantity(quantity, !key.is_empty()));
        }
        return;
    }
    match (node.ty(), node.format()) {
        ("integer", _) => {
            if let Some(f) = value.as_f64().filter(|f| !value.is_i64() && f.fract() == 0.0 && f.abs() < 9e15) {
                *value = json!(f as i64);
            }
        }
        ("string", "date-time") => {
            let Some(time) = value.as_str().and_then(|s| s.parse::<Timestamp>().ok()) else { return };
            *value = json!(if node.name == MICRO_TIME { format!("{time:.6}") } else { seconds(time) });
        }
        _ => {}
    }
}

/// A time as `metav1.Time` prints it: whole seconds, UTC.
pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).map_or_else(|_| time.to_string(), |t| t.to_string())
}

/// Amounts in resource lists are rounded up to thousandths, as the API does.
fn canonical_quantity(quantity: Quantity, resource_list: bool) -> String {
    let milli = Quantity::from_milli(quantity.milli());
    if resource_list && quantity != milli && quantity.milli() < i64::MAX { milli.to_string() } else { quantity.to_string() }
}

/// The first field of the wrong JSON type. The error names its path.
pub fn type_check(kind: &Kind, object: &Value) -> Result<(), FieldError> {
    match Node::of_kind(kind) {
        Some(node) => type_check_of(node, object),
        None => Ok(()),
    }
}

pub fn type_check_of(node: Node<'static>, object: &Value) -> Result<(), FieldError> {
    check(node, object, "")
}

fn wrong(path: &str, value: &Value, detail: impl Into<String>) -> FieldError {
    let bad_value = match value {
        Value::Object(_) => json!("object"),
        Value::Array(_) => json!("array"),
        other => other.clone(),
    };
    let field = if path.is_empty() { "<root>".to_string() } else { path.to_string() };
    FieldError { reason: FieldReason::TypeInvalid, field, bad_value, detail: detail.into() }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(node: Node<'static>, value: &Value, path: &str) -> Result<(), FieldError> {
    if value.is_null() {
        return Ok(());
    }
    if node.name == QUANTITY {
        return check_quantity(value, path);
    }
    if node.schema.get("x-kubernetes-int-or-string").is_some() {
        return match value {
            Value::String(_) => Ok(()),
            Value::Number(n) if n.as_i64().is_some_and(|v| i32::try_from(v).is_ok()) => Ok(()),
            _ => Err(wrong(path, value, format!("must be a 32-bit integer or a string, is {}", type_name(value)))),
        };
    }
    let expected = node.ty();
    match (expected, value) {
        ("object", Value::Object(map)) => {
            for (key, v) in map {
                if let Some(field) = node.field(key) {
                    check(field, v, &child(path, key))?;
                }
            }
            Ok(())
        }
        ("array", Value::Array(items)) => {
            let Some(item) = node.items() else { return Ok(()) };
            items.iter().enumerate().try_for_each(|(i, v)| check(item, v, &index(path, i)))
        }
        ("string", Value::String(s)) => check_string(node, s, value, path),
        ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) | ("", _) => Ok(()),
        ("integer", Value::Number(n)) => {
            let whole = n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64));
            match whole {
                None => Err(wrong(path, value, "must be an integer")),
                Some(v) if node.format() == "int32" && i32::try_from(v).is_err() => {
                    Err(wrong(path, value, "must fit a 32-bit integer"))
                }
                Some(_) => Ok(()),
            }
        }
        _ => {
            let article = if expected.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
            Err(wrong(path, value, format!("must be {article} {expected}, is {}", type_name(value))))
        }
    }
}

fn check_string(node: Node<'static>, text: &str, value: &Value, path: &str) -> Result<(), FieldError> {
    match node.format() {
        "byte" => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(_) => Ok(()),
            Err(e) => Err(wrong(path, value, format!("must be base64: {e}"))),
        },
        "date-time" if text.parse::<Timestamp>().is_err() => {
            Err(wrong(path, value, "must be an RFC 3339 time such as 2006-01-02T15:04:05Z"))
        }
        _ => Ok(()),
    }
}

fn check_quantity(value: &Value, path: &str) -> Result<(), FieldError> {
    let text = match value {
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        _ => return Err(wrong(path, value, format!("must be a quantity such as 100m or 1Gi, is {}", type_name(value)))),
    };
    match text.parse::<Quantity>() {
        Ok(_) => Ok(()),
        Err(e) => Err(wrong(path, value, e.to_string())),
    }
}

#[cfg(test)]
mod tests;
