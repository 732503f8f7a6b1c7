//! Cluster IPs: who reaches whom, on which protocols, and what is refused.

use super::{Bed, Fate, HTTP, SOON, Svc, WEB, answered_by, meets, server, source, test, udp_answered_by};
use crate::shared::LIMIT;
use anyhow::{Context, Result, bail};
use ferrolet_tests::load::{self, Load};
use ferrolet_tests::sys::{sh, wait_for};
use libtest_mimic::Trial;
use std::net::SocketAddr;

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::cluster_ip_from_pods_nodes_and_outside", cluster_ip),
        test("services::hairpin_to_itself", hairpin),
        test("services::one_port_on_tcp_udp_and_sctp", protocols),
        test("services::no_endpoints_and_undefined_ports_are_refused", refused),
        test("services::headless_external_name_and_other_proxies_make_no_rules", no_rules),
        test("services::readiness_decides", readiness),
        test("services::families_come_and_go", families),
    ]
}

/// The target port is named, and another one on each pod.
fn cluster_ip(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("web", WEB)?;
    if bed.ns.lab.stack.has_v6() != (svc.ips()?.len() == 2) {
        bail!("the lab is {:?}, and the service has {:?}", bed.ns.lab.stack, svc.ips()?);
    }
    for address in svc.at(80)? {
        for (who, netns) in bed.inside() {
            answered_by(&netns, address, &["one", "two"]).context(who)?;
        }
        // Pod to pod through a service keeps the client's address.
        for client in [&bed.pods.near, &bed.pods.far] {
            let seen = source(&client.netns, address)?;
            if seen != client.ip(address.ip())? {
                bail!("a server saw {seen}, the client is {:?}", client.ips);
            }
        }
        // Whoever is outside can route cluster IPs to a node. It must answer through that node, so it is masqueraded.
        let _route = bed.route(address.ip(), 2)?;
        answered_by(&bed.outside(), address, &["one", "two"])?;
        for _ in 0..8 {
            let seen = source(&bed.outside(), address)?;
            if !is_of_node_2(bed, seen)? {
                bail!("a server saw {seen} and not an address of node-2");
            }
        }
    }
    Ok(())
}

/// Towards its own pods a node sends from whatever address its route names.
fn is_of_node_2(bed: &Bed, ip: std::net::IpAddr) -> Result<bool> {
    let own = ferrolet_tests::netns::ip(&bed.netns(2), "-o addr show")?;
    Ok(own.split_whitespace().any(|word| word.split('/').next() == Some(&ip.to_string())))
}

fn hairpin(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("self", &format!("selector: {{pod: one}}, {HTTP}"))?;
    let both = bed.service("both", WEB)?;
    for address in svc.at(80)? {
        answered_by(&bed.pods.one.netns, address, &["one"])?;
    }
    for address in both.at(80)? {
        for pod in [&bed.pods.one, &bed.pods.two] {
            answered_by(&pod.netns, address, &["one", "two"]).with_context(|| pod.name.clone())?;
        }
    }
    Ok(())
}

/// Asks by SCTP from inside a namespace; the server's name and the address it saw.
pub fn sctp(bed: &Bed, netns: &str, from: u16, to: SocketAddr) -> Result<String> {
    let net = if netns.starts_with('/') { netns.to_owned() } else { format!("/run/netns/{netns}") };
    let web = bed.ns.lab.bins.web.display().to_string();
    Ok(sh("nsenter", &[&format!("--net={net}"), &web, "sctp", &to.to_string(), &from.to_string()])?.trim().to_owned())
}

pub const THREE: &str = "ports: [{name: t, port: 80, targetPort: http}, {name: u, port: 80, protocol: UDP, targetPort: 9000}, {name: s, port: 80, protocol: SCTP, targetPort: 7002}]";

fn protocols(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("all", &format!("selector: {{pod: two}}, type: NodePort, {THREE}"))?;
    let ports = svc.object["spec"]["ports"].as_array().context("no ports")?;
    let node_port = |i: usize| ports[i]["nodePort"].as_u64().context("no node port").map(|p| p as u16);
    let (tcp, udp, stream) = (node_port(0)?, node_port(1)?, node_port(2)?);
    let mut from = 21_000;
    for address in svc.at(80)? {
        for (who, netns) in bed.inside() {
            from += 1;
            answered_by(&netns, address, &["two"]).context(who)?;
            udp_answered_by(&netns, from, address, "two").context(who)?;
            let seen = wait_for("an SCTP answer", LIMIT, || sctp(bed, &netns, from, address)).context(who)?;
            if !seen.starts_with("two ") {
                bail!("SCTP from {who}: {seen}");
            }
        }
        let outside = bed.outside();
        for n in [1, 2] {
            from += 1;
            let node = bed.node(n, address.ip())?;
            answered_by(&outside, (node, tcp).into(), &["two"])?;
            udp_answered_by(&outside, from, (node, udp).into(), "two")?;
            let seen = wait_for("an SCTP answer", LIMIT, || sctp(bed, &outside, from, (node, stream).into()))?;
            if !seen.starts_with("two ") {
                bail!("SCTP from outside: {seen}");
            }
        }
    }
    Ok(())
}

fn refused(bed: &mut Bed) -> Result<()> {
    let empty = bed.service(
        "empty",
        "selector: {app: nobody}, type: NodePort, ports: [{name: t, port: 80}, {name: u, protocol: UDP, port: 80}]",
    )?;
    let served = bed.service("served", WEB)?;
    for address in empty.at(80)? {
        for (who, netns) in bed.inside() {
            meets(&netns, address, Fate::Refused).context(who)?;
        }
        for n in [1, 2] {
            let node_port = SocketAddr::new(bed.node(n, address.ip())?, empty.node_port()?);
            meets(&bed.outside(), node_port, Fate::Refused)?;
        }
        // From a pod ICMP comes back. On the node itself the packet is refused before it is sent.
        udp_is_refused(&bed.pods.near.netns, address, "refused")?;
        udp_is_refused(&bed.netns(1), address, "not permitted")?;
    }
    for ip in served.ips()? {
        answered_by(&bed.pods.far.netns, (ip, 80).into(), &["one", "two"])?;
        for (who, netns) in bed.inside() {
            meets(&netns, (ip, 81).into(), Fate::Refused).with_context(|| format!("an undefined port from {who}"))?;
        }
        udp_is_refused(&bed.pods.far.netns, (ip, 80).into(), "refused")?;
    }
    Ok(())
}

fn udp_is_refused(netns: &str, to: SocketAddr, wanted: &str) -> Result<()> {
    wait_for(&format!("UDP to {to} to be {wanted}"), LIMIT, || {
        let error = match load::ask_udp(netns, 22_000, to, "who", SOON) {
            Ok(text) => bail!("{to} answered {text:?}"),
            Err(error) => format!("{error:#}"),
        };
        if error.contains(wanted) { Ok(()) } else { bail!("{error}") }
    })
}

fn no_rules(bed: &mut Bed) -> Result<()> {
    bed.service("headless", &format!("clusterIP: None, {WEB}"))?;
    bed.service("elsewhere", "type: ExternalName, externalName: example.com")?;
    let ours = "labels: {service.kubernetes.io/service-proxy-name: somebody-else}";
    let other = bed.service_like(ours, "other", WEB)?;
    // Without a selector, its endpoints are made by hand, and labelled as those of a headless service.
    let labelled = bed.service("labelled", "ports: [{port: 80}]")?;
    bed.slice("labelled", "labelled-1", "service.kubernetes.io/headless: '', ", &bed.pods.one.ips[..1])?;
    // Made last: when it answers, the ones before it have been seen.
    let last = bed.service("last", WEB)?;
    answered_by(&bed.netns(1), last.at(80)?[0], &["one", "two"])?;
    let rules = bed.listed(1, "ip")?;
    let is_listed = |svc: &Svc| -> Result<bool> { Ok(rules.contains(&svc.ips()?[0].to_string())) };
    if !is_listed(&last)? {
        bail!("the service that answers is not listed:\n{rules}");
    }
    if is_listed(&other)? {
        bail!("{} is listed:\n{rules}", other.name);
    }
    let by_hand = labelled.at(80)?[0];
    meets(&bed.netns(1), by_hand, Fate::Refused)?;
    bed.ns.kubectl(&["label", "endpointslice", "labelled-1", "service.kubernetes.io/headless-"])?;
    answered_by(&bed.netns(1), by_hand, &["one"])?;
    // Taken back from the other proxy.
    bed.ns.kubectl(&["label", "service", "other", "service.kubernetes.io/service-proxy-name-"])?;
    answered_by(&bed.netns(1), other.at(80)?[0], &["one", "two"])
}

fn readiness(bed: &mut Bed) -> Result<()> {
    let probe = "readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}";
    let more = format!("{}\n    {probe}", super::NO_DRAIN);
    bed.ns.apply(&[server("a", 1, "app: probed", 8080, &more), server("b", 2, "app: probed", 8080, &more)].concat())?;
    let svc = bed.service("probed", &format!("selector: {{app: probed}}, {HTTP}"))?;
    let a = super::running(bed.ns, "a")?;
    super::running(bed.ns, "b")?;
    let address = svc.at(80)?[0];
    answered_by(&bed.netns(2), address, &["a", "b"])?;
    let to_a = SocketAddr::new(a.ips[0], 8080);
    load::get(&bed.netns(1), to_a, "/fail-ready")?;
    answered_by(&bed.netns(2), address, &["b"])?;
    answered_by(&bed.netns(1), address, &["b"])?;
    load::get(&bed.netns(1), to_a, "/recover")?;
    answered_by(&bed.netns(2), address, &["a", "b"])
}

/// Of IPv6 alone, then of both, then of IPv6 alone again, while the address that stays is in use.
fn families(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("six", &format!("type: NodePort, ipFamilyPolicy: SingleStack, ipFamilies: [IPv6], {WEB}"))?;
    let [six] = svc.at(80)?[..] else { bail!("not one address: {}", svc.object) };
    let port = svc.node_port()?;
    let node = |n: u8, v6: bool| -> Result<SocketAddr> {
        let like: std::net::IpAddr = if v6 { std::net::Ipv6Addr::LOCALHOST.into() } else { [127, 0, 0, 1].into() };
        Ok((bed.node(n, like)?, port).into())
    };
    let only_six = || -> Result<()> {
        for (who, netns) in bed.inside() {
            answered_by(&netns, six, &["one", "two"]).context(who)?;
        }
        for n in [1, 2] {
            answered_by(&bed.outside(), node(n, true)?, &["one", "two"])?;
            meets(&bed.outside(), node(n, false)?, Fate::Refused)?;
        }
        Ok(())
    };
    only_six()?;
    let load = Load::start(&bed.pods.near.netns, six, std::time::Duration::from_millis(20));
    bed.patch("service", "six", r#"{"spec": {"ipFamilyPolicy": "RequireDualStack"}}"#)?;
    let both = Svc { name: "six".into(), object: bed.ns.get("service", "six")? };
    let [first, four] = both.at(80)?[..] else { bail!("not two addresses: {}", both.object) };
    if first != six || !four.is_ipv4() {
        bail!("{six} became {first} and {four}");
    }
    for (who, netns) in bed.inside() {
        answered_by(&netns, four, &["one", "two"]).context(who)?;
    }
    answered_by(&bed.outside(), node(2, false)?, &["one", "two"])?;
    bed.patch("service", "six", r#"{"spec": {"ipFamilyPolicy": "SingleStack"}}"#)?;
    wait_for("no answer of the address that is gone", LIMIT, || match load::fetch(&bed.pods.far.netns, four, "/", SOON) {
        Ok(answer) => bail!("{answer:?}"),
        Err(_) => Ok(()),
    })?;
    only_six()?;
    load.finish_clean().map(drop)
}
