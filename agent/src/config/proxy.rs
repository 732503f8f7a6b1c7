//! KubeProxyConfiguration `kubeproxy.config.k8s.io/v1alpha1`.
//!
//! Pure. Owns which fields are honoured. `mode` may say `nftables` or nothing: the other modes are refused.

use super::Config;
use super::fields::{Fields, Plain, Problem};
use super::kubelet::header;
use ferrolet_netproxy::NodePortAddresses;
use ipnet::IpNet;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// kube-proxy's health port.
const HEALTHZ_PORT: u16 = 10256;

/// Sets what the document says; problems are added, and leave the default in place.
pub fn apply(config: &mut Config, document: Value, problems: &mut Vec<Problem>) {
    let mut fields = Fields::new("", document, problems);
    header(&mut fields, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration");
    let proxy = &mut config.proxy;
    match fields.text("mode").as_deref() {
        None | Some("nftables") => {}
        Some(other) => fields.problem("mode", format!("{other:?} is not yet supported, expected nftables or nothing")),
    }
    if let Some(text) = fields.text("clusterCIDR") {
        let parsed: Result<Vec<IpNet>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        match parsed {
            Ok(cidrs) if one_of_each_family(&cidrs) => proxy.cluster_cidrs = cidrs,
            Ok(_) => fields.problem("clusterCIDR", format!("{text:?} must hold at most one CIDR of each family")),
            Err(_) => fields.problem("clusterCIDR", format!("{text:?} is not a CIDR such as 10.244.0.0/16")),
        }
    }
    if let Some(text) = fields.text("healthzBindAddress") {
        match bind_address(&text) {
            Some(address) => proxy.healthz = Some(address),
            None => fields.problem("healthzBindAddress", format!("{text:?} is not an address with an optional port")),
        }
    }
    if let Some(name) = fields.text("hostnameOverride").filter(|name| *name != config.node_name) {
        let ours = &config.node_name;
        fields.problem("hostnameOverride", format!("{name:?} differs from the node's name {ours:?}"));
    }
    match fields.text("detectLocalMode").as_deref() {
        None | Some("ClusterCIDR") => {}
        Some(other) => fields.problem("detectLocalMode", format!("{other:?} is not yet supported, expected ClusterCIDR")),
    }
    if let Some(addresses) = node_port_addresses(&mut fields) {
        config.proxy.node_port_addresses = addresses;
    }
    let proxy = &mut config.proxy;
    fields.object("nftables", |fields| {
        if let Some(bit) = fields.integer("masqueradeBit", 0..=31) {
            proxy.masquerade_bit = bit as u8;
        }
        proxy.masquerade_all = fields.boolean("masqueradeAll").unwrap_or(false);
        fields.unsupported("syncPeriod", Plain::Ignored);
        fields.unsupported("minSyncPeriod", Plain::Ignored);
    });
    // The other modes' sections say nothing to the nftables mode, in kube-proxy either.
    for (name, plain) in UNSUPPORTED {
        fields.unsupported(name, *plain);
    }
    conntrack(&mut fields);
    fields.finish();
}

/// `primary` alone, or ranges; nothing when it is left out or wrong.
fn node_port_addresses(fields: &mut Fields<'_>) -> Option<NodePortAddresses> {
    let name = "nodePortAddresses";
    let texts = fields.strings(name).filter(|texts| !texts.is_empty())?;
    if texts == ["primary"] {
        return Some(NodePortAddresses::Primary);
    }
    let mut ranges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(_) => fields.problem(&format!("{name}[{index}]"), format!("{text:?} is not a CIDR, nor primary by itself")),
        }
    }
    (ranges.len() == texts.len()).then_some(NodePortAddresses::Within(ranges))
}

fn conntrack(fields: &mut Fields<'_>) {
    fields.object("conntrack", |fields| {
        fields.unsupported("maxPerCore", Plain::IntOrNull(32 * 1024));
        fields.unsupported("min", Plain::IntOrNull(128 * 1024));
        fields.unsupported("tcpEstablishedTimeout", Plain::Time("24h"));
        fields.unsupported("tcpCloseWaitTimeout", Plain::Time("1h"));
        fields.unsupported("tcpBeLiberal", Plain::Off);
        fields.unsupported("udpTimeout", Plain::Time("0s"));
        fields.unsupported("udpStreamTimeout", Plain::Time("0s"));
    });
}

fn one_of_each_family(cidrs: &[IpNet]) -> bool {
    let v4 = cidrs.iter().filter(|cidr| matches!(cidr, IpNet::V4(_))).count();
    v4 <= 1 && cidrs.len() - v4 <= 1
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn bind_address(text: &str) -> Option<SocketAddr> {
    let bare = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, HEALTHZ_PORT));
    text.parse().ok().or_else(|| bare(text))
}

const UNSUPPORTED: &[(&str, Plain)] = &[
    ("featureGates", Plain::Empty),
    ("clientConnection", Plain::Empty),
    ("logging", Plain::Empty),
    ("bindAddress", Plain::Text("0.0.0.0")),
    ("metricsBindAddress", Plain::Text("127.0.0.1:10249")),
    ("bindAddressHardFail", Plain::Off),
    ("enableProfiling", Plain::Off),
    ("showHiddenMetricsForVersion", Plain::Text("")),
    ("iptables", Plain::Ignored),
    ("ipvs", Plain::Ignored),
    ("winkernel", Plain::Ignored),
    ("detectLocal", Plain::Empty),
    ("oomScoreAdj", Plain::IntOrNull(-999)),
    ("configSyncPeriod", Plain::Time("15m")),
    ("portRange", Plain::Text("")),
    ("windowsRunAsService", Plain::Off),
];
