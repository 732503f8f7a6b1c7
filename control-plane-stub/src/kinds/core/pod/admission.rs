//! What admission adds to a new pod besides defaults: its service account with the token volume, its priority, and the
//! tolerations that keep it on a node that is gone for a while. A pure step for the registry to call on create.

use crate::kinds::meta::{list, set, str};
use serde_json::{Value, json};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the registry found out about a pod's surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission<'a> {
    /// Five random letters for the token volume's name.
    pub suffix: &'a str,
    /// The service account's own `automountServiceAccountToken`.
    pub account_automount: Option<bool>,
    /// Value and preemption policy of the pod's priority class, or of the global default.
    pub priority: Option<(i64, String)>,
}

/// Completes a new pod. Call after the defaults and before validation.
pub fn admit(pod: &mut Value, admission: &Admission) {
    if !pod["spec"].is_object() {
        return;
    }
    if str(&pod["spec"], "serviceAccountName").is_empty() {
        pod["spec"]["serviceAccountName"] = json!("default");
        pod["spec"]["serviceAccount"] = json!("default");
    }
    let (priority, preemption) = admission.priority.clone().unwrap_or((0, "PreemptLowerPriority".to_string()));
    let spec = &mut pod["spec"];
    set(spec, "priority", json!(priority));
    if spec.get("preemptionPolicy").is_none() {
        set(spec, "preemptionPolicy", json!(preemption));
    }
    tolerations(spec);
    let automount = spec["automountServiceAccountToken"].as_bool().or(admission.account_automount).unwrap_or(true);
    if automount {
        token_volume(spec, admission.suffix);
    }
}

fn tolerations(spec: &mut Value) {
    let mut tolerations = list(spec, "tolerations").to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            let key_fits = str(t, "key") == key || (str(t, "key").is_empty() && str(t, "operator") == "Exists");
            key_fits && ["", "NoExecute"].contains(&str(t, "effect"))
        });
        if !tolerated {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    set(spec, "tolerations", Value::Array(tolerations));
}

/// The projected volume with token, root certificate and namespace, mounted where clients look for it.
fn token_volume(spec: &mut Value, suffix: &str) {
    let name = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for which in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(which).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let mut mounts = list(container, "volumeMounts").to_vec();
            if !mounts.iter().any(|m| str(m, "mountPath") == TOKEN_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
                set(container, "volumeMounts", Value::Array(mounts));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    let mut volumes = list(spec, "volumes").to_vec();
    volumes.push(json!({
        "name": name,
        "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]},
    }));
    set(spec, "volumes", Value::Array(volumes));
}
