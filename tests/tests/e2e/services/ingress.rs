//! Ways in from outside: node ports, load balancer addresses, external IPs, and who may use them.

use super::{Bed, Fate, WEB, answered_by, meets, source, test};
use anyhow::{Context, Result, bail};
use libtest_mimic::Trial;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::node_port_on_every_node", node_port),
        test("services::load_balancer_address_and_ip_mode", load_balancer),
        test("services::external_ip", external_ip),
        test("services::load_balancer_source_ranges", source_ranges),
    ]
}

/// Addresses that nobody has, in each family of the service's (from the ranges for documentation).
pub fn vips(ips: &[IpAddr], last: u8) -> Result<Vec<IpAddr>> {
    ips.iter()
        .map(|ip| {
            let text = if ip.is_ipv4() { format!("192.0.2.{last}") } else { format!("2001:db8:77::{last}") };
            text.parse().context("not an address")
        })
        .collect()
}

fn node_port(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("np", &format!("type: NodePort, {WEB}"))?;
    let port = svc.node_port()?;
    let mut gone = vec![];
    for ip in svc.ips()? {
        for n in [1, 2] {
            let address = SocketAddr::new(bed.node(n, ip)?, port);
            answered_by(&bed.outside(), address, &["one", "two"])?;
            for (who, netns) in bed.inside() {
                answered_by(&netns, address, &["one", "two"]).context(who)?;
            }
            // Cluster policy: the answer must come back through this node, so the client is masqueraded.
            let seen = source(&bed.outside(), address)?;
            if seen == source_outside(bed, ip)? {
                bail!("the server saw the client itself through {address}");
            }
            gone.push(address);
        }
        // Node ports do not answer on loopback: it would need route_localnet.
        let loopback: IpAddr = if ip.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        meets(&bed.netns(1), (loopback, port).into(), Fate::Refused)?;
    }
    bed.ns.kubectl(&["delete", "service", "np"])?;
    gone.into_iter().try_for_each(|address| meets(&bed.outside(), address, Fate::Refused))
}

/// The client's own address towards the nodes.
pub fn source_outside(bed: &Bed, like: IpAddr) -> Result<IpAddr> {
    let to = bed.node(1, like)?;
    let text = ferrolet_tests::netns::ip(&bed.outside(), &format!("-o route get {to}"))?;
    let mut words = text.split_whitespace().skip_while(|w| *w != "src").skip(1);
    words.next().with_context(|| format!("no source in {text}"))?.parse().context("source")
}

fn load_balancer(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("lb", &format!("type: LoadBalancer, {WEB}"))?;
    let (ips, proxied) = (vips(&svc.ips()?, 10)?, vips(&svc.ips()?, 11)?);
    let modes = |mode: &'static str| move |ip: &IpAddr| json!({"ip": ip.to_string(), "ipMode": mode});
    let both: Vec<_> = ips.iter().map(modes("VIP")).chain(proxied.iter().map(modes("Proxy"))).collect();
    bed.load_balancer("lb", both.into())?;
    for (ip, proxied) in ips.iter().zip(&proxied) {
        for n in [1, 2] {
            let _route = bed.route(*ip, n)?;
            answered_by(&bed.outside(), (*ip, 80).into(), &["one", "two"])?;
        }
        for (who, netns) in bed.inside() {
            answered_by(&netns, (*ip, 80).into(), &["one", "two"]).context(who)?;
        }
        // A port that it does not have is none of this node's business: no reject, no answer.
        let _route = bed.route(*ip, 1)?;
        let rules = bed.listed(1, if ip.is_ipv4() { "ip" } else { "ip6" })?;
        if !rules.contains(&ip.to_string()) || rules.contains(&proxied.to_string()) {
            bail!("expected {ip} and not {proxied} in:\n{rules}");
        }
    }
    // The address goes, the rules go.
    bed.load_balancer("lb", json!([]))?;
    for ip in ips {
        ferrolet_tests::sys::wait_for("no answer", crate::shared::LIMIT, || {
            match ferrolet_tests::load::fetch(&bed.netns(1), (ip, 80).into(), "/", super::SOON) {
                Ok(answer) => bail!("{answer:?}"),
                Err(_) => Ok(()),
            }
        })?;
    }
    Ok(())
}

fn external_ip(bed: &mut Bed) -> Result<()> {
    let plain = bed.service("ext", WEB)?;
    let ips = vips(&plain.ips()?, 20)?;
    let list = serde_json::to_string(&ips)?;
    bed.patch("service", "ext", &format!("{{\"spec\": {{\"externalIPs\": {list}}}}}"))?;
    for ip in &ips {
        for n in [1, 2] {
            let _route = bed.route(*ip, n)?;
            answered_by(&bed.outside(), (*ip, 80).into(), &["one", "two"])?;
        }
        for (who, netns) in bed.inside() {
            answered_by(&netns, (*ip, 80).into(), &["one", "two"]).context(who)?;
        }
    }
    // Without endpoints it is refused, as a cluster IP is.
    bed.patch("service", "ext", r#"{"spec": {"selector": {"app": "nobody"}}}"#)?;
    for ip in &ips {
        let _route = bed.route(*ip, 1)?;
        meets(&bed.outside(), (*ip, 80).into(), Fate::Refused)?;
        meets(&bed.pods.far.netns, (*ip, 80).into(), Fate::Refused)?;
    }
    Ok(())
}

fn source_ranges(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("ranged", &format!("type: LoadBalancer, {WEB}"))?;
    let ips = vips(&svc.ips()?, 30)?;
    let allow = |ranges: Vec<String>| -> Result<()> {
        let patch = json!({"spec": {"loadBalancerSourceRanges": ranges}});
        bed.patch("service", "ranged", &patch.to_string())
    };
    let clients = ips.iter().map(|ip| source_outside(bed, *ip)).collect::<Result<Vec<_>>>()?;
    let exactly = |ip: &IpAddr| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
    // Ranges that overlap, and one that is there twice.
    let mut ranges: Vec<String> = clients.iter().map(exactly).collect();
    ranges.extend(ranges.clone());
    for ip in &ips {
        ranges.extend(
            if ip.is_ipv4() { ["192.168.0.0/16", "192.168.77.0/24"] } else { ["fd00:77::/32", "fd00:77::/48"] }
                .map(str::to_owned),
        );
    }
    allow(ranges)?;
    bed.load_balancer("ranged", ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>().into())?;
    let routes = ips.iter().map(|ip| bed.route(*ip, 1)).collect::<Result<Vec<_>>>()?;
    for ip in &ips {
        answered_by(&bed.outside(), (*ip, 80).into(), &["one", "two"])?;
        // Pods are not in the ranges.
        meets(&bed.pods.near.netns, (*ip, 80).into(), Fate::Dropped)?;
        // Cluster IP and node port are not restricted.
        answered_by(&bed.pods.near.netns, svc.at(80)?[0], &["one", "two"])?;
        answered_by(&bed.outside(), (bed.node(2, *ip)?, svc.node_port()?).into(), &["one", "two"])?;
    }
    let pods = ips.iter().map(|ip| Ok(exactly(&bed.pods.near.ip(*ip)?))).collect::<Result<Vec<_>>>()?;
    allow(pods)?;
    for ip in &ips {
        meets(&bed.outside(), (*ip, 80).into(), Fate::Dropped)?;
        answered_by(&bed.pods.near.netns, (*ip, 80).into(), &["one", "two"])?;
    }
    // No ranges: everybody.
    allow(vec![])?;
    ips.iter().try_for_each(|ip| answered_by(&bed.outside(), (*ip, 80).into(), &["one", "two"]))?;
    drop(routes);
    Ok(())
}
