//! The only way between wire messages and domain types.
//!
//! Owns: what is required of an answer and of a request, and how a complaint about it reads. Pure. Must never panic,
//! whatever bytes a runtime sends.
//!
//! What is strict: an answer without id or metadata, or with an address or sandbox state that does not exist, is an error
//! naming the field, also in a list; to leave the entry out would make the agent start a second one. What is lenient:
//! container states that the interface does not have are `Unknown`, and whatever is only told on is taken as it is.

pub(crate) mod from;
#[cfg(feature = "fake")]
pub(crate) mod requests;
pub(crate) mod stats;
pub(crate) mod to;

/// A field that cannot be what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) field: String,
    pub(crate) problem: String,
}

pub(crate) type Result<T> = std::result::Result<T, Bad>;

pub(crate) fn bad(field: impl Into<String>, problem: impl Into<String>) -> Bad {
    Bad { field: field.into(), problem: problem.into() }
}

impl Bad {
    /// Puts the name of what holds the field before it.
    fn within(mut self, outer: &str) -> Bad {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// A value from outside, cut to a length that fits into an error.
fn quoted(value: &str) -> String {
    const LONGEST: usize = 64;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}..", &value[..end]),
        None => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests;
