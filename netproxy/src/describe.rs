//! The ruleset as text for people and golden tests. Pure.

use crate::model::Key;
use crate::ruleset::{Backend, Block, Front, Mark, Ruleset};
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
            if let Some(line) = mark_text(mark, block) {
                let _ = writeln!(out, "  {line}");
            }
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

/// `None` where another line says it.
fn mark_text(mark: &Mark, block: &Block) -> Option<String> {
    Some(match mark {
        Mark::ClusterIp(ip) => format!("other ports of {ip} are rejected"),
        Mark::LocalOnly { family, proto, port } => {
            format!("outside traffic to node port {port}/{proto} ({family:?}) stays on this node")
        }
        Mark::Unserved { family, proto, port } => format!("node port {port}/{proto} ({family:?}) is rejected: no endpoints"),
        Mark::NoLocal { ip, proto, port } => format!("{}/{proto} is dropped: no endpoint on this node", address(ip, *port)),
        Mark::External { ip, proto, port } => {
            let front = Front::External { ip: *ip, proto: *proto, port: *port };
            if block.endpoints(&front).is_some() {
                return None;
            }
            format!("external {}/{proto} is rejected: no endpoints", address(ip, *port))
        }
        Mark::LocalOnlyIp { ip, proto, port } => {
            format!("outside traffic to {}/{proto} stays on this node", address(ip, *port))
        }
        Mark::Ranged { ip, proto, port } => {
            let source = |m: &Mark| match m {
                Mark::Range { ip: i, proto: o, port: n, source } if (i, o, n) == (ip, proto, port) => Some(source.to_string()),
                _ => None,
            };
            let sources: Vec<String> = block.marks.iter().filter_map(source).collect();
            format!("{}/{proto} is only for {}", address(ip, *port), sources.join(", "))
        }
        Mark::Range { .. } => return None,
        Mark::Hairpin(ip) => format!("local endpoint {ip}: to itself by way of the service is masqueraded"),
    })
}
