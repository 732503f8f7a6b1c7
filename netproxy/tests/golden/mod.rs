//! Small clusters with what becomes of them, as files that people can read.
//!
//! `<case>.json` has API objects as the node sees them, and the configuration. `<case>.txt` is what `describe` says of it, and
//! `<case>.ip.nft` and `<case>.ip6.nft` what `nft` lists. `UPDATE_GOLDEN=1` writes these instead of comparing.

use ferrolet_netproxy::{Config, InterfaceName, LocalTraffic, NodePortAddresses, wire};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;

pub const CASES: [&str; 6] = ["nothing", "cluster-ip", "external", "policies", "affinity", "endpoints"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    #[serde(default)]
    pub node: Node,
    pub services: Vec<wire::Service>,
    pub endpoint_slices: Vec<wire::EndpointSlice>,
}

/// How the node is configured, and what it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Node {
    pub addresses: Vec<IpAddr>,
    pub zone: Option<String>,
    pub service_cidrs: Vec<IpNet>,
    pod_bridge: Option<String>,
    primary_node_port_addresses: bool,
    tcp_be_liberal: bool,
}

pub fn case(name: &str) -> Case {
    let text = std::fs::read_to_string(path(&format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}.json: {e}"))
}

impl Case {
    /// The node is called node-1 in every case; without a bridge its pods are known by the cluster's ranges.
    pub fn config(&self) -> Config {
        let bridge = self.node.pod_bridge.as_ref().map(|name| LocalTraffic::Bridge(name.parse::<InterfaceName>().unwrap()));
        Config {
            node_name: "node-1".into(),
            local: bridge.unwrap_or_default(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
            tcp_be_liberal: self.node.tcp_be_liberal,
            node_port_addresses: match self.node.primary_node_port_addresses {
                true => NodePortAddresses::Primary,
                false => NodePortAddresses::All,
            },
            ..Config::default()
        }
    }
}

fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", file].iter().collect()
}

/// The file is this text, or becomes it.
#[track_caller]
pub fn compare(file: &str, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path(file), text).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(path(file)).unwrap_or_default();
    let differs = wanted.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| wanted.lines().count().min(text.lines().count())) + 1;
    assert!(wanted == text, "{file} differs from line {line} on; UPDATE_GOLDEN=1 writes it anew. Now it is:\n{text}");
}
