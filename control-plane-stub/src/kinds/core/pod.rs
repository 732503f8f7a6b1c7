//! Pod: its row. What belongs to pod templates as well is in the modules below.

use crate::kinds::field::Errors;
use crate::kinds::meta::{self, Fields, names, text};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use serde_json::Value;

pub mod containers;
pub mod defaults;
pub mod env;
pub mod prepare;
pub mod printed;
pub mod probes;
pub mod resize;
pub mod resources;
pub mod restart;
pub mod spec;
pub mod update;
pub mod volumes;

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
    defaults,
    prepare: prepare::prepare,
    validate,
    selectable_fields,
    columns: printed::COLUMNS,
    cells: printed::cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Pod>,
};

fn defaults(pod: &mut Value) {
    schema::normalize(&POD, pod);
    defaults::pod(pod);
}

fn validate(op: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    match (op, sub, old) {
        (Op::Update, Some(Sub::Status), Some(old)) => update::status(&mut e, new, old),
        (Op::Update, Some(Sub::EphemeralContainers), Some(old)) => {
            spec::validate(&mut e, &new["spec"], "spec");
            update::ephemeral(&mut e, new, old);
        }
        (Op::Update, Some(Sub::Resize), Some(old)) => {
            spec::validate(&mut e, &new["spec"], "spec");
            resize::validate(&mut e, new, old);
        }
        (Op::Update, Some(Sub::Binding), Some(_)) => spec::validate(&mut e, &new["spec"], "spec"),
        (Op::Update, _, Some(old)) => {
            spec::validate(&mut e, &new["spec"], "spec");
            update::spec(&mut e, new, old);
        }
        _ => {
            spec::validate(&mut e, &new["spec"], "spec");
            if new["spec"].get("ephemeralContainers").is_some_and(|v| v.as_array().is_some_and(|a| !a.is_empty())) {
                e.forbidden("spec.ephemeralContainers", "cannot be set on create");
            }
            if !meta::str(&new["spec"], "nodeName").is_empty() && !meta::list(&new["spec"], "schedulingGates").is_empty() {
                e.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared");
            }
        }
    }
    e.0
}

fn selectable_fields(o: &Value) -> Fields {
    let mut fields = meta::selectable_namespaced(o);
    let host_network = o["spec"]["hostNetwork"] == Value::Bool(true);
    let ips = o["status"]["podIPs"][0]["ip"].as_str().map(str::to_string).unwrap_or_else(|| text(o, "/status/podIP"));
    fields.extend([
        ("spec.nodeName", text(o, "/spec/nodeName")),
        ("spec.restartPolicy", text(o, "/spec/restartPolicy")),
        ("spec.schedulerName", text(o, "/spec/schedulerName")),
        ("spec.serviceAccountName", text(o, "/spec/serviceAccountName")),
        ("spec.hostNetwork", host_network.to_string()),
        ("status.phase", text(o, "/status/phase")),
        ("status.podIP", ips.clone()),
        ("status.podIPs", ips),
        ("status.nominatedNodeName", text(o, "/status/nominatedNodeName")),
    ]);
    fields
}

#[cfg(test)]
mod tests;
