//! Mirror pods: objects in the API that stand for a pod which a node has from a file. They are never run.

use crate::pod::PodId;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use std::time::Duration;

const ANNOTATION: &str = "kubernetes.io/config.mirror";
const TRIES_EVERY: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn is(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(ANNOTATION))
}

/// Deletes the object at once; tries until the API has answered. One that refuses keeps it, which harms nobody.
pub(super) async fn delete(kube: kube::Client, id: PodId) {
    let api = kube::Api::<Pod>::namespaced(kube, &id.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(id.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    loop {
        match tokio::time::timeout(LIMIT, api.delete(&id.name, &params)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(s))) if s.code < 500 && s.code != 429 => {
                if !matches!(s.code, 404 | 409) {
                    tracing::warn!(pod = %id, code = s.code, reason = s.message, "the api refuses to delete a mirror pod");
                }
                return;
            }
            Ok(Err(error)) => tracing::debug!(pod = %id, %error, "cannot delete a mirror pod yet"),
            Err(_) => tracing::debug!(pod = %id, "no answer to the deletion of a mirror pod"),
        }
        tokio::time::sleep(TRIES_EVERY).await;
    }
}
