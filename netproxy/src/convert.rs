//! Wire objects to model objects: the only place where API text is parsed.
//!
//! Pure. What is wrong in an object is left out of it, with the field named, and the rest of it served: one endpoint that cannot be
//! must not end all others. An object that is not ours to serve (headless, ExternalName, another proxy's) is `None`.

use crate::model::{Endpoint, Family, Hints, Key, Proto, Service, ServicePort, Slice, SlicePort};
use crate::wire;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const ENDPOINTSLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
/// What the API fills in for ClientIP affinity without a timeout.
const DEFAULT_AFFINITY_SECONDS: i64 = 10_800;

/// Something in an object of the API that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {object}: field {field}: {reason}")]
pub struct ConvertError {
    pub kind: &'static str,
    pub object: String,
    pub field: String,
    pub reason: String,
}

pub fn key(meta: &wire::Metadata) -> Key {
    Key::new(&meta.namespace, &meta.name)
}

/// Collects what is wrong with one object.
struct Faults<'a> {
    kind: &'static str,
    object: &'a wire::Metadata,
    found: &'a mut Vec<ConvertError>,
}

impl Faults<'_> {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        let object = key(self.object).to_string();
        self.found.push(ConvertError { kind: self.kind, object, field: field.into(), reason: reason.into() });
    }

    /// The value, or nothing and one fault more.
    fn take<T>(&mut self, field: impl FnOnce() -> String, value: Result<T, String>) -> Option<T> {
        value.map_err(|why| self.add(field(), why)).ok()
    }

    fn address(&mut self, text: &str, field: impl FnOnce() -> String, what: &str) -> Option<IpAddr> {
        let ip = address(text).and_then(|ip| match unusable(&ip) {
            true => Err(format!("{ip} cannot be {what}")),
            false => Ok(ip),
        });
        self.take(field, ip)
    }
}

/// The service, or `None` when no rules are to be made for it. What is wrong is left out and named; nothing is made of a service
/// whose restrictions cannot be read.
pub fn service(s: &wire::Service, faults: &mut Vec<ConvertError>) -> Option<Service> {
    let spec = &s.spec;
    if s.metadata.labels.contains_key(LABEL_PROXY_NAME) || spec.type_.as_deref() == Some("ExternalName") || is_headless(spec) {
        return None;
    }
    let mut faults = Faults { kind: "service", object: &s.metadata, found: faults };
    let texts = match spec.cluster_ips.is_empty() {
        true => spec.cluster_ip.as_slice(),
        false => &spec.cluster_ips,
    };
    let numbered = texts.iter().enumerate();
    let cluster_ips: Vec<IpAddr> =
        numbered.filter_map(|(i, t)| faults.address(t, || format!("spec.clusterIPs[{i}]"), "a cluster IP")).collect();
    if cluster_ips.is_empty() {
        return None;
    }
    // The API server lets empty ones pass.
    let numbered = spec.external_ips.iter().enumerate().filter(|(_, t)| !t.trim().is_empty());
    let external_ips: Vec<IpAddr> =
        numbered.filter_map(|(i, t)| faults.address(t, || format!("spec.externalIPs[{i}]"), "an external IP")).collect();
    let mut load_balancer_ips = Vec::new();
    for (i, ingress) in spec.ingress.iter().enumerate() {
        // With a host name only, or a balancer that addresses its packets anew, no packet comes with this address.
        let vip = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        let Some(text) = ingress.ip.as_deref().filter(|t| !t.is_empty() && vip) else { continue };
        let field = || format!("status.loadBalancer.ingress[{i}].ip");
        load_balancer_ips.extend(faults.address(text, field, "a load balancer's address"));
    }
    let mut source_ranges = Vec::with_capacity(spec.load_balancer_source_ranges.len());
    for (i, text) in spec.load_balancer_source_ranges.iter().enumerate() {
        source_ranges.push(faults.take(|| format!("spec.loadBalancerSourceRanges[{i}]"), range(text))?);
    }
    let numbered = spec.ports.iter().enumerate();
    let ports = numbered.filter_map(|(i, p)| service_port(p, i, &mut faults)).collect();
    let affinity = affinity(spec);
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    // The policy and the health check stay in the object when its type changes.
    let external_local = local && (balanced || spec.type_.as_deref() == Some("NodePort") || !external_ips.is_empty());
    let health = spec.health_check_node_port.filter(|n| *n != 0 && balanced && local);
    let health = health.and_then(|n| faults.take(|| "spec.healthCheckNodePort".into(), port(n.into())));
    Some(Service {
        cluster_ips,
        ports,
        external_local,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        affinity: faults.take(|| "spec.sessionAffinityConfig.clientIP.timeoutSeconds".into(), affinity)?,
        external_ips,
        load_balancer_ips,
        source_ranges,
        health_check_node_port: health,
    })
}

fn service_port(p: &wire::ServicePort, i: usize, faults: &mut Faults<'_>) -> Option<ServicePort> {
    let field = |name: &str| format!("spec.ports[{i}].{name}");
    let node_port = p.node_port.filter(|n| *n != 0);
    Some(ServicePort {
        name: p.name.as_str().into(),
        proto: faults.take(|| field("protocol"), proto(p.protocol.as_deref()))?,
        port: faults.take(|| field("port"), port(p.port))?,
        node_port: node_port.and_then(|n| faults.take(|| field("nodePort"), port(n))),
    })
}

fn is_headless(spec: &wire::ServiceSpec) -> bool {
    let none = |ip: &str| ip == "None" || ip.is_empty();
    match spec.cluster_ips.first() {
        Some(first) => none(first),
        None => spec.cluster_ip.as_deref().is_none_or(none),
    }
}

fn affinity(spec: &wire::ServiceSpec) -> Result<Option<u32>, String> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return Ok(None);
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = config.and_then(|c| c.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS);
    match u32::try_from(seconds) {
        Ok(s) if (1..=86_400).contains(&s) => Ok(Some(s)),
        _ => Err(format!("{seconds} is not within 1 to 86400")),
    }
}

/// The slice, or `None` when it belongs to no service, or to a headless one, or holds host names. Endpoints and ports that are wrong
/// are left out and named.
pub fn slice(s: &wire::EndpointSlice, node_name: &str, faults: &mut Vec<ConvertError>) -> Option<Slice> {
    let labels = &s.metadata.labels;
    let owner = labels.get(LABEL_SERVICE_NAME).filter(|n| !n.is_empty())?;
    if labels.contains_key(LABEL_HEADLESS) {
        return None;
    }
    let mut faults = Faults { kind: "endpointslice", object: &s.metadata, found: faults };
    let family = match s.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return None,
        other => {
            faults.add("addressType", format!("{other:?} is not known"));
            return None;
        }
    };
    let mut ports = Vec::with_capacity(s.ports.len());
    for (i, p) in s.ports.iter().enumerate() {
        // No port means all ports, which no service rule can use. The API server does not look at the numbers.
        let Some(number) = p.port.filter(|n| *n != 0) else { continue };
        let read = proto(p.protocol.as_deref()).map_err(|why| (format!("ports[{i}].protocol"), why));
        match read.and_then(|proto| Ok((proto, port(number).map_err(|why| (format!("ports[{i}].port"), why))?))) {
            Ok((proto, port)) => ports.push(SlicePort { name: p.name.as_str().into(), proto, port }),
            Err((field, why)) => faults.add(field, why),
        }
    }
    let mut shared = Vec::new();
    let mut endpoints = Vec::with_capacity(s.endpoints.len());
    for (i, e) in s.endpoints.iter().enumerate() {
        let Some(ip) = endpoint_address(e, &s.address_type) else { continue };
        let Some(ip) = faults.take(|| format!("endpoints[{i}].addresses[0]"), ip) else { continue };
        endpoints.push(Endpoint {
            ip,
            ready: e.conditions.ready.unwrap_or(true),
            serving: e.conditions.serving.unwrap_or(true),
            terminating: e.conditions.terminating.unwrap_or(false),
            local: !node_name.is_empty() && e.node_name.as_deref() == Some(node_name),
            placed: e.node_name.as_deref().is_some_and(|n| !n.is_empty()),
            hints: e.hints.as_ref().and_then(|h| hints(h, node_name, &mut shared)),
        });
    }
    Some(Slice {
        service: Key::new(&s.metadata.namespace, owner),
        family,
        ports: ports.into_boxed_slice(),
        endpoints: endpoints.into_boxed_slice(),
    })
}

/// The addresses of one endpoint are interchangeable; consumers use the first. `None`: it has none.
fn endpoint_address(e: &wire::Endpoint, kind: &str) -> Option<Result<IpAddr, String>> {
    let read = address(e.addresses.first()?);
    Some(read.and_then(|ip| match ip.is_ipv4() == (kind == "IPv4") && !unusable(&ip) {
        true => Ok(ip),
        false => Err(format!("{ip} cannot be an endpoint of an {kind} slice")),
    }))
}

/// The pods behind this node's endpoints, each with its endpoint's place in `slice`. None where another than the EndpointSlice
/// controller made the slice: then nothing is known of where its conditions come from.
pub fn pods_here<'a>(s: &'a wire::EndpointSlice, node_name: &'a str) -> impl Iterator<Item = (usize, Arc<str>)> + 'a {
    let managed = s.metadata.labels.get(LABEL_MANAGED_BY).is_some_and(|by| by == ENDPOINTSLICE_CONTROLLER);
    let kept = s.endpoints.iter().filter(|e| matches!(endpoint_address(e, &s.address_type), Some(Ok(_)))).enumerate();
    let here = kept.filter(move |(_, e)| managed && !node_name.is_empty() && e.node_name.as_deref() == Some(node_name));
    here.filter_map(|(at, e)| {
        let pod = e.target_ref.as_ref().filter(|t| t.kind == "Pod" && !t.uid.is_empty())?;
        Some((at, pod.uid.as_str().into()))
    })
}

/// Endpoints of a slice with the same hints share them: there are as many different ones as zones or nodes, not endpoints.
fn hints(wire: &wire::Hints, node_name: &str, shared: &mut Vec<Arc<Hints>>) -> Option<Arc<Hints>> {
    let new = Hints {
        zones: wire.for_zones.iter().map(|z| z.name.as_str().into()).collect(),
        nodes: !wire.for_nodes.is_empty(),
        this_node: wire.for_nodes.iter().any(|n| n.name == node_name),
    };
    if new == Hints::default() {
        return None;
    }
    if let Some(known) = shared.iter().find(|h| ***h == new) {
        return Some(known.clone());
    }
    let new = Arc::new(new);
    shared.push(new.clone());
    Some(new)
}

/// Objects from before the API server was strict may have leading zeros, which never meant octal, or IPv4 in an IPv6 guise.
fn address(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    let strict = || text.parse::<IpAddr>().map(|ip| ip.to_canonical());
    let read = strict().or_else(|_| without_zeros(text).parse());
    read.map_err(|_| format!("{text:?} is not an IP address"))
}

fn range(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let read = text.parse::<IpNet>().or_else(|_| match text.split_once('/') {
        Some((ip, length)) => format!("{}/{length}", without_zeros(ip)).parse(),
        None => text.parse(),
    });
    read.map(|range| range.trunc()).map_err(|_| format!("{text:?} is not an address range"))
}

/// `010.000.0.1` as `10.0.0.1`.
fn without_zeros(text: &str) -> String {
    let parts = text.split('.').map(|part| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0",
        rest => rest,
    });
    parts.collect::<Vec<_>>().join(".")
}

fn unusable(ip: &IpAddr) -> bool {
    ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()
}

fn proto(text: Option<&str>) -> Result<Proto, String> {
    match text {
        None | Some("TCP") => Ok(Proto::Tcp),
        Some("UDP") => Ok(Proto::Udp),
        Some("SCTP") => Ok(Proto::Sctp),
        Some(other) => Err(format!("{other:?} is not TCP, UDP or SCTP")),
    }
}

fn port(number: i64) -> Result<u16, String> {
    u16::try_from(number).ok().filter(|p| *p != 0).ok_or_else(|| format!("{number} is not within 1 to 65535"))
}

#[cfg(test)]
mod tests;
