//! A node as the scheduler sees it: what it offers and what is on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::resources::{self, Amounts};
use crate::controllers::meta::{self, Labels};

/// Address, protocol, port.
pub type HostPort = (String, String, i32);

#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub for_scoring: Amounts,
    pub host_ports: BTreeSet<HostPort>,
    pub pods: Vec<Arc<Pod>>,
}

impl NodeInfo {
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let offered = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        NodeInfo {
            name: meta::name(&node.metadata).into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: resources::amounts(offered),
            ..NodeInfo::default()
        }
    }

    /// A pod that is bound here and has not ended takes its share.
    pub fn add(&mut self, pod: &Arc<Pod>) {
        if meta::is_finished(pod) {
            return;
        }
        resources::add(&mut self.requested, &resources::of_pod(pod));
        resources::add(&mut self.for_scoring, &resources::for_scoring(pod));
        self.host_ports.extend(host_ports(pod));
        self.pods.push(pod.clone());
    }
}

/// The ports of the host that a pod takes.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return vec![] };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let all = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    all.filter_map(|p| {
        let port = if spec.host_network == Some(true) { p.host_port.or(Some(p.container_port)) } else { p.host_port };
        let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
        Some((ip, p.protocol.clone().unwrap_or_else(|| "TCP".into()), port.filter(|p| *p > 0)?))
    })
    .collect()
}
