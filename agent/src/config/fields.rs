//! A configuration document taken apart field by field, each problem kept with its path.
//!
//! Pure. Reading goes on after a problem, so that a user sees all of them at once. What has not been taken when
//! `finish` runs is an unknown field.

use super::duration;
use ferrolet_quantity::Quantity;
use serde_json::{Map, Value};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: String,
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.detail)
    }
}

/// A field that is known but not honoured: the type it must have and its default.
#[derive(Debug, Clone, Copy)]
pub enum Plain {
    /// A boolean that is false when left out.
    Off,
    /// A boolean that is true when left out.
    On,
    Int(i64),
    /// An integer for which zero means something else than "the default".
    IntOrNull(i64),
    Number(f64),
    Text(&'static str),
    /// Zero means the default.
    Time(&'static str),
    /// A list or a map that is empty when left out; an object of empty and zero fields counts as empty.
    Empty,
    /// Has no effect in Kubernetes either; any value of any type is taken.
    Ignored,
}

/// The fields of one object that were not taken yet.
pub struct Fields<'p> {
    path: String,
    map: Map<String, Value>,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Fields<'p> {
    pub fn new(path: &str, value: Value, problems: &'p mut Vec<Problem>) -> Self {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => {
                problems.push(Problem { path: shown(path), detail: wrong_type("an object", &other) });
                Map::new()
            }
        };
        Fields { path: path.to_owned(), map, problems }
    }

    pub fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub fn problem(&mut self, name: &str, detail: impl Into<String>) {
        let path = shown(&self.path(name));
        self.problems.push(Problem { path, detail: detail.into() });
    }

    /// Whether a field has been given a value, of whatever type.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !is_zero(value))
    }

    /// Whether a field is there and not null, be it zero.
    pub fn present(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// The names in a map, whatever they say.
    pub fn take_keys(&mut self, name: &str) -> Vec<String> {
        match self.take(name) {
            Some(Value::Object(map)) => map.into_iter().map(|(key, _)| key).collect(),
            Some(other) => {
                self.problem(name, wrong_type("a map", &other));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// The raw value; null counts as absent, as it does for the API machinery.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// One of `featureGates`; the others stay.
    pub fn gate(&mut self, name: &str) -> Option<bool> {
        match self.map.get_mut("featureGates")?.as_object_mut()?.remove(name)? {
            Value::Bool(on) => Some(on),
            other => {
                self.problem(&format!("featureGates.{name}"), wrong_type("a boolean", &other));
                None
            }
        }
    }

    /// A share of one; zero is none.
    pub fn share(&mut self, name: &str) -> Option<f64> {
        let value = self.take(name)?;
        let share = value.as_f64().filter(|n| *n > 0.0 && *n <= 1.0);
        if share.is_none() {
            self.problem(name, format!("{} must be greater than 0 and at most 1", brief(&value)));
        }
        share
    }

    pub fn object<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let value = self.take(name).unwrap_or(Value::Null);
        let path = self.path(name);
        let mut inner = Fields::new(&path, value, self.problems);
        let out = read(&mut inner);
        inner.finish();
        out
    }

    pub fn string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.problem(name, wrong_type("a string", &other));
                None
            }
        }
    }

    /// A string for which empty means absent.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.string(name).filter(|text| !text.is_empty())
    }

    /// A string that parses; `what` describes it in the problem.
    pub fn parsed<T: std::str::FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => {
                self.problem(name, format!("{:?} is not {what}", shorten(&text)));
                None
            }
        }
    }

    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            other => {
                self.problem(name, wrong_type("a boolean", &other));
                None
            }
        }
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.take(name)?;
        let Some(number) = value.as_i64() else {
            self.problem(name, wrong_type("an integer", &value));
            return None;
        };
        if !range.contains(&number) {
            self.problem(name, format!("{number} must be between {} and {}", range.start(), range.end()));
            return None;
        }
        Some(number)
    }

    /// A duration; zero means the default for all of KubeletConfiguration's non-pointer durations.
    pub fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.string(name)?;
        match duration::parse(&text) {
            Ok(value) => (!value.is_zero()).then_some(value),
            Err(error) => {
                self.problem(name, error.to_string());
                None
            }
        }
    }

    pub fn quantity(&mut self, name: &str) -> Option<Quantity> {
        let text = self.text(name)?;
        match text.parse::<Quantity>() {
            Ok(value) if value.is_negative() => {
                self.problem(name, format!("quantity {text:?} must not be negative"));
                None
            }
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, error.to_string());
                None
            }
        }
    }

    pub fn strings(&mut self, name: &str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let Value::Array(items) = value else {
            self.problem(name, wrong_type("a list of strings", &value));
            return None;
        };
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => out.push(text),
                other => self.problem(&format!("{name}[{index}]"), wrong_type("a string", &other)),
            }
        }
        Some(out)
    }

    /// A list whose entries parse; each bad entry is a problem with its index.
    pub fn parsed_list<T: std::str::FromStr>(&mut self, name: &str, what: &str) -> Option<Vec<T>> {
        let texts = self.strings(name)?;
        let mut out = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(value) => out.push(value),
                Err(_) => self.problem(&format!("{name}[{index}]"), format!("{:?} is not {what}", shorten(text))),
            }
        }
        Some(out)
    }

    /// A map of strings.
    pub fn string_map(&mut self, name: &str) -> Option<Vec<(String, String)>> {
        let value = self.take(name)?;
        let Value::Object(map) = value else {
            self.problem(name, wrong_type("a map of strings", &value));
            return None;
        };
        let mut out = Vec::with_capacity(map.len());
        for (key, value) in map {
            match value {
                Value::String(text) => out.push((key, text)),
                other => self.problem(&format!("{name}.{key}"), wrong_type("a string", &other)),
            }
        }
        Some(out)
    }

    /// A known field that is not honoured: its default is fine, everything else is refused by name.
    pub fn unsupported(&mut self, name: &str, plain: Plain) {
        let Some(value) = self.take(name) else { return };
        match plain.accepts(&value) {
            Accept::Default => {}
            Accept::Other => self.problem(name, format!("not yet supported (value {}), leave it out", brief(&value))),
            Accept::WrongType(expected) => self.problem(name, wrong_type(expected, &value)),
        }
    }

    /// What is left is unknown.
    pub fn finish(self) {
        for name in self.map.keys() {
            self.problems.push(Problem { path: shown(&join(&self.path, name)), detail: "unknown field".into() });
        }
    }
}

enum Accept {
    Default,
    Other,
    WrongType(&'static str),
}

impl Plain {
    fn accepts(self, value: &Value) -> Accept {
        let is = |same: bool| if same { Accept::Default } else { Accept::Other };
        match (self, value) {
            (Plain::Ignored, _) => Accept::Default,
            (Plain::Off, Value::Bool(b)) => is(!b),
            (Plain::On, Value::Bool(b)) => is(*b),
            (Plain::Off | Plain::On, _) => Accept::WrongType("a boolean"),
            (Plain::Int(d), v) if v.is_i64() => is(v.as_i64() == Some(d) || v.as_i64() == Some(0)),
            (Plain::IntOrNull(d), v) if v.is_i64() => is(v.as_i64() == Some(d)),
            (Plain::Int(_) | Plain::IntOrNull(_), _) => Accept::WrongType("an integer"),
            (Plain::Number(d), Value::Number(n)) => is(n.as_f64() == Some(d)),
            (Plain::Number(_), _) => Accept::WrongType("a number"),
            (Plain::Text(d), Value::String(text)) => is(text == d || text.is_empty()),
            (Plain::Text(_), _) => Accept::WrongType("a string"),
            (Plain::Time(d), Value::String(text)) => {
                let nanos = duration::parse_nanos(text);
                is(nanos == Ok(0) || (nanos.is_ok() && nanos == duration::parse_nanos(d)))
            }
            (Plain::Time(_), _) => Accept::WrongType("a duration"),
            (Plain::Empty, v @ (Value::Object(_) | Value::Array(_))) => is(is_zero(v)),
            (Plain::Empty, _) => Accept::WrongType("an object or list"),
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_zero),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "(document)".to_owned() } else { path.to_owned() }
}

fn wrong_type(expected: &str, got: &Value) -> String {
    let kind = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("expected {expected}, found {kind} ({})", brief(got))
}

fn brief(value: &Value) -> String {
    shorten(&value.to_string())
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 64 { text.to_owned() } else { text.chars().take(63).chain(['…']).collect() }
}
