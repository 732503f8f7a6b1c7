//! Structural checks of a body against its kind's schema: unknown fields and wrong types.

use super::{FieldError, Kind};
use serde_json::Value;

/// One text for each field the kind does not have: `unknown field "spec.foo"`.
pub fn unknown_fields(_kind: &Kind, _object: &Value) -> Vec<String> {
    Vec::new()
}

/// One text for each key given twice in an object of the raw JSON text: `duplicate field "spec.foo"`.
/// A text that is not JSON has none; parsing reports it.
pub fn duplicate_fields(_json: &[u8]) -> Vec<String> {
    Vec::new()
}

/// Removes the fields the kind does not have (what a server does with them unless told to be strict).
pub fn prune(_kind: &Kind, _object: &mut Value) {}

/// A field of the wrong JSON type, the first that is found. The error names the path.
pub fn type_check(_kind: &Kind, _object: &Value) -> Result<(), FieldError> {
    Ok(())
}
