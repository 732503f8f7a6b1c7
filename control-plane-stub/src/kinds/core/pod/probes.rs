//! Validation of probes and lifecycle hooks.

use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{list, names, non_negative, one_of, str};
use serde_json::Value;

/// `which` is the field's name: `livenessProbe`, `readinessProbe` or `startupProbe`.
pub fn probe(e: &mut Errors, probe: &Value, path: &str, which: &str) {
    handler(e, probe, path, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(e, probe, field, path);
    }
    let success = probe["successThreshold"].as_i64().unwrap_or(1);
    if which != "readinessProbe" && success != 1 {
        e.invalid(child(path, "successThreshold"), success, "must be 1");
    }
    if let Some(grace) = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64) {
        let path = child(path, "terminationGracePeriodSeconds");
        if which == "readinessProbe" {
            e.invalid(path, grace, "must not be set for readinessProbes");
        } else if grace <= 0 {
            e.invalid(path, grace, "must be greater than 0");
        }
    }
}

pub fn lifecycle(e: &mut Errors, lifecycle: &Value, path: &str) {
    for hook in ["postStart", "preStop"] {
        if let Some(value) = lifecycle.get(hook) {
            handler(e, value, &child(path, hook), &["exec", "httpGet", "tcpSocket", "sleep"]);
        }
    }
}

/// Exactly one of the handlers, and that one well formed.
fn handler(e: &mut Errors, object: &Value, path: &str, handlers: &[&str]) {
    let mut first = None;
    for name in handlers.iter().copied().filter(|h| object.get(*h).is_some()) {
        if first.is_some() {
            e.forbidden(child(path, name), "may not specify more than 1 handler type");
            continue;
        }
        first = Some(name);
        let (value, path) = (&object[name], child(path, name));
        match name {
            "exec" => {
                if list(value, "command").is_empty() {
                    e.required(child(&path, "command"), "");
                }
            }
            "httpGet" => http_get(e, value, &path),
            "tcpSocket" => port(e, &value["port"], &child(&path, "port")),
            "grpc" => number(e, value["port"].as_i64().unwrap_or(0), &child(&path, "port")),
            _ => non_negative(e, value, "seconds", &path),
        }
    }
    if first.is_none() {
        e.required(path, "must specify a handler type");
    }
}

fn http_get(e: &mut Errors, get: &Value, path: &str) {
    if str(get, "path").is_empty() {
        e.required(child(path, "path"), "");
    }
    port(e, &get["port"], &child(path, "port"));
    one_of(e, get, "scheme", path, &["HTTP", "HTTPS"], true);
    for (i, header) in list(get, "httpHeaders").iter().enumerate() {
        let name = str(header, "name");
        for problem in names::header_name(name) {
            e.invalid(child(&index(&child(path, "httpHeaders"), i), "name"), name, problem);
        }
    }
}

fn number(e: &mut Errors, number: i64, path: &str) {
    for problem in names::port_number(number) {
        e.invalid(path, number, problem);
    }
}

/// A port by number or by name.
pub fn port(e: &mut Errors, port: &Value, path: &str) {
    match port {
        Value::String(name) => {
            for problem in names::port_name(name) {
                e.invalid(path, name.as_str(), problem);
            }
        }
        other => number(e, other.as_i64().unwrap_or(0), path),
    }
}
