//! The events of a resize, from two statuses, in kubelet's words. Pure.

use super::Pending;
use crate::pod::status::resize::{IN_PROGRESS, PENDING};
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};

/// What the words are about.
pub struct About<'a> {
    /// The pod as the API has it.
    pub asked: &'a api::Pod,
    /// The pod as it was granted.
    pub granted: &'a api::Pod,
    pub pending: Option<&'a Pending>,
}

/// Reasons and messages.
pub fn events(before: &api::PodStatus, after: &api::PodStatus, about: &About<'_>) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let (was, is) = (condition(before, PENDING), condition(after, PENDING));
    if let (Some(is), Some(pending)) = (is, about.pending)
        && was.is_none_or(|was| (&was.reason, was.observed_generation) != (&is.reason, is.observed_generation))
    {
        let reason = if pending.infeasible { "ResizeInfeasible" } else { "ResizeDeferred" };
        let title = format!("Pod resize {}", pending.cause);
        out.push((reason, message(&title, about.asked, pending.generation, &pending.message)));
    }
    let (was, is) = (condition(before, IN_PROGRESS), condition(after, IN_PROGRESS));
    let generation = |c: &api::PodCondition| c.observed_generation.unwrap_or(0);
    let failed = |c: &api::PodCondition| c.reason.as_deref() == Some("Error");
    if let Some(is) = is
        && was.is_none_or(|was| generation(was) != generation(is))
    {
        out.push(("ResizeStarted", message("Pod resize started", about.granted, generation(is), "")));
    }
    if let Some(is) = is.filter(|c| failed(c))
        && was.is_none_or(|was| (generation(was), &was.reason, &was.message) != (generation(is), &is.reason, &is.message))
    {
        let why = is.message.as_deref().unwrap_or_default();
        out.push(("ResizeError", message("Pod resize error", about.granted, generation(is), why)));
    }
    // The end of the pod is not the end of its resize.
    let alive = !matches!(after.phase.as_deref(), Some("Succeeded" | "Failed"));
    if let (Some(was), None) = (was, is)
        && alive
    {
        out.push(("ResizeCompleted", message("Pod resize completed", about.granted, generation(was), "")));
    }
    out
}

fn condition<'a>(status: &'a api::PodStatus, name: &str) -> Option<&'a api::PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == name && c.status == "True")
}

/// The resources of all containers as text that programs can read.
fn message(title: &str, pod: &api::Pod, generation: i64, error: &str) -> String {
    let spec = pod.spec.as_ref();
    let list = |all: &[api::Container]| -> Vec<Value> {
        let one = |c: &api::Container| {
            let resources = c.resources.as_ref().and_then(|r| serde_json::to_value(r).ok()).unwrap_or_else(|| json!({}));
            json!({"name": c.name, "resources": resources})
        };
        all.iter().map(one).collect()
    };
    let init = spec.and_then(|s| s.init_containers.as_deref()).map(list).unwrap_or_default();
    let main = spec.map(|s| list(&s.containers)).unwrap_or_default();
    // Written part by part: the order of the fields is part of the words.
    let mut parts = Vec::new();
    for (name, all) in [("initContainers", init), ("containers", main)] {
        if !all.is_empty() {
            parts.push(format!("{}:{}", json!(name), Value::Array(all)));
        }
    }
    parts.push(format!("\"generation\":{generation}"));
    if !error.is_empty() {
        parts.push(format!("\"error\":{}", json!(error)));
    }
    format!("{title}: {{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> api::Pod {
        let object = json!({"spec": {
            "initContainers": [{"name": "i", "resources": {}}],
            "containers": [{"name": "c0", "image": "x", "resources": {"requests": {"cpu": cpu, "memory": "100"}, "limits": {"cpu": cpu}}}]}});
        serde_json::from_value(object).unwrap()
    }

    fn status(conditions: Value) -> api::PodStatus {
        serde_json::from_value(json!({"phase": "Running", "conditions": conditions})).unwrap()
    }

    fn pending(infeasible: bool) -> Pending {
        Pending {
            infeasible,
            cause: "OutOfcpu".into(),
            message: "Node didn't have enough resource: cpu".into(),
            generation: 2,
            since: crate::pod::testing::t(0),
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let (asked, granted, waits) = (pod("100m"), pod("50m"), pending(false));
        let about = About { asked: &asked, granted: &granted, pending: Some(&waits) };
        let none = status(json!([]));
        let deferred = status(json!([{"type": PENDING, "status": "True", "reason": "Deferred", "observedGeneration": 2}]));
        let told = events(&none, &deferred, &about);
        let summary = "{\"initContainers\":[{\"name\":\"i\",\"resources\":{}}],\"containers\":[{\"name\":\"c0\",\"resources\":\
            {\"limits\":{\"cpu\":\"100m\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"100\"}}}],\"generation\":2,\
            \"error\":\"Node didn't have enough resource: cpu\"}";
        assert_eq!(told, [("ResizeDeferred", format!("Pod resize OutOfcpu: {summary}"))]);
        assert!(events(&deferred, &deferred, &about).is_empty());

        let going = status(json!([{"type": IN_PROGRESS, "status": "True", "observedGeneration": 2}]));
        let wrong =
            status(json!([{"type": IN_PROGRESS, "status": "True", "reason": "Error", "message": "no", "observedGeneration": 2}]));
        let later = status(json!([{"type": IN_PROGRESS, "status": "True", "observedGeneration": 3}]));
        let reasons = |a, b| events(a, b, &about).into_iter().map(|(reason, _)| reason).collect::<Vec<_>>();
        assert_eq!(reasons(&deferred, &going), ["ResizeStarted"]);
        assert_eq!(reasons(&going, &wrong), ["ResizeError"]);
        assert_eq!(reasons(&wrong, &wrong), [""; 0]);
        assert_eq!(reasons(&wrong, &later), ["ResizeStarted"]);
        assert_eq!(reasons(&later, &none), ["ResizeCompleted"]);
        let ended = api::PodStatus { phase: Some("Failed".into()), ..none.clone() };
        assert_eq!(reasons(&later, &ended), [""; 0]);
        let never = pending(true);
        let infeasible = About { pending: Some(&never), ..about };
        assert_eq!(events(&going, &deferred, &infeasible)[0].0, "ResizeInfeasible");
    }
}
