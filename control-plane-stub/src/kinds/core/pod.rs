//! Pod.

use crate::kinds::{Kind, STORED, Sub, meta, table};

pub static POD: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &[
        Sub::Attach,
        Sub::Binding,
        Sub::EphemeralContainers,
        Sub::Eviction,
        Sub::Exec,
        Sub::Log,
        Sub::PortForward,
        Sub::Proxy,
        Sub::Resize,
        Sub::Status,
    ],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Pod>,
};
