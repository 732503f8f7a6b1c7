//! Service.

use crate::kinds::{Kind, STORED, Sub, meta, table};

pub static SERVICE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Sub::Proxy, Sub::Status],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Service>,
};
