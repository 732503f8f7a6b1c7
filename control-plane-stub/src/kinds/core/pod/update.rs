//! What may change of a stored pod: next to nothing.

use super::restart;
use crate::kinds::field::{Errors, index};
use crate::kinds::meta::{list, set, str};
use serde_json::{Value, json};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself.
pub fn spec(e: &mut Errors, new: &Value, old: &Value) {
    let (new, old) = (&new["spec"], &old["spec"]);
    for which in ["containers", "initContainers"] {
        if list(new, which).len() != list(old, which).len() {
            e.forbidden(format!("spec.{which}"), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(e, new, old);
    tolerations(e, new, old);
    gates(e, new, old);
    // The rest must be equal once what may change is put back.
    let mut fixed = new.clone();
    for which in ["containers", "initContainers"] {
        if let Some(containers) = fixed.get_mut(which).and_then(Value::as_array_mut) {
            for (container, before) in containers.iter_mut().zip(list(old, which)) {
                set(container, "image", before["image"].clone());
            }
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        crate::kinds::meta::keep(&mut fixed, old, field);
    }
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) && new["terminationGracePeriodSeconds"] == json!(1) {
        crate::kinds::meta::keep(&mut fixed, old, "terminationGracePeriodSeconds");
    }
    // A gated pod is not placed yet: where it may go can still be narrowed.
    if !list(old, "schedulingGates").is_empty() {
        for field in ["nodeSelector", "affinity"] {
            crate::kinds::meta::keep(&mut fixed, old, field);
        }
    }
    if fixed != *old {
        e.forbidden("spec", format!("{FIXED}\n{}", difference(&fixed, old)));
    }
}

/// The names of the fields that differ, for the reader of the message.
fn difference(new: &Value, old: &Value) -> String {
    let mut fields: Vec<&String> =
        [new, old].iter().filter_map(|v| v.as_object()).flat_map(|o| o.keys()).filter(|k| new.get(*k) != old.get(*k)).collect();
    fields.sort();
    fields.dedup();
    let fields: Vec<String> = fields.iter().map(|f| format!("spec.{f}")).collect();
    format!("changed: {}", fields.join(", "))
}

fn deadline(e: &mut Errors, new: &Value, old: &Value) {
    let field = "spec.activeDeadlineSeconds";
    match (new["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64()) {
        (None, Some(_)) => e.invalid(field, Value::Null, "must not update from a positive integer to nil value"),
        (Some(new), Some(old)) if new > old => e.invalid(field, new, "must be less than or equal to previous value"),
        _ => {}
    }
}

fn tolerations(e: &mut Errors, new: &Value, old: &Value) {
    let strip = |t: &Value| {
        let mut t = t.clone();
        if let Some(map) = t.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        t
    };
    let now: Vec<Value> = list(new, "tolerations").iter().map(strip).collect();
    if !list(old, "tolerations").iter().all(|t| now.contains(&strip(t))) {
        e.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(e: &mut Errors, new: &Value, old: &Value) {
    let before: Vec<&str> = list(old, "schedulingGates").iter().map(|g| str(g, "name")).collect();
    for (i, gate) in list(new, "schedulingGates").iter().enumerate() {
        let name = str(gate, "name");
        if !before.contains(&name) {
            e.forbidden(
                index("spec.schedulingGates", i),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

/// Ephemeral containers are only ever added.
pub fn ephemeral(e: &mut Errors, new: &Value, old: &Value) {
    if old["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
        e.forbidden("", "static pods do not support ephemeral containers");
        return;
    }
    let now = list(&new["spec"], "ephemeralContainers");
    for before in list(&old["spec"], "ephemeralContainers") {
        let name = str(before, "name");
        match now.iter().find(|c| str(c, "name") == name) {
            None => e.forbidden("spec.ephemeralContainers", format!("existing ephemeral containers {name:?} may not be removed")),
            Some(c) if c != before => {
                e.forbidden("spec.ephemeralContainers", format!("existing ephemeral containers {name:?} may not be changed"));
            }
            Some(_) => {}
        }
    }
}

/// The status: nodes may not be swapped, and a container that has ended for good stays ended.
pub fn status(e: &mut Errors, new: &Value, old: &Value) {
    let (status, before) = (&new["status"], &old["status"]);
    if str(status, "nominatedNodeName").len() > 253 {
        e.invalid("status.nominatedNodeName", str(status, "nominatedNodeName"), "must be no more than 253 characters");
    }
    let spec = &old["spec"];
    if restart::all_again(spec) {
        return;
    }
    for old_state in list(before, "containerStatuses") {
        let name = str(old_state, "name");
        let Some(code) = old_state["state"]["terminated"]["exitCode"].as_i64() else { continue };
        let again = list(spec, "containers").iter().any(|c| str(c, "name") == name && restart::again(spec, c, code));
        let now = list(status, "containerStatuses").iter().find(|c| str(c, "name") == name);
        if now.is_some_and(|c| c["state"]["terminated"].is_null()) && !again {
            e.forbidden(
                "status.containerStatuses",
                format!("may not be transitioned to non-terminated state: container {name:?}"),
            );
        }
    }
}
