//! The OpenAPI documents: v2, the v3 index, and one v3 document for each group version. Built on first use and kept as
//! bytes.
//!
//! Owns what clients learn of the schema: `kubectl explain` walks the definitions, `apply` reads the merge keys, `create`
//! looks for the `fieldValidation` parameter of a kind's patch operation. Must never hold a schema of its own.

use super::patch::keys;
use super::schema::{self, REF_PREFIX, ref_name};
use super::{KINDS, Kind, group_versions};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

mod paths;

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const V2_PREFIX: &str = "#/definitions/";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V2,
    V3,
}

impl Version {
    pub(super) fn reference(self, name: &str) -> Value {
        let prefix = if self == Version::V2 { V2_PREFIX } else { REF_PREFIX };
        json!({"$ref": format!("{prefix}{name}")})
    }
}

/// `/openapi/v2` as JSON.
pub fn v2() -> Arc<Vec<u8>> {
    static V2: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    V2.get_or_init(|| {
        let (mut paths, mut names) = (Map::new(), BTreeSet::new());
        for kind in KINDS {
            paths::add(&mut paths, kind, Version::V2);
            names.extend(roots(kind));
        }
        let document = json!({
            "swagger": "2.0",
            "info": info(),
            "paths": paths,
            "definitions": definitions(names, KINDS, Version::V2),
        });
        Arc::new(document.to_string().into_bytes())
    })
    .clone()
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// `/openapi/v3`: the index, each entry with a `serverRelativeURL` that carries a content hash.
pub fn v3_index() -> Arc<Vec<u8>> {
    static INDEX: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    INDEX
        .get_or_init(|| {
            let entry = |(path, (_, hash)): (&String, &(Arc<Vec<u8>>, String))| {
                (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
            };
            let paths: Map<String, Value> = documents().iter().map(entry).collect();
            Arc::new(json!({"paths": paths}).to_string().into_bytes())
        })
        .clone()
}

/// `/openapi/v3/<path>`, where the path is `api/v1`, `apis/apps/v1`, ...
pub fn v3(path: &str) -> Option<Arc<Vec<u8>>> {
    documents().get(path.trim_matches('/')).map(|(bytes, _)| bytes.clone())
}

/// The hash in the index for a document: its ETag.
pub fn v3_hash(path: &str) -> Option<&'static str> {
    documents().get(path.trim_matches('/')).map(|(_, hash)| hash.as_str())
}

/// Documents by path, each with its hash.
type Documents = BTreeMap<String, (Arc<Vec<u8>>, String)>;

fn documents() -> &'static Documents {
    static DOCUMENTS: OnceLock<Documents> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let document = |(group, version): (&str, &str)| {
            let bytes = v3_document(group, version).to_string().into_bytes();
            let hash = Sha256::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
            (root_path(group, version), (Arc::new(bytes), hash))
        };
        group_versions().into_iter().map(document).collect()
    })
}

/// `api/v1`, `apis/apps/v1`
pub(super) fn root_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn v3_document(group: &str, version: &str) -> Value {
    let kinds: Vec<&'static Kind> = KINDS.iter().copied().filter(|k| k.group == group && k.version == version).collect();
    let (mut paths, mut names) = (Map::new(), BTreeSet::new());
    for kind in &kinds {
        paths::add(&mut paths, kind, Version::V3);
        names.extend(roots(kind));
    }
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {"schemas": definitions(names, &kinds, Version::V3)},
    })
}

/// The definitions a kind's paths refer to.
fn roots(kind: &Kind) -> Vec<String> {
    let store = schema::store();
    let mut names = vec![STATUS.to_string(), DELETE_OPTIONS.to_string(), LIST_META.to_string()];
    names.extend(store.root(kind.group, kind.version, kind.kind).map(str::to_string));
    for (group, version, body) in kind.subresources.iter().filter_map(|s| s.body_kind()) {
        names.extend(store.root(group, version, body).map(str::to_string));
    }
    names
}

/// These definitions with all they refer to, and the lists of the kinds.
fn definitions(names: BTreeSet<String>, kinds: &[&'static Kind], version: Version) -> Map<String, Value> {
    let store = schema::store();
    let mut todo: Vec<String> = names.into_iter().collect();
    let mut out = Map::new();
    while let Some(name) = todo.pop() {
        if out.contains_key(&name) {
            continue;
        }
        let Some(definition) = store.definitions.get(&name) else { continue };
        references(definition, &mut todo);
        out.insert(name.clone(), published(&name, definition, version));
    }
    for ((group, kind_version, kind), name) in store.roots() {
        if let Some(definition) = out.get_mut(name) {
            definition["x-kubernetes-group-version-kind"] = json!([gvk(group, kind_version, kind)]);
        }
    }
    for kind in kinds.iter().filter(|k| k.is_stored()) {
        if let Some(item) = store.root(kind.group, kind.version, kind.kind) {
            out.insert(format!("{item}List"), list_definition(kind, item, version));
        }
    }
    out
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn references(schema: &Value, out: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            out.extend(ref_name(schema).map(str::to_string));
            map.values().for_each(|v| references(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

/// A definition as it is published: merge keys added, references and special types in the document's dialect.
fn published(name: &str, definition: &Value, version: Version) -> Value {
    let mut out = definition.clone();
    if let Some(map) = out.as_object_mut() {
        match (name, version) {
            (QUANTITY, Version::V3) => {
                map.remove("x-kubernetes-int-or-string");
                map.insert("oneOf".to_string(), json!([{"type": "string"}, {"type": "number"}]));
            }
            (INT_OR_STRING, Version::V3) => {
                map.remove("x-kubernetes-int-or-string");
                map.insert("format".to_string(), json!("int-or-string"));
                map.insert("oneOf".to_string(), json!([{"type": "integer"}, {"type": "string"}]));
            }
            (QUANTITY | INT_OR_STRING, Version::V2) => {
                map.remove("x-kubernetes-int-or-string");
                map.insert("type".to_string(), json!("string"));
                if name == INT_OR_STRING {
                    map.insert("format".to_string(), json!("int-or-string"));
                }
            }
            _ => {}
        }
        // The server takes objects without metadata; only the types behind these schemas cannot.
        if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|r| r != "metadata");
            if required.is_empty() {
                map.remove("required");
            }
        }
        if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
            for (field, property) in properties.iter_mut() {
                if let (Some(strategy), Some(property)) = (keys::strategy(name, field), property.as_object_mut()) {
                    property.insert("x-kubernetes-patch-strategy".to_string(), json!(strategy.strategy));
                    if !strategy.merge_key.is_empty() {
                        property.insert("x-kubernetes-patch-merge-key".to_string(), json!(strategy.merge_key));
                    }
                }
            }
        }
    }
    rewrite(&mut out, version);
    out
}

/// v3 wants a reference with a description of its own wrapped in `allOf`; v2 has another path for definitions.
fn rewrite(schema: &mut Value, version: Version) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(|v| rewrite(v, version));
            let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REF_PREFIX)) else { return };
            let reference = version.reference(name);
            match version {
                Version::V2 => {
                    map.insert("$ref".to_string(), reference["$ref"].clone());
                }
                Version::V3 if map.len() > 1 => {
                    map.remove("$ref");
                    map.insert("allOf".to_string(), json!([reference]));
                }
                Version::V3 => {}
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rewrite(v, version)),
        _ => {}
    }
}

fn list_definition(kind: &Kind, item: &str, version: Version) -> Value {
    json!({
        "description": format!("{}List is a collection of {}.", kind.kind, kind.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this list's schema."},
            "kind": {"type": "string", "description": "The kind of this list."},
            "metadata": version.reference(LIST_META),
            "items": {"type": "array", "description": format!("The {}.", kind.plural), "items": version.reference(item)},
        },
        "x-kubernetes-group-version-kind": [gvk(kind.group, kind.version, &kind.list_kind())],
    })
}

#[cfg(test)]
mod tests;
