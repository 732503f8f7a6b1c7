//! What a user may do. Simple and honest, without RBAC objects:
//! `system:masters` everything; nodes what their own node and its pods need; bootstrap tokens certificate requests; everybody
//! who is authenticated discovery and questions about themselves; service accounts nothing more than that.
//! Reads the store to follow a node to its pods; must never write.

use serde_json::Value;

use super::route::{Query, ResourceTarget};
use crate::kinds;
use crate::registry::{ListOptions, Registry, User};

/// One question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    pub group: String,
    pub namespace: String,
    pub resource: String,
    pub sub: String,
    pub name: String,
    /// `spec.nodeName=a`, as the client sent it.
    pub field_selector: String,
    /// Set if this is about no API object.
    pub path: Option<String>,
}

impl Attributes {
    pub fn resource(verb: &str, target: &ResourceTarget, query: &Query) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            group: target.group.clone(),
            namespace: target.namespace.clone(),
            resource: target.plural.clone(),
            sub: target.sub.clone(),
            name: target.name.clone(),
            field_selector: query.get("fieldSelector").to_owned(),
            path: None,
        }
    }

    pub fn path(verb: &str, path: &str) -> Attributes {
        Attributes { verb: verb.to_owned(), path: Some(path.to_owned()), ..Attributes::default() }
    }

    fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// The one name this is limited to, by URL or by field selector.
    fn one_name(&self) -> Option<&str> {
        if !self.name.is_empty() {
            return Some(&self.name);
        }
        self.selects("metadata.name")
    }

    fn selects(&self, field: &str) -> Option<&str> {
        self.field_selector.split(',').find_map(|term| {
            let (name, value) = term.split_once('=')?;
            (name == field).then(|| value.trim_start_matches('='))
        })
    }

    /// The sentence a refused user reads.
    pub fn describe(&self, user: &User) -> String {
        if let Some(path) = &self.path {
            return format!("User {:?} cannot {} path {path:?}", user.name, self.verb);
        }
        let resource = if self.sub.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.sub) };
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        format!("User {:?} cannot {} resource {resource:?} in API group {:?} {scope}", user.name, self.verb, self.group)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(String),
}

fn deny(reason: impl Into<String>) -> Decision {
    Decision::Deny(reason.into())
}

const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz", "/.well-known", "/openid"];

pub async fn authorize(registry: &Registry, user: &User, ask: &Attributes) -> Decision {
    if user.is_in("system:masters") {
        return Decision::Allow;
    }
    if let Some(path) = &ask.path {
        let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        let allowed = matches!(ask.verb.as_str(), "get" | "head") && DISCOVERY.iter().any(|root| below(root));
        return if allowed && user.is_in("system:authenticated") { Decision::Allow } else { deny("") };
    }
    let own_review = matches!(
        (ask.group.as_str(), ask.resource.as_str()),
        ("authorization.k8s.io", "selfsubjectaccessreviews") | ("authentication.k8s.io", "selfsubjectreviews")
    );
    if own_review && ask.verb == "create" && user.is_in("system:authenticated") {
        return Decision::Allow;
    }
    if user.is_in("system:bootstrappers") {
        let csr = ask.is("certificates.k8s.io", "certificatesigningrequests") && ask.sub.is_empty();
        return if csr && (ask.reads() || ask.verb == "create") { Decision::Allow } else { deny("") };
    }
    match user.node() {
        Some(node) => node_may(registry, node, ask).await,
        None => deny(""),
    }
}

/// What the kinds allow a node by verb alone; nothing: it depends on the object.
fn node_by_kind(ask: &Attributes) -> Option<bool> {
    let verb = ask.verb.as_str();
    let any = |verbs: &[&str]| verbs.contains(&verb);
    let reads = ask.reads();
    let allowed = match (ask.group.as_str(), ask.resource.as_str(), ask.sub.as_str()) {
        ("", "services", "") | ("discovery.k8s.io", "endpointslices", "") => reads,
        ("", "persistentvolumes" | "persistentvolumeclaims" | "serviceaccounts" | "namespaces", "") => verb == "get",
        ("", "events", "") | ("events.k8s.io", "events", "") => any(&["create", "update", "patch"]),
        ("certificates.k8s.io", "certificatesigningrequests", "") => reads || verb == "create",
        ("authentication.k8s.io", "tokenreviews", "") => verb == "create",
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => verb == "create",
        ("storage.k8s.io", "csidrivers" | "storageclasses", "") | ("node.k8s.io", "runtimeclasses", "") => reads,
        ("storage.k8s.io", "csinodes", "") => any(&["get", "create", "update", "patch", "delete"]),
        _ => return None,
    };
    Some(allowed)
}

async fn node_may(registry: &Registry, node: &str, ask: &Attributes) -> Decision {
    if let Some(allowed) = node_by_kind(ask) {
        return if allowed { Decision::Allow } else { deny("") };
    }
    let verb = ask.verb.as_str();
    let writes = matches!(verb, "create" | "update" | "patch");
    match (ask.group.as_str(), ask.resource.as_str(), ask.sub.as_str()) {
        ("", "nodes", "") if ask.reads() && ask.one_name() != Some(node) => {
            deny(format!("node {node:?} cannot read {:?}, only its own Node object", ask.one_name().unwrap_or("all nodes")))
        }
        ("", "nodes", "" | "status") if ask.reads() || writes => own(node, ask, "Node"),
        ("coordination.k8s.io", "leases", "") if ask.namespace != "kube-node-lease" => {
            deny(format!("node {node:?} can only access leases in the \"kube-node-lease\" namespace"))
        }
        ("coordination.k8s.io", "leases", "") if verb == "get" || verb == "delete" || writes => own(node, ask, "Lease"),
        ("", "pods", sub) => node_and_pods(registry, node, ask, sub).await,
        ("", "secrets" | "configmaps", "") if ask.reads() => match ask.one_name() {
            Some(name) if uses(registry, node, &ask.namespace, &ask.resource, name).await => Decision::Allow,
            Some(_) => deny(format!("no relationship found between node {node:?} and this object")),
            None => deny("can only read resources of this type by name"),
        },
        ("", "serviceaccounts", "token") if verb == "create" => {
            if uses(registry, node, &ask.namespace, "serviceaccounts", &ask.name).await {
                Decision::Allow
            } else {
                deny(format!("no relationship found between node {node:?} and this object"))
            }
        }
        _ => deny(""),
    }
}

fn own(node: &str, ask: &Attributes, what: &str) -> Decision {
    // The name of what is created is in the body; admission looks at it.
    match ask.one_name() {
        None if ask.verb == "create" => Decision::Allow,
        Some(name) if name == node => Decision::Allow,
        _ => deny(format!("node {node:?} can only access its own {what}")),
    }
}

async fn node_and_pods(registry: &Registry, node: &str, ask: &Attributes, sub: &str) -> Decision {
    match (ask.verb.as_str(), sub) {
        ("list" | "watch", "") if ask.selects("spec.nodeName") == Some(node) => Decision::Allow,
        ("list" | "watch", "") => deny("can only list/watch pods with spec.nodeName field selector"),
        ("create", "") => Decision::Allow, // Mirror pods only: admission.
        ("get" | "delete", "") | ("update" | "patch" | "get", "status") | ("create", "eviction") => {
            match registry.get(&kinds::POD, &ask.namespace, &ask.name).await {
                // A pod that is gone cannot be told from another's: let the answer be that it is not found.
                Err(_) => Decision::Allow,
                Ok(pod) if on_node(&pod) == node => Decision::Allow,
                Ok(_) => deny(format!("no relationship found between node {node:?} and this object")),
            }
        }
        _ => deny(""),
    }
}

fn on_node(pod: &Value) -> &str {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a pod on the node refers to the object.
async fn uses(registry: &Registry, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
    let Ok(pods) = registry.list(&kinds::POD, Some(namespace), &ListOptions::default()).await else { return false };
    if resource == "configmaps" && name == "kube-root-ca.crt" {
        return pods.items.iter().any(|pod| on_node(pod) == node);
    }
    pods.items.iter().filter(|pod| on_node(pod) == node).any(|pod| refers(pod, resource, name))
}

/// Whether a pod's spec names a secret, a config map or a service account. Pure.
pub fn refers(pod: &Value, resource: &str, name: &str) -> bool {
    let Some(spec) = pod.get("spec") else { return false };
    let says = |v: Option<&Value>| v.and_then(Value::as_str) == Some(name);
    let (reference, source, source_name, volume) = match resource {
        "serviceaccounts" => return says(spec.get("serviceAccountName")),
        "secrets" => ("secretKeyRef", "secretRef", "secretName", "secret"),
        "configmaps" => ("configMapKeyRef", "configMapRef", "name", "configMap"),
        _ => return false,
    };
    let list = |v: &Value, field: &str| v.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    let by_container = containers.iter().flat_map(|c| list(spec, c)).any(|container| {
        let env = list(&container, "env").iter().any(|e| says(e.pointer(&format!("/valueFrom/{reference}/name"))));
        env || list(&container, "envFrom").iter().any(|e| says(e.pointer(&format!("/{source}/name"))))
    });
    let by_volume = list(spec, "volumes").iter().any(|v| {
        let plain = v.get(volume).is_some_and(|s| says(s.get(source_name)));
        let sources = v.get("projected").map(|p| list(p, "sources")).unwrap_or_default();
        let csi = volume == "secret" && says(v.pointer("/csi/nodePublishSecretRef/name"));
        plain || csi || sources.iter().any(|s| says(s.pointer(&format!("/{volume}/name"))))
    });
    let by_pull = resource == "secrets" && list(spec, "imagePullSecrets").iter().any(|s| says(s.get("name")));
    by_container || by_volume || by_pull
}

#[cfg(test)]
mod tests;
