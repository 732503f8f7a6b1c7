//! The apps group: Deployment and ReplicaSet.

use super::{Kind, STORED, Sub, meta, table};

pub static DEPLOYMENT: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Sub::Scale, Sub::Status],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::apps::v1::Deployment>,
};

pub static REPLICA_SET: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Sub::Scale, Sub::Status],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::apps::v1::ReplicaSet>,
};
