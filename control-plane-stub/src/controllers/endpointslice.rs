//! EndpointSlices of the Services that have a selector.
//!
//! `decide` is pure: a Service, its pods, its nodes and the slices there are go in; the slices to write come out. A
//! change of one endpoint rewrites one slice: endpoints stay in the slice they are in, new ones fill slices that are
//! rewritten anyway, then one that has room, then a new one. Services without a selector are somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta::{self, Labels};
use crate::ranges::Family;

#[cfg(test)]
mod tests;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
pub const MAX_ENDPOINTS: usize = 100;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    /// Whole objects, with the name and resourceVersion of the slice they replace.
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }
}

/// Whether this controller owns a slice.
pub fn is_managed(slice: &EndpointSlice) -> bool {
    meta::label(&slice.metadata, MANAGED_BY) == Some(CONTROLLER)
}

/// The key of the Service a slice belongs to.
pub fn service_of(meta: &ObjectMeta) -> Option<meta::Key> {
    Some(meta::Key::new(meta::namespace(meta), meta::label(meta, SERVICE_NAME)?))
}

/// The selector of a Service this controller serves.
pub fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    let wanted = spec.type_.as_deref() != Some("ExternalName");
    spec.selector.as_ref().filter(|s| wanted && !s.is_empty())
}

type Ports = Vec<(String, u16, String, Option<String>)>;

/// `zones` maps a node to the zone of its label. `slices` are the managed ones of this Service.
pub fn decide(service: &Service, pods: &[&Pod], zones: &BTreeMap<String, String>, slices: &[&EndpointSlice]) -> Plan {
    let mut plan = Plan::default();
    let (Some(spec), Some(selector)) = (&service.spec, selector(service)) else {
        return plan;
    };
    let mut wanted: BTreeMap<(Family, Ports), BTreeMap<EndpointId, Endpoint>> = BTreeMap::new();
    for family in families(spec) {
        for pod in pods.iter().filter(|p| meta::has_all(selector, p.metadata.labels.as_ref())) {
            if let Some(endpoint) = endpoint(service, spec, pod, family, zones) {
                wanted.entry((family, ports(spec, pod))).or_default().insert(id(&endpoint), endpoint);
            }
        }
    }
    // A Service without endpoints keeps one empty slice a family, so that its consumers know it was looked at.
    for family in families(spec) {
        if !wanted.keys().any(|(f, _)| *f == family) {
            wanted.insert((family, vec![]), BTreeMap::new());
        }
    }
    let mut existing: BTreeMap<(Family, Ports), Vec<&EndpointSlice>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for &slice in slices.iter().filter(|s| is_managed(s) && !meta::is_deleting(&s.metadata)) {
        match group_of(slice).filter(|g| wanted.contains_key(g) && seen.insert(meta::name(&slice.metadata))) {
            Some(group) => existing.entry(group).or_default().push(slice),
            None => plan.delete.push(meta::name(&slice.metadata).into()),
        }
    }
    let labels = labels(service, spec);
    for (group, endpoints) in wanted {
        let mut of_group = existing.remove(&group).unwrap_or_default();
        of_group.sort_by(|a, b| meta::name(&a.metadata).cmp(meta::name(&b.metadata)));
        reconcile_group(service, &group, &labels, endpoints, &of_group, &mut plan);
    }
    plan
}

/// One existing slice while its new content is worked out.
struct Draft<'a> {
    slice: &'a EndpointSlice,
    keep: Vec<Endpoint>,
    changed: bool,
}

fn reconcile_group(
    service: &Service,
    group: &(Family, Ports),
    labels: &Labels,
    mut missing: BTreeMap<EndpointId, Endpoint>,
    slices: &[&EndpointSlice],
    plan: &mut Plan,
) {
    let placeholder = missing.is_empty();
    let mut drafts: Vec<Draft> = slices.iter().map(|slice| draft(slice, &mut missing, labels, service)).collect();
    let mut missing: Vec<Endpoint> = missing.into_values().collect();
    for draft in drafts.iter_mut().filter(|d| d.changed) {
        top_up(draft, &mut missing);
    }
    // The rest goes whole into one slice that has room; the fullest such slice keeps the number of slices small.
    if !missing.is_empty() && missing.len() < MAX_ENDPOINTS {
        let fits = |d: &&mut Draft| d.keep.len() + missing.len() <= MAX_ENDPOINTS;
        if let Some(draft) = drafts.iter_mut().filter(fits).max_by_key(|d| d.keep.len()) {
            top_up(draft, &mut missing);
        }
    }
    let mut kept_placeholder = false;
    for draft in drafts {
        let name = meta::name(&draft.slice.metadata);
        if draft.keep.is_empty() && (!placeholder || kept_placeholder) {
            plan.delete.push(name.into());
        } else {
            kept_placeholder |= draft.keep.is_empty();
            if draft.changed {
                let metadata = ObjectMeta { labels: Some(labels.clone()), ..draft.slice.metadata.clone() };
                plan.update.push(slice(metadata, group, draft.keep));
            }
        }
    }
    let metadata = || ObjectMeta {
        generate_name: Some(format!("{}-", meta::name(&service.metadata))),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels.clone()),
        owner_references: Some(vec![meta::controller_ref("v1", "Service", &service.metadata)]),
        ..ObjectMeta::default()
    };
    if placeholder && !kept_placeholder {
        plan.create.push(slice(metadata(), group, vec![]));
    }
    for chunk in missing.chunks(MAX_ENDPOINTS) {
        plan.create.push(slice(metadata(), group, chunk.to_vec()));
    }
}

fn draft<'a>(
    slice: &'a EndpointSlice,
    missing: &mut BTreeMap<EndpointId, Endpoint>,
    labels: &Labels,
    service: &Service,
) -> Draft<'a> {
    let mut keep = vec![];
    let mut changed =
        slice.metadata.labels.as_ref() != Some(labels) || !meta::controlled_by(&slice.metadata, meta::uid(&service.metadata));
    for old in slice.endpoints.iter().flatten() {
        match missing.remove(&id(old)) {
            Some(new) => {
                changed |= new != *old;
                keep.push(new);
            }
            None => changed = true,
        }
    }
    if keep.len() > MAX_ENDPOINTS {
        for extra in keep.split_off(MAX_ENDPOINTS) {
            missing.insert(id(&extra), extra);
        }
        changed = true;
    }
    Draft { slice, keep, changed }
}

fn top_up(draft: &mut Draft, missing: &mut Vec<Endpoint>) {
    let room = MAX_ENDPOINTS.saturating_sub(draft.keep.len()).min(missing.len());
    draft.changed |= room > 0;
    draft.keep.extend(missing.drain(..room));
}

fn slice(metadata: ObjectMeta, (family, ports): &(Family, Ports), endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ports = ports
        .iter()
        .map(|(name, port, protocol, app)| EndpointPort {
            name: Some(name.clone()),
            port: Some(i32::from(*port)),
            protocol: Some(protocol.clone()),
            app_protocol: app.clone(),
        })
        .collect();
    EndpointSlice { address_type: family.as_str().into(), endpoints: Some(endpoints), metadata, ports: Some(ports) }
}

fn group_of(slice: &EndpointSlice) -> Option<(Family, Ports)> {
    let family = Family::parse(&slice.address_type)?;
    let mut ports: Ports = vec![];
    for p in slice.ports.iter().flatten() {
        let number = u16::try_from(p.port?).ok()?;
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        ports.push((p.name.clone().unwrap_or_default(), number, protocol, p.app_protocol.clone()));
    }
    ports.sort();
    Some((family, ports))
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named: Vec<Family> = spec.ip_families.iter().flatten().filter_map(|f| Family::parse(f)).collect();
    if !named.is_empty() {
        return named;
    }
    vec![spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()).map_or(Family::V4, Family::of)]
}

/// The numbers a Service's ports have on one pod. A name the pod does not have leaves that port out.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Ports {
    let mut out: Ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let number = target_port(port, &protocol, pod)?;
            Some((port.name.clone().unwrap_or_default(), number, protocol, port.app_protocol.clone()))
        })
        .collect();
    out.sort();
    out
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<u16> {
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let found = spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
            match found {
                Some(p) => p.container_port,
                None => name.parse().ok()?,
            }
        }
    };
    u16::try_from(number).ok().filter(|&n| n > 0)
}

fn endpoint(
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    family: Family,
    zones: &BTreeMap<String, String>,
) -> Option<Endpoint> {
    if meta::is_finished(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let ips = status.pod_ips.iter().flatten().map(|i| i.ip.as_str()).chain(status.pod_ip.as_deref());
    let address = ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).find(|ip| Family::of(*ip) == family)?;
    let serving = meta::is_ready(pod);
    let terminating = meta::is_deleting(&pod.metadata);
    let ready = spec.publish_not_ready_addresses == Some(true) || (serving && !terminating);
    let pod_spec = pod.spec.as_ref()?;
    let hostname = pod_spec.hostname.clone().filter(|h| !h.is_empty() && pod_spec.subdomain == service.metadata.name);
    let node = meta::node_name(pod);
    let zone = node.and_then(|n| zones.get(n)).cloned();
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname,
        node_name: node.map(Into::into),
        hints: hints(spec, zone.as_ref(), node).filter(|_| ready),
        zone,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// Whom a ready endpoint is for, by the Service's `trafficDistribution`: its own zone, and for PreferSameNode its own node
/// before that. What is not known of an endpoint gives no hint.
fn hints(spec: &ServiceSpec, zone: Option<&String>, node: Option<&str>) -> Option<EndpointHints> {
    let by_node = match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.clone() }]);
    let for_nodes = node.filter(|_| by_node).map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// What makes an endpoint the same one across updates.
type EndpointId = (String, String);

fn id(endpoint: &Endpoint) -> EndpointId {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
    (uid, endpoint.addresses.first().cloned().unwrap_or_default())
}

fn labels(service: &Service, spec: &ServiceSpec) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), meta::name(&service.metadata).into());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}

/// The zone of a node, from its well-known label.
pub fn zone(meta: &ObjectMeta) -> Option<&str> {
    meta::label(meta, ZONE).filter(|zone| !zone.is_empty())
}
