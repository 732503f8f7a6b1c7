//! The three patch formats: JSON patch (RFC 6902), JSON merge patch (RFC 7386), and strategic merge patch.
//!
//! Owns the outcome of a patch on a document. Must never validate it: the result goes through the same defaults and
//! validation as any other write.

use super::Kind;
use serde_json::Value;

pub mod keys;
mod strategic;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: HTTP 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed but does not fit the object: HTTP 422.
    #[error("{0}")]
    Unprocessable(String),
}

/// RFC 6902.
pub fn json(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let ops: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| PatchError::Malformed(format!("json patch: {e}")))?;
    let mut out = original.clone();
    json_patch::patch(&mut out, &ops).map_err(|e| PatchError::Unprocessable(format!("json patch: {e}")))?;
    Ok(out)
}

/// RFC 7386.
pub fn merge(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("merge patch: the body must be a JSON object".to_string()));
    }
    let mut out = original.clone();
    json_patch::merge(&mut out, patch);
    Ok(out)
}

/// Strategic merge by the merge keys of the kind.
pub fn strategic(kind: &Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    strategic::apply(super::schema::Node::of_kind(kind), original, patch)
}

/// Strategic merge of a body that is not a row of the table, such as a Scale.
pub fn strategic_of(group: &str, version: &str, kind: &str, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    strategic::apply(super::schema::Node::of(group, version, kind), original, patch)
}

#[cfg(test)]
mod tests;
