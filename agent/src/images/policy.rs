//! `imagePullCredentialsVerificationPolicy`: which images a pod may use only with credentials of its own. Pure.

use super::reference::{InvalidName, Reference};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    /// Whatever is there may be used.
    Never,
    /// What no agent of this node has pulled may be used by all.
    #[default]
    Preloaded,
    /// What the list names may be used by all.
    Allowlisted(Allowlist),
    Always,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist {
    names: BTreeSet<String>,
    /// Each ends with a slash.
    prefixes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("leading/trailing spaces are not allowed: {0}")]
    Spaces(String),
    #[error("the supplied pattern is too short: {0}")]
    Short(String),
    #[error("not a valid wildcard pattern, only patterns ending with '/*' are allowed: {0}")]
    Wildcard(String),
    #[error("at least registry hostname is required")]
    NoHost,
    #[error("failed to parse as an image name: {0}")]
    Name(#[from] InvalidName),
    #[error("neither tag nor digest is accepted in an image reference: {0}")]
    Tagged(String),
}

impl Allowlist {
    /// Names without tag and digest, or what such names begin with, followed by `/*`.
    pub fn parse(patterns: &[String]) -> Result<Allowlist, BadPattern> {
        let mut list = Allowlist::default();
        for pattern in patterns {
            if pattern.trim() != pattern {
                return Err(BadPattern::Spaces(pattern.clone()));
            }
            let wild = pattern.ends_with("/*");
            let text = if wild { &pattern[..pattern.len() - 1] } else { pattern.as_str() };
            if text.is_empty() {
                return Err(BadPattern::Short(pattern.clone()));
            }
            if text.contains('*') {
                return Err(BadPattern::Wildcard(pattern.clone()));
            }
            if wild && text == "/" {
                return Err(BadPattern::NoHost);
            }
            if wild {
                list.prefixes.push(text.to_owned());
                continue;
            }
            if plain_name(text)? != text {
                return Err(BadPattern::Tagged(pattern.clone()));
            }
            list.names.insert(text.to_owned());
        }
        Ok(list)
    }

    fn has(&self, image: &str) -> bool {
        let name = plain_name(image).unwrap_or_else(|_| image.to_owned());
        self.names.contains(&name) || self.prefixes.iter().any(|p| name.starts_with(p))
    }
}

impl Policy {
    /// `pulled_here`: an agent of this node has pulled it, or begun to.
    pub fn verifies(&self, image: &str, pulled_here: bool) -> bool {
        match self {
            Policy::Never => false,
            Policy::Preloaded => pulled_here,
            Policy::Allowlisted(list) => !list.has(image),
            Policy::Always => true,
        }
    }
}

/// The name as it is written, without tag and digest.
pub fn plain_name(image: &str) -> Result<String, InvalidName> {
    let reference = Reference::parse(image)?;
    let mut name = image;
    if let Some(digest) = &reference.digest {
        name = name.strip_suffix(digest.as_str()).and_then(|n| n.strip_suffix('@')).unwrap_or(name);
    }
    if let Some(tag) = &reference.tag {
        name = name.strip_suffix(tag.as_str()).and_then(|n| n.strip_suffix(':')).unwrap_or(name);
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
