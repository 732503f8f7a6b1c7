//! What a write may change of a pod.

use super::resize;
use super::resources::qos_class;
use crate::kinds::meta::{bump_generation, keep, only, only_status, set};
use crate::kinds::{Op, Sub};
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
            keep_reported(new, old);
        }
        (Op::Update, Some(Sub::EphemeralContainers), Some(old)) => only_spec_parts(new, old, |spec, before| {
            let asked = std::mem::replace(spec, before.clone());
            keep(spec, &asked, "ephemeralContainers");
        }),
        (Op::Update, Some(Sub::Resize), Some(old)) => only_spec_parts(new, old, resize::prepare),
        // The registry itself writes a binding's node name and condition.
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

/// The class is fixed at creation, whatever a kubelet reports; a kubelet too old to say which generation it saw clears
/// nothing.
fn keep_reported(new: &mut Value, old: &Value) {
    let Some(status) = new.get_mut("status").filter(|s| s.is_object()) else { return };
    keep(status, &old["status"], "qosClass");
    if status.get("observedGeneration").is_none() {
        keep(status, &old["status"], "observedGeneration");
    }
}

fn only_spec_parts(new: &mut Value, old: &Value, change: impl FnOnce(&mut Value, &Value)) {
    only(new, old, "spec");
    if let Some(spec) = new.get_mut("spec") {
        change(spec, &old["spec"]);
    }
}
