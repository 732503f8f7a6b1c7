//! What a write may change of a pod, and the binding to a node.

use super::resources::qos_class;
use crate::kinds::meta::{bump_generation, keep, list, only, only_status, set, str};
use crate::kinds::{Op, Sub, schema};
use jiff::Timestamp;
use serde_json::{Value, json};

pub fn prepare(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => {
            let status = json!({"phase": "Pending", "qosClass": qos_class(new)});
            set(new, "status", status);
        }
        (Op::Update, Some(Sub::Status), Some(old)) => {
            // Kubelets may change labels of their pods with the status.
            let labels = new["metadata"].get("labels").cloned();
            only_status(new, old);
            if let (Some(labels), Some(meta)) = (labels, new.get_mut("metadata")) {
                set(meta, "labels", labels);
            }
            keep_qos(new, old);
        }
        (Op::Update, Some(Sub::EphemeralContainers), Some(old)) => only_spec_parts(new, old, |spec, before| {
            let asked = std::mem::replace(spec, before.clone());
            keep(spec, &asked, "ephemeralContainers");
        }),
        (Op::Update, Some(Sub::Resize), Some(old)) => only_spec_parts(new, old, |spec, before| {
            let asked = spec.clone();
            *spec = before.clone();
            if let Some(resources) = asked.get("resources") {
                set(spec, "resources", resources.clone());
            }
            for which in ["containers", "initContainers"] {
                let Some(containers) = spec.get_mut(which).and_then(Value::as_array_mut) else { continue };
                for container in containers {
                    let name = str(container, "name").to_string();
                    let Some(wanted) = list(&asked, which).iter().find(|c| str(c, "name") == name) else { continue };
                    for field in ["resources", "resizePolicy"] {
                        keep(container, wanted, field);
                    }
                }
            }
        }),
        (Op::Update, Some(Sub::Binding), Some(_)) => {}
        (Op::Update, _, Some(old)) => {
            keep(new, old, "status");
            keep_spec(new, old, "ephemeralContainers");
        }
    }
    bump_generation(new, old, &["spec"]);
}

fn keep_spec(new: &mut Value, old: &Value, field: &str) {
    if let Some(spec) = new.get_mut("spec") {
        keep(spec, &old["spec"], field);
    }
}

/// The class is fixed at creation, whatever a kubelet reports.
fn keep_qos(new: &mut Value, old: &Value) {
    if let Some(status) = new.get_mut("status").filter(|s| s.is_object()) {
        keep(status, &old["status"], "qosClass");
    }
}

fn only_spec_parts(new: &mut Value, old: &Value, change: impl FnOnce(&mut Value, &Value)) {
    only(new, old, "spec");
    if let Some(spec) = new.get_mut("spec") {
        change(spec, &old["spec"]);
    }
}

/// Why a pod cannot be bound: HTTP 409.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    #[error("pod {pod} is being deleted, cannot be assigned to a host")]
    Deleting { pod: String },
    #[error("pod {pod} is already assigned to node {node:?}")]
    Assigned { pod: String, node: String },
    #[error("pod {pod} has non-empty .spec.schedulingGates")]
    Gated { pod: String },
}

/// Carries out a `Binding` on a pod: the node's name, the binding's labels and annotations, the PodScheduled condition.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), BindError> {
    let name = str(&pod["metadata"], "name").to_string();
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(BindError::Deleting { pod: name });
    }
    let assigned = str(&pod["spec"], "nodeName");
    if !assigned.is_empty() {
        return Err(BindError::Assigned { pod: name, node: assigned.to_string() });
    }
    if !list(&pod["spec"], "schedulingGates").is_empty() {
        return Err(BindError::Gated { pod: name });
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["labels", "annotations"] {
        for (k, v) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][k] = v.clone();
        }
    }
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": schema::seconds(now)});
    let mut conditions: Vec<Value> = list(&pod["status"], "conditions").to_vec();
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(condition);
    pod["status"]["conditions"] = Value::Array(conditions);
    Ok(())
}
