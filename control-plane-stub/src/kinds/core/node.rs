//! Node.

use super::pod::spec::EFFECTS;
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{self, Fields, list, names, object_mut, one_of, str, text};
use crate::kinds::table::{Column, age_column, created, joined, name, name_column, none_if_empty, text_column, wide};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use crate::ranges::Family;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub static NODE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &[Sub::Proxy, Sub::Status],
    verbs: STORED,
    view: None,
    defaults,
    prepare,
    validate,
    selectable_fields,
    columns: COLUMNS,
    cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Node>,
};

const COLUMNS: &[Column] = &[
    name_column(),
    text_column("Status", "Whether the node is ready and takes new pods."),
    text_column("Roles", "The node's roles, from its labels."),
    age_column(),
    text_column("Version", "The version the node's agent reports."),
    wide("Internal-IP", "The node's address inside the cluster."),
    wide("External-IP", "The node's address outside the cluster."),
    wide("OS-Image", "The operating system."),
    wide("Kernel-Version", "The kernel."),
    wide("Container-Runtime", "The container runtime and its version."),
];

fn defaults(o: &mut Value) {
    schema::normalize(&NODE, o);
    if let Some(spec) = o.as_object_mut().and_then(|o| meta::existing(o, "spec")) {
        let listed = spec.get("podCIDRs").and_then(Value::as_array).and_then(|l| l.first()).cloned();
        match (listed, spec.get("podCIDR").filter(|c| *c != "").cloned()) {
            (None, Some(first)) => drop(spec.insert("podCIDRs".to_owned(), json!([first]))),
            (Some(first), None) => drop(spec.insert("podCIDR".to_owned(), first)),
            _ => {}
        }
    }
    let Some(status) = o.as_object_mut().and_then(|o| meta::existing(o, "status")) else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        meta::default(status, "allocatable", capacity);
    }
}

/// A node may come with its status: agents register with what they know.
fn prepare(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => {
            if let Some(o) = new.as_object_mut() {
                object_mut(o, "status");
            }
        }
        (Op::Update, Some(Sub::Status), Some(old)) => {
            // Metadata goes with the status: agents keep their labels and annotations up to date that way.
            meta::keep(new, old, "spec");
        }
        (Op::Update, _, Some(old)) => meta::keep(new, old, "status"),
    }
}

fn validate(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let mut seen = BTreeSet::new();
    for (i, taint) in list(&new["spec"], "taints").iter().enumerate() {
        let path = index("spec.taints", i);
        let (key, value) = (str(taint, "key"), str(taint, "value"));
        for problem in names::qualified(key) {
            e.invalid(child(&path, "key"), key, problem);
        }
        for problem in names::label_value(value) {
            e.invalid(child(&path, "value"), value, problem);
        }
        one_of(&mut e, taint, "effect", &path, &EFFECTS, true);
        if !seen.insert((key, str(taint, "effect"))) {
            e.duplicate(path, taint.clone());
        }
    }
    let mut addresses = BTreeSet::new();
    for (i, address) in list(&new["status"], "addresses").iter().enumerate() {
        if !addresses.insert((str(address, "type"), str(address, "address"))) {
            e.duplicate(index("status.addresses", i), address.clone());
        }
    }
    pod_cidrs(&mut e, &new["spec"]);
    if let Some(old) = old {
        for field in ["providerID", "podCIDR"] {
            if !str(&old["spec"], field).is_empty() && old["spec"][field] != new["spec"][field] {
                e.forbidden(child("spec", field), "node updates may not change a value that is set");
            }
        }
        if !list(&old["spec"], "podCIDRs").is_empty() && old["spec"]["podCIDRs"] != new["spec"]["podCIDRs"] {
            e.forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
        }
    }
    e.0
}

/// One range, or one of each family.
fn pod_cidrs(e: &mut Errors, spec: &Value) {
    let cidrs = list(spec, "podCIDRs");
    let mut families = Vec::new();
    for (i, cidr) in cidrs.iter().enumerate() {
        let text = cidr.as_str().unwrap_or_default();
        match text.parse::<ipnet::IpNet>() {
            Ok(net) => families.push(Family::of(net.addr())),
            Err(_) => {
                e.invalid(index("spec.podCIDRs", i), text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
            }
        }
    }
    if cidrs.len() > 2 || matches!(families[..], [a, b] if a == b) {
        e.invalid("spec.podCIDRs", spec["podCIDRs"].clone(), "may specify no more than one CIDR for each IP family");
    }
    if cidrs.first().is_some_and(|first| first != str(spec, "podCIDR")) {
        e.invalid("spec.podCIDRs", spec["podCIDRs"].clone(), "first value must match `podCIDR`");
    }
}

fn selectable_fields(o: &Value) -> Fields {
    let unschedulable = o["spec"]["unschedulable"] == Value::Bool(true);
    vec![("metadata.name", text(o, "/metadata/name")), ("spec.unschedulable", unschedulable.to_string())]
}

fn roles(o: &Value) -> BTreeSet<&str> {
    let labels = o["metadata"]["labels"].as_object().into_iter().flatten();
    labels
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if k == "kubernetes.io/role" => v.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect()
}

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(&o["status"], "conditions").iter().find(|c| str(c, "type") == "Ready");
    let mut status = match ready {
        Some(c) if str(c, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if o["spec"]["unschedulable"] == Value::Bool(true) {
        status.push_str(",SchedulingDisabled");
    }
    let address = |ty: &str| {
        let found = list(&o["status"], "addresses").iter().find(|a| str(a, "type") == ty);
        none_if_empty(found.map_or("", |a| str(a, "address")))
    };
    let info = &o["status"]["nodeInfo"];
    let known = |field: &str| if str(info, field).is_empty() { "<unknown>" } else { str(info, field) };
    let kernel = match str(info, "architecture") {
        "" => known("kernelVersion").to_string(),
        arch => format!("{} ({arch})", known("kernelVersion")),
    };
    vec![
        name(o),
        json!(status),
        joined(roles(o)),
        created(o, now),
        json!(str(info, "kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(known("osImage")),
        json!(kernel),
        json!(known("containerRuntimeVersion")),
    ]
}
