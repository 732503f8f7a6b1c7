//! PersistentVolume and PersistentVolumeClaim.

use crate::kinds::{Kind, STORED, Sub, meta, table};

pub static PERSISTENT_VOLUME: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    namespaced: false,
    subresources: &[Sub::Status],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_cluster,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::PersistentVolume>,
};

pub static PERSISTENT_VOLUME_CLAIM: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    namespaced: true,
    subresources: &[Sub::Status],
    verbs: STORED,
    view: None,
    defaults: meta::no_defaults,
    prepare: meta::prepare_spec_status,
    validate: meta::validate_nothing,
    selectable_fields: meta::selectable_namespaced,
    columns: table::NAME_AGE,
    cells: table::name_age,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::PersistentVolumeClaim>,
};
