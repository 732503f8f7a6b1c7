//! Field errors and the path they name. Owns the wording of validation messages; decides nothing itself.

use serde_json::Value;
use std::fmt;

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
