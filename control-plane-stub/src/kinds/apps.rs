//! The apps group: Deployment and ReplicaSet.

use super::core::pod;
use super::field::{Errors, child};
use super::meta::{self, Fields, default, list, names, non_negative, object_mut, one_of, str, text};
use super::selector::{LabelSelector, format_object};
use super::table::{Column, age_column, created, int_column, joined, name, name_column, text_column, wide};
use super::{FieldError, Kind, Op, STORED, Sub, schema};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1;
use serde_json::{Value, json};

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
    defaults: default_deployment,
    prepare: prepare_deployment,
    validate: validate_deployment,
    selectable_fields: meta::selectable_namespaced,
    columns: DEPLOYMENT_COLUMNS,
    cells: deployment_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::Deployment>,
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
    defaults: default_replica_set,
    prepare: prepare_replica_set,
    validate: validate_replica_set,
    selectable_fields: replica_set_fields,
    columns: REPLICA_SET_COLUMNS,
    cells: replica_set_cells,
    schema: schemars::SchemaGenerator::subschema_for::<v1::ReplicaSet>,
};

fn default_deployment(o: &mut Value) {
    schema::normalize(&DEPLOYMENT, o);
    let Some(spec) = o.as_object_mut().and_then(|o| object_mut(o, "spec")) else { return };
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = object_mut(spec, "strategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }
    if let Some(template) = object_mut(spec, "template") {
        pod::defaults::template(template);
    }
}

fn default_replica_set(o: &mut Value) {
    schema::normalize(&REPLICA_SET, o);
    let Some(spec) = o.as_object_mut().and_then(|o| object_mut(o, "spec")) else { return };
    default(spec, "replicas", 1);
    if let Some(template) = object_mut(spec, "template") {
        pod::defaults::template(template);
    }
}

fn prepare_deployment(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    meta::prepare_spec_status(op, sub, new, old);
    // Annotations count as well: controllers copy them to the ReplicaSets.
    if let (Op::Update, None, Some(old)) = (op, sub, old)
        && new["spec"] == old["spec"]
        && new["metadata"].get("annotations") != old["metadata"].get("annotations")
    {
        let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
        meta::set_generation(new, before + 1);
    }
}

fn prepare_replica_set(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    meta::prepare_spec_status(op, sub, new, old);
    if op == Op::Create {
        meta::set(new, "status", json!({"replicas": 0}));
    }
}

/// Selector and template: present, well formed, and fitting each other.
fn selector_and_template(e: &mut Errors, new: &Value, old: Option<&Value>) {
    let spec = &new["spec"];
    non_negative(e, spec, "replicas", "spec");
    non_negative(e, spec, "minReadySeconds", "spec");
    let selector = &spec["selector"];
    if selector.is_null() {
        e.required("spec.selector", "");
    } else {
        meta::label_selector(e, selector, "spec.selector");
        if list(selector, "matchExpressions").is_empty() && selector["matchLabels"].as_object().is_none_or(|m| m.is_empty()) {
            e.invalid("spec.selector", selector.clone(), "empty selector is invalid for deployment");
        }
    }
    let template = &spec["template"];
    let labels = &template["metadata"]["labels"];
    if let Ok(parsed) = LabelSelector::from_object(selector)
        && !selector.is_null()
        && !parsed.matches_labels(labels.as_object())
    {
        e.invalid("spec.template.metadata.labels", labels.clone(), "`selector` does not match template `labels`");
    }
    meta::labels(e, labels, "spec.template.metadata.labels");
    meta::annotations(e, &template["metadata"]["annotations"], "spec.template.metadata.annotations");
    pod::spec::validate(e, &template["spec"], "spec.template.spec");
    if !list(&template["spec"], "ephemeralContainers").is_empty() {
        e.forbidden("spec.template.spec.ephemeralContainers", "ephemeral containers not allowed in pod template");
    }
    let policy = str(&template["spec"], "restartPolicy");
    if !policy.is_empty() && policy != "Always" {
        e.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if template["spec"].get("activeDeadlineSeconds").is_some() {
        e.forbidden("spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
    if let Some(old) = old {
        meta::immutable(e, selector, &old["spec"]["selector"], "spec.selector");
    }
}

fn status_counts(e: &mut Errors, status: &Value, fields: &[&str]) {
    for field in fields {
        non_negative(e, status, field, "status");
    }
    let count = |f: &str| status[f].as_i64().unwrap_or(0);
    if count("readyReplicas") > count("replicas") {
        e.invalid("status.readyReplicas", count("readyReplicas"), "cannot be greater than status.replicas");
    }
    if count("availableReplicas") > count("readyReplicas") {
        e.invalid("status.availableReplicas", count("availableReplicas"), "cannot be greater than readyReplicas");
    }
}

fn validate_deployment(op: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    if op == Op::Update && sub == Some(Sub::Status) {
        let fields =
            ["observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"];
        status_counts(&mut e, &new["status"], &fields);
        return e.0;
    }
    selector_and_template(&mut e, new, old);
    let spec = &new["spec"];
    non_negative(&mut e, spec, "revisionHistoryLimit", "spec");
    non_negative(&mut e, spec, "progressDeadlineSeconds", "spec");
    let deadline = spec["progressDeadlineSeconds"].as_i64();
    if deadline.is_some_and(|d| d <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        e.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
    strategy(&mut e, &spec["strategy"]);
    e.0
}

fn strategy(e: &mut Errors, strategy: &Value) {
    let path = "spec.strategy";
    one_of(e, strategy, "type", path, &["Recreate", "RollingUpdate"], true);
    let rolling = &strategy["rollingUpdate"];
    match str(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            e.forbidden(child(path, "rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" => {
            for field in ["maxUnavailable", "maxSurge"] {
                count_or_percent(e, &rolling[field], &format!("{path}.rollingUpdate.{field}"), field == "maxUnavailable");
            }
            let zero = |v: &Value| v.as_i64() == Some(0) || v == "0%";
            if zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
                e.invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    rolling["maxUnavailable"].clone(),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        _ => {}
    }
}

fn count_or_percent(e: &mut Errors, value: &Value, path: &str, at_most_all: bool) {
    match value {
        Value::String(s) => match s.strip_suffix('%').and_then(|p| p.parse::<u32>().ok()) {
            None => e.invalid(path, s.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
            Some(p) if at_most_all && p > 100 => e.invalid(path, s.as_str(), "must not be greater than 100%"),
            Some(_) => {}
        },
        other => {
            if let Some(v) = other.as_i64().filter(|v| *v < 0) {
                e.invalid(path, v, "must be greater than or equal to 0");
            }
        }
    }
}

fn validate_replica_set(op: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    if op == Op::Update && sub == Some(Sub::Status) {
        let fields = ["observedGeneration", "replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        status_counts(&mut e, &new["status"], &fields);
    } else {
        selector_and_template(&mut e, new, old);
    }
    e.0
}

fn replica_set_fields(o: &Value) -> Fields {
    let mut fields = meta::selectable_namespaced(o);
    let replicas = Some(text(o, "/status/replicas")).filter(|r| !r.is_empty()).unwrap_or_else(|| "0".to_string());
    fields.push(("status.replicas", replicas));
    fields
}

const CONTAINERS: Column = wide("Containers", "The containers of the template.");
const IMAGES: Column = wide("Images", "The images of the template.");
const SELECTOR: Column = wide("Selector", "The labels of the pods.");

const DEPLOYMENT_COLUMNS: &[Column] = &[
    name_column(),
    text_column("Ready", "How many of the wanted pods are ready."),
    text_column("Up-to-date", "How many pods have the newest template."),
    text_column("Available", "How many pods have been ready for long enough."),
    age_column(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET_COLUMNS: &[Column] = &[
    name_column(),
    int_column("Desired", "How many pods are wanted."),
    int_column("Current", "How many pods there are."),
    int_column("Ready", "How many pods are ready."),
    age_column(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn wide_cells(o: &Value) -> [Value; 3] {
    let containers = list(&o["spec"]["template"]["spec"], "containers");
    let column = |field: &str| json!(containers.iter().map(|c| str(c, field)).collect::<Vec<_>>().join(","));
    [column("name"), column("image"), joined([format_object(&o["spec"]["selector"]).as_str()])]
}

fn deployment_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| o["status"][field].as_i64().unwrap_or(0);
    let wanted = o["spec"]["replicas"].as_i64().unwrap_or(0);
    let [containers, images, selector] = wide_cells(o);
    vec![
        name(o),
        json!(format!("{}/{wanted}", count("readyReplicas"))),
        json!(count("updatedReplicas")),
        json!(count("availableReplicas")),
        created(o, now),
        containers,
        images,
        selector,
    ]
}

fn replica_set_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| o["status"][field].as_i64().unwrap_or(0);
    let [containers, images, selector] = wide_cells(o);
    vec![
        name(o),
        json!(o["spec"]["replicas"].as_i64().unwrap_or(0)),
        json!(count("replicas")),
        json!(count("readyReplicas")),
        created(o, now),
        containers,
        images,
        selector,
    ]
}

#[cfg(test)]
mod tests;
