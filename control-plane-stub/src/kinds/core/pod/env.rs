//! Validation of what a container's environment is made of.

use super::containers::Context;
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{names, str};
use ferrolet_quantity::Quantity;
use serde_json::Value;

/// `env`.
pub fn env(e: &mut Errors, env: &[Value], path: &str, context: &Context) {
    for (i, var) in env.iter().enumerate() {
        let path = index(path, i);
        let name = str(var, "name");
        if name.is_empty() {
            e.required(child(&path, "name"), "");
        } else {
            for problem in names::env_name(name) {
                e.invalid(child(&path, "name"), name, problem);
            }
        }
        if let Some(source) = var.get("valueFrom") {
            env_source(e, var, source, &child(&path, "valueFrom"), context);
        }
    }
}

fn env_source(e: &mut Errors, var: &Value, source: &Value, path: &str, context: &Context) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<&str> = SOURCES.into_iter().filter(|s| source.get(*s).is_some()).collect();
    match given.len() {
        0 => e.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        1 => {
            if !str(var, "value").is_empty() {
                e.invalid(path, "", "may not be specified when `value` is not empty");
            }
        }
        _ => e.invalid(path, "", "may not have more than one field specified at a time"),
    }
    for kind in given {
        let (source, path) = (&source[kind], child(path, kind));
        match kind {
            "fieldRef" => field_ref(e, source, &path, ENV_FIELDS),
            "resourceFieldRef" => resource_field_ref(e, source, &path, false),
            "configMapKeyRef" | "secretKeyRef" => key_ref(e, source, &path),
            _ => file_key_ref(e, source, &path, context),
        }
    }
}

fn key_ref(e: &mut Errors, source: &Value, path: &str) {
    let key = str(source, "key");
    if str(source, "name").is_empty() {
        e.required(child(path, "name"), "");
    }
    if key.is_empty() {
        e.required(child(path, "key"), "");
    } else {
        for problem in names::config_key(key) {
            e.invalid(child(path, "key"), key, problem);
        }
    }
}

fn file_key_ref(e: &mut Errors, source: &Value, path: &str, context: &Context) {
    let (key, volume, file) = (str(source, "key"), str(source, "volumeName"), str(source, "path"));
    if key.is_empty() {
        e.required(child(path, "key"), "");
    } else {
        for problem in names::env_name(key) {
            e.invalid(child(path, "key"), key, problem);
        }
    }
    let at = child(path, "volumeName");
    if volume.is_empty() {
        e.required(at.clone(), "");
    } else {
        for problem in names::dns1123_label(volume) {
            e.invalid(at.clone(), volume, problem);
        }
    }
    if !context.volumes.contains_key(volume) {
        e.not_found(at, volume);
    } else if !context.empty_dirs.contains(volume) {
        e.invalid(at, volume, "referenced volume must be of type emptyDir");
    }
    if file.is_empty() {
        e.required(child(path, "path"), "");
    } else if file.split('/').any(|part| part == "..") {
        e.invalid(child(path, "path"), file, "must not contain '..'");
    }
}

/// The pod fields environment variables may show.
pub const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The pod fields a downward API file may show.
pub const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

pub fn field_ref(e: &mut Errors, source: &Value, path: &str, allowed: &[&str]) {
    let field = str(source, "fieldPath");
    if str(source, "apiVersion").is_empty() {
        e.required(child(path, "apiVersion"), "");
    }
    if field.is_empty() {
        e.required(child(path, "fieldPath"), "");
        return;
    }
    let path = child(path, "fieldPath");
    let subscript =
        ["metadata.labels['", "metadata.annotations['"].into_iter().find_map(|p| field.strip_prefix(p)?.strip_suffix("']"));
    match subscript {
        Some(key) => {
            for problem in names::qualified(&key.to_lowercase()) {
                e.invalid(path.clone(), key, problem);
            }
        }
        None if allowed.contains(&field) => {}
        None => e.not_supported(path, field, allowed),
    }
}

pub fn resource_field_ref(e: &mut Errors, source: &Value, path: &str, in_volume: bool) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let resource = str(source, "resource");
    if in_volume && str(source, "containerName").is_empty() {
        e.required(child(path, "containerName"), "");
    }
    if resource.is_empty() {
        e.required(child(path, "resource"), "");
    } else if !RESOURCES.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        e.not_supported(child(path, "resource"), resource, &RESOURCES);
    } else if let Some(divisor) = source.get("divisor").and_then(Value::as_str) {
        let allowed: &[&str] = if resource.ends_with(".cpu") {
            &["1m", "1"]
        } else {
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
        };
        let is = |text: &&str| matches!((text.parse::<Quantity>(), divisor.parse::<Quantity>()), (Ok(a), Ok(b)) if a == b);
        if divisor != "0" && !allowed.iter().any(is) {
            e.not_supported(child(path, "divisor"), divisor, allowed);
        }
    }
}

pub fn env_from(e: &mut Errors, sources: &[Value], path: &str) {
    for (i, source) in sources.iter().enumerate() {
        let path = index(path, i);
        let prefix = str(source, "prefix");
        if !prefix.is_empty() {
            for problem in names::env_name(prefix) {
                e.invalid(child(&path, "prefix"), prefix, problem);
            }
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|s| source.get(*s).is_some()).collect();
        match given.as_slice() {
            [] => e.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            [one] => {
                if str(&source[*one], "name").is_empty() {
                    e.required(format!("{path}.{one}.name"), "");
                }
            }
            _ => e.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

#[cfg(test)]
mod tests;
