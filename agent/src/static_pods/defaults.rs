//! What an API server would have filled into a pod's spec. Pure.
//!
//! Facts from `pkg/apis/core/v1/defaults.go`. Works on JSON: a default is a field that is not there.

use serde_json::{Map, Value, json};

/// A number where a quantity is a text is the same quantity.
pub(super) fn quantities(pod: &mut Value) {
    let spec = &mut pod["spec"];
    texts(spec.get_mut("overhead"));
    resources(spec);
    for container in containers(spec) {
        resources(container);
        for env in list(container.get_mut("env")) {
            text(env.pointer_mut("/valueFrom/resourceFieldRef/divisor"));
        }
    }
    for volume in list(spec.get_mut("volumes")) {
        text(volume.pointer_mut("/emptyDir/sizeLimit"));
        let own = volume.get_mut("downwardAPI").and_then(|v| v.get_mut("items"));
        list(own).for_each(|item| text(item.pointer_mut("/resourceFieldRef/divisor")));
        for source in list(volume.pointer_mut("/projected/sources")) {
            list(source.pointer_mut("/downwardAPI/items")).for_each(|item| text(item.pointer_mut("/resourceFieldRef/divisor")));
        }
    }
}

fn resources(owner: &mut Value) {
    for which in ["/resources/limits", "/resources/requests"] {
        texts(owner.pointer_mut(which));
    }
}

fn texts(map: Option<&mut Value>) {
    map.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut).for_each(|value| text(Some(value)));
}

fn text(value: Option<&mut Value>) {
    if let Some(value) = value
        && let Value::Number(number) = value
    {
        *value = Value::String(number.to_string());
    }
}

pub(super) fn fill(spec: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        default(spec, field, value);
    }
    let host_network = spec["hostNetwork"] == true;
    for container in containers(spec) {
        fill_container(container, host_network);
    }
    for volume in list(spec.get_mut("volumes")) {
        fill_volume(volume);
    }
}

fn fill_container(container: &mut Value, host_network: bool) {
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    let image = container["image"].as_str().unwrap_or_default();
    let pull = if crate::images::reference::tag_is_latest(image) { "Always" } else { "IfNotPresent" };
    default(container, "imagePullPolicy", json!(pull));
    for port in list(container.get_mut("ports")) {
        default(port, "protocol", json!("TCP"));
        if host_network {
            let own = port["containerPort"].clone();
            default(port, "hostPort", own);
        }
    }
    for env in list(container.get_mut("env")) {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", json!("v1"));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name) {
            for (field, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                default(probe, field, json!(value));
            }
            http_get(probe);
            if let Some(grpc) = probe.get_mut("grpc") {
                default(grpc, "service", json!(""));
            }
        }
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(hook) = container.pointer_mut(hook) {
            http_get(hook);
        }
    }
    let Some(limits) = container.pointer("/resources/limits").and_then(Value::as_object).cloned() else { return };
    let requests = &mut container["resources"]["requests"];
    for (name, amount) in limits {
        default(requests, &name, amount);
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        default(get, "path", json!("/"));
        default(get, "scheme", json!("HTTP"));
    }
}

fn fill_volume(volume: &mut Value) {
    let Some(fields) = volume.as_object_mut() else { return };
    if fields.keys().all(|name| name == "name") {
        fields.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(path) = fields.get_mut("hostPath") {
        default(path, "type", json!(""));
    }
    for kind in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = fields.get_mut(kind) {
            default(source, "defaultMode", json!(0o644));
        }
    }
    list(fields.get_mut("downwardAPI").and_then(|v| v.get_mut("items"))).for_each(field_version);
    for source in list(fields.get_mut("projected").and_then(|v| v.get_mut("sources"))) {
        list(source.pointer_mut("/downwardAPI/items")).for_each(field_version);
    }
    if let Some(image) = fields.get_mut("image") {
        let name = image["reference"].as_str().unwrap_or_default();
        let pull = if crate::images::reference::tag_is_latest(name) { "Always" } else { "IfNotPresent" };
        default(image, "pullPolicy", json!(pull));
    }
}

fn field_version(item: &mut Value) {
    if let Some(field) = item.get_mut("fieldRef") {
        default(field, "apiVersion", json!("v1"));
    }
}

/// Sets a field that is not there, or is the zero of its type where an API server takes that for "not there".
fn default(object: &mut Value, field: &str, value: Value) {
    if object.is_null() {
        *object = json!({});
    }
    let Some(object) = object.as_object_mut() else { return };
    let absent = match object.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        // The one number that may be zero.
        Some(Value::Number(number)) => field != "terminationGracePeriodSeconds" && number.as_f64() == Some(0.0),
        Some(_) => false,
    };
    if absent {
        object.insert(field.to_owned(), value);
    }
}

fn list(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

fn containers(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    let fields = spec.as_object_mut().into_iter().flat_map(Map::iter_mut);
    let lists = fields.filter(|(name, _)| matches!(name.as_str(), "containers" | "initContainers"));
    lists.flat_map(|(_, value)| list(Some(value)))
}
