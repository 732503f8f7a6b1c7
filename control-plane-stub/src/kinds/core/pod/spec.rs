//! Validation of a pod spec, a pod's or a template's.

use super::{containers, volumes};
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{self, label_selector, labels, list, names, non_negative, one_of, str};
use serde_json::Value;
use std::collections::BTreeSet;

pub fn validate(e: &mut Errors, spec: &Value, path: &str) {
    let host_network = spec["hostNetwork"] == Value::Bool(true);
    let volumes = volumes::validate(e, list(spec, "volumes"), &child(path, "volumes"));
    let empty_dirs = list(spec, "volumes").iter().filter(|v| v.get("emptyDir").is_some()).map(|v| str(v, "name")).collect();
    let context = containers::Context {
        host_network,
        host_users: spec["hostUsers"] != Value::Bool(false),
        volumes: &volumes,
        empty_dirs: &empty_dirs,
    };
    containers::validate(e, spec, path, &context);
    one_of(e, spec, "restartPolicy", path, &["Always", "Never", "OnFailure"], true);
    one_of(e, spec, "dnsPolicy", path, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], true);
    one_of(e, spec, "preemptionPolicy", path, &["Never", "PreemptLowerPriority"], false);
    non_negative(e, spec, "terminationGracePeriodSeconds", path);
    if let Some(v) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64).filter(|v| !(1..=i64::from(i32::MAX)).contains(v))
    {
        e.invalid(child(path, "activeDeadlineSeconds"), v, "must be between 1 and 2147483647, inclusive");
    }
    labels(e, &spec["nodeSelector"], &child(path, "nodeSelector"));
    for (field, rule) in [
        ("serviceAccountName", names::dns1123_subdomain as meta::NameRule),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ] {
        let text = str(spec, field);
        if !text.is_empty() {
            for problem in rule(text) {
                e.invalid(child(path, field), text, problem);
            }
        }
    }
    for (i, toleration) in list(spec, "tolerations").iter().enumerate() {
        self::toleration(e, toleration, &index(&child(path, "tolerations"), i));
    }
    dns_config(e, spec, path);
    host_aliases(e, spec, path);
    security_context(e, &spec["securityContext"], &child(path, "securityContext"));
    spread(e, spec, path);
    affinity(e, &spec["affinity"], &child(path, "affinity"));
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        qualified(e, str(gate, "conditionType"), &format!("{path}.readinessGates[{i}].conditionType"));
    }
    let mut gates = BTreeSet::new();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let (name, path) = (str(gate, "name"), format!("{path}.schedulingGates[{i}]"));
        qualified(e, name, &child(&path, "name"));
        if !gates.insert(name) {
            e.duplicate(path, name);
        }
    }
    if spec.get("resources").is_some() {
        containers::resources(e, &spec["resources"], &child(path, "resources"), containers::Role::Main);
    }
    if spec["hostUsers"] == Value::Bool(false) {
        // The names are the API server's.
        for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec[field] == Value::Bool(true) {
                e.forbidden(child(path, name), "when `hostUsers` is false");
            }
        }
    }
}

fn qualified(e: &mut Errors, text: &str, path: &str) {
    for problem in names::qualified(text) {
        e.invalid(path, text, problem);
    }
}

fn toleration(e: &mut Errors, t: &Value, path: &str) {
    let (key, operator, value) = (str(t, "key"), str(t, "operator"), str(t, "value"));
    if !key.is_empty() {
        qualified(e, key, &child(path, "key"));
    } else if operator != "Exists" {
        e.invalid(
            child(path, "operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if t.get("tolerationSeconds").is_some() && str(t, "effect") != "NoExecute" {
        e.invalid(child(path, "effect"), str(t, "effect"), "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    match operator {
        "" | "Equal" => {
            for problem in names::label_value(value) {
                e.invalid(child(path, "operator"), value, problem);
            }
        }
        "Exists" => {
            if !value.is_empty() {
                e.invalid(child(path, "operator"), t.clone(), "value must be empty when `operator` is 'Exists'");
            }
        }
        other => e.not_supported(child(path, "operator"), other, &["Equal", "Exists"]),
    }
    one_of(e, t, "effect", path, &EFFECTS, false);
}

pub const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

fn dns_config(e: &mut Errors, spec: &Value, path: &str) {
    let config = &spec["dnsConfig"];
    let path = child(path, "dnsConfig");
    let servers = list(config, "nameservers");
    if str(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            e.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            e.required(child(&path, "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > 3 {
        e.invalid(child(&path, "nameservers"), config["nameservers"].clone(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        for problem in names::ip(server) {
            e.invalid(index(&child(&path, "nameservers"), i), server, problem);
        }
    }
    let searches = list(config, "searches");
    if searches.len() > 32 {
        e.invalid(child(&path, "searches"), config["searches"].clone(), "must not have more than 32 search paths");
    }
    for (i, option) in list(config, "options").iter().enumerate() {
        if str(option, "name").is_empty() {
            e.required(index(&child(&path, "options"), i), "must not be empty");
        }
    }
}

fn host_aliases(e: &mut Errors, spec: &Value, path: &str) {
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = index(&child(path, "hostAliases"), i);
        for problem in names::ip(str(alias, "ip")) {
            e.invalid(child(&path, "ip"), str(alias, "ip"), problem);
        }
        for (i, name) in list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            for problem in names::dns1123_subdomain(name) {
                e.invalid(index(&child(&path, "hostnames"), i), name, problem);
            }
        }
    }
}

fn security_context(e: &mut Errors, context: &Value, path: &str) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context.get(field).and_then(Value::as_i64).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            e.invalid(child(path, field), id, "must be between 0 and 2147483647, inclusive");
        }
    }
    one_of(e, context, "fsGroupChangePolicy", path, &["Always", "OnRootMismatch"], false);
    containers::seccomp(e, &context["seccompProfile"], &child(path, "seccompProfile"));
    let mut seen = BTreeSet::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let (name, path) = (str(sysctl, "name"), format!("{path}.sysctls[{i}].name"));
        let good = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        };
        if name.is_empty() {
            e.required(path, "");
        } else if name.len() > 253 || !name.split(['.', '/']).all(good) {
            e.invalid(path, name, "must have at most 253 characters and be lower case parts separated by dots or slashes");
        } else if !seen.insert(name) {
            e.duplicate(path, name);
        }
    }
}

fn spread(e: &mut Errors, spec: &Value, path: &str) {
    let mut seen = BTreeSet::new();
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = index(&child(path, "topologySpreadConstraints"), i);
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            e.invalid(child(&path, "maxSkew"), skew, "must be greater than zero");
        }
        let (key, when) = (str(constraint, "topologyKey"), str(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            e.required(child(&path, "topologyKey"), "can not be empty");
        } else {
            qualified(e, key, &child(&path, "topologyKey"));
        }
        one_of(e, constraint, "whenUnsatisfiable", &path, &["DoNotSchedule", "ScheduleAnyway"], true);
        if !seen.insert((key, when)) {
            e.duplicate(format!("{path}.{{topologyKey, whenUnsatisfiable}}"), format!("{{{key}, {when}}}"));
        }
        if let Some(min) = constraint.get("minDomains").and_then(Value::as_i64).filter(|m| *m <= 0) {
            e.invalid(child(&path, "minDomains"), min, "must be greater than zero");
        }
        label_selector(e, &constraint["labelSelector"], &child(&path, "labelSelector"));
    }
}

fn affinity(e: &mut Errors, affinity: &Value, path: &str) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = affinity.get("nodeAffinity") {
        let path = child(path, "nodeAffinity");
        if let Some(required) = node.get(REQUIRED) {
            let path = format!("{path}.{REQUIRED}.nodeSelectorTerms");
            let terms = list(required, "nodeSelectorTerms");
            if terms.is_empty() {
                e.required(path.clone(), "must have at least one node selector term");
            }
            for (i, term) in terms.iter().enumerate() {
                node_term(e, term, &index(&path, i));
            }
        }
        for (i, preferred) in list(node, PREFERRED).iter().enumerate() {
            let path = index(&child(&path, PREFERRED), i);
            weight(e, preferred, &path);
            node_term(e, &preferred["preference"], &child(&path, "preference"));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (pods, path) = (&affinity[kind], child(path, kind));
        for (i, term) in list(pods, REQUIRED).iter().enumerate() {
            pod_term(e, term, &index(&child(&path, REQUIRED), i));
        }
        for (i, preferred) in list(pods, PREFERRED).iter().enumerate() {
            let path = index(&child(&path, PREFERRED), i);
            weight(e, preferred, &path);
            pod_term(e, &preferred["podAffinityTerm"], &child(&path, "podAffinityTerm"));
        }
    }
}

fn weight(e: &mut Errors, preferred: &Value, path: &str) {
    let weight = preferred["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        e.invalid(child(path, "weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(e: &mut Errors, term: &Value, path: &str) {
    for which in ["matchExpressions", "matchFields"] {
        for (i, req) in list(term, which).iter().enumerate() {
            let path = index(&child(path, which), i);
            let count = list(req, "values").len();
            match str(req, "operator") {
                "In" | "NotIn" if count == 0 => {
                    e.required(child(&path, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if count > 0 => {
                    e.forbidden(child(&path, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
                "Gt" | "Lt" if count != 1 => {
                    e.required(child(&path, "values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => e.invalid(child(&path, "operator"), other, "not a valid selector operator"),
            }
            qualified(e, str(req, "key"), &child(&path, "key"));
        }
    }
}

fn pod_term(e: &mut Errors, term: &Value, path: &str) {
    let key = str(term, "topologyKey");
    if key.is_empty() {
        e.required(child(path, "topologyKey"), "can not be empty");
    } else {
        qualified(e, key, &child(path, "topologyKey"));
    }
    label_selector(e, &term["labelSelector"], &child(path, "labelSelector"));
    label_selector(e, &term["namespaceSelector"], &child(path, "namespaceSelector"));
}
