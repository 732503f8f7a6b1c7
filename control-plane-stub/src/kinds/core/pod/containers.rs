//! Validation of containers: names, images, ports, environment, mounts, resources.

use super::{env, probes, restart};
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{list, names, one_of, str};
use ferrolet_quantity::Quantity;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Which of a pod's three lists a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Main,
    Init,
    Ephemeral,
}

impl Role {
    pub fn field(self) -> &'static str {
        match self {
            Role::Main => "containers",
            Role::Init => "initContainers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }
}

/// What the containers of one pod must agree on.
pub struct Context<'a> {
    pub host_network: bool,
    /// Not in a user namespace of its own.
    pub host_users: bool,
    /// The pod's volumes by name; true for claims, which may be devices.
    pub volumes: &'a BTreeMap<String, bool>,
    /// Those of them that containers may write files of variables into.
    pub empty_dirs: &'a BTreeSet<&'a str>,
}

/// All containers of a pod spec.
pub fn validate(e: &mut Errors, spec: &Value, path: &str, context: &Context) {
    if list(spec, "containers").is_empty() {
        e.required(child(path, "containers"), "");
    }
    let mut seen = BTreeSet::new();
    let plain = || list(spec, "containers").iter().chain(list(spec, "initContainers"));
    for (i, c) in list(spec, "ephemeralContainers").iter().enumerate() {
        let target = str(c, "targetContainerName");
        if !target.is_empty() && !plain().any(|c| str(c, "name") == target) {
            e.not_found(child(&index(&child(path, "ephemeralContainers"), i), "targetContainerName"), target);
        }
    }
    for role in [Role::Main, Role::Init, Role::Ephemeral] {
        let mut host_ports = BTreeSet::new();
        for (i, c) in list(spec, role.field()).iter().enumerate() {
            let path = index(&child(path, role.field()), i);
            let name = str(c, "name");
            if !name.is_empty() && !seen.insert(name) {
                e.duplicate(child(&path, "name"), name);
            }
            container(e, c, &path, role, context);
            if role == Role::Main || c["restartPolicy"] == "Always" {
                conflicting_host_ports(e, c, &path, &mut host_ports);
            }
        }
    }
}

fn container(e: &mut Errors, c: &Value, path: &str, role: Role, context: &Context) {
    let name = str(c, "name");
    if name.is_empty() {
        e.required(child(path, "name"), "");
    } else {
        for problem in names::dns1123_label(name) {
            e.invalid(child(path, "name"), name, problem);
        }
    }
    let image = str(c, "image");
    if image.is_empty() {
        e.required(child(path, "image"), "");
    } else if image.trim() != image {
        e.invalid(child(path, "image"), image, "must not have leading or trailing whitespace");
    }
    one_of(e, c, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], true);
    one_of(e, c, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"], true);
    if let Some(dir) = c.get("workingDir").and_then(Value::as_str).filter(|d| d.contains('\0')) {
        e.invalid(child(path, "workingDir"), dir, "must not contain a zero byte");
    }
    restart::policy(e, c, path, role);
    ports(e, c, &child(path, "ports"), context.host_network, role);
    env::env(e, list(c, "env"), &child(path, "env"), context);
    env::env_from(e, list(c, "envFrom"), &child(path, "envFrom"));
    volume_mounts(e, c, path, context, role);
    resources(e, &c["resources"], &child(path, "resources"), role);
    security_context(e, &c["securityContext"], &child(path, "securityContext"));
    if context.host_users && c["securityContext"]["procMount"] == "Unmasked" {
        let path = child(&child(path, "securityContext"), "procMount");
        e.invalid(path, "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    let sidecar = role == Role::Init && c["restartPolicy"] == "Always";
    for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        let Some(value) = c.get(field) else { continue };
        let path = child(path, field);
        match role {
            Role::Main => {}
            Role::Init if sidecar => {}
            Role::Init => {
                e.forbidden(path, "may not be set for init containers without restartPolicy=Always");
                continue;
            }
            Role::Ephemeral => {
                e.forbidden(path, "cannot be set for an Ephemeral Container");
                continue;
            }
        }
        if field == "lifecycle" { probes::lifecycle(e, value, &path) } else { probes::probe(e, value, &path, field) }
    }
    if role == Role::Ephemeral {
        for field in ["ports", "resources"] {
            if c.get(field)
                .is_some_and(|v| !matches!(v, Value::Object(m) if m.is_empty()) && !matches!(v, Value::Array(a) if a.is_empty()))
            {
                e.forbidden(child(path, field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn ports(e: &mut Errors, c: &Value, path: &str, host_network: bool, role: Role) {
    if role == Role::Ephemeral {
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in list(c, "ports").iter().enumerate() {
        let path = index(path, i);
        let name = str(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !seen.insert(name) {
                e.duplicate(child(&path, "name"), name);
            }
            for problem in problems {
                e.invalid(child(&path, "name"), name, problem);
            }
        }
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if number == 0 {
            e.required(child(&path, "containerPort"), "");
        }
        let host = port["hostPort"].as_i64().unwrap_or(0);
        for (field, number) in [("containerPort", number), ("hostPort", host)] {
            if number != 0 {
                for problem in names::port_number(number) {
                    e.invalid(child(&path, field), number, problem);
                }
            }
        }
        if host_network && host != 0 && host != number {
            e.invalid(child(&path, "containerPort"), number, "must match `hostPort` when `hostNetwork` is true");
        }
        let ip = str(port, "hostIP");
        if !ip.is_empty() {
            for problem in names::ip(ip) {
                e.invalid(child(&path, "hostIP"), ip, problem);
            }
        }
        one_of(e, port, "protocol", &path, &PROTOCOLS, true);
    }
}

fn conflicting_host_ports(e: &mut Errors, c: &Value, path: &str, seen: &mut BTreeSet<String>) {
    for (i, port) in list(c, "ports").iter().enumerate() {
        let host = port["hostPort"].as_i64().unwrap_or(0);
        if host == 0 {
            continue;
        }
        let used = format!("{}/{}/{host}", str(port, "protocol"), str(port, "hostIP"));
        if !seen.insert(used.clone()) {
            e.duplicate(format!("{path}.ports[{i}].hostPort"), used);
        }
    }
}

fn volume_mounts(e: &mut Errors, c: &Value, path: &str, context: &Context, role: Role) {
    let mut paths = BTreeSet::new();
    for (i, mount) in list(c, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        let (name, mount_path) = (str(mount, "name"), str(mount, "mountPath"));
        if name.is_empty() {
            e.required(child(&path, "name"), "");
        } else if !context.volumes.contains_key(name) {
            e.not_found(child(&path, "name"), name);
        }
        if mount_path.is_empty() {
            e.required(child(&path, "mountPath"), "");
        } else if !paths.insert(mount_path) {
            e.invalid(child(&path, "mountPath"), mount_path, "must be unique");
        }
        let (sub, expr) = (str(mount, "subPath"), str(mount, "subPathExpr"));
        if !sub.is_empty() && !expr.is_empty() {
            e.invalid(child(&path, "subPathExpr"), expr, "subPathExpr and subPath are mutually exclusive");
        }
        for (field, value) in [("subPath", sub), ("subPathExpr", expr)] {
            local_path(e, value, &child(&path, field));
            if role == Role::Ephemeral && !value.is_empty() {
                e.forbidden(child(&path, field), "cannot be set for an Ephemeral Container");
            }
        }
        one_of(e, mount, "mountPropagation", &path, &["Bidirectional", "HostToContainer", "None"], false);
        if str(mount, "mountPropagation") == "Bidirectional" && c["securityContext"]["privileged"] != Value::Bool(true) {
            e.forbidden(
                child(&path, "mountPropagation"),
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
    for (i, device) in list(c, "volumeDevices").iter().enumerate() {
        let path = format!("{path}.volumeDevices[{i}]");
        let (name, device_path) = (str(device, "name"), str(device, "devicePath"));
        match context.volumes.get(name) {
            _ if name.is_empty() => e.required(child(&path, "name"), ""),
            None => e.not_found(child(&path, "name"), name),
            Some(false) => e.invalid(
                child(&path, "name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(true) => {}
        }
        if device_path.is_empty() {
            e.required(child(&path, "devicePath"), "");
        } else if !paths.insert(device_path) {
            e.invalid(child(&path, "devicePath"), device_path, "must be unique");
        }
    }
}

/// A relative path that stays below its start.
pub fn local_path(e: &mut Errors, text: &str, path: &str) {
    if text.starts_with('/') {
        e.invalid(path, text, "must be a relative path");
    }
    if text.split('/').any(|part| part == "..") {
        e.invalid(path, text, "must not contain '..'");
    }
}

/// Limits and requests: known or qualified names, amounts of at least nothing, requests within limits.
pub fn resources(e: &mut Errors, resources: &Value, path: &str, role: Role) {
    if role == Role::Ephemeral {
        return;
    }
    for which in ["limits", "requests"] {
        for (name, amount) in resources[which].as_object().into_iter().flatten() {
            let path = format!("{path}.{which}[{name}]");
            for problem in names::qualified(name) {
                e.invalid(path.clone(), name.as_str(), problem);
            }
            let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.starts_with("hugepages-");
            if !name.contains('/') && !standard {
                e.invalid(path.clone(), name.as_str(), "must be a standard resource for containers");
            }
            if let Some(q) = amount.as_str().and_then(|a| a.parse::<Quantity>().ok()) {
                if q.is_negative() {
                    e.invalid(path.clone(), amount.clone(), "must be greater than or equal to 0");
                }
                if name.contains('/') && q.milli() % 1000 != 0 {
                    e.invalid(path, amount.clone(), "must be an integer");
                }
            }
        }
    }
    let parse = |v: Option<&Value>| v.and_then(Value::as_str).and_then(|s| s.parse::<Quantity>().ok());
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = resources["limits"].get(name);
        let path = format!("{path}.requests");
        let overcommit = !name.contains('/') && !name.starts_with("hugepages-");
        match (parse(Some(request)), parse(limit)) {
            (Some(r), Some(l)) if overcommit && r > l => {
                e.invalid(path, request.clone(), format!("must be less than or equal to {name} limit of {l}"));
            }
            (Some(r), Some(l)) if !overcommit && r != l => {
                e.invalid(path, request.clone(), format!("must be equal to {name} limit of {l}"));
            }
            (Some(_), None) if !overcommit => {
                e.required(format!("{path}[{name}]"), "limit must be set for non overcommitable resources")
            }
            _ => {}
        }
    }
}

fn security_context(e: &mut Errors, context: &Value, path: &str) {
    for field in ["runAsUser", "runAsGroup"] {
        if let Some(id) = context.get(field).and_then(Value::as_i64).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            e.invalid(child(path, field), id, "must be between 0 and 2147483647, inclusive");
        }
    }
    if context["allowPrivilegeEscalation"] == Value::Bool(false) && context["privileged"] == Value::Bool(true) {
        e.invalid(path, context.clone(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    one_of(e, context, "procMount", path, &["Default", "Unmasked"], false);
    seccomp(e, &context["seccompProfile"], &child(path, "seccompProfile"));
}

pub fn seccomp(e: &mut Errors, profile: &Value, path: &str) {
    if profile.is_null() {
        return;
    }
    one_of(e, profile, "type", path, &["Localhost", "RuntimeDefault", "Unconfined"], true);
    let localhost = str(profile, "localhostProfile");
    match (str(profile, "type") == "Localhost", localhost.is_empty()) {
        (true, true) => e.required(child(path, "localhostProfile"), "must be set when seccomp type is Localhost"),
        (true, false) => local_path(e, localhost, &child(path, "localhostProfile")),
        (false, false) => e.invalid(child(path, "localhostProfile"), localhost, "can only be set when seccomp type is Localhost"),
        (false, true) => {}
    }
}
