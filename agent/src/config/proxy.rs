//! KubeProxyConfiguration `kubeproxy.config.k8s.io/v1alpha1`.
//!
//! Pure. Owns what every field of it does here: it is honoured, or mapped to what the nftables data plane has instead and said so
//! once at the start (`ProxyConfig::notices`), or refused by name with the reason. A field without a value, as kubeadm writes all
//! of them, is never refused.

use super::fields::{Fields, Plain, Problem};
use super::kubelet::header;
use super::{Config, ProxyConfig};
use ferrolet_netproxy::{Family, LocalTraffic, NodePortAddresses};
use ipnet::IpNet;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// kube-proxy's health and metrics ports.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing said. kube-proxy would choose iptables; here both sections count.
    Unset,
    Nftables,
    Iptables,
    Ipvs,
}

/// Sets what the document says; problems are added, and leave the default in place.
pub fn apply(config: &mut Config, document: Value, problems: &mut Vec<Problem>) {
    let mut fields = Fields::new("", document, problems);
    header(&mut fields, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration");
    let Config { proxy, node_name, .. } = config;
    let mode = mode(&mut fields, proxy);
    addresses(&mut fields, proxy);
    if let Some(name) = fields.text("hostnameOverride").filter(|name| name.trim().to_lowercase() != *node_name) {
        fields.problem("hostnameOverride", format!("{name:?} differs from the node's name {node_name:?}"));
    }
    local_traffic(&mut fields, proxy);
    match node_port_addresses(&mut fields) {
        Some(addresses) => proxy.node_port_addresses = addresses,
        // What nothing means differs between kube-proxy's modes.
        None if matches!(mode, Mode::Iptables | Mode::Ipvs) => proxy.node_port_addresses = NodePortAddresses::All,
        None => {}
    }
    masquerade(&mut fields, mode, proxy);
    ipvs(&mut fields, mode, proxy);
    conntrack(&mut fields, proxy);
    client_connection(&mut fields, proxy);
    logging(&mut fields, proxy);
    proxy.oom_score_adj = fields.integer("oomScoreAdj", -1000..=1000).map(|n| n as i16);
    proxy.hard_fail = fields.boolean("bindAddressHardFail").unwrap_or(false);
    refused(&mut fields);
    // Nothing is read again from time to time: a watch tells.
    let _ = fields.duration("configSyncPeriod");
    // Unused in kube-proxy too.
    let _ = fields.string("portRange");
    // For Windows.
    fields.unsupported("winkernel", Plain::Ignored);
    fields.finish();
}

fn mode(fields: &mut Fields<'_>, proxy: &mut ProxyConfig) -> Mode {
    match fields.text("mode").as_deref() {
        None => Mode::Unset,
        Some("nftables") => Mode::Nftables,
        Some(name @ ("iptables" | "ipvs")) => {
            proxy.notices.push(format!("mode: nftables is used instead of {name}; node ports do not answer on loopback"));
            if name == "ipvs" { Mode::Ipvs } else { Mode::Iptables }
        }
        Some(other) => {
            fields.problem("mode", format!("{other:?} is not a mode, expected nftables, iptables, ipvs or nothing"));
            Mode::Unset
        }
    }
}

/// `bindAddress` names the primary address, and its family decides where the servers listen unless they say it themselves.
fn addresses(fields: &mut Fields<'_>, proxy: &mut ProxyConfig) {
    let bind: Option<IpAddr> = fields.parsed("bindAddress", "an IP address");
    let (everywhere, loopback): (IpAddr, IpAddr) = match bind.map(|ip| Family::of(&ip)) {
        None | Some(Family::V4) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        Some(Family::V6) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    };
    proxy.bind_address = bind.filter(|ip| !ip.is_unspecified());
    for (name, at, port, default) in [
        ("healthzBindAddress", &mut proxy.healthz, HEALTHZ_PORT, everywhere),
        ("metricsBindAddress", &mut proxy.metrics, METRICS_PORT, loopback),
    ] {
        match fields.text(name).map(|text| (bind_address(&text, port), text)) {
            None => *at = Some((default, port).into()),
            Some((Some(address), _)) if address.port() != 0 => *at = Some(address),
            Some((_, text)) => fields.problem(name, format!("{text:?} is not an address with an optional port")),
        }
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn bind_address(text: &str, port: u16) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port)))
}

fn local_traffic(fields: &mut Fields<'_>, proxy: &mut ProxyConfig) {
    if let Some(text) = fields.text("clusterCIDR") {
        let ranges = text.split(',').map(|part| part.trim().to_owned()).collect();
        proxy.cluster_cidrs = cluster_cidrs(fields, "clusterCIDR", ranges);
    }
    let mode = fields.text("detectLocalMode");
    let (mut bridge, mut prefix) = (None, None);
    fields.object("detectLocal", |fields| {
        let what = "the name of an interface";
        bridge = fields.parsed("bridgeInterface", what);
        prefix = fields.parsed("interfaceNamePrefix", what);
        if let Some(ranges) = fields.strings("clusterCIDRs").filter(|ranges| !ranges.is_empty()) {
            proxy.cluster_cidrs = cluster_cidrs(fields, "clusterCIDRs", ranges);
        }
    });
    let missing = |field: &str| format!("needs detectLocal.{field}");
    match mode.as_deref() {
        None | Some("ClusterCIDR") => proxy.local = LocalTraffic::ClusterCidrs,
        Some("NodeCIDR") => proxy.local = LocalTraffic::NodeCidrs,
        Some("BridgeInterface") => match bridge {
            Some(name) => proxy.local = LocalTraffic::Bridge(name),
            None => fields.problem("detectLocalMode", missing("bridgeInterface")),
        },
        Some("InterfaceNamePrefix") => match prefix {
            Some(name) => proxy.local = LocalTraffic::InterfacePrefix(name),
            None => fields.problem("detectLocalMode", missing("interfaceNamePrefix")),
        },
        Some(other) => {
            let known = "ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix or nothing";
            fields.problem("detectLocalMode", format!("{other:?} is not a mode, expected {known}"));
        }
    }
}

fn cluster_cidrs(fields: &mut Fields<'_>, name: &str, texts: Vec<String>) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = Vec::with_capacity(texts.len());
    for text in &texts {
        match text.parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => fields.problem(name, format!("{text:?} is not a CIDR such as 10.244.0.0/16")),
        }
    }
    let v4 = ranges.iter().filter(|range| matches!(range, IpNet::V4(_))).count();
    if v4 > 1 || ranges.len() - v4 > 1 {
        fields.problem(name, format!("{:?} must hold at most one CIDR of each family", texts.join(",")));
        return Vec::new();
    }
    ranges
}

/// `primary` alone, or ranges; nothing when it is left out or wrong. A family without a range has them all, as in kube-proxy.
fn node_port_addresses(fields: &mut Fields<'_>) -> Option<NodePortAddresses> {
    let name = "nodePortAddresses";
    let texts = fields.strings(name).filter(|texts| !texts.is_empty())?;
    if texts == ["primary"] {
        return Some(NodePortAddresses::Primary);
    }
    let mut ranges: Vec<IpNet> = Vec::with_capacity(texts.len() + 1);
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => fields.problem(&format!("{name}[{index}]"), format!("{text:?} is not a CIDR, nor primary by itself")),
        }
    }
    for (family, all) in [(Family::V4, IpAddr::from(Ipv4Addr::UNSPECIFIED)), (Family::V6, Ipv6Addr::UNSPECIFIED.into())] {
        if !ranges.iter().any(|range| Family::of(&range.addr()) == family) {
            ranges.extend(IpNet::new(all, 0));
        }
    }
    Some(NodePortAddresses::Within(ranges))
}

/// What the sections of the modes have in common.
#[derive(Default)]
struct Section {
    bit: Option<i64>,
    all: bool,
    period: Option<Duration>,
}

fn section(fields: &mut Fields<'_>, name: &str) -> Section {
    fields.object(name, |fields| {
        if name == "iptables" {
            // Node ports never answer on loopback here, as in every mode but iptables.
            let _ = fields.boolean("localhostNodePorts");
        }
        let (bit, all) = (fields.integer("masqueradeBit", 0..=31), fields.boolean("masqueradeAll").unwrap_or(false));
        Section { bit, all, period: period(fields) }
    })
}

/// Changes go to the kernel at once; of the two periods only the one that `/healthz` goes by has a meaning.
fn period(fields: &mut Fields<'_>) -> Option<Duration> {
    let _ = fields.duration("minSyncPeriod");
    fields.duration("syncPeriod")
}

fn masquerade(fields: &mut Fields<'_>, mode: Mode, proxy: &mut ProxyConfig) {
    let (nftables, iptables) = (section(fields, "nftables"), section(fields, "iptables"));
    let (bit, all, period) = match mode {
        Mode::Nftables => (nftables.bit, nftables.all, nftables.period),
        Mode::Iptables | Mode::Ipvs => (iptables.bit, iptables.all, iptables.period),
        Mode::Unset => (nftables.bit.or(iptables.bit), nftables.all || iptables.all, nftables.period.or(iptables.period)),
    };
    if let Some(bit) = bit {
        proxy.masquerade_bit = bit as u8;
    }
    proxy.masquerade_all = all;
    if let Some(period) = period.filter(|_| mode != Mode::Ipvs) {
        proxy.sync_period = period;
    }
}

/// There are no virtual servers here: what they are told is only checked, and said where somebody relied on it.
fn ipvs(fields: &mut Fields<'_>, mode: Mode, proxy: &mut ProxyConfig) {
    let mut lost = Vec::new();
    let period = fields.object("ipvs", |fields| {
        if fields.text("scheduler").is_some_and(|name| name != "rr") {
            lost.push("scheduler (connections are spread at random)");
        }
        if fields.parsed_list::<IpNet>("excludeCIDRs", "a CIDR").is_some_and(|list| !list.is_empty()) {
            lost.push("excludeCIDRs (no virtual server is touched)");
        }
        if fields.boolean("strictARP").unwrap_or(false) {
            lost.push("strictARP (no service address is put on an interface)");
        }
        for name in ["tcpTimeout", "tcpFinTimeout", "udpTimeout"] {
            if fields.duration(name).is_some() {
                lost.push("tcpTimeout, tcpFinTimeout and udpTimeout (see conntrack)");
            }
        }
        period(fields)
    });
    if mode == Mode::Ipvs {
        lost.dedup();
        proxy.notices.extend(lost.into_iter().map(|what| format!("ipvs.{what}: has no effect with nftables")));
        proxy.sync_period = period.unwrap_or(proxy.sync_period);
    }
}

/// Zero leaves a setting of the host as it is; nothing means kube-proxy's default.
fn conntrack(fields: &mut Fields<'_>, proxy: &mut ProxyConfig) {
    let conntrack = &mut proxy.conntrack;
    fields.object("conntrack", |fields| {
        let number = 0..=i64::from(i32::MAX);
        let count = |fields: &mut Fields<'_>, name: &str, at: &mut u32| {
            *at = fields.integer(name, number.clone()).map_or(*at, |n| n as u32);
        };
        count(fields, "maxPerCore", &mut conntrack.max_per_core);
        count(fields, "min", &mut conntrack.min);
        for (name, at) in [
            ("tcpEstablishedTimeout", &mut conntrack.tcp_established_timeout),
            ("tcpCloseWaitTimeout", &mut conntrack.tcp_close_wait_timeout),
            ("udpTimeout", &mut conntrack.udp_timeout),
            ("udpStreamTimeout", &mut conntrack.udp_stream_timeout),
        ] {
            let given = fields.present(name);
            let value = fields.duration(name);
            if given {
                *at = value.unwrap_or_default();
            }
        }
        conntrack.tcp_be_liberal = fields.boolean("tcpBeLiberal").unwrap_or(false);
    });
}

fn client_connection(fields: &mut Fields<'_>, proxy: &mut ProxyConfig) {
    let ProxyConfig { notices, kubeconfig, .. } = proxy;
    fields.object("clientConnection", |fields| {
        *kubeconfig = fields.text("kubeconfig").map(Into::into);
        for name in ["acceptContentTypes", "contentType"] {
            let _ = fields.string(name);
        }
        let rate = match fields.take("qps") {
            Some(Value::Number(n)) => n.as_f64().unwrap_or(0.0) != 0.0,
            Some(other) => {
                fields.problem("qps", format!("expected a number, found {other}"));
                false
            }
            None => false,
        };
        let burst = fields.integer("burst", 0..=i64::from(i32::MAX)).unwrap_or(0) != 0;
        if rate || burst {
            notices.push("clientConnection.qps and burst: the agent's requests are not limited by them".into());
        }
    });
}

/// Logs are the daemon's own, by `--v`.
fn logging(fields: &mut Fields<'_>, proxy: &mut ProxyConfig) {
    let notices = &mut proxy.notices;
    fields.object("logging", |fields| {
        if fields.text("format").is_some_and(|format| format != "text") {
            fields.problem("format", "logs are written as text");
        }
        if fields.integer("verbosity", 0..=i64::from(i32::MAX)).is_some_and(|level| level > 0) {
            notices.push("logging.verbosity: the flag --v is what counts".into());
        }
        if fields.has("vmodule") {
            fields.problem("vmodule", "files have no verbosity of their own here, leave it out");
        }
        fields.unsupported("vmodule", Plain::Ignored);
        // When the buffers of another logger are flushed, and how large they are.
        fields.unsupported("flushFrequency", Plain::Ignored);
        fields.unsupported("options", Plain::Ignored);
    });
}

fn refused(fields: &mut Fields<'_>) {
    for name in fields.take_keys("featureGates") {
        fields.problem(&format!("featureGates.{name}"), "there are no feature gates here, leave it out");
    }
    for (name, why) in [
        ("enableProfiling", "profiles are not served, leave it out"),
        ("windowsRunAsService", "this is not Windows, leave it out"),
    ] {
        if fields.boolean(name).unwrap_or(false) {
            fields.problem(name, why);
        }
    }
    if let Some(version) = fields.text("showHiddenMetricsForVersion") {
        fields.problem("showHiddenMetricsForVersion", format!("there are no hidden metrics, of {version:?} or another version"));
    }
}

#[cfg(test)]
mod tests;
