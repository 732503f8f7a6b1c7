//! Trust anchors: the certificates of ClusterTrustBundles as one file. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Of a selector in a request.
const SELECTOR_MAX: usize = 8 << 10;

/// Each certificate of all bundles once, as PEM without anything between. The order says nothing, so that nobody relies on it: it is
/// the same for the same seed, and another for another.
pub(super) fn merged<'a>(bundles: impl IntoIterator<Item = &'a str>, seed: &[u8]) -> Vec<u8> {
    let all: BTreeSet<Vec<u8>> = bundles.into_iter().flat_map(certificates).collect();
    let mut all: Vec<Vec<u8>> = all.into_iter().collect();
    all.sort_by_cached_key(|der| Sha256::new().chain_update(seed).chain_update(der).finalize());
    pem(&all)
}

/// A chain with nothing in it but certificates, in their order.
pub(super) fn cleaned(chain: &str) -> Vec<u8> {
    pem(&certificates(chain))
}

fn pem(all: &[Vec<u8>]) -> Vec<u8> {
    let mut out = String::new();
    for der in all {
        out.push_str(BEGIN);
        out.push('\n');
        for line in STANDARD.encode(der).as_bytes().chunks(64) {
            out.push_str(&String::from_utf8_lossy(line));
            out.push('\n');
        }
        out.push_str(END);
        out.push('\n');
    }
    out.into_bytes()
}

/// What is not a certificate is passed over, and so are headers.
fn certificates(text: &str) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        let Some(end) = rest.find(END) else { break };
        // A beginning without an end does not swallow the next one.
        if rest[..end].contains("-----BEGIN ") {
            continue;
        }
        let body: String = rest[..end].lines().filter(|line| !line.contains(':')).flat_map(str::split_whitespace).collect();
        out.extend(STANDARD.decode(body).ok().filter(|der| !der.is_empty()));
        rest = &rest[end + END.len()..];
    }
    out
}

/// The selector as requests have it. `None`: it selects nothing, as one that is not there does.
pub(super) fn selector(selector: Option<&LabelSelector>) -> Result<Option<String>, &'static str> {
    let Some(selector) = selector else { return Ok(None) };
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push(format!("{}={}", word(key)?, word(value)?));
    }
    for term in selector.match_expressions.iter().flatten() {
        let key = word(&term.key)?;
        let values = term.values.iter().flatten().map(|v| word(v)).collect::<Result<Vec<_>, _>>()?.join(",");
        parts.push(match term.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return Err("an operator must be In, NotIn, Exists or DoesNotExist"),
        });
    }
    parts.sort();
    let text = parts.join(",");
    if text.len() > SELECTOR_MAX { Err("it is longer than 8192 characters") } else { Ok(Some(text)) }
}

fn word(text: &str) -> Result<&str, &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    if text.bytes().all(plain) { Ok(text) } else { Err("a key or value is not that of a label") }
}

#[cfg(test)]
mod tests;
