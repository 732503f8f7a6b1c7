//! Flows that outlive what they were made for: datagrams from one port are one flow to conntrack, which the rules are not
//! asked about again.

use super::frontends::sctp;
use super::{Bed, Svc, answered_by, test, udp, udp_answered_by};
use crate::shared::LIMIT;
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use std::net::SocketAddr;

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::udp_flows_follow_endpoints_ports_and_services", follows),
        test("services::udp_flows_from_before_the_first_endpoint", first_endpoint),
        test("services::udp_flows_that_changed_while_the_agent_was_away", agent_away),
        test("services::sctp_associations_follow_their_endpoint", sctp_follows),
    ]
}

/// Makes these pods, and no others of the shared ones, endpoints of services that select `role: udp`.
fn endpoints(bed: &Bed, pods: &[&str]) -> Result<()> {
    for pod in ["one", "two"] {
        let label = if pods.contains(&pod) { "role=udp" } else { "role-" };
        bed.ns.kubectl(&["label", "--overwrite", "pod", pod, label])?;
    }
    Ok(())
}

fn datagrams(bed: &Bed, name: &str, port: u16) -> Result<Svc> {
    bed.service(
        name,
        &format!("type: NodePort, selector: {{role: udp}}, ports: [{{port: {port}, protocol: UDP, targetPort: 9000}}]"),
    )
}

/// Who sends datagrams where: a port of its own for each.
fn ways(bed: &Bed, svc: &Svc, port: u16, first: u16) -> Result<Vec<(u16, String, SocketAddr)>> {
    let mut all = vec![];
    for ip in svc.ips()? {
        all.extend(bed.inside().into_iter().map(|(_, netns)| (netns, SocketAddr::new(ip, port))));
        all.push((bed.outside(), (bed.node(1, ip)?, svc.node_port()?).into()));
        all.push((bed.outside(), (bed.node(2, ip)?, svc.node_port()?).into()));
    }
    Ok((first..).zip(all).map(|(from, (netns, to))| (from, netns, to)).collect())
}

fn unanswered(what: &str, ways: &[(u16, String, SocketAddr)]) -> Result<()> {
    ways.iter().try_for_each(|(from, netns, to)| {
        wait_for(&format!("no answer to port {from} from {to} {what}"), LIMIT, || match udp(netns, *from, *to) {
            Ok(name) => bail!("{name} answered"),
            Err(_) => Ok(()),
        })
    })
}

fn answered(what: &str, ways: &[(u16, String, SocketAddr)], by: &str) -> Result<()> {
    ways.iter().try_for_each(|(from, netns, to)| udp_answered_by(netns, *from, *to, by)).context(what.to_owned())
}

fn follows(bed: &mut Bed) -> Result<()> {
    endpoints(bed, &["one"])?;
    let svc = datagrams(bed, "u", 90)?;
    let flows = ways(bed, &svc, 90, 23_000)?;
    answered("at first", &flows, "one")?;
    endpoints(bed, &["two"])?;
    answered("after the endpoint was replaced", &flows, "two")?;
    endpoints(bed, &[])?;
    unanswered("without endpoints", &flows)?;
    endpoints(bed, &["one"])?;
    answered("when one came again", &flows, "one")?;
    // Another port: flows to the old one end, though endpoint and node port are the same.
    bed.ns.kubectl(&[
        "patch",
        "service",
        "u",
        "--type=json",
        "-p",
        r#"[{"op": "replace", "path": "/spec/ports/0/port", "value": 91}]"#,
    ])?;
    let moved = ways(bed, &svc, 91, 23_100)?;
    answered("on the new port", &moved, "one")?;
    let old: Vec<_> = flows.iter().filter(|(_, _, to)| to.port() == 90).cloned().collect();
    unanswered("on the old port", &old)?;
    bed.ns.kubectl(&["delete", "service", "u"])?;
    unanswered("after the service was deleted", &moved)
}

/// Asked again and again while there is nobody: what conntrack kept of that must not stick.
fn first_endpoint(bed: &mut Bed) -> Result<()> {
    let svc = datagrams(bed, "late", 90)?;
    let local = bed.service(
        "late-local",
        "type: NodePort, externalTrafficPolicy: Local, internalTrafficPolicy: Local, selector: {role: udp}, ports: [{port: 90, protocol: UDP, targetPort: 9000}]",
    )?;
    let mut flows = ways(bed, &svc, 90, 23_200)?;
    // Of the Local one only what leads to node-2.
    flows.extend(ways(bed, &local, 90, 23_300)?.into_iter().filter(|(_, netns, to)| {
        let from_there = *netns == bed.netns(2) || *netns == bed.pods.far.netns;
        let to_there = bed.node(2, to.ip()).is_ok_and(|ip| ip == to.ip());
        from_there || to_there
    }));
    for _ in 0..3 {
        for (from, netns, to) in &flows {
            if let Ok(name) = udp(netns, *from, *to) {
                bail!("{name} answered {to} without being an endpoint");
            }
        }
    }
    endpoints(bed, &["two"])?;
    answered("when the first endpoint came", &flows, "two")
}

fn agent_away(bed: &mut Bed) -> Result<()> {
    endpoints(bed, &["one"])?;
    let (svc, deleted) = (datagrams(bed, "u", 90)?, datagrams(bed, "deleted", 92)?);
    let (flows, ending) = (ways(bed, &svc, 90, 23_400)?, ways(bed, &deleted, 92, 23_500)?);
    answered("at first", &flows, "one")?;
    answered("at first", &ending, "one")?;
    for node in &mut bed.ns.lab.nodes {
        node.kill_agent()?;
    }
    endpoints(bed, &["two"])?;
    bed.ns.kubectl(&["delete", "service", "deleted"])?;
    // Whoever goes on sending keeps its flow alive.
    answered("while the agents are away", &flows, "one")?;
    for index in 0..2 {
        bed.ns.lab.start_agent(index)?;
    }
    bed.ns.lab.wait_ready()?;
    answered("after the agents came back", &flows, "two")?;
    unanswered("of the service deleted meanwhile", &ending)
}

fn sctp_follows(bed: &mut Bed) -> Result<()> {
    endpoints(bed, &["one"])?;
    let svc = bed.service("s", "selector: {role: udp}, ports: [{name: s, port: 90, protocol: SCTP, targetPort: 7002}, {name: t, port: 80, targetPort: http}]")?;
    for address in svc.at(90)? {
        let by = |name: &str| {
            wait_for(&format!("an SCTP answer of {name}"), LIMIT, || {
                let seen = sctp(bed, &bed.pods.near.netns, 23_600, address)?;
                if seen.starts_with(name) { Ok(()) } else { bail!("{seen} answered") }
            })
        };
        endpoints(bed, &["one"])?;
        by("one")?;
        endpoints(bed, &["two"])?;
        by("two")?;
        answered_by(&bed.pods.near.netns, (address.ip(), 80).into(), &["two"])?;
    }
    Ok(())
}
