//! Namespace: made active with the finalizer that lets its content go first.

use crate::kinds::field::Errors;
use crate::kinds::meta::{self, Fields, existing, is_unset, keep, names, object_mut, set, text};
use crate::kinds::table::{age_column, created, name, name_column, text_column};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The finalizer in `spec.finalizers` that namespace deletion removes at its end.
pub const FINALIZER: &str = "kubernetes";

pub static NAMESPACE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    subresources: &[Sub::Finalize, Sub::Status],
    verbs: STORED,
    view: None,
    defaults,
    prepare,
    validate,
    selectable_fields,
    columns: &[name_column(), text_column("Status", "Active, or Terminating while its content is deleted."), age_column()],
    cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Namespace>,
};

fn defaults(o: &mut Value) {
    schema::normalize(&NAMESPACE, o);
    let Some(meta) = o.as_object_mut().and_then(|o| object_mut(o, "metadata")) else { return };
    let Some(name) = meta.get("name").filter(|n| !is_unset(Some(n))).cloned() else { return };
    if let Some(labels) = object_mut(meta, "labels") {
        labels.insert("kubernetes.io/metadata.name".to_string(), name);
    }
}

fn prepare(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => {
            set(new, "status", json!({"phase": "Active"}));
            let spec = new.as_object_mut().and_then(|o| object_mut(o, "spec"));
            if let Some(spec) = spec {
                let mut finalizers = spec.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
                if !finalizers.iter().any(|f| f == FINALIZER) {
                    finalizers.push(json!(FINALIZER));
                }
                spec.insert("finalizers".to_string(), Value::Array(finalizers));
            }
        }
        (Op::Update, Some(Sub::Status), Some(old)) => keep(new, old, "spec"),
        (Op::Update, Some(Sub::Finalize), Some(old)) => keep(new, old, "status"),
        (Op::Update, _, Some(old)) => {
            keep(new, old, "status");
            keep(new, old, "spec");
        }
    }
    if let Some(spec) = new.as_object_mut().and_then(|o| existing(o, "spec"))
        && spec.get("finalizers").and_then(Value::as_array).is_some_and(Vec::is_empty)
    {
        spec.remove("finalizers");
    }
}

fn validate(_: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_label);
    for (i, f) in meta::list(&new["spec"], "finalizers").iter().enumerate() {
        let f = f.as_str().unwrap_or_default();
        for problem in names::qualified(f) {
            e.invalid(format!("spec.finalizers[{i}]"), f, problem);
        }
    }
    if sub == Some(Sub::Status) {
        let phase = meta::str(&new["status"], "phase");
        let deleting = !new["metadata"]["deletionTimestamp"].is_null();
        if deleting && phase != "Terminating" {
            e.invalid("status.phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        if !deleting && phase != "Active" {
            e.invalid("status.phase", phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
    }
    e.0
}

fn selectable_fields(o: &Value) -> Fields {
    vec![("metadata.name", text(o, "/metadata/name")), ("status.phase", text(o, "/status/phase"))]
}

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), json!(text(o, "/status/phase")), created(o, now)]
}
