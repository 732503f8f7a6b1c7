//! Pods for tests, and what the runtime has of them.

use crate::pod::observed::{Container, State};
use crate::pod::{Desired, Time};
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

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

/// A moment, in seconds from one long ago.
pub fn t(seconds: i64) -> Time {
    Time::from_second(1_000_000 + seconds).unwrap()
}

/// The first instance of a container in the sandbox `s`, made at second 0, of which no more is known.
pub fn instance(name: &str, state: State) -> Container {
    Container {
        id: format!("{name}-0"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt: 0,
        state,
        created_at: t(0),
        started_at: None,
        image: String::new(),
        image_id: String::new(),
        hash: None,
        backoff: Duration::ZERO,
        user: None,
        stop_signal: None,
        resources: None,
        round: 0,
    }
}
