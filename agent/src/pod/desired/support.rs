//! What this agent does not do of the pod API yet: every such field is found here and refused by name.

use super::Unsupported;
use crate::pod::ephemeral::{self, Ephemeral};
use k8s_openapi::api::core::v1 as api;

struct Found(Vec<Unsupported>);

impl Found {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Unsupported { field: field.into(), reason: reason.into() });
    }

    fn add_if(&mut self, wrong: bool, field: impl Into<String>, reason: &str) {
        if wrong {
            self.add(field, reason);
        }
    }
}

const NOT_YET: &str = "not supported by this node agent yet";

/// The ephemeral containers with what each of them alone is refused for, and all of these together. The rest of the pod, which
/// may have run for long, goes on without them. One whose name cannot be used is left out.
pub(super) fn ephemeral(spec: &api::PodSpec) -> (Vec<(api::Container, Ephemeral)>, Vec<Unsupported>) {
    let others = crate::pod::containers(spec).map(|c| c.name.clone());
    let mut seen: std::collections::BTreeSet<String> = others.collect();
    let (mut all, mut passed_over) = (Vec::new(), Vec::new());
    for (i, e) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = format!("spec.ephemeralContainers[{i}]");
        let mut f = Found(Vec::new());
        if let Some(why) = odd(&e.name) {
            f.add(format!("{path}.name"), why);
            passed_over.extend(f.0);
        } else if !seen.insert(e.name.clone()) {
            f.add(format!("{path}.name"), format!("two containers are named {:?}", e.name));
            passed_over.extend(f.0);
        } else {
            let c = ephemeral::as_container(e);
            container(&mut f, &path, &c, false);
            passed_over.extend(f.0.iter().cloned());
            let target = e.target_container_name.clone().filter(|t| !t.is_empty());
            all.push((c, Ephemeral { target, refused: f.0, ran: false }));
        }
    }
    (all, passed_over)
}

fn odd(name: &str) -> Option<String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    (name.is_empty() || name.len() > 253 || !plain || name.starts_with('.')).then(|| format!("{name:?} is not a DNS name"))
}

/// Names that become labels, folders and file names. The API server lets no others through; here they must not do harm.
pub(super) fn check_names(pod: &api::Pod) -> Vec<Unsupported> {
    let mut f = Found(Vec::new());
    let meta = &pod.metadata;
    for (field, name) in [("metadata.name", &meta.name), ("metadata.namespace", &meta.namespace)] {
        if let Some(why) = odd(name.as_deref().unwrap_or_default()) {
            f.add(field, why);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or(&[]);
    let main = spec.map_or(&[][..], |s| &s.containers);
    for (list, containers) in [("initContainers", inits), ("containers", main)] {
        for (i, c) in containers.iter().enumerate() {
            let field = format!("spec.{list}[{i}].name");
            if let Some(why) = odd(&c.name) {
                f.add(field, why);
            } else if !seen.insert(c.name.as_str()) {
                f.add(field, format!("two containers are named {:?}", c.name));
            }
        }
    }
    f.0
}

pub(super) fn check(spec: &api::PodSpec) -> Vec<Unsupported> {
    let mut f = Found(Vec::new());
    f.add_if(spec.resource_claims.iter().flatten().next().is_some(), "spec.resourceClaims", NOT_YET);
    if let Some(r) = &spec.resources {
        resources(&mut f, "spec.resources", r);
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        f.add("spec.os.name", format!("this node runs linux, not {:?}", os.name));
    }
    for (list, containers) in
        [("initContainers", spec.init_containers.as_deref().unwrap_or(&[])), ("containers", &spec.containers)]
    {
        for (i, c) in containers.iter().enumerate() {
            container(&mut f, &format!("spec.{list}[{i}]"), c, list == "initContainers");
        }
    }
    f.0
}

fn container(f: &mut Found, path: &str, c: &api::Container, init: bool) {
    if let Some(lifecycle) = &c.lifecycle {
        for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            let Some(hook) = hook else { continue };
            f.add_if(
                hook.tcp_socket.is_some(),
                format!("{path}.lifecycle.{name}.tcpSocket"),
                "the API has deprecated this handler",
            );
        }
    }
    let odd_policy = init && c.restart_policy.as_deref().is_some_and(|p| !matches!(p, "Always" | "OnFailure" | "Never"));
    f.add_if(odd_policy, format!("{path}.restartPolicy"), "unknown value");
    for (i, r) in c.restart_policy_rules.iter().flatten().enumerate() {
        let known = matches!(r.action.as_str(), "Restart" | "RestartAllContainers");
        f.add_if(!known, format!("{path}.restartPolicyRules[{i}].action"), NOT_YET);
    }
    if let Some(r) = &c.resources {
        resources(f, &format!("{path}.resources"), r);
    }
}

fn resources(f: &mut Found, path: &str, r: &api::ResourceRequirements) {
    f.add_if(r.claims.iter().flatten().next().is_some(), format!("{path}.claims"), NOT_YET);
    for (kind, list) in [("limits", &r.limits), ("requests", &r.requests)] {
        for (name, quantity) in list.iter().flatten() {
            let at = format!("{path}.{kind}[{name}]");
            match name.as_str() {
                name if matches!(name, "cpu" | "memory" | "ephemeral-storage") || crate::cgroup::page_size_of(name).is_some() => {
                    if let Err(e) = quantity.0.parse::<ferrolet_quantity::Quantity>() {
                        f.add(at, e.to_string());
                    }
                }
                _ => f.add(at, NOT_YET),
            }
        }
    }
}
