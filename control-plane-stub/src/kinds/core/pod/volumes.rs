//! Validation of a pod's volumes.

use super::containers::local_path;
use super::env::{VOLUME_FIELDS, field_ref, resource_field_ref};
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{list, names, one_of, str};
use serde_json::Value;
use std::collections::BTreeMap;

/// Checks all volumes; returns them by name, true for those that may be block devices.
pub fn validate(e: &mut Errors, volumes: &[Value], path: &str) -> BTreeMap<String, bool> {
    let mut seen = BTreeMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = index(path, i);
        let name = str(volume, "name");
        if name.is_empty() {
            e.required(child(&path, "name"), "");
        } else {
            for problem in names::dns1123_label(name) {
                e.invalid(child(&path, "name"), name, problem);
            }
            let block = volume.get("persistentVolumeClaim").is_some() || volume.get("ephemeral").is_some();
            if seen.insert(name.to_string(), block).is_some() {
                e.duplicate(child(&path, "name"), name);
            }
        }
        let sources: Vec<(&String, &Value)> = volume.as_object().into_iter().flatten().filter(|(k, _)| *k != "name").collect();
        match sources.as_slice() {
            [] => e.required(path, "must specify a volume type"),
            [(kind, source), more @ ..] => {
                for (other, _) in more {
                    e.forbidden(child(&path, other), "may not specify more than 1 volume type");
                }
                self::source(e, kind, source, &child(&path, kind));
            }
        }
    }
    seen
}

fn source(e: &mut Errors, kind: &str, source: &Value, path: &str) {
    match kind {
        "emptyDir" => {
            let medium = str(source, "medium");
            if !medium.is_empty() && medium != "Memory" && !medium.starts_with("HugePages") {
                e.not_supported(child(path, "medium"), medium, &["", "HugePages", "Memory"]);
            }
            if let Some(size) = source.get("sizeLimit").and_then(Value::as_str).filter(|s| s.starts_with('-')) {
                e.forbidden(child(path, "sizeLimit"), format!("SizeLimit field must be a valid resource quantity, is {size}"));
            }
        }
        "hostPath" => {
            let host = str(source, "path");
            if host.is_empty() {
                e.required(child(path, "path"), "");
            }
            if host.split('/').any(|part| part == "..") {
                e.invalid(child(path, "path"), host, "must not contain '..'");
            }
            const TYPES: [&str; 8] =
                ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            one_of(e, source, "type", path, &TYPES, false);
        }
        "secret" => {
            if str(source, "secretName").is_empty() {
                e.required(child(path, "secretName"), "");
            }
            mode_and_items(e, source, path);
        }
        "configMap" => {
            if str(source, "name").is_empty() {
                e.required(child(path, "name"), "");
            }
            mode_and_items(e, source, path);
        }
        "downwardAPI" => {
            mode(e, source, "defaultMode", path);
            downward_items(e, source, path);
        }
        "projected" => projected(e, source, path),
        "persistentVolumeClaim" if str(source, "claimName").is_empty() => {
            e.required(child(path, "claimName"), "");
        }
        "csi" | "flexVolume" if str(source, "driver").is_empty() => {
            e.required(child(path, "driver"), "");
        }
        "nfs" => {
            for field in ["server", "path"] {
                if str(source, field).is_empty() {
                    e.required(child(path, field), "");
                }
            }
        }
        "image" => one_of(e, source, "pullPolicy", path, &["Always", "IfNotPresent", "Never"], false),
        "ephemeral" if source["volumeClaimTemplate"].is_null() => {
            e.required(child(path, "volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn mode(e: &mut Errors, object: &Value, field: &str, path: &str) {
    if let Some(mode) = object.get(field).and_then(Value::as_i64).filter(|m| !(0..=0o777).contains(m)) {
        e.invalid(child(path, field), mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn mode_and_items(e: &mut Errors, source: &Value, path: &str) {
    mode(e, source, "defaultMode", path);
    for (i, item) in list(source, "items").iter().enumerate() {
        let path = index(&child(path, "items"), i);
        if str(item, "key").is_empty() {
            e.required(child(&path, "key"), "");
        }
        item_path(e, item, &path);
        mode(e, item, "mode", &path);
    }
}

fn item_path(e: &mut Errors, item: &Value, path: &str) {
    let text = str(item, "path");
    let path = child(path, "path");
    if text.is_empty() {
        e.required(path, "");
        return;
    }
    local_path(e, text, &path);
    if text.starts_with("..") && !text.split('/').any(|part| part == "..") {
        e.invalid(path, text, "must not start with '..'");
    }
}

fn downward_items(e: &mut Errors, source: &Value, path: &str) {
    for (i, item) in list(source, "items").iter().enumerate() {
        let path = index(&child(path, "items"), i);
        item_path(e, item, &path);
        mode(e, item, "mode", &path);
        match (item.get("fieldRef"), item.get("resourceFieldRef")) {
            (Some(field), None) => field_ref(e, field, &child(&path, "fieldRef"), VOLUME_FIELDS),
            (None, Some(resource)) => resource_field_ref(e, resource, &child(&path, "resourceFieldRef"), true),
            (Some(_), Some(_)) => {
                e.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
            }
            (None, None) => e.required(path, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn projected(e: &mut Errors, source: &Value, path: &str) {
    mode(e, source, "defaultMode", path);
    for (i, source) in list(source, "sources").iter().enumerate() {
        let path = index(&child(path, "sources"), i);
        let given: Vec<(&String, &Value)> = source.as_object().into_iter().flatten().collect();
        if given.len() > 1 {
            e.forbidden(path.clone(), "may not specify more than 1 volume type");
        }
        for (kind, value) in given {
            let path = child(&path, kind);
            match kind.as_str() {
                "secret" | "configMap" => {
                    if str(value, "name").is_empty() {
                        e.required(child(&path, "name"), "");
                    }
                    mode_and_items(e, value, &path);
                }
                "downwardAPI" => downward_items(e, value, &path),
                "serviceAccountToken" => {
                    item_path(e, value, &path);
                    let seconds = value["expirationSeconds"].as_i64().unwrap_or(3600);
                    if seconds < 600 {
                        e.invalid(child(&path, "expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
                    }
                    if seconds > 1 << 32 {
                        e.invalid(
                            child(&path, "expirationSeconds"),
                            seconds,
                            "may not specify a duration larger than 2^32 seconds",
                        );
                    }
                }
                _ => {}
            }
        }
    }
}
