//! CredentialProviderConfig (`kubelet.config.k8s.io/v1`): which programs are asked for credentials of images. Pure.

use super::fields::Fields;
use super::{Problem, duration};
use crate::images::keyring::is_place;
use crate::images::providers::{Provider, TokenAttributes};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const GROUP: &str = "kubelet.config.k8s.io/";
const KIND: &str = "CredentialProviderConfig";
const V1: &str = "credentialprovider.kubelet.k8s.io/v1";
/// Of questions and answers; all have the same fields, tokens aside.
const API_VERSIONS: [&str; 3] = [V1, "credentialprovider.kubelet.k8s.io/v1alpha1", "credentialprovider.kubelet.k8s.io/v1beta1"];

/// One document's providers. Names that `seen` has already are a problem.
pub(super) fn read(document: Value, seen: &mut BTreeSet<String>, problems: &mut Vec<Problem>) -> Vec<Provider> {
    let mut fields = Fields::new("", document, problems);
    let version = fields.text("apiVersion").unwrap_or_default();
    if !matches!(version.strip_prefix(GROUP), Some("v1" | "v1beta1" | "v1alpha1")) {
        fields.problem("apiVersion", format!("{version:?} must be {GROUP}v1"));
    }
    let kind = fields.text("kind").unwrap_or_default();
    if kind != KIND {
        fields.problem("kind", format!("{kind:?} must be {KIND}"));
    }
    let list = match fields.take("providers") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) | None => {
            fields.problem("providers", "at least 1 is required");
            Vec::new()
        }
        Some(_) => {
            fields.problem("providers", "expected a list of objects");
            Vec::new()
        }
    };
    fields.finish();
    let each = list.into_iter().enumerate();
    each.map(|(index, value)| {
        let mut fields = Fields::new(&format!("providers[{index}]"), value, problems);
        let provider = provider(&mut fields);
        if !provider.name.is_empty() && !seen.insert(provider.name.clone()) {
            fields.problem("name", format!("{:?} is there more than once", provider.name));
        }
        fields.finish();
        provider
    })
    .collect()
}

fn provider(fields: &mut Fields<'_>) -> Provider {
    let name = fields.text("name").unwrap_or_default();
    if name.is_empty() {
        fields.problem("name", "is required");
    } else if name.contains(['/', ' ']) || matches!(name.as_str(), "." | "..") {
        fields.problem("name", format!("{name:?} must be a file's name without '/' and spaces"));
    }
    let match_images = fields.strings("matchImages").unwrap_or_default();
    if match_images.is_empty() {
        fields.problem("matchImages", "at least 1 is required");
    }
    for (index, place) in match_images.iter().enumerate().filter(|(_, place)| !is_place(place)) {
        fields.problem(&format!("matchImages[{index}]"), format!("{place:?} is not of the form host[:port][/path]"));
    }
    let default_cache = match fields.string("defaultCacheDuration").map(|text| duration::parse(&text)) {
        None => {
            fields.problem("defaultCacheDuration", "is required");
            Duration::ZERO
        }
        Some(Ok(duration)) => duration,
        Some(Err(error)) => {
            fields.problem("defaultCacheDuration", error.to_string());
            Duration::ZERO
        }
    };
    let api_version = fields.text("apiVersion").unwrap_or_default();
    if !API_VERSIONS.contains(&api_version.as_str()) {
        fields.problem("apiVersion", format!("{api_version:?} must be {V1}"));
    }
    let args = fields.strings("args").unwrap_or_default();
    let env = env(fields);
    let given = fields.present("tokenAttributes");
    let tokens = fields.object("tokenAttributes", |inner| given.then(|| tokens(inner)));
    if tokens.is_some() && api_version != V1 {
        fields.problem("tokenAttributes", format!("needs apiVersion {V1}"));
    }
    Provider { name, match_images, default_cache, api_version, args, env, tokens }
}

/// Values are not shown: they may be secrets.
fn env(fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let list = match fields.take("env") {
        None => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            fields.problem("env", "expected a list of objects");
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let text = |key: &str| value.get(key).map_or(Some(""), Value::as_str);
        let known = value.as_object().is_some_and(|map| map.keys().all(|key| matches!(key.as_str(), "name" | "value")));
        match (text("name"), text("value")) {
            (Some(name), Some(value)) if known && !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') => {
                all.push((name.to_owned(), value.to_owned()));
            }
            _ => fields.problem(&format!("env[{index}]"), "must be a name and a value of an environment variable"),
        }
    }
    all
}

fn tokens(fields: &mut Fields<'_>) -> TokenAttributes {
    let audience = fields.text("serviceAccountTokenAudience").unwrap_or_default();
    if audience.is_empty() {
        fields.problem("serviceAccountTokenAudience", "is required");
    }
    let require_account = fields.boolean("requireServiceAccount");
    if require_account.is_none() {
        fields.problem("requireServiceAccount", "is required");
    }
    let for_one_token = match fields.text("cacheType").as_deref() {
        Some("Token") => true,
        Some("ServiceAccount") => false,
        other => {
            fields.problem("cacheType", format!("{:?} must be ServiceAccount or Token", other.unwrap_or_default()));
            false
        }
    };
    let required_annotations = annotations(fields, "requiredServiceAccountAnnotationKeys");
    let optional_annotations = annotations(fields, "optionalServiceAccountAnnotationKeys");
    if require_account == Some(false) && !required_annotations.is_empty() {
        fields.problem("requiredServiceAccountAnnotationKeys", "needs requireServiceAccount: true");
    }
    if let Some(both) = required_annotations.iter().find(|key| optional_annotations.contains(key)) {
        fields.problem("optionalServiceAccountAnnotationKeys", format!("{both:?} is required already"));
    }
    let require_account = require_account.unwrap_or_default();
    TokenAttributes { audience, for_one_token, require_account, required_annotations, optional_annotations }
}

fn annotations(fields: &mut Fields<'_>, name: &str) -> Vec<String> {
    let keys = fields.strings(name).unwrap_or_default();
    for (index, key) in keys.iter().enumerate() {
        if !is_qualified(&key.to_lowercase()) {
            fields.problem(&format!("{name}[{index}]"), format!("{key:?} is not the key of an annotation"));
        } else if keys[..index].contains(key) {
            fields.problem(&format!("{name}[{index}]"), format!("{key:?} is there more than once"));
        }
    }
    keys
}

/// A name of at most 63 letters, digits, `-`, `_` and `.`, behind a domain if there is one.
fn is_qualified(key: &str) -> bool {
    let (domain, name) = key.rsplit_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    domain.is_none_or(super::is_subdomain)
        && bytes.len() <= 63
        && bytes.iter().all(|b| inner(*b))
        && edge(bytes.first())
        && edge(bytes.last())
}

#[cfg(test)]
mod tests;
