//! Pods for tests.

use crate::pod::Desired;
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};
use std::sync::Arc;

/// A pod of this spec, with identity and defaults.
pub fn pod(spec: Value) -> Arc<api::Pod> {
    let mut object = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "generation": 1},
        "spec": {"containers": [{"name": "main", "image": "img:1"}]}
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

pub fn desired(spec: Value) -> Desired {
    Desired::of(&pod(spec))
}
