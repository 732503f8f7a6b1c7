//! Label and field selectors.

use super::Kind;
use serde_json::{Map, Value};

/// Why a selector is refused: HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Parse(String),
    #[error("field label not supported: {0}")]
    UnknownField(String),
    #[error("invalid label selector: {0}")]
    Object(String),
}

/// A parsed label selector; empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    op: (),
}

impl LabelSelector {
    /// The query-string form: `a=b,c in (d,e),!f`.
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// The object form (`matchLabels`, `matchExpressions`); null selects nothing, an empty object everything.
    pub fn from_object(_selector: &Value) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// The plain map form of Services and ReplicationControllers; null or empty selects nothing.
    pub fn from_map(_selector: &Value) -> Self {
        Self::default()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn matches_labels(&self, _labels: Option<&Map<String, Value>>) -> bool {
        !self.nothing
    }

    /// Against an object's `metadata.labels`.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(object["metadata"]["labels"].as_object())
    }
}

/// A parsed field selector; empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// `spec.nodeName=a,status.phase!=Running`, with the fields of this kind.
    pub fn parse(_kind: &Kind, _text: &str) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value the field must equal, where there is exactly one (a watch on one name, the pods of one node).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, eq, _)| *eq && f == field).map(|(_, _, v)| v.as_str())
    }

    pub fn matches(&self, _kind: &Kind, _object: &Value) -> bool {
        true
    }
}

/// The query-string form of a selector object, as `status.selector` of a Scale shows it.
pub fn format_object(_selector: &Value) -> String {
    String::new()
}
