//! The ruleset as text for people and golden tests. Pure.

use crate::model::Key;
use crate::ruleset::{Backend, Front, Mark, Ruleset};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

pub fn text(rules: &Ruleset, set_aside: &BTreeSet<Key>) -> String {
    let mut out = String::new();
    for (key, block) in rules.blocks() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "service {key}");
        for (front, pool) in &block.fronts {
            let to: Vec<String> = pool.iter().map(backend).collect();
            let _ = writeln!(out, "  {} -> {}", front_text(front), to.join(", "));
        }
        if let Some(seconds) = block.affinity {
            let _ = writeln!(out, "  a client stays with its endpoint for {seconds} s");
        }
        for mark in &block.marks {
            let _ = writeln!(out, "  {}", mark_text(mark));
        }
    }
    for key in set_aside {
        let _ = writeln!(out, "service {key}\n  left out: the kernel refuses its rules");
    }
    out
}

fn backend(b: &Backend) -> String {
    address(&b.ip, b.port)
}

fn address(ip: &IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(*ip, port).to_string()
}

fn front_text(front: &Front) -> String {
    match front {
        Front::ClusterIp { ip, proto, port } => format!("cluster IP {}/{proto}", address(ip, *port)),
        Front::External { ip, proto, port } => format!("external {}/{proto}", address(ip, *port)),
        Front::LocalExternal { ip, proto, port } => format!("external {}/{proto}, outside traffic", address(ip, *port)),
        Front::NodePort { family, proto, port } => format!("node port {port}/{proto} ({family:?})"),
        Front::LocalNodePort { family, proto, port } => format!("node port {port}/{proto} ({family:?}), outside traffic"),
    }
}

fn mark_text(mark: &Mark) -> String {
    match mark {
        Mark::ClusterIp(ip) => format!("other ports of {ip} are rejected"),
        Mark::LocalOnly { proto, port, .. } => format!("outside traffic to node port {port}/{proto} stays on this node"),
        Mark::Unserved { proto, port, .. } => format!("node port {port}/{proto} is rejected: no endpoints"),
        Mark::NoLocal { ip, proto, port } => format!("{}/{proto} is dropped: no endpoint on this node", address(ip, *port)),
        Mark::External { ip, proto, port } => format!("external {}/{proto} is rejected without endpoints", address(ip, *port)),
        Mark::LocalOnlyIp { ip, proto, port } => {
            format!("outside traffic to {}/{proto} stays on this node", address(ip, *port))
        }
        Mark::Ranged { ip, proto, port } => format!("{}/{proto} is only for", address(ip, *port)),
        Mark::Range { ip, proto, port, source } => format!("  {source} to {}/{proto}", address(ip, *port)),
        Mark::Hairpin(ip) => format!("local endpoint {ip}: to itself by way of the service is masqueraded"),
    }
}
