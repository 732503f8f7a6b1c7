//! Lease: a node's heartbeat and the lock of elections.

use crate::kinds::field::Errors;
use crate::kinds::meta::{self, names, str};
use crate::kinds::table::{age_column, created, name, name_column, text_column};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use serde_json::{Value, json};

pub static LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&LEASE, o),
    prepare: meta::no_prepare,
    validate,
    selectable_fields: meta::selectable_namespaced,
    columns: &[name_column(), text_column("Holder", "Who holds the lease."), age_column()],
    cells: |o, now| vec![name(o), json!(str(&o["spec"], "holderIdentity")), created(o, now)],
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::coordination::v1::Lease>,
};

fn validate(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let spec = &new["spec"];
    if let Some(v) = spec["leaseDurationSeconds"].as_i64().filter(|v| *v <= 0) {
        e.invalid("spec.leaseDurationSeconds", v, "must be greater than 0");
    }
    if let Some(v) = spec["leaseTransitions"].as_i64().filter(|v| *v < 0) {
        e.invalid("spec.leaseTransitions", v, "must be greater than or equal to 0");
    }
    e.0
}
