//! Server-side tables: `meta.k8s.io/v1` Table objects from a kind's columns and cells.
//!
//! Owns the shape of tables and how times are shown. Must never know a kind: its cells come from its row.

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

/// The column of the object's name.
pub const fn name_column() -> Column {
    Column {
        name: "Name",
        ty: "string",
        format: "name",
        description: "The object's name, unique among its kind in a namespace.",
        priority: 0,
    }
}

/// The column of the object's age.
pub const fn age_column() -> Column {
    text_column("Age", "Time since the object was created.")
}

pub const fn text_column(name: &'static str, description: &'static str) -> Column {
    Column { name, ty: "string", format: "", description, priority: 0 }
}

pub const fn int_column(name: &'static str, description: &'static str) -> Column {
    Column { name, ty: "integer", format: "", description, priority: 0 }
}

/// A column only `-o wide` shows.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, ty: "string", format: "", description, priority: 1 }
}

/// Name and age, for kinds without columns of their own.
pub const NAME_AGE: &[Column] = &[name_column(), age_column()];

pub fn name_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), created(object, now)]
}

pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// The cell of the age column.
pub fn created(object: &Value, now: Timestamp) -> Value {
    json!(age(&object["metadata"]["creationTimestamp"], now))
}

/// A text, or what stands for none.
pub fn none_if_empty(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// A text, or what stands for a field that was never set.
pub fn unset_if_empty(text: &str) -> Value {
    json!(if text.is_empty() { "<unset>" } else { text })
}

/// Texts with commas between, or what stands for none.
pub fn joined<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    none_if_empty(&items.into_iter().collect::<Vec<_>>().join(","))
}

/// How long ago a timestamp was, as `kubectl get` shows it; `<unknown>` without one.
pub fn age(timestamp: &Value, now: Timestamp) -> String {
    match timestamp.as_str().and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(t) => human_duration(now.duration_since(t).as_secs()),
        None => "<unknown>".to_string(),
    }
}

/// `5s`, `3m20s`, `47h`, `2y10d`: one or two units, as users of kubectl know it.
pub fn human_duration(seconds: i64) -> String {
    let pair = |major: i64, unit: &str, minor: i64, small: &str| {
        if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{small}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_string(),
        -1 => "0s".to_string(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The labels of a selector map, as the `Selector` columns show them.
pub fn labels(map: &Value) -> Value {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    joined(pairs.iter().map(String::as_str))
}

#[cfg(test)]
mod tests;
