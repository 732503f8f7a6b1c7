//! Node.

use crate::kinds::{Kind, STORED, Sub, meta, table};

pub static NODE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &[Sub::Status, Sub::Proxy],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_cluster,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Node>,
};
