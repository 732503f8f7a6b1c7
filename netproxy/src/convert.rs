//! Wire objects to model objects: the only place where API text is parsed.
//!
//! Pure. An object that is wrong is refused as a whole, with the field named; an object that is right but not ours to serve
//! (headless, ExternalName, another proxy's) is `None`.

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

/// An object of the API that cannot be used.
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

/// The service, or `None` when no rules are to be made for it.
pub fn service(s: &wire::Service) -> Result<Option<Service>, ConvertError> {
    let labels = &s.metadata.labels;
    let spec = &s.spec;
    if labels.contains_key(LABEL_PROXY_NAME) || labels.contains_key(LABEL_HEADLESS) {
        return Ok(None);
    }
    if spec.type_.as_deref() == Some("ExternalName") || is_headless(spec) {
        return Ok(None);
    }
    let bad =
        |field: String, reason: String| ConvertError { kind: "service", object: key(&s.metadata).to_string(), field, reason };
    let texts: Vec<&str> = if spec.cluster_ips.is_empty() {
        spec.cluster_ip.iter().map(String::as_str).collect()
    } else {
        spec.cluster_ips.iter().map(String::as_str).collect()
    };
    let address = |text: &str, field: String, what: &str| match text.trim().parse::<IpAddr>() {
        Err(_) => Err(bad(field, format!("{text:?} is not an IP address"))),
        Ok(ip) if unusable(&ip) => Err(bad(field, format!("{ip} cannot be {what}"))),
        Ok(ip) => Ok(ip),
    };
    let numbered = texts.iter().enumerate();
    let cluster_ips: Vec<IpAddr> =
        numbered.map(|(i, t)| address(t, format!("spec.clusterIPs[{i}]"), "a cluster IP")).collect::<Result<_, _>>()?;
    let numbered = spec.external_ips.iter().enumerate();
    let external_ips: Vec<IpAddr> =
        numbered.map(|(i, t)| address(t, format!("spec.externalIPs[{i}]"), "an external IP")).collect::<Result<_, _>>()?;
    let mut load_balancer_ips = Vec::new();
    for (i, ingress) in spec.ingress.iter().enumerate() {
        // With a host name only, or a balancer that addresses its packets anew, no packet comes with this address.
        let Some(text) = ingress.ip.as_deref().filter(|t| !t.is_empty() && ingress.ip_mode.as_deref() != Some("Proxy")) else {
            continue;
        };
        load_balancer_ips.push(address(text, format!("status.loadBalancer.ingress[{i}].ip"), "a load balancer's address")?);
    }
    let mut source_ranges = Vec::with_capacity(spec.load_balancer_source_ranges.len());
    for (i, text) in spec.load_balancer_source_ranges.iter().enumerate() {
        let range = text
            .trim()
            .parse::<IpNet>()
            .map_err(|_| bad(format!("spec.loadBalancerSourceRanges[{i}]"), format!("{text:?} is not an address range")))?;
        source_ranges.push(range.trunc());
    }
    let health = spec.health_check_node_port.filter(|n| *n != 0);
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (i, p) in spec.ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let node_port = p.node_port.filter(|n| *n != 0);
        ports.push(ServicePort {
            name: p.name.as_str().into(),
            proto: proto(p.protocol.as_deref()).map_err(|why| bad(field("protocol"), why))?,
            port: port(p.port).map_err(|why| bad(field("port"), why))?,
            node_port: node_port.map(port).transpose().map_err(|why| bad(field("nodePort"), why))?,
        });
    }
    Ok(Some(Service {
        cluster_ips,
        ports,
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        affinity: affinity(spec).map_err(|why| bad("spec.sessionAffinityConfig.clientIP.timeoutSeconds".into(), why))?,
        external_ips,
        load_balancer_ips,
        source_ranges,
        health_check_node_port: health
            .map(i64::from)
            .map(port)
            .transpose()
            .map_err(|why| bad("spec.healthCheckNodePort".into(), why))?,
    }))
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

/// The slice, or `None` when it belongs to no service or holds host names.
pub fn slice(s: &wire::EndpointSlice, node_name: &str) -> Result<Option<Slice>, ConvertError> {
    let Some(owner) = s.metadata.labels.get(LABEL_SERVICE_NAME).filter(|n| !n.is_empty()) else { return Ok(None) };
    let bad = |field: String, reason: String| ConvertError {
        kind: "endpointslice",
        object: key(&s.metadata).to_string(),
        field,
        reason,
    };
    let family = match s.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return Ok(None),
        other => return Err(bad("addressType".into(), format!("{other:?} is not known"))),
    };
    let mut ports = Vec::with_capacity(s.ports.len());
    for (i, p) in s.ports.iter().enumerate() {
        // No port means all ports, which no service rule can use.
        let Some(number) = p.port else { continue };
        ports.push(SlicePort {
            name: p.name.as_str().into(),
            proto: proto(p.protocol.as_deref()).map_err(|why| bad(format!("ports[{i}].protocol"), why))?,
            port: port(number).map_err(|why| bad(format!("ports[{i}].port"), why))?,
        });
    }
    let mut shared = Vec::new();
    let mut endpoints = Vec::with_capacity(s.endpoints.len());
    for (i, e) in s.endpoints.iter().enumerate() {
        // The addresses of one endpoint are interchangeable; consumers use the first.
        let Some(text) = e.addresses.first() else { continue };
        let field = || format!("endpoints[{i}].addresses[0]");
        let ip = text.parse::<IpAddr>().map_err(|_| bad(field(), format!("{text:?} is not an IP address")))?;
        if Family::of(&ip) != family || unusable(&ip) {
            return Err(bad(field(), format!("{ip} cannot be an endpoint of an {} slice", s.address_type)));
        }
        endpoints.push(Endpoint {
            ip,
            ready: e.conditions.ready.unwrap_or(true),
            serving: e.conditions.serving.unwrap_or(true),
            terminating: e.conditions.terminating.unwrap_or(false),
            local: !node_name.is_empty() && e.node_name.as_deref() == Some(node_name),
            hints: e.hints.as_ref().and_then(|h| hints(h, node_name, &mut shared)),
        });
    }
    Ok(Some(Slice {
        service: Key::new(&s.metadata.namespace, owner),
        family,
        ports: ports.into_boxed_slice(),
        endpoints: endpoints.into_boxed_slice(),
    }))
}

/// The pods behind this node's endpoints, each with its endpoint's place in `slice`. None where another than the EndpointSlice
/// controller made the slice: then nothing is known of where its conditions come from.
pub fn pods_here<'a>(s: &'a wire::EndpointSlice, node_name: &'a str) -> impl Iterator<Item = (usize, Arc<str>)> + 'a {
    let managed = s.metadata.labels.get(LABEL_MANAGED_BY).is_some_and(|by| by == ENDPOINTSLICE_CONTROLLER);
    let kept = s.endpoints.iter().filter(|e| !e.addresses.is_empty()).enumerate();
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
