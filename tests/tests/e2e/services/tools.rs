//! What an operator sees and sets: `nft` of two ages, `ferrolet trace`, and the proxy's configuration.

use super::ingress::{source_outside, vips};
use super::{
    Bed, Fate, HTTP, NO_DRAIN, SOON, WEB, answered_by, answers_now, fate_within, meets, on_pods, running, server, source, test,
};
use crate::shared::LIMIT;
use anyhow::{Context, Result, bail};
use ferrolet_tests::netns::ip;
use ferrolet_tests::sys::{run, sh, wait_for};
use ferrolet_tests::{load, setup};
use libtest_mimic::{Completion, Trial};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::nft_lists_the_rules", |bed| nft_lists(bed, &["nft".to_owned()])),
        newest_nft(),
        test("services::trace_agrees_with_packets", trace),
        test("services::node_port_addresses_and_masquerade_all", configured),
        test("services::cleanup_takes_what_is_ours", cleanup),
    ]
}

/// Not run where it can be neither found nor fetched.
fn newest_nft() -> Trial {
    Trial::ignorable_test("services::the_newest_nft_lists_the_rules", || {
        let nft =
            match setup::newest_nft().and_then(|nft| run(Command::new(&nft[0]).args(&nft[1..]).arg("--version")).map(|_| nft)) {
                Ok(nft) => nft,
                Err(error) => return Ok(Completion::ignored_with(format!("no newer nft: {error:#}"))),
            };
        on_pods(|bed| nft_lists(bed, &nft)).map_err(|error| format!("{error:#}"))?;
        Ok(Completion::Completed)
    })
}

/// Services that use every set, map and chain there is.
fn everything(bed: &Bed) -> Result<Vec<IpAddr>> {
    let all = "ports: [{name: t, port: 80, targetPort: http}, {name: u, port: 80, protocol: UDP, targetPort: 9000}, {name: s, port: 80, protocol: SCTP, targetPort: 7002}]";
    let plain = bed.service("plain", &format!("type: NodePort, selector: {{app: web}}, {all}"))?;
    let sticky = bed.service("sticky", &format!("type: LoadBalancer, sessionAffinity: ClientIP, {WEB}"))?;
    let local = "type: LoadBalancer, externalTrafficPolicy: Local, internalTrafficPolicy: Local, sessionAffinity: ClientIP";
    let local = bed.service("local", &format!("{local}, selector: {{pod: two}}, {HTTP}"))?;
    let empty = bed.service("empty", "type: NodePort, selector: {app: nobody}, ports: [{port: 80}]")?;
    let mut addresses = vec![];
    for (svc, last) in [(&sticky, 60), (&local, 61)] {
        let (vips, external) = (vips(&svc.ips()?, last)?, vips(&svc.ips()?, last + 10)?);
        let ranges: Vec<_> = vips.iter().map(|ip| if ip.is_ipv4() { "192.168.0.0/16" } else { "fd00:77::/48" }).collect();
        let spec = json!({"spec": {"externalIPs": external, "loadBalancerSourceRanges": ranges}});
        bed.patch("service", &svc.name, &spec.to_string())?;
        bed.load_balancer(&svc.name, vips.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>().into())?;
        addresses.extend(vips.into_iter().chain(external));
    }
    for svc in [plain, sticky, local, empty] {
        addresses.extend(svc.ips()?);
    }
    Ok(addresses)
}

fn nft_lists(bed: &mut Bed, nft: &[String]) -> Result<()> {
    let addresses = everything(bed)?;
    let net = format!("--net=/run/netns/{}", bed.netns(1));
    let list = |options: &[&str]| run(Command::new("nsenter").arg(&net).args(nft).args(options).args(["list", "ruleset"]));
    let text = wait_for("all addresses to be listed", LIMIT, || {
        let text = list(&[])?;
        match addresses.iter().find(|ip| !text.contains(&ip.to_string())) {
            None => Ok(text),
            Some(missing) => bail!("{missing} is not in:\n{text}"),
        }
    })?;
    // Packets fill what only they fill.
    let clients = bed.ns.get("service", "sticky")?["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    load::get(&bed.pods.near.netns, format!("{clients}:80").parse()?, "/")?;
    let text = list(&[]).with_context(|| format!("before: {text}"))?;
    let pods = [&bed.pods.one, &bed.pods.two].map(|p| p.ips[0]);
    let wanted = [
        format!("{clients} . tcp . 80"),
        "udp".into(),
        "sctp".into(),
        format!("{} . 8080", pods[0]),
        format!("{} . 8181", pods[1]),
        format!("{} . {clients} . tcp . 80", bed.pods.near.ips[0]),
        "masquerade".into(),
        "reject with tcp reset".into(),
        "ct state invalid drop".into(),
    ];
    if let Some(missing) = wanted.iter().find(|w| !text.contains(*w)) {
        bail!("{missing:?} is not in:\n{text}");
    }
    // Every element has a readable form: nothing is left in the raw form of what nft does not know.
    let raw = |l: &&str| l.contains("unknown") || l.contains("[invalid") || l.contains("(null)");
    if let Some(line) = text.lines().find(raw) {
        bail!("not decoded: {line}\nin:\n{text}");
    }
    let parsed: Value = serde_json::from_str(&list(&["--json"])?).context("nft's JSON")?;
    let kinds: BTreeSet<&str> = parsed["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|o| o.as_object()?.keys().next().map(String::as_str))
        .collect();
    let all = ["chain", "map", "rule", "set", "table"];
    if all.iter().all(|k| kinds.contains(k)) { Ok(()) } else { bail!("nft's JSON has {kinds:?}") }
}

/// A client, the node whose rules its packets meet, and its address.
struct Client {
    who: &'static str,
    netns: String,
    node: u8,
    from: IpAddr,
}

fn trace(bed: &mut Bed) -> Result<()> {
    bed.ns.apply(&server("ends", 2, "app: web", 8080, NO_DRAIN))?;
    running(bed.ns, "ends")?;
    let plain = bed.service("plain", &format!("type: NodePort, {WEB}"))?;
    let local =
        bed.service("local", &format!("type: LoadBalancer, externalTrafficPolicy: Local, selector: {{pod: two}}, {HTTP}"))?;
    let inner = bed.service("inner", &format!("internalTrafficPolicy: Local, selector: {{pod: two}}, {HTTP}"))?;
    let empty = bed.service("empty", "type: NodePort, selector: {app: nobody}, ports: [{port: 80}]")?;
    let vips = vips(&local.ips()?, 80)?;
    bed.load_balancer("local", vips.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>().into())?;
    bed.ns.kubectl(&["delete", "pod", "ends", "--timeout=30s"])?;
    let last = bed.service("last", WEB)?;
    for (i, family) in plain.ips()?.into_iter().enumerate() {
        for n in [1, 2] {
            answered_by(&bed.netns(n), (last.ips()?[i], 80).into(), &["one", "two"])?;
        }
        let clients = [
            Client { who: "a pod of node-1", netns: bed.pods.near.netns.clone(), node: 1, from: bed.pods.near.ip(family)? },
            Client { who: "an endpoint", netns: bed.pods.two.netns.clone(), node: 2, from: bed.pods.two.ip(family)? },
            Client { who: "node-1", netns: bed.netns(1), node: 1, from: bed.node(1, family)? },
            Client { who: "outside by node-1", netns: bed.outside(), node: 1, from: source_outside(bed, family)? },
            Client { who: "outside by node-2", netns: bed.outside(), node: 2, from: source_outside(bed, family)? },
        ];
        for client in clients {
            let node = bed.node(client.node, family)?;
            let mut to: Vec<SocketAddr> = vec![
                (plain.ips()?[i], 80).into(),
                (plain.ips()?[i], 81).into(),
                (inner.ips()?[i], 80).into(),
                (empty.ips()?[i], 80).into(),
                (vips[i], 80).into(),
                (node, plain.node_port()?).into(),
                (node, local.node_port()?).into(),
                (node, empty.node_port()?).into(),
            ];
            let routes: Result<Vec<_>> = to
                .iter()
                .filter(|a| client.who.starts_with("outside") && a.ip() != node && a.port() == 80)
                .map(|a| bed.route(a.ip(), client.node))
                .collect();
            if client.who.starts_with("outside") {
                // Not routed to the node.
                to.retain(|a| a.port() != 81);
            }
            let routes = routes?;
            for to in to {
                agree(bed, &client, to).with_context(|| format!("{to} from {}", client.who))?;
            }
            drop(routes);
        }
    }
    Ok(())
}

/// What `ferrolet trace` says, and what connections meet.
fn agree(bed: &Bed, client: &Client, to: SocketAddr) -> Result<()> {
    let node = &bed.ns.lab.nodes[usize::from(client.node) - 1];
    let (root, from, target) = (node.root_dir().display().to_string(), client.from.to_string(), format!("{to}/tcp"));
    let ferrolet = bed.ns.lab.bins.ferrolet.display().to_string();
    let text = sh(&ferrolet, &["trace", "--root-dir", &root, "--json", "--from", &from, "--to", &target])?;
    let said: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    let wanted = match said["verdict"].as_str() {
        Some("forwarded") => Fate::Answered,
        Some("rejected") => Fate::Refused,
        Some("dropped") => Fate::Dropped,
        _ => bail!("trace said {text}"),
    };
    let limit = if wanted == Fate::Dropped { SOON } else { Duration::from_secs(3) };
    let seen = fate_within(&client.netns, to, limit)?;
    if seen != wanted {
        bail!("a connection is {seen:?}, and trace said {text}");
    }
    if wanted != Fate::Answered {
        return Ok(());
    }
    let names = load::spread(&client.netns, to, super::ENOUGH)?;
    let pods = [&bed.pods.one, &bed.pods.two];
    let mut addresses = BTreeSet::new();
    for pod in pods.iter().filter(|p| names.contains_key(&p.name)) {
        let port = if pod.name == "one" { 8080 } else { 8181 };
        addresses.insert(SocketAddr::new(pod.ip(to.ip())?, port).to_string());
    }
    let endpoints = said["endpoints"].as_array().context("no endpoints")?;
    let told: BTreeSet<String> = endpoints.iter().filter_map(|e| e["address"].as_str().map(str::to_owned)).collect();
    if told != addresses {
        bail!("answered by {names:?}, and trace said {text}");
    }
    // A node sends from whatever address its route names, so there is nothing to compare for it.
    if let ([endpoint], false) = (endpoints.as_slice(), client.who.starts_with("node")) {
        let kept = source(&client.netns, to)? == client.from;
        if kept != (endpoint["source"] == "kept") {
            bail!("the client's address was {}kept, and trace said {text}", if kept { "" } else { "not " });
        }
    }
    Ok(())
}

/// Node-2 gets a second address, and is then told to answer node ports only there.
fn configured(bed: &mut Bed) -> Result<()> {
    let (netns, outside) = (bed.netns(2), bed.outside());
    let svc = bed.service("web", &format!("type: NodePort, {WEB}"))?;
    let primary = SocketAddr::new(bed.node(2, [0, 0, 0, 0].into())?, svc.node_port()?);
    let second: SocketAddr = ([192, 168, 78, 12], svc.node_port()?).into();
    ip(&netns, "addr add 192.168.78.12/24 dev eth0")?;
    ip(&outside, &format!("route add 192.168.78.0/24 via {}", primary.ip()))?;
    let tested = (|| {
        // Unless it is told otherwise, a node answers on its primary addresses.
        answered_by(&outside, primary, &["one", "two"])?;
        meets(&outside, second, Fate::Refused)?;
        let address = svc.at(80)?[0];
        let kept = source(&bed.pods.far.netns, address)?;
        if kept != bed.pods.far.ips[0] {
            bail!("a server saw {kept}, the client is {:?}", bed.pods.far.ips);
        }
        let fields = json!({"nodePortAddresses": ["192.168.78.0/24"], "nftables": {"masqueradeAll": true}});
        restart(bed, fields)?;
        answered_by(&outside, second, &["one", "two"])?;
        meets(&outside, primary, Fate::Refused)?;
        answered_by(&bed.pods.far.netns, address, &["one", "two"])?;
        wait_for("all to be masqueraded", LIMIT, || match source(&bed.pods.far.netns, address)? {
            seen if seen == bed.pods.far.ips[0] => bail!("the server saw the client itself"),
            _ => Ok(()),
        })
    })();
    let back = restart(bed, json!({}));
    let _ = ip(&outside, "route del 192.168.78.0/24");
    ip(&netns, "addr del 192.168.78.12/24 dev eth0")?;
    tested.and(back)?;
    answered_by(&outside, primary, &["one", "two"])
}

/// Starts node-2's agent again with these fields in its KubeProxyConfiguration.
fn restart(bed: &mut Bed, fields: Value) -> Result<()> {
    bed.ns.lab.nodes[1].stop_agent()?;
    bed.ns.lab.nodes[1].proxy = fields.as_object().cloned().unwrap_or_default();
    bed.ns.lab.start_agent(1)?;
    bed.ns.lab.wait_ready()
}

/// Tables as kube-proxy and somebody else would leave them.
const STRANGERS: &str =
    "add table ip kube-proxy; add chain ip kube-proxy services; add table ip someone; add chain ip someone here";

fn cleanup(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("web", WEB)?;
    let addresses = svc.at(80)?;
    addresses.iter().try_for_each(|a| answered_by(&bed.netns(2), *a, &["one", "two"]))?;
    let net = format!("--net=/run/netns/{}", bed.netns(2));
    let (ferrolet, root) = (bed.ns.lab.bins.ferrolet.display().to_string(), bed.ns.lab.nodes[1].root_dir().display().to_string());
    let clean = |more: &[&str]| {
        let mut args = vec![net.as_str(), &ferrolet, "cleanup", "--root-dir", &root];
        args.extend(more);
        sh("nsenter", &args)
    };
    let tables = || -> Result<Vec<String>> {
        Ok(sh("nsenter", &[&net, "nft", "list", "tables"])?.lines().map(|l| l.trim_start_matches("table ").to_owned()).collect())
    };
    sh("nsenter", &[&net, "nft", STRANGERS])?;
    // Not under a running agent, which would write it anew at once.
    match clean(&[]) {
        Ok(said) => bail!("cleaned up under a running agent: {said}"),
        Err(error) if format!("{error:#}").contains("running") => {}
        Err(error) => return Err(error),
    }
    bed.ns.lab.nodes[1].stop_agent()?;
    // What an agent leaves behind serves on.
    addresses.iter().try_for_each(|a| answers_now(&bed.netns(2), *a, &["one", "two"]))?;
    clean(&[])?;
    let left = tables()?;
    if left != ["ip kube-proxy", "ip someone"] {
        bail!("after the cleanup there are {left:?}");
    }
    clean(&["--kube-proxy"])?;
    let left = tables()?;
    sh("nsenter", &[&net, "nft", "delete", "table", "ip", "someone"])?;
    if left != ["ip someone"] {
        bail!("after the cleanup of kube-proxy's there are {left:?}");
    }
    bed.ns.lab.start_agent(1)?;
    addresses.iter().try_for_each(|a| answered_by(&bed.netns(2), *a, &["one", "two"]))
}
