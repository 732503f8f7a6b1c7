//! JSON into a type, and the field at which that failed.
//!
//! Pure. The field is found from the position that the parser names, by a second look at the text that only a failure costs: a
//! decoder that tracks its path all the time is as large again as all types of the API together.

use serde::de::DeserializeOwned;

/// Longest part of a hostile key that a message repeats, in bytes.
const KEY: usize = 64;

/// Why a text is not of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// `spec.containers[0].image`; `.` is the whole.
    pub field: String,
    pub detail: String,
}

pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Misfit> {
    serde_json::from_str(text).map_err(|error| {
        let detail = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        Misfit {
            field: path(text, offset(text, error.line(), error.column())),
            detail: detail.strip_suffix(&position).unwrap_or(&detail).to_owned(),
        }
    })
}

/// Lines from 1; columns are bytes of the line that were read.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before.saturating_add(column)
}

enum Frame<'a> {
    Object(&'a str),
    Array(usize),
}

/// What of a document the bytes before an offset end in.
fn path(text: &str, offset: usize) -> String {
    let bytes = &text.as_bytes()[..offset.min(text.len())];
    let (mut frames, mut at): (Vec<Frame<'_>>, usize) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            // What the last byte opens is what the parser means, and not something in it.
            b'{' | b'[' if at + 1 == bytes.len() => {}
            b'{' => frames.push(Frame::Object("")),
            b'[' => frames.push(Frame::Array(0)),
            b'}' | b']' => drop(frames.pop()),
            b',' => {
                if let Some(Frame::Array(index)) = frames.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let end = string_end(bytes, at + 1);
                let is_key = bytes.get(end + 1..).is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"));
                if let (true, Some(Frame::Object(key))) = (is_key, frames.last_mut()) {
                    // Both ends are quotation marks, so this is never within a character.
                    *key = text.get(at + 1..end).unwrap_or_default();
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    written(&frames)
}

/// Where the string ends that begins here: its closing quotation mark, or the end of all.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn written(frames: &[Frame<'_>]) -> String {
    let mut out = String::new();
    for frame in frames {
        match frame {
            Frame::Object("") => {}
            Frame::Object(key) => {
                let end = (0..=key.len().min(KEY)).rev().find(|end| key.is_char_boundary(*end)).unwrap_or(0);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&key[..end]);
            }
            Frame::Array(index) => out.push_str(&format!("[{index}]")),
        }
    }
    if out.is_empty() { ".".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn field(text: &str) -> String {
        read::<Pod>(text).unwrap_err().field
    }

    #[test]
    fn the_field_is_named() {
        for (value, expected) in [
            (json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "image": 5}]}}), "spec.containers[1].image"),
            (json!({"spec": {"containers": [{"name": "b", "image": {}}]}}), "spec.containers[0].image"),
            (json!({"spec": {"containers": [{"name": "b", "image": []}]}}), "spec.containers[0].image"),
            (json!({"spec": {"containers": {}}}), "spec.containers"),
            (json!({"spec": {"priority": 1e300, "containers": []}}), "spec.priority"),
            (json!({"spec": {"containers": [], "hostNetwork": "yes"}, "status": {}}), "spec.hostNetwork"),
            (json!({"metadata": {"labels": {"a": "b", "c": 1}}}), "metadata.labels.c"),
            (json!({"metadata": {"labels": {"a \"quoted\\\": {": 1}}}), "metadata.labels.a \\\"quoted\\\\\\\": {"),
            (json!([]), "."),
            (json!("x"), "."),
        ] {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                assert_eq!(field(&text), expected, "{text}");
            }
        }
    }

    #[test]
    fn the_position_is_not_said_twice() {
        let misfit = read::<Pod>("{\n\"spec\": 5}").unwrap_err();
        assert_eq!(misfit.field, "spec");
        assert!(misfit.detail.starts_with("invalid type: integer `5`"), "{}", misfit.detail);
        assert!(!misfit.detail.contains("line"), "{}", misfit.detail);
    }

    #[test]
    fn hostile_text_is_only_a_misfit() {
        for text in ["", "{", "\"", "{\"a", "{\"a\\", "{\"spec\":{\"é\\u00", "]", "}}}}", "[[[[", "\u{feff}{}"] {
            assert!(read::<Pod>(text).is_err(), "{text}");
        }
        let (deep, long) = ("[".repeat(100_000), format!("{{\"{}\": [1", "é".repeat(100_000)));
        assert!(field(&deep).len() < 1_000);
        assert!(read::<std::collections::BTreeMap<String, u8>>(&long).unwrap_err().field.len() < 2 * KEY);
    }

    /// A document of objects and arrays, with one value that does not fit a tree of numbers.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!(true)), Just(json!("a{\"b\\")), Just(Value::Null)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\\\\\"{}:, é]{1,6}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    /// Reads anything but `true`.
    struct NoTrue;

    impl<'de> serde::Deserialize<'de> for NoTrue {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Any;
            impl<'de> serde::de::Visitor<'de> for Any {
                type Value = NoTrue;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("anything but true")
                }
                fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<NoTrue, E> {
                    Err(E::custom("true"))
                }
                fn visit_u64<E>(self, _: u64) -> Result<NoTrue, E> {
                    Ok(NoTrue)
                }
                fn visit_str<E>(self, _: &str) -> Result<NoTrue, E> {
                    Ok(NoTrue)
                }
                fn visit_unit<E>(self) -> Result<NoTrue, E> {
                    Ok(NoTrue)
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<NoTrue, A::Error> {
                    while seq.next_element::<NoTrue>()?.is_some() {}
                    Ok(NoTrue)
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<NoTrue, A::Error> {
                    while map.next_entry::<String, NoTrue>()?.is_some() {}
                    Ok(NoTrue)
                }
            }
            from.deserialize_any(Any)
        }
    }

    /// The first `true` of a document in its written order.
    fn first_true(value: &Value, here: &str) -> Option<String> {
        match value {
            Value::Bool(true) => Some(here.to_owned()),
            Value::Array(all) => all.iter().enumerate().find_map(|(i, v)| first_true(v, &format!("{here}[{i}]"))),
            Value::Object(all) => all.iter().find_map(|(key, v)| {
                let written = serde_json::to_string(key).unwrap();
                let dot = if here.is_empty() { "" } else { "." };
                first_true(v, &format!("{here}{dot}{}", &written[1..written.len() - 1]))
            }),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn any_place_is_found(document in document()) {
            let expected = first_true(&document, "").map(|path| if path.is_empty() { ".".to_owned() } else { path });
            for text in [document.to_string(), serde_json::to_string_pretty(&document).unwrap()] {
                prop_assert_eq!(read::<NoTrue>(&text).err().map(|misfit| misfit.field), expected.clone(), "{}", text);
            }
        }
    }
}
