//! Near endpoints first: trafficDistribution by zone and by node, and hints set by hand.

use super::{Bed, WEB, answered_by, test};
use anyhow::{Context, Result};
use libtest_mimic::Trial;
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    vec![test("services::traffic_distribution_by_zone_and_node", distribution), test("services::hints_set_by_hand", by_hand)]
}

const ZONE: &str = "topology.kubernetes.io/zone";

/// Node-1 in zone a; node-2 in zone b or, to begin with, the same.
fn zones(bed: &Bed, second: &str) -> Result<()> {
    bed.ns.lab.label(0, &format!("{ZONE}=a"))?;
    bed.ns.lab.label(1, &format!("{ZONE}={second}"))
}

fn distribution(bed: &mut Bed) -> Result<()> {
    zones(bed, "b")?;
    let result = spread_by_zone(bed);
    for index in 0..2 {
        bed.ns.lab.label(index, &format!("{ZONE}-"))?;
    }
    result?;
    // No zones: all endpoints.
    let svc = bed.service("nowhere", &format!("trafficDistribution: PreferSameZone, {WEB}"))?;
    bed.ns.kubectl(&["label", "pod", "two", "app=web"])?;
    svc.at(80)?.into_iter().try_for_each(|a| answered_by(&bed.pods.near.netns, a, &["one", "two"]))
}

fn spread_by_zone(bed: &Bed) -> Result<()> {
    let zone = bed.service("zone", &format!("type: NodePort, trafficDistribution: PreferSameZone, {WEB}"))?;
    let close = bed.service("close", &format!("trafficDistribution: PreferClose, {WEB}"))?;
    let node = bed.service("node", &format!("trafficDistribution: PreferSameNode, {WEB}"))?;
    let plain = bed.service("plain", WEB)?;
    for svc in [&zone, &close, &node] {
        for address in svc.at(80)? {
            for (who, netns) in bed.inside() {
                let own = if who.ends_with('1') { "one" } else { "two" };
                answered_by(&netns, address, &[own]).with_context(|| format!("{} from {who}", svc.name))?;
            }
        }
    }
    plain.at(80)?.into_iter().try_for_each(|a| answered_by(&bed.pods.near.netns, a, &["one", "two"]))?;
    // What enters by a node port is spread by the node that it enters.
    for ip in zone.ips()? {
        answered_by(&bed.outside(), (bed.node(1, ip)?, zone.node_port()?).into(), &["one"])?;
        answered_by(&bed.outside(), (bed.node(2, ip)?, zone.node_port()?).into(), &["two"])?;
    }
    // One zone for both: by node still, by zone no more.
    zones(bed, "a")?;
    // Hints say where a pod's node was when they were made.
    let zone = bed.service("zone-2", &format!("trafficDistribution: PreferSameZone, {WEB}"))?;
    let node = bed.service("node-2", &format!("trafficDistribution: PreferSameNode, {WEB}"))?;
    for (address, by_node) in zone.at(80)?.into_iter().zip(node.at(80)?) {
        answered_by(&bed.pods.far.netns, address, &["one", "two"])?;
        answered_by(&bed.pods.far.netns, by_node, &["two"])?;
    }
    // The own node's endpoint goes: better the other node's than none.
    bed.ns.kubectl(&["label", "pod", "two", "app-"])?;
    for (address, by_node) in zone.at(80)?.into_iter().zip(node.at(80)?) {
        answered_by(&bed.pods.far.netns, address, &["one"])?;
        answered_by(&bed.pods.far.netns, by_node, &["one"])?;
    }
    Ok(())
}

/// Hints of a slice that no controller made; zones that lead nowhere are no reason to serve nobody. The nodes of its endpoints
/// are not told, and yet each of them reaches itself.
fn by_hand(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("hinted", "ports: [{port: 80}]")?;
    zones(bed, "b")?;
    let endpoint = |ip: &std::net::IpAddr, zone: &str| json!({"addresses": [ip], "conditions": {"ready": true}, "hints": {"forZones": [{"name": zone}]}});
    let (near, far) = (bed.pods.near.ips[0], bed.pods.far.ips[0]);
    let slice = |zones: [&str; 2]| {
        let manifest = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "hinted-1", "labels": {"kubernetes.io/service-name": "hinted"}},
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint(&near, zones[0]), endpoint(&far, zones[1])],
        });
        bed.ns.apply(&manifest.to_string()).map(drop)
    };
    let address = svc.at(80)?[0];
    let result = slice(["b", "a"])
        .and_then(|()| answered_by(&bed.pods.near.netns, address, &["far"]))
        .and_then(|()| answered_by(&bed.pods.far.netns, address, &["near"]))
        .and_then(|()| slice(["elsewhere", "b"]))
        .and_then(|()| answered_by(&bed.pods.near.netns, address, &["far", "near"]))
        .and_then(|()| answered_by(&bed.pods.far.netns, address, &["far"]));
    for index in 0..2 {
        bed.ns.lab.label(index, &format!("{ZONE}-"))?;
    }
    result
}
