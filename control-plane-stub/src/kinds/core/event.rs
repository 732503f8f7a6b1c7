//! Events: core `v1`, and `events.k8s.io/v1` as a view of the same objects.

use crate::kinds::field::Errors;
use crate::kinds::meta::{self, Fields, names, str, text};
use crate::kinds::table::{Column, age, int_column, name, name_column, text_column, wide};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, View, schema};
use jiff::Timestamp;
use serde_json::{Value, json};

pub static EVENT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&EVENT, o),
    prepare: meta::no_prepare,
    validate,
    selectable_fields,
    columns: COLUMNS,
    cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Event>,
};

pub static EVENTS_K8S_IO_EVENT: Kind = Kind {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: Some(View { stored: &EVENT, to_stored: to_core, from_stored: from_core }),
    defaults: |o| schema::normalize(&EVENTS_K8S_IO_EVENT, o),
    prepare: meta::no_prepare,
    validate: |op, sub, new, old| {
        let old = old.map(|o| to_core(o.clone()));
        validate(op, sub, &to_core(new.clone()), old.as_ref())
    },
    selectable_fields: |o| {
        let renamed = |f: &'static str| match f {
            "involvedObject.kind" => "regarding.kind",
            "involvedObject.namespace" => "regarding.namespace",
            "involvedObject.name" => "regarding.name",
            "involvedObject.uid" => "regarding.uid",
            "involvedObject.apiVersion" => "regarding.apiVersion",
            "involvedObject.resourceVersion" => "regarding.resourceVersion",
            "involvedObject.fieldPath" => "regarding.fieldPath",
            "reportingComponent" => "reportingController",
            other => other,
        };
        selectable_fields(&to_core(o.clone())).into_iter().map(|(f, v)| (renamed(f), v)).collect()
    },
    columns: COLUMNS,
    cells: |o, now| cells(&to_core(o.clone()), now),
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::events::v1::Event>,
};

/// The two versions' names of the fields that differ: (core, events.k8s.io).
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn to_core(event: Value) -> Value {
    renamed(event, "v1", RENAMED.iter().map(|(core, new)| (*new, *core)))
}

fn from_core(event: &Value) -> Value {
    renamed(event.clone(), "events.k8s.io/v1", RENAMED.iter().copied())
}

/// The event as the other version has it; one that is of that version already stays as it is.
fn renamed(mut event: Value, api_version: &str, names: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    if event["apiVersion"] == api_version {
        return event;
    }
    if let Some(map) = event.as_object_mut() {
        for (from, to) in names {
            if let Some(v) = map.remove(from) {
                map.insert(to.to_string(), v);
            }
        }
        map.insert("apiVersion".to_string(), json!(api_version));
    }
    event
}

fn validate(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    let (namespace, involved) = (str(&new["metadata"], "namespace"), str(&new["involvedObject"], "namespace"));
    let fits = if involved.is_empty() { ["", "default", "kube-system"].contains(&namespace) } else { involved == namespace };
    if !fits {
        e.invalid("involvedObject.namespace", involved, "does not match event.namespace");
    }
    if str(new, "message").len() > 1024 && !new["eventTime"].is_null() {
        e.invalid("message", "", "can have at most 1024 characters");
    }
    e.0
}

fn selectable_fields(o: &Value) -> Fields {
    let mut fields = meta::selectable_namespaced(o);
    let reporter = text(o, "/reportingComponent");
    let source = Some(text(o, "/source/component")).filter(|s| !s.is_empty()).unwrap_or_else(|| reporter.clone());
    fields.extend([
        ("involvedObject.kind", text(o, "/involvedObject/kind")),
        ("involvedObject.namespace", text(o, "/involvedObject/namespace")),
        ("involvedObject.name", text(o, "/involvedObject/name")),
        ("involvedObject.uid", text(o, "/involvedObject/uid")),
        ("involvedObject.apiVersion", text(o, "/involvedObject/apiVersion")),
        ("involvedObject.resourceVersion", text(o, "/involvedObject/resourceVersion")),
        ("involvedObject.fieldPath", text(o, "/involvedObject/fieldPath")),
        ("reason", text(o, "/reason")),
        ("reportingComponent", reporter),
        ("source", source),
        ("type", text(o, "/type")),
    ]);
    fields
}

const COLUMNS: &[Column] = &[
    text_column("Last Seen", "Time since the event last happened."),
    text_column("Type", "Normal or Warning."),
    text_column("Reason", "Why the event was sent, in one word."),
    text_column("Object", "What the event is about."),
    wide("Subobject", "The part of the object, where there is one."),
    wide("Source", "Who sent the event."),
    text_column("Message", "What happened."),
    wide("First Seen", "Time since the event first happened."),
    Column { priority: 1, ..int_column("Count", "How often the event happened.") },
    Column { priority: 1, ..name_column() },
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let since = |t: &Value| age(t, now);
    let first = if o["firstTimestamp"].is_null() { since(&o["eventTime"]) } else { since(&o["firstTimestamp"]) };
    let series = &o["series"];
    let (last, count) = if series.is_object() {
        (since(&series["lastObservedTime"]), series["count"].as_i64().unwrap_or(0))
    } else {
        let last = if o["lastTimestamp"].is_null() { first.clone() } else { since(&o["lastTimestamp"]) };
        (last, o["count"].as_i64().filter(|c| *c != 0).unwrap_or(1))
    };
    let involved = &o["involvedObject"];
    let kind = str(involved, "kind").to_lowercase();
    let object = if str(involved, "name").is_empty() { kind } else { format!("{kind}/{}", str(involved, "name")) };
    let first_of = |a: String, b: String| if a.is_empty() { b } else { a };
    let component = first_of(text(o, "/source/component"), text(o, "/reportingComponent"));
    let host = first_of(text(o, "/source/host"), text(o, "/reportingInstance"));
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        json!(last),
        json!(str(o, "type")),
        json!(str(o, "reason")),
        json!(object),
        json!(str(involved, "fieldPath")),
        json!(source),
        json!(str(o, "message").trim()),
        json!(first),
        json!(count),
        name(o),
    ]
}
