//! The scale subresource of Deployments and ReplicaSets: an `autoscaling/v1` Scale made from the object, and back.

use serde_json::{Value, json};

/// The Scale of an object with `spec.replicas`, `spec.selector` and `status.replicas`.
pub fn of(object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut scale_meta = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(v) = meta.get(key) {
            scale_meta[key] = v.clone();
        }
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": scale_meta,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": super::selector::format_object(&object["spec"]["selector"]),
        },
    })
}

/// Writes a Scale's replicas into the object it scales.
pub fn apply(object: &mut Value, scale: &Value) {
    object["spec"]["replicas"] = json!(scale["spec"]["replicas"].as_i64().unwrap_or(0));
}
