//! Field errors and the path they name. Owns the wording of validation messages; decides nothing itself.

use serde_json::Value;
use std::fmt;

/// The path of a field below another; the root's path is empty.
pub fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// The path of a list's item.
pub fn index(path: &str, i: usize) -> String {
    format!("{path}[{i}]")
}

/// The path of a map's entry.
pub fn key(path: &str, name: &str) -> String {
    format!("{path}[{name}]")
}

/// Why a field is refused; [`FieldReason::cause`] is the machine-readable name in a Status body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    Required,
    Invalid,
    NotSupported,
    Forbidden,
    Duplicate,
    TooLong,
    TooMany,
    TypeInvalid,
    NotFound,
}

impl FieldReason {
    /// The `reason` of a Status cause.
    pub fn cause(self) -> &'static str {
        match self {
            FieldReason::Required => "FieldValueRequired",
            FieldReason::Invalid => "FieldValueInvalid",
            FieldReason::NotSupported => "FieldValueNotSupported",
            FieldReason::Forbidden => "FieldValueForbidden",
            FieldReason::Duplicate => "FieldValueDuplicate",
            FieldReason::TooLong => "FieldValueTooLong",
            FieldReason::TooMany => "FieldValueTooMany",
            FieldReason::TypeInvalid => "FieldValueTypeInvalid",
            FieldReason::NotFound => "FieldValueNotFound",
        }
    }

    fn text(self) -> &'static str {
        match self {
            FieldReason::Required => "Required value",
            FieldReason::Invalid => "Invalid value",
            FieldReason::NotSupported => "Unsupported value",
            FieldReason::Forbidden => "Forbidden",
            FieldReason::Duplicate => "Duplicate value",
            FieldReason::TooLong => "Too long",
            FieldReason::TooMany => "Too many",
            FieldReason::TypeInvalid => "Invalid value",
            FieldReason::NotFound => "Not found",
        }
    }
}

/// One refused field. `Display` gives the line users know: `spec.x: Invalid value: "y": must be ...`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub reason: FieldReason,
    pub field: String,
    pub bad_value: Value,
    pub detail: String,
}

impl FieldError {
    /// The message without the field's path: the `message` of a Status cause.
    pub fn message(&self) -> String {
        let mut out = self.reason.text().to_string();
        match self.reason {
            FieldReason::Required | FieldReason::Forbidden | FieldReason::TooLong | FieldReason::TooMany => {}
            _ => {
                out.push_str(": ");
                out.push_str(&self.bad_value.to_string());
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

/// Collects the errors of one object. The methods are named by the reason.
#[derive(Debug, Default)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, reason: FieldReason, field: impl Into<String>, bad_value: Value, detail: impl Into<String>) {
        self.0.push(FieldError { reason, field: field.into(), bad_value, detail: detail.into() });
    }

    pub fn required(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.push(FieldReason::Required, field, Value::Null, detail);
    }

    pub fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(FieldReason::Invalid, field, value.into(), detail);
    }

    pub fn forbidden(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.push(FieldReason::Forbidden, field, Value::Null, detail);
    }

    pub fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(FieldReason::Duplicate, field, value.into(), "");
    }

    pub fn not_found(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(FieldReason::NotFound, field, value.into(), "");
    }

    pub fn too_long(&mut self, field: impl Into<String>, max: usize) {
        self.push(FieldReason::TooLong, field, Value::Null, format!("may not be more than {max} bytes"));
    }

    pub fn too_many(&mut self, field: impl Into<String>, actual: usize, max: usize) {
        self.push(FieldReason::TooMany, field, Value::from(actual), format!("{actual}: must have at most {max} items"));
    }

    pub fn not_supported(&mut self, field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        self.push(FieldReason::NotSupported, field, value.into(), format!("supported values: {}", list.join(", ")));
    }
}
