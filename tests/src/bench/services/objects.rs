//! The cluster that is measured: its objects as lines of a watch, as long as those of a real API server.
//!
//! Pure. Service `n` has address `service_ip(n)` and TCP port 80; every tenth one has UDP port 53 too.

use serde_json::{Value, json};
use std::net::Ipv4Addr;

pub const NODE: &str = "node-1";
pub const TCP_PORT: u16 = 80;
pub const UDP_PORT: u16 = 53;
/// What endpoints listen on.
pub const TARGET_PORT: u16 = 8080;
/// All endpoints are in here.
pub const ENDPOINTS: &str = "10.128.0.0/9";
/// Every so many services have a UDP port.
pub const UDP_EVERY: u32 = 10;
/// Endpoints of one node are as many as a node runs pods.
const PODS_A_NODE: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub services: u32,
    /// Of each service; at most 15.
    pub endpoints: u32,
    /// Whether some services have a UDP port.
    pub udp: bool,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.services == 1 { "" } else { "s" };
        write!(f, "{} service{plural} of {}", thousands(self.services), self.endpoints)
    }
}

pub fn thousands(n: u32) -> String {
    if n >= 1000 && n.is_multiple_of(1000) { format!("{}k", n / 1000) } else { n.to_string() }
}

pub fn service_ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0001 + n)
}

pub fn endpoint_ip(n: u32, e: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + n * 16 + e)
}

/// Addresses that no endpoint has had.
pub fn fresh_ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0ac0_0000 + n)
}

pub fn endpoints(shape: Shape, n: u32) -> Vec<Ipv4Addr> {
    (0..shape.endpoints).map(|e| endpoint_ip(n, e)).collect()
}

fn has_udp(shape: Shape, n: u32) -> bool {
    shape.udp && n.is_multiple_of(UDP_EVERY)
}

fn uid(n: u32) -> String {
    format!("5f1c8a52-7d1b-4c58-9d52-{n:012x}")
}

fn metadata(name: &str, n: u32, revision: u64) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": uid(n), "resourceVersion": revision.to_string(), "generation": 1,
        "creationTimestamp": "2026-03-01T10:00:00Z",
    })
}

/// A line that says that one kind's list is complete.
pub fn end_of(kind: &str) -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    let version = match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "ServiceCIDR" => "networking.k8s.io/v1",
        _ => "v1",
    };
    let metadata = json!({"resourceVersion": "1", "annotations": annotations});
    let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
    line("BOOKMARK", &object)
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// The node itself, with an address.
pub fn node(ip: &str) -> String {
    let status = json!({"addresses": [{"type": "InternalIP", "address": ip}]});
    let metadata = json!({"name": NODE, "uid": uid(0), "resourceVersion": "1"});
    line("ADDED", &json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata, "status": status}))
}

pub fn service(shape: Shape, n: u32) -> String {
    let mut ports = vec![json!({"name": "web", "protocol": "TCP", "port": TCP_PORT, "targetPort": TARGET_PORT})];
    if has_udp(shape, n) {
        ports.push(json!({"name": "dns", "protocol": "UDP", "port": UDP_PORT, "targetPort": TARGET_PORT}));
    }
    let mut meta = metadata(&format!("service-{n}"), n, 1);
    meta["labels"] = json!({"app.kubernetes.io/name": format!("service-{n}"), "app.kubernetes.io/part-of": "shop"});
    meta["managedFields"] = json!([{
        "manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1", "time": "2026-03-01T10:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/part-of": {}}},
            "f:spec": {"f:internalTrafficPolicy": {}, "f:ports": {}, "f:selector": {}, "f:sessionAffinity": {}, "f:type": {}}},
    }]);
    let ip = service_ip(n).to_string();
    let object = json!({
        "kind": "Service", "apiVersion": "v1", "metadata": meta,
        "spec": {
            "ports": ports, "selector": {"app.kubernetes.io/name": format!("service-{n}")}, "clusterIP": ip, "clusterIPs": [ip],
            "type": "ClusterIP", "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    });
    line("ADDED", &object)
}

/// The one slice of a service; `event` is the type of the line.
pub fn slice(shape: Shape, event: &str, n: u32, ips: &[Ipv4Addr], revision: u64) -> String {
    let name = format!("service-{n}");
    let mut meta = metadata(&format!("{name}-x7k2p"), n, revision);
    meta["generateName"] = json!(format!("{name}-"));
    meta["labels"] = json!({
        "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop", "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    meta["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-03-01T10:00:00Z"});
    meta["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Service", "name": name, "uid": uid(n), "controller": true, "blockOwnerDeletion": true,
    }]);
    meta["managedFields"] = json!([{
        "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "discovery.k8s.io/v1",
        "time": "2026-03-01T10:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:addressType": {}, "f:endpoints": {}, "f:metadata": {"f:annotations": {}, "f:generateName": {},
            "f:labels": {".": {}, "f:kubernetes.io/service-name": {}}, "f:ownerReferences": {}}, "f:ports": {}},
    }]);
    let endpoint = |(e, ip): (usize, &Ipv4Addr)| {
        let node = (n * shape.endpoints + e as u32) % (shape.services * shape.endpoints).div_ceil(PODS_A_NODE).max(1);
        json!({
            "addresses": [ip.to_string()], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", node + 1), "zone": format!("zone-{}", node % 3),
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("{name}-6c9f8d7b54-{e:05}"), "uid": uid(e as u32)},
        })
    };
    let mut ports = vec![json!({"name": "web", "protocol": "TCP", "port": TARGET_PORT})];
    if has_udp(shape, n) {
        ports.push(json!({"name": "dns", "protocol": "UDP", "port": TARGET_PORT}));
    }
    let object = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": meta, "addressType": "IPv4",
        "endpoints": ips.iter().enumerate().map(endpoint).collect::<Vec<_>>(), "ports": ports,
    });
    line(event, &object)
}

#[cfg(test)]
mod tests;
