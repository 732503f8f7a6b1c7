//! Events: core `v1`, and `events.k8s.io/v1` as a view of the same objects.

use crate::kinds::{Kind, STORED, View, meta, table};
use serde_json::Value;

pub static EVENT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::no_prepare,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Event>,
};

pub static EVENTS_K8S_IO_EVENT: Kind = Kind {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: Some(View { stored: &EVENT, to_stored: to_core, from_stored: from_core }),
    defaults: meta::no_defaults,
    prepare: meta::no_prepare,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::events::v1::Event>,
};

fn to_core(event: Value) -> Value {
    event
}

fn from_core(event: &Value) -> Value {
    event.clone()
}
