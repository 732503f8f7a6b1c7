//! CSIDriver, CSINode and StorageClass.

use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{self, default, is_unset, list, names, object_mut, one_of, str};
use crate::kinds::table::{Column, age_column, created, int_column, joined, name, name_column, text_column};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub static CSI_DRIVER: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: default_driver,
    prepare: meta::no_prepare,
    validate: validate_driver,
    selectable_fields: meta::selectable_cluster,
    columns: &[
        name_column(),
        Column { ty: "boolean", ..text_column("AttachRequired", "Whether volumes are attached before they are mounted.") },
        Column { ty: "boolean", ..text_column("PodInfoOnMount", "Whether the driver is told of the pod.") },
        Column { ty: "boolean", ..text_column("StorageCapacity", "Whether scheduling looks at the driver's capacity.") },
        text_column("TokenRequests", "The audiences of the tokens the driver gets."),
        Column { ty: "boolean", ..text_column("RequiresRepublish", "Whether mounts are refreshed from time to time.") },
        text_column("Modes", "The kinds of volumes the driver makes."),
        age_column(),
    ],
    cells: driver_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::CSIDriver>,
};

pub static CSI_NODE: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&CSI_NODE, o),
    prepare: meta::no_prepare,
    validate: validate_node,
    selectable_fields: meta::selectable_cluster,
    columns: &[name_column(), int_column("Drivers", "How many drivers the node has."), age_column()],
    cells: |o, now| vec![name(o), json!(list(&o["spec"], "drivers").len()), created(o, now)],
    schema: schemars::SchemaGenerator::subschema_for::<v1::CSINode>,
};

pub static STORAGE_CLASS: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    categories: &[],
    namespaced: false,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: default_class,
    prepare: meta::no_prepare,
    validate: validate_class,
    selectable_fields: meta::selectable_cluster,
    columns: &[
        name_column(),
        text_column("Provisioner", "Who makes the volumes."),
        text_column("ReclaimPolicy", "What happens to volumes whose claim is deleted."),
        text_column("VolumeBindingMode", "When claims are bound."),
        Column { ty: "boolean", ..text_column("AllowVolumeExpansion", "Whether claims can grow.") },
        age_column(),
    ],
    cells: class_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::StorageClass>,
};

fn default_driver(o: &mut Value) {
    schema::normalize(&CSI_DRIVER, o);
    let Some(spec) = o.as_object_mut().and_then(|o| object_mut(o, "spec")) else { return };
    default(spec, "attachRequired", true);
    default(spec, "podInfoOnMount", false);
    default(spec, "storageCapacity", false);
    default(spec, "requiresRepublish", false);
    default(spec, "seLinuxMount", false);
    default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if is_unset(spec.get("volumeLifecycleModes")) || spec["volumeLifecycleModes"] == json!([]) {
        spec.insert("volumeLifecycleModes".to_string(), json!(["Persistent"]));
    }
}

fn driver_name(e: &mut Errors, text: &str, path: &str) {
    if text.is_empty() {
        e.required(path, "");
    } else if text.len() > 63 {
        e.too_long(path, 63);
    }
    for problem in names::dns1123_subdomain(&text.to_lowercase()) {
        e.invalid(path, text, problem);
    }
}

fn validate_driver(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, |n| names::dns1123_subdomain(&n.to_lowercase()));
    driver_name(&mut e, str(&new["metadata"], "name"), "metadata.name");
    let spec = &new["spec"];
    one_of(&mut e, spec, "fsGroupPolicy", "spec", &["File", "None", "ReadWriteOnceWithFSType"], true);
    for (i, mode) in list(spec, "volumeLifecycleModes").iter().enumerate() {
        if mode != "Persistent" && mode != "Ephemeral" {
            e.not_supported(index("spec.volumeLifecycleModes", i), mode.clone(), &["Ephemeral", "Persistent"]);
        }
    }
    let mut audiences = BTreeSet::new();
    for (i, request) in list(spec, "tokenRequests").iter().enumerate() {
        let path = index("spec.tokenRequests", i);
        if !audiences.insert(str(request, "audience")) {
            e.duplicate(child(&path, "audience"), str(request, "audience"));
        }
        if let Some(seconds) = request["expirationSeconds"].as_i64().filter(|s| *s < 600) {
            e.invalid(child(&path, "expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
        }
    }
    if let Some(old) = old {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            meta::immutable(&mut e, &spec[field], &old["spec"][field], &child("spec", field));
        }
    }
    e.0
}

fn driver_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let flag = |field: &str, unset: bool| json!(spec[field].as_bool().unwrap_or(unset));
    let tokens = match spec.get("tokenRequests") {
        None => "<unset>".to_string(),
        Some(_) => list(spec, "tokenRequests").iter().map(|t| str(t, "audience")).collect::<Vec<_>>().join(","),
    };
    vec![
        name(o),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        json!(tokens),
        flag("requiresRepublish", false),
        joined(list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str)),
        created(o, now),
    ]
}

fn validate_node(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let mut seen = BTreeSet::new();
    for (i, driver) in list(&new["spec"], "drivers").iter().enumerate() {
        let path = index("spec.drivers", i);
        let label = str(driver, "name");
        driver_name(&mut e, label, &child(&path, "name"));
        if !seen.insert(label) {
            e.duplicate(child(&path, "name"), label);
        }
        let id = str(driver, "nodeID");
        if id.is_empty() {
            e.required(child(&path, "nodeID"), "");
        } else if id.len() > 256 {
            e.invalid(child(&path, "nodeID"), id, "must be 256 characters or less");
        }
        if let Some(count) = driver["allocatable"]["count"].as_i64().filter(|c| *c < 0) {
            e.invalid(format!("{path}.allocatable.count"), count, "must be greater than or equal to 0");
        }
        let mut keys = BTreeSet::new();
        for k in list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
            for problem in names::qualified(k) {
                e.invalid(child(&path, "topologyKeys"), k, problem);
            }
            if !keys.insert(k) {
                e.duplicate(child(&path, "topologyKeys"), k);
            }
        }
        let before = old.and_then(|o| list(&o["spec"], "drivers").iter().find(|d| str(d, "name") == label));
        let fixed = |d: &Value| (d["nodeID"].clone(), d["topologyKeys"].clone());
        if before.is_some_and(|b| fixed(b) != fixed(driver)) {
            e.invalid(path, driver.clone(), meta::IMMUTABLE);
        }
    }
    e.0
}

fn default_class(o: &mut Value) {
    schema::normalize(&STORAGE_CLASS, o);
    if let Some(o) = o.as_object_mut() {
        default(o, "reclaimPolicy", "Delete");
        default(o, "volumeBindingMode", "Immediate");
    }
}

fn validate_class(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let provisioner = str(new, "provisioner");
    if provisioner.is_empty() {
        e.required("provisioner", "");
    }
    for problem in names::qualified(&provisioner.to_lowercase()) {
        e.invalid("provisioner", provisioner, problem);
    }
    one_of(&mut e, new, "reclaimPolicy", "", &["Delete", "Retain"], true);
    one_of(&mut e, new, "volumeBindingMode", "", &["Immediate", "WaitForFirstConsumer"], true);
    if let Some(old) = old {
        for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
            if new[field] != old[field] {
                e.forbidden(field, "updates to this field are forbidden");
            }
        }
    }
    e.0
}

fn class_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = &o["metadata"]["annotations"];
    let is_default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|a| annotations[*a] == "true");
    let label = str(&o["metadata"], "name");
    vec![
        json!(if is_default { format!("{label} (default)") } else { label.to_string() }),
        json!(str(o, "provisioner")),
        json!(str(o, "reclaimPolicy")),
        json!(str(o, "volumeBindingMode")),
        json!(o["allowVolumeExpansion"] == Value::Bool(true)),
        created(o, now),
    ]
}
