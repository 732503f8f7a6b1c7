//! PersistentVolume and PersistentVolumeClaim.

use crate::kinds::field::{Errors, child};
use crate::kinds::meta::{self, default, list, names, object_mut, one_of, str};
use crate::kinds::table::{Column, age_column, created, name, name_column, text_column, unset_if_empty, wide};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use ferrolet_quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};

const MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

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
    defaults: default_volume,
    prepare: pending,
    validate: validate_volume,
    selectable_fields: meta::selectable_cluster,
    columns: VOLUME_COLUMNS,
    cells: volume_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::PersistentVolume>,
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
    defaults: default_claim,
    prepare: pending,
    validate: validate_claim,
    selectable_fields: meta::selectable_namespaced,
    columns: CLAIM_COLUMNS,
    cells: claim_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::PersistentVolumeClaim>,
};

fn default_volume(o: &mut Value) {
    schema::normalize(&PERSISTENT_VOLUME, o);
    if let Some(spec) = o.as_object_mut().and_then(|o| object_mut(o, "spec")) {
        default(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
    }
}

fn default_claim(o: &mut Value) {
    schema::normalize(&PERSISTENT_VOLUME_CLAIM, o);
    if let Some(spec) = o.as_object_mut().and_then(|o| object_mut(o, "spec")) {
        default(spec, "volumeMode", "Filesystem");
    }
}

fn pending(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    meta::prepare_status(op, sub, new, old);
    if op == Op::Create {
        meta::set(new, "status", json!({"phase": "Pending"}));
    }
}

fn access_modes(e: &mut Errors, spec: &Value) {
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        e.required("spec.accessModes", "at least 1 access mode is required");
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|m| !MODES.contains(m)) {
        e.not_supported("spec.accessModes", mode, &MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        e.forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes");
    }
    one_of(e, spec, "volumeMode", "spec", &["Block", "Filesystem"], false);
}

fn positive(e: &mut Errors, amount: &Value, path: &str) {
    match amount.as_str().and_then(|a| a.parse::<Quantity>().ok()) {
        None => e.required(path, ""),
        Some(q) if q <= Quantity::ZERO => e.invalid(path, amount.clone(), "must be greater than zero"),
        Some(_) => {}
    }
}

/// The fields of a volume's spec that are not its source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn source(spec: &Value) -> Vec<(&String, &Value)> {
    spec.as_object().into_iter().flatten().filter(|(k, _)| !NOT_SOURCES.contains(&k.as_str())).collect()
}

fn validate_volume(_: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    if sub == Some(Sub::Status) {
        return e.0;
    }
    let spec = &new["spec"];
    access_modes(&mut e, spec);
    positive(&mut e, &spec["capacity"]["storage"], "spec.capacity[storage]");
    one_of(&mut e, spec, "persistentVolumeReclaimPolicy", "spec", &["Delete", "Recycle", "Retain"], true);
    match source(spec).as_slice() {
        [] => e.required("spec", "must specify a volume type"),
        [_] => {}
        [_, more @ ..] => more.iter().for_each(|(k, _)| e.forbidden(child("spec", k), "may not specify more than 1 volume type")),
    }
    if let Some(old) = old {
        if source(spec) != source(&old["spec"]) {
            e.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation");
        }
        meta::immutable(&mut e, &spec["volumeMode"], &old["spec"]["volumeMode"], "spec.volumeMode");
    }
    e.0
}

fn validate_claim(_: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    if sub == Some(Sub::Status) {
        return e.0;
    }
    let spec = &new["spec"];
    access_modes(&mut e, spec);
    meta::label_selector(&mut e, &spec["selector"], "spec.selector");
    positive(&mut e, &spec["resources"]["requests"]["storage"], "spec.resources[storage]");
    let Some(old) = old else { return e.0 };
    let fixed = |o: &Value| {
        let mut spec = o["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            for field in ["resources", "volumeAttributesClassName"] {
                map.remove(field);
            }
            // The volume's name and the class may be filled in once.
            if old["spec"].get("volumeName").is_none() {
                map.remove("volumeName");
            }
            if old["spec"].get("storageClassName").is_none() {
                map.remove("storageClassName");
            }
        }
        spec
    };
    if fixed(new) != fixed(old) {
        e.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let size = |o: &Value| o["spec"]["resources"]["requests"]["storage"].as_str().and_then(|s| s.parse::<Quantity>().ok());
    if let (Some(now), Some(before)) = (size(new), size(old))
        && now < before
    {
        e.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    e.0
}

const SIZE: Column = text_column("Capacity", "How much the volume holds.");
const ACCESS: Column = text_column("Access Modes", "How the volume can be mounted.");
const CLASS: Column = text_column("StorageClass", "The storage class.");
const ATTRIBUTES: Column = text_column("VolumeAttributesClass", "The volume attributes class.");
const MODE: Column = wide("VolumeMode", "Whether the volume is a file system or a block device.");

const VOLUME_COLUMNS: &[Column] = &[
    name_column(),
    SIZE,
    ACCESS,
    text_column("Reclaim Policy", "What happens to the volume when its claim is deleted."),
    text_column("Status", "Whether the volume is bound."),
    text_column("Claim", "The claim the volume is bound to."),
    CLASS,
    ATTRIBUTES,
    text_column("Reason", "Why the volume is in this state."),
    age_column(),
    MODE,
];

const CLAIM_COLUMNS: &[Column] = &[
    name_column(),
    text_column("Status", "Whether the claim is bound."),
    text_column("Volume", "The volume bound to the claim."),
    SIZE,
    ACCESS,
    CLASS,
    ATTRIBUTES,
    age_column(),
    MODE,
];

/// `RWO,ROX`
fn short_modes(modes: &[Value]) -> String {
    const SHORT: [&str; 4] = ["RWO", "ROX", "RWX", "RWOP"];
    let known = MODES.iter().zip(SHORT).filter(|(mode, _)| modes.iter().any(|m| m == *mode));
    known.map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

fn phase(o: &Value) -> &str {
    if o["metadata"]["deletionTimestamp"].is_null() { str(&o["status"], "phase") } else { "Terminating" }
}

fn volume_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let claim = match spec.get("claimRef") {
        Some(claim) => format!("{}/{}", str(claim, "namespace"), str(claim, "name")),
        None => String::new(),
    };
    vec![
        name(o),
        json!(str(&spec["capacity"], "storage")),
        json!(short_modes(list(spec, "accessModes"))),
        json!(str(spec, "persistentVolumeReclaimPolicy")),
        json!(phase(o)),
        json!(claim),
        json!(str(spec, "storageClassName")),
        unset_if_empty(str(spec, "volumeAttributesClassName")),
        json!(str(&o["status"], "reason")),
        created(o, now),
        unset_if_empty(str(spec, "volumeMode")),
    ]
}

fn claim_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let bound = !str(spec, "volumeName").is_empty();
    vec![
        name(o),
        json!(phase(o)),
        json!(str(spec, "volumeName")),
        json!(if bound { str(&status["capacity"], "storage") } else { "" }),
        json!(if bound { short_modes(list(status, "accessModes")) } else { String::new() }),
        json!(str(spec, "storageClassName")),
        unset_if_empty(str(spec, "volumeAttributesClassName")),
        created(o, now),
        unset_if_empty(str(spec, "volumeMode")),
    ]
}
