//! Defaults of pods and pod templates.

use crate::kinds::meta::{Object, default, existing, is_unset, list_mut, object_mut};
use serde_json::{Value, json};

/// The defaults of a pod: those of any pod spec, and the few only a pod itself gets.
pub fn pod(object: &mut Value) {
    let Some(spec) = object.as_object_mut().and_then(|o| object_mut(o, "spec")) else { return };
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in list_mut(spec, list) {
            requests_from_limits(container);
        }
    }
    pod_level_requests(spec);
    default(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&json!(true)) {
        for list in ["containers", "initContainers"] {
            for container in list_mut(spec, list) {
                host_ports(container);
            }
        }
    }
}

/// The defaults of a template's pod.
pub fn template(template: &mut Object) {
    if let Some(spec) = object_mut(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Object) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "schedulerName", "default-scheduler");
    // Two names of one field: the older one mirrors the newer.
    let account =
        ["serviceAccountName", "serviceAccount"].iter().find_map(|f| spec.get(*f).filter(|v| !is_unset(Some(v))).cloned());
    if let Some(account) = account {
        spec.insert("serviceAccountName".to_string(), account.clone());
        spec.insert("serviceAccount".to_string(), account);
    }
    for volume in list_mut(spec, "volumes") {
        self::volume(volume);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list_mut(spec, list) {
            self::container(container);
        }
    }
}

/// `Always` for images without a tag or with `latest`, unless a digest names the image.
pub fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = match (name.contains('@'), name.split_once(':')) {
        (true, _) => false,
        (false, None) => true,
        (false, Some((_, tag))) => tag == "latest",
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn container(container: &mut Object) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in list_mut(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for env in list_mut(container, "env") {
        if let Some(field) = existing(env, "valueFrom").and_then(|v| existing(v, "fieldRef")) {
            default(field, "apiVersion", "v1");
        }
        if let Some(resource) = existing(env, "valueFrom").and_then(|v| existing(v, "resourceFieldRef")) {
            default(resource, "divisor", "0");
        }
        if let Some(file) = existing(env, "valueFrom").and_then(|v| existing(v, "fileKeyRef")) {
            default(file, "optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, name) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = existing(lifecycle, hook).and_then(|h| existing(h, "httpGet")) {
                http_get(get);
            }
        }
    }
}

fn probe(probe: &mut Object) {
    for (field, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)] {
        if probe.get(field).is_none_or(|v| v.is_null() || v.as_i64() == Some(0)) {
            probe.insert(field.to_string(), json!(value));
        }
    }
    if let Some(get) = existing(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = existing(probe, "grpc") {
        default(grpc, "service", "");
    }
}

fn http_get(get: &mut Object) {
    default(get, "path", "/");
    default(get, "scheme", "HTTP");
}

fn volume(volume: &mut Object) {
    if volume.iter().all(|(k, v)| k == "name" || v.is_null()) {
        volume.insert("emptyDir".to_string(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = existing(volume, "hostPath").filter(|p| p.get("type").is_none_or(Value::is_null)) {
        path.insert("type".to_string(), json!(""));
    }
    if let Some(image) = existing(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        default(image, "pullPolicy", policy);
    }
    if let Some(claim) = existing(volume, "ephemeral").and_then(|e| existing(e, "volumeClaimTemplate"))
        && let Some(spec) = object_mut(claim, "spec")
    {
        default(spec, "volumeMode", "Filesystem");
    }
    if let Some(downward) = existing(volume, "downwardAPI") {
        downward_items(downward);
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in list_mut(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
}

fn downward_items(downward: &mut Object) {
    for item in list_mut(downward, "items") {
        if let Some(field) = existing(item, "fieldRef") {
            default(field, "apiVersion", "v1");
        }
        if let Some(resource) = existing(item, "resourceFieldRef") {
            default(resource, "divisor", "0");
        }
    }
}

fn requests_from_limits(container: &mut Object) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else { return };
    let Some(requests) = object_mut(resources, "requests") else { return };
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// Pod-level limits without requests: the requests are the containers' sums where any has one, else the limits.
fn pod_level_requests(spec: &mut Object) {
    let limits = spec.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object).cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let sums = super::resources::effective_requests(spec);
    let Some(requests) = existing(spec, "resources").and_then(|r| object_mut(r, "requests")) else { return };
    for name in ["cpu", "memory"] {
        if let Some(sum) = sums.get(name) {
            requests.entry(name).or_insert_with(|| json!(sum.to_string()));
        }
    }
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn host_ports(container: &mut Object) {
    for port in list_mut(container, "ports") {
        if port.get("hostPort").is_none_or(|v| v.as_i64() == Some(0))
            && let Some(number) = port.get("containerPort").cloned()
        {
            port.insert("hostPort".to_string(), number);
        }
    }
}
