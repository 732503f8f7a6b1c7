//! PriorityClass and RuntimeClass.

use crate::kinds::field::Errors;
use crate::kinds::meta::{self, default, names, one_of, str};
use crate::kinds::table::{Column, age_column, created, int_column, name, name_column, text_column, wide};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use serde_json::{Value, json};

pub static PRIORITY_CLASS: Kind = Kind {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    categories: &[],
    namespaced: false,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: |o| {
        schema::normalize(&PRIORITY_CLASS, o);
        if let Some(o) = o.as_object_mut() {
            default(o, "preemptionPolicy", "PreemptLowerPriority");
        }
    },
    prepare: |_, _, new, old| {
        let generation = old.and_then(|o| o["metadata"]["generation"].as_i64()).unwrap_or(1);
        meta::set_generation(new, generation);
    },
    validate: validate_priority,
    selectable_fields: meta::selectable_cluster,
    columns: &[
        name_column(),
        int_column("Value", "The priority of pods of this class."),
        Column { ty: "boolean", ..text_column("Global-Default", "Whether pods without a class get this one.") },
        age_column(),
        wide("PreemptionPolicy", "Whether pods of this class may push out others."),
    ],
    cells: |o, now| {
        vec![
            name(o),
            json!(o["value"].as_i64().unwrap_or(0)),
            json!(o["globalDefault"] == Value::Bool(true)),
            created(o, now),
            json!(str(o, "preemptionPolicy")),
        ]
    },
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::scheduling::v1::PriorityClass>,
};

pub static RUNTIME_CLASS: Kind = Kind {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&RUNTIME_CLASS, o),
    prepare: meta::no_prepare,
    validate: validate_runtime,
    selectable_fields: meta::selectable_cluster,
    columns: &[name_column(), text_column("Handler", "The runtime's configuration that pods of this class use."), age_column()],
    cells: |o, now| vec![name(o), json!(str(o, "handler")), created(o, now)],
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::node::v1::RuntimeClass>,
};

/// Classes above this belong to the system.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

fn validate_priority(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let (label, value) = (str(&new["metadata"], "name"), new["value"].as_i64().unwrap_or(0));
    if label.starts_with("system-") {
        let known = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
        if !known.contains(&(label, value)) {
            e.forbidden("metadata.name", "priority class names with 'system-' prefix are reserved for system use only");
        }
    } else if value > HIGHEST_USER_PRIORITY {
        e.forbidden("value", format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"));
    }
    one_of(&mut e, new, "preemptionPolicy", "", &["Never", "PreemptLowerPriority"], false);
    if let Some(old) = old {
        if new["value"] != old["value"] {
            e.forbidden("value", "may not be changed in an update");
        }
        meta::immutable(&mut e, &new["preemptionPolicy"], &old["preemptionPolicy"], "preemptionPolicy");
    }
    e.0
}

fn validate_runtime(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let handler = str(new, "handler");
    for problem in names::dns1123_label(handler) {
        e.invalid("handler", handler, problem);
    }
    meta::labels(&mut e, &new["scheduling"]["nodeSelector"], "scheduling.nodeSelector");
    if let Some(old) = old {
        meta::immutable(&mut e, &new["handler"], &old["handler"], "handler");
    }
    e.0
}
