//! ConfigMap, Secret and ServiceAccount.

use crate::kinds::field::{Errors, child};
use crate::kinds::meta::{self, Fields, default, entry, names, no_prepare, object_mut, str, text};
use crate::kinds::table::{Column, NAME_AGE, age_column, created, int_column, name, name_age, name_column, text_column};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};

/// The size of all values of a ConfigMap or Secret together.
const MAX: usize = 1024 * 1024;

const DATA: Column = int_column("Data", "How many entries the object has.");

pub static CONFIG_MAP: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&CONFIG_MAP, o),
    prepare: no_prepare,
    validate: validate_config_map,
    selectable_fields: meta::selectable_namespaced,
    columns: &[name_column(), DATA, age_column()],
    cells: |o, now| {
        let count = ["data", "binaryData"].iter().filter_map(|f| o[*f].as_object()).map(|m| m.len()).sum::<usize>();
        vec![name(o), json!(count), created(o, now)]
    },
    schema: schemars::SchemaGenerator::subschema_for::<v1::ConfigMap>,
};

pub static SECRET: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: default_secret,
    prepare: prepare_secret,
    validate: validate_secret,
    selectable_fields: secret_fields,
    columns: &[name_column(), text_column("Type", "What the secret is for."), DATA, age_column()],
    cells: secret_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::Secret>,
};

pub static SERVICE_ACCOUNT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    subresources: &[Sub::Token],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&SERVICE_ACCOUNT, o),
    prepare: no_prepare,
    validate: meta::validate_metadata,
    selectable_fields: meta::selectable_namespaced,
    columns: NAME_AGE,
    cells: name_age,
    schema: schemars::SchemaGenerator::subschema_for::<v1::ServiceAccount>,
};

fn keys_and_size(e: &mut Errors, map: &Value, path: &str, binary: bool) -> usize {
    let mut size = 0;
    for (k, v) in map.as_object().into_iter().flatten() {
        for problem in names::config_key(k) {
            e.invalid(entry(path, k), k.as_str(), problem);
        }
        let text = v.as_str().unwrap_or_default();
        size += if binary { STANDARD.decode(text).map_or(text.len(), |b| b.len()) } else { text.len() };
    }
    size
}

/// Once `immutable` is true it stays so, and so do these fields.
fn frozen(e: &mut Errors, new: &Value, old: Option<&Value>, fields: &[&str]) {
    let Some(old) = old.filter(|o| o["immutable"] == Value::Bool(true)) else { return };
    if new["immutable"] != Value::Bool(true) {
        e.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for field in fields {
        if new[*field] != old[*field] {
            e.forbidden(*field, "field is immutable when `immutable` is set");
        }
    }
}

fn validate_config_map(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let size = keys_and_size(&mut e, &new["data"], "data", false) + keys_and_size(&mut e, &new["binaryData"], "binaryData", true);
    for k in new["binaryData"].as_object().into_iter().flatten().map(|(k, _)| k) {
        if new["data"].get(k).is_some() {
            e.invalid(entry("data", k), k.as_str(), "duplicate of key present in binaryData");
        }
    }
    if size > MAX {
        e.too_long("", MAX);
    }
    frozen(&mut e, new, old, &["data", "binaryData"]);
    e.0
}

fn default_secret(o: &mut Value) {
    schema::normalize(&SECRET, o);
    if let Some(o) = o.as_object_mut() {
        default(o, "type", "Opaque");
    }
}

/// `stringData` is only a way to write `data`.
fn prepare_secret(_: Op, _: Option<Sub>, new: &mut Value, _: Option<&Value>) {
    let Some(o) = new.as_object_mut() else { return };
    let Some(Value::Object(texts)) = o.remove("stringData") else { return };
    let Some(data) = object_mut(o, "data") else { return };
    for (k, v) in texts {
        data.insert(k, json!(STANDARD.encode(v.as_str().unwrap_or_default())));
    }
}

fn validate_secret(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    if keys_and_size(&mut e, &new["data"], "data", true) > MAX {
        e.too_long("data", MAX);
    }
    let required: &[&str] = match str(new, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/service-account-token" => {
            if str(&new["metadata"]["annotations"], "kubernetes.io/service-account.name").is_empty() {
                e.required("metadata.annotations[kubernetes.io/service-account.name]", "");
            }
            &[]
        }
        "kubernetes.io/basic-auth" => {
            if new["data"].get("username").is_none() && new["data"].get("password").is_none() {
                e.required(entry("data", "username"), "");
                e.required(entry("data", "password"), "");
            }
            &[]
        }
        _ => &[],
    };
    for k in required {
        match new["data"].get(*k).and_then(Value::as_str) {
            None => e.required(entry("data", k), ""),
            Some(text) if k.starts_with(".docker") => {
                let json = STANDARD.decode(text).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
                if json.is_none() {
                    e.invalid(entry("data", k), "<secret contents redacted>", "must be JSON");
                }
            }
            Some(_) => {}
        }
    }
    if let Some(old) = old {
        meta::immutable(&mut e, &new["type"], &old["type"], &child("", "type"));
    }
    frozen(&mut e, new, old, &["data"]);
    e.0
}

fn secret_fields(o: &Value) -> Fields {
    let mut fields = meta::selectable_namespaced(o);
    fields.push(("type", text(o, "/type")));
    fields
}

fn secret_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = o["data"].as_object().map_or(0, |m| m.len());
    vec![name(o), json!(str(o, "type")), json!(count), created(o, now)]
}
