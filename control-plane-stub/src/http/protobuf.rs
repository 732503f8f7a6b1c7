//! Bodies in the API's protobuf encoding, which typed Go clients (and so `kubectl create`, `drain`, `auth`) send without asking.
//! They become the same JSON the rest of the server works with; answers are always JSON, which those clients accept too.
//! Pure. Owns the field numbers (`fields.txt`); must never be more than a reader.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::status::ApiError;

pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// Deeper than any served kind; what nests further is hostile.
const MAX_DEPTH: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    ty: &'static str,
    shape: Shape,
    /// Zero and absent differ.
    presence: bool,
    /// Its fields belong to the enclosing object.
    inline: bool,
}

type Message = HashMap<u64, Field>;

fn messages() -> &'static HashMap<&'static str, Message> {
    static TABLE: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    TABLE.get_or_init(|| include_str!("protobuf/fields.txt").lines().filter_map(message).collect())
}

fn message(line: &'static str) -> Option<(&'static str, Message)> {
    let (name, fields) = line.split_once(':').filter(|_| !line.starts_with('#'))?;
    let field = |text: &'static str| {
        let mut words = text.split_whitespace();
        let number = words.next()?;
        let digits = number.trim_end_matches(['*', '%', '?', '^']);
        let shape = match number {
            n if n.contains('*') => Shape::List,
            n if n.contains('%') => Shape::Map,
            _ => Shape::One,
        };
        let field =
            Field { name: words.next()?, ty: words.next()?, shape, presence: number.contains('?'), inline: number.contains('^') };
        Some((digits.parse().ok()?, field))
    };
    Some((name, fields.split(',').filter_map(field).collect()))
}

/// Types of one's own package are named without it (the core group's).
fn lookup(ty: &str) -> Option<&'static Message> {
    let table = messages();
    table.get(ty).or_else(|| table.get(format!("core.v1.{ty}").as_str()))
}

fn malformed(what: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("the body is not valid protobuf: {what}"))
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, ApiError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or_else(|| malformed("it ends inside a number"))?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number is too long"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ApiError> {
        if len > self.bytes.len() {
            return Err(malformed("it ends inside a field"));
        }
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(head)
    }

    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, ApiError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let little = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(little(self.take(8)?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| malformed("a length is too large"))?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Number(little(self.take(4)?)),
            other => return Err(malformed(format!("wire type {other}"))),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

fn text(bytes: &[u8]) -> Result<Value, ApiError> {
    std::str::from_utf8(bytes).map(|t| json!(t)).map_err(|_| malformed("a text is not UTF-8"))
}

/// The object inside the envelope.
pub fn decode(bytes: &[u8]) -> Result<Value, ApiError> {
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("it does not begin with the API's prefix"))?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader { bytes: body };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut reader = Reader { bytes: type_meta };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => api_version = String::from_utf8_lossy(bytes).into_owned(),
            (2, Wire::Bytes(bytes)) => kind = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", &api_version));
    let package = group.split('.').next().unwrap_or_default();
    let name = if kind == "DeleteOptions" { "meta.v1.DeleteOptions".to_owned() } else { format!("{package}.{version}.{kind}") };
    let Some(message) = lookup(&name) else {
        let media = format!("{MEDIA} with {kind} of {api_version}");
        return Err(super::negotiate::unsupported(&media, &["application/json", "application/yaml"]));
    };
    let mut object = Map::new();
    read(message, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

fn read(message: &Message, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), ApiError> {
    if depth > MAX_DEPTH {
        return Err(malformed("it is nested too deeply"));
    }
    let mut reader = Reader { bytes };
    while let Some((number, wire)) = reader.field()? {
        // Fields this server does not know are dropped, as it drops them from JSON.
        let Some(field) = message.get(&number) else { continue };
        match field.shape {
            Shape::One if field.inline => {
                if let (Wire::Bytes(bytes), Some(inner)) = (wire, lookup(field.ty)) {
                    read(inner, bytes, into, depth + 1)?;
                }
            }
            Shape::One => {
                if let Some(value) = value(field.ty, wire, field.presence, depth)? {
                    into.insert(field.name.to_owned(), value);
                }
            }
            Shape::List => {
                let list = into.entry(field.name).or_insert_with(|| json!([]));
                if let (Some(list), Some(value)) = (list.as_array_mut(), value(field.ty, wire, true, depth)?) {
                    list.push(value);
                }
            }
            Shape::Map => {
                let Wire::Bytes(entry) = wire else { return Err(malformed("a map is no message")) };
                let (key, value) = map_entry(field.ty, entry, depth)?;
                let map = into.entry(field.name).or_insert_with(|| json!({}));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn map_entry(ty: &str, bytes: &[u8], depth: usize) -> Result<(String, Value), ApiError> {
    let mut key = String::new();
    let mut found = None;
    let mut reader = Reader { bytes };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
            (2, wire) => found = value(ty, wire, true, depth)?,
            _ => {}
        }
    }
    let empty = if matches!(ty, "string" | "bytes") { json!("") } else { json!({}) };
    Ok((key, found.unwrap_or(empty)))
}

/// Nothing for a zero that means "not set".
fn value(ty: &str, wire: Wire<'_>, presence: bool, depth: usize) -> Result<Option<Value>, ApiError> {
    let value = match (ty, wire) {
        ("string", Wire::Bytes(bytes)) => text(bytes)?,
        ("bytes", Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        ("bool", Wire::Number(n)) => json!(n != 0),
        ("int32" | "int64", Wire::Number(n)) => json!(n as i64),
        ("uint32" | "uint64", Wire::Number(n)) => json!(n),
        ("double", Wire::Number(n)) => json!(f64::from_bits(n)),
        ("meta.v1.Time", Wire::Bytes(bytes)) => return time(bytes, false),
        ("meta.v1.MicroTime", Wire::Bytes(bytes)) => return time(bytes, true),
        ("api.resource.Quantity", Wire::Bytes(bytes)) => first_text(bytes)?,
        ("util.intstr.IntOrString", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("authentication.v1.ExtraValue" | "authorization.v1.ExtraValue" | "certificates.v1.ExtraValue", Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            let mut reader = Reader { bytes };
            while let Some((_, wire)) = reader.field()? {
                if let Wire::Bytes(bytes) = wire {
                    items.push(text(bytes)?);
                }
            }
            Value::Array(items)
        }
        ("runtime.RawExtension", Wire::Bytes(bytes)) => {
            let mut reader = Reader { bytes };
            match reader.field()? {
                Some((1, Wire::Bytes(raw))) => serde_json::from_slice(raw).unwrap_or(Value::Null),
                _ => Value::Null,
            }
        }
        (ty, Wire::Bytes(bytes)) => {
            let Some(message) = lookup(ty) else { return Ok(None) };
            let mut inner = Map::new();
            read(message, bytes, &mut inner, depth + 1)?;
            Value::Object(inner)
        }
        (ty, Wire::Number(_)) => return Err(malformed(format!("a number where a {ty} should be"))),
    };
    let zero = match &value {
        Value::String(s) => s.is_empty(),
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Object(o) => o.is_empty(),
        Value::Null => true,
        Value::Array(_) => false,
    };
    Ok(Some(value).filter(|_| presence || !zero))
}

fn first_text(bytes: &[u8]) -> Result<Value, ApiError> {
    let mut reader = Reader { bytes };
    match reader.field()? {
        Some((1, Wire::Bytes(bytes))) => text(bytes),
        _ => Ok(json!("0")),
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ApiError> {
    let (mut is_text, mut number, mut words) = (false, 0i64, json!(""));
    let mut reader = Reader { bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n as i64,
            (3, Wire::Bytes(bytes)) => words = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { words } else { json!(number) })
}

fn time(bytes: &[u8], micros: bool) -> Result<Option<Value>, ApiError> {
    let (mut seconds, mut nanos) = (None, 0i64);
    let mut reader = Reader { bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Wire::Number(n)) => seconds = Some(n as i64),
            (2, Wire::Number(n)) => nanos = n as i64,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let at = jiff::Timestamp::new(seconds, i32::try_from(nanos).unwrap_or(0)).map_err(|_| malformed("a time is out of range"))?;
    let format = if micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Some(json!(at.strftime(format).to_string())))
}

#[cfg(test)]
mod tests;
