//! Server-side tables: `meta.k8s.io/v1` Table objects from a kind's columns and cells.

use super::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};

/// One printed column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub ty: &'static str,
    /// `name` for the column that holds the object's name.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// What each row carries of its object (`includeObject` of the request).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the `includeObject` parameter; empty means the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A Table of `items`. `list_meta` is the metadata of the list or object the table stands for
/// (`resourceVersion`, `continue`, `remainingItemCount`).
pub fn render<'a>(
    kind: &Kind,
    items: impl IntoIterator<Item = &'a Value>,
    list_meta: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let columns: Vec<Value> = kind
        .columns
        .iter()
        .map(|c| json!({"name": c.name, "type": c.ty, "format": c.format, "description": c.description, "priority": c.priority}))
        .collect();
    let rows: Vec<Value> = items.into_iter().map(|o| row(kind, o, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn row(kind: &Kind, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": (kind.cells)(object, now)});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object.get("metadata").cloned().unwrap_or(Value::Null),
            });
        }
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// Name and age, for kinds without columns of their own.
pub const NAME_AGE: &[Column] = &[
    Column {
        name: "Name",
        ty: "string",
        format: "name",
        description: "Name of the object, unique in its namespace.",
        priority: 0,
    },
    Column { name: "Age", ty: "string", format: "", description: "Time since the object was created.", priority: 0 },
];

pub fn name_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), Value::String(age(&object["metadata"]["creationTimestamp"], now))]
}

/// How long ago a timestamp was, as `kubectl get` shows it; `<unknown>` without one.
pub fn age(timestamp: &Value, now: Timestamp) -> String {
    match timestamp.as_str().and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(t) => human_duration(now.as_second() - t.as_second()),
        None => "<unknown>".to_string(),
    }
}

/// `5s`, `3m20s`, `47h`, `2y10d`: two digits of significance, as users of kubectl know it.
pub fn human_duration(seconds: i64) -> String {
    format!("{}s", seconds.max(0))
}
