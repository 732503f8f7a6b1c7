//! Values of `fieldRef` and `resourceFieldRef`, for environment variables and downward-API files alike. Pure.

use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a pod's own object does not say about where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodContext {
    pub node_name: String,
    /// Primary first.
    pub host_ips: Vec<IpAddr>,
    /// From the sandbox, primary first; empty before there is one.
    pub pod_ips: Vec<IpAddr>,
    /// The node's allocatable resources: what a missing limit stands for.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("fieldRef.fieldPath {0:?} is not supported")]
    Path(String),
    #[error("fieldRef.fieldPath {0:?} has a malformed subscript")]
    Subscript(String),
    #[error("resourceFieldRef.resource {0:?} is not supported")]
    Resource(String),
    #[error("resourceFieldRef.containerName {0:?} names no container of the pod")]
    Container(String),
    #[error("resourceFieldRef.divisor {text:?} is invalid: {source}")]
    Divisor { text: String, source: ferrolet_quantity::ParseError },
    #[error("container {container:?}: {resource} {text:?} is invalid: {source}")]
    Amount { container: String, resource: String, text: String, source: ferrolet_quantity::ParseError },
}

/// The value of a `fieldRef.fieldPath`. Both the environment's and the volumes' paths are known here; which are allowed where
/// is the API server's validation.
pub fn field_value(pod: &Pod, path: &str, context: &PodContext) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path)? {
        let found = match map {
            "metadata.labels" => meta.labels.as_ref().and_then(|l| l.get(key)),
            "metadata.annotations" => meta.annotations.as_ref().and_then(|a| a.get(key)),
            _ => return Err(FieldError::Path(path.to_owned())),
        };
        return Ok(found.cloned().unwrap_or_default());
    }
    let joined = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => context.node_name.clone(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(&context.host_ips),
        "status.hostIPs" => joined(&context.host_ips),
        "status.podIP" => first(&context.pod_ips),
        "status.podIPs" => joined(&context.pod_ips),
        _ => return Err(FieldError::Path(path.to_owned())),
    })
}

/// `map['key']` taken apart; `None` for a path without a subscript.
fn subscript(path: &str) -> Result<Option<(&str, &str)>, FieldError> {
    let Some((map, rest)) = path.split_once('[') else { return Ok(None) };
    let inner = rest.strip_prefix('\'').and_then(|r| r.strip_suffix("']"));
    match inner {
        Some(key) if !key.is_empty() => Ok(Some((map, key))),
        _ => Err(FieldError::Subscript(path.to_owned())),
    }
}

/// A map as the downward API writes it: one `key="value"` a line, sorted by key, values quoted and escaped.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quote(v))).collect();
    lines.join("\n")
}

/// Quoted so that a value stays on one line: backslash escapes for quotes and control characters, the rest as it is.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`, divided and rounded up. A limit that is not set stands for the node's allocatable; a
/// request that is not set is 0.
pub fn resource_value(
    pod: &Pod,
    container: &str,
    resource: &str,
    divisor: Option<&str>,
    context: &PodContext,
) -> Result<String, FieldError> {
    let (list, name) = resource.split_once('.').ok_or_else(|| FieldError::Resource(resource.to_owned()))?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known || !matches!(list, "limits" | "requests") {
        return Err(FieldError::Resource(resource.to_owned()));
    }
    let divisor = match divisor.filter(|d| !d.is_empty()) {
        Some(text) => text.parse().map_err(|source| FieldError::Divisor { text: text.to_owned(), source })?,
        None => Quantity::ZERO,
    };
    let asked = resources(pod, container).ok_or_else(|| FieldError::Container(container.to_owned()))?;
    let amount = |list: &str| -> Result<Option<Quantity>, FieldError> {
        let from = asked.and_then(|r| if list == "limits" { r.limits.as_ref() } else { r.requests.as_ref() });
        let Some(text) = from.and_then(|l| l.get(name)) else { return Ok(None) };
        let parsed = text.0.parse::<Quantity>().map_err(|source| FieldError::Amount {
            container: container.to_owned(),
            resource: resource.to_owned(),
            text: text.0.clone(),
            source,
        })?;
        Ok(Some(parsed))
    };
    let value = match (list, amount(list)?) {
        (_, Some(found)) if !found.is_zero() => found,
        ("limits", _) => context.allocatable.get(name).copied().unwrap_or_default(),
        (_, found) => found.unwrap_or_default(),
    };
    Ok(value.div_ceil(divisor).to_string())
}

/// What a container of the pod asks for, if there is such a container. An ephemeral one can ask for nothing.
fn resources<'a>(pod: &'a Pod, name: &str) -> Option<Option<&'a ResourceRequirements>> {
    let spec = pod.spec.as_ref()?;
    let found = crate::pod::containers(spec).find(|c| c.name == name);
    let ephemeral = || spec.ephemeral_containers.iter().flatten().any(|c| c.name == name).then_some(None);
    found.map(|c| c.resources.as_ref()).or_else(ephemeral)
}

#[cfg(test)]
mod tests;
