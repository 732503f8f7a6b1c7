//! Strategic merge: maps merge field by field, lists by their merge key where the schema has one, everything else is
//! replaced. Directives in the patch: `$patch`, `$retainKeys`, `$setElementOrder/<list>`, `$deleteFromPrimitiveList/<list>`.

use super::PatchError;
use super::keys::{self, Strategy};
use crate::kinds::field::child;
use crate::kinds::schema::Node;
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Schema = Option<Node<'static>>;

pub(super) fn apply(schema: Schema, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(patch) = patch.as_object() else {
        return Err(PatchError::Malformed("strategic merge patch: the body must be a JSON object".to_string()));
    };
    let original = original.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_map(schema, original, patch, "")?))
}

fn malformed(path: &str, what: impl std::fmt::Display) -> PatchError {
    let path = if path.is_empty() { "the object" } else { path };
    PatchError::Malformed(format!("strategic merge patch: {path}: {what}"))
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE_FROM)
}

fn merge_map(
    schema: Schema,
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).map(|d| d.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => return Ok(strip_map(patch)),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => return Err(malformed(path, "$patch must be replace, merge or delete")),
    }
    retain_keys(&mut original, patch, path)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, list, value, path)?;
        }
    }
    for (key, value) in patch {
        if is_directive(key) {
            continue;
        }
        merge_field(schema, &mut original, patch, key, value, path)?;
    }
    // An order without a change to the list's content.
    for (key, order) in patch {
        let Some(list) = key.strip_prefix(ORDER).filter(|list| !patch.contains_key(*list)) else { continue };
        let order = order.as_array().ok_or_else(|| malformed(path, format!("{key} must be a list")))?;
        let merge_key = strategy_of(schema, list).map_or("", |s| s.merge_key);
        if let Some(Value::Array(items)) = original.get_mut(list) {
            let server = items.clone();
            *items = arrange(std::mem::take(items), order, &server, merge_key);
        }
    }
    Ok(original)
}

fn strategy_of(schema: Schema, field: &str) -> Option<&'static Strategy> {
    keys::strategy(schema?.name, field)
}

fn merge_field(
    schema: Schema,
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    key: &str,
    value: &Value,
    path: &str,
) -> Result<(), PatchError> {
    let path = child(path, key);
    let field = schema.and_then(|s| s.field(key));
    match (value, original.remove(key)) {
        (Value::Null, _) => {}
        (Value::Object(p), Some(Value::Object(o))) => {
            original.insert(key.to_string(), Value::Object(merge_map(field, o, p, &path)?));
        }
        (Value::Array(p), o) => {
            let order = match patch.get(&format!("{ORDER}{key}")) {
                None => None,
                Some(Value::Array(order)) => Some(order.as_slice()),
                Some(_) => return Err(malformed(&path, "$setElementOrder must be a list")),
            };
            let server = match o {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            let merged = match strategy_of(schema, key) {
                Some(s) if s.merges() => merge_list(field.and_then(Node::items), s.merge_key, server, p, order, &path)?,
                _ => p.iter().filter_map(strip).collect(),
            };
            original.insert(key.to_string(), Value::Array(merged));
        }
        (other, _) => {
            if let Some(v) = strip(other) {
                original.insert(key.to_string(), v);
            }
        }
    }
    Ok(())
}

/// `$retainKeys` lists all keys that may stay; the patch may set no others.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>, path: &str) -> Result<(), PatchError> {
    let Some(retain) = patch.get(RETAIN) else { return Ok(()) };
    let Some(retain) = retain.as_array() else { return Err(malformed(path, "$retainKeys must be a list")) };
    let keeps = |key: &String| retain.iter().any(|r| r.as_str() == Some(key));
    if let Some(extra) = patch.iter().find(|(k, v)| !is_directive(k) && !v.is_null() && !keeps(k)) {
        return Err(malformed(path, format!("{} is set but not in $retainKeys", extra.0)));
    }
    original.retain(|k, _| keeps(k));
    Ok(())
}

fn delete_from(original: &mut Map<String, Value>, list: &str, values: &Value, path: &str) -> Result<(), PatchError> {
    let Some(values) = values.as_array() else {
        return Err(malformed(&child(path, list), "$deleteFromPrimitiveList must be a list"));
    };
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_list(
    item: Schema,
    merge_key: &str,
    server: Vec<Value>,
    patch: &[Value],
    order: Option<&[Value]>,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    let mut merged = server.clone();
    if merge_key.is_empty() {
        for value in patch {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        return Ok(arrange(merged, order.unwrap_or(patch), &server, ""));
    }
    let mut changes: Vec<&Map<String, Value>> = Vec::new();
    let mut replace = false;
    for (i, value) in patch.iter().enumerate() {
        let map = value.as_object().ok_or_else(|| malformed(path, format!("item {i} must be an object")))?;
        match map.get(DIRECTIVE).map(|d| d.as_str()) {
            // A `$patch: replace` with other fields is an item that replaces its namesake; alone it empties the list.
            Some(Some("replace")) if !map.contains_key(merge_key) => replace = true,
            Some(Some("delete")) => {
                let key = map.get(merge_key).ok_or_else(|| no_key(path, i, merge_key))?;
                merged.retain(|o| o.get(merge_key) != Some(key));
            }
            Some(Some("merge" | "replace")) | None => changes.push(map),
            Some(_) => return Err(malformed(path, format!("item {i}: $patch must be replace, merge or delete"))),
        }
    }
    if replace {
        return Ok(changes.into_iter().map(|m| Value::Object(strip_map(m))).collect());
    }
    for (i, change) in changes.iter().enumerate() {
        let key = change.get(merge_key).ok_or_else(|| no_key(path, i, merge_key))?;
        let at = merged.iter().position(|o| o.get(merge_key) == Some(key));
        let old = match at.map(|at| merged[at].take()) {
            Some(Value::Object(o)) => o,
            _ => Map::new(),
        };
        let new = Value::Object(merge_map(item, old, change, path)?);
        match at {
            Some(at) => merged[at] = new,
            None => merged.push(new),
        }
    }
    let patched: Vec<Value> = changes.iter().map(|m| Value::Object((*m).clone())).collect();
    if let Some(order) = order {
        check_order(&patched, order, merge_key, path)?;
    }
    Ok(arrange(merged, order.unwrap_or(&patched), &server, merge_key))
}

fn no_key(path: &str, i: usize, merge_key: &str) -> PatchError {
    malformed(path, format!("item {i} does not contain the merge key {merge_key}"))
}

/// Every changed item must be in the order list, in the same relative order.
fn check_order(patched: &[Value], order: &[Value], merge_key: &str, path: &str) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    let fits = patched.iter().all(|p| rest.any(|o| same(p, o, merge_key)));
    if fits { Ok(()) } else { Err(malformed(path, "the order of the list does not match its $setElementOrder")) }
}

fn same(a: &Value, b: &Value, merge_key: &str) -> bool {
    if merge_key.is_empty() { a == b } else { a.get(merge_key).is_some() && a.get(merge_key) == b.get(merge_key) }
}

/// Puts the items the client knows into the client's order. The others keep the server's order among themselves; one
/// goes before a known item only where the server had it before that item.
fn arrange(items: Vec<Value>, client: &[Value], server: &[Value], merge_key: &str) -> Vec<Value> {
    let place = |list: &[Value], v: &Value| list.iter().position(|o| same(o, v, merge_key));
    let (mut known, others): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|v| place(client, v).is_some());
    known.sort_by_key(|v| place(client, v));
    let mut out = Vec::with_capacity(known.len() + others.len());
    let mut known = known.into_iter().peekable();
    for other in others {
        let own_place = place(server, &other);
        while let Some(next) = known.peek() {
            match (own_place, place(server, next)) {
                (Some(own), Some(theirs)) if own < theirs => break,
                _ => out.extend(known.next()),
            }
        }
        out.push(other);
    }
    out.extend(known);
    out
}

/// A value taken over from the patch as it is: without directives and nulls, and nothing where it stood for a deletion.
fn strip(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") => None,
        Value::Object(map) => Some(Value::Object(strip_map(map))),
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(strip).collect())),
        other => Some(other.clone()),
    }
}

fn strip_map(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter(|(k, _)| !is_directive(k)).filter_map(|(k, v)| Some((k.clone(), strip(v)?))).collect()
}
