//! What others do to the rules, objects that are not as they should be, and change under load.

use super::{Bed, Fate, HTTP, WEB, answered_by, answers_now, meets, test};
use crate::shared::LIMIT;
use anyhow::{Context, Result, bail};
use ferrolet_tests::load::{self, Lines, Load};
use ferrolet_tests::sys::{sh, wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::foreign_changes_are_repaired_within_a_second", repaired),
        test("services::odd_objects_leave_the_others_right", odd),
        test("services::a_thousand_endpoints_come_and_go", thousand),
        test("services::no_connection_fails_while_all_changes", churn),
    ]
}

fn nft(bed: &Bed, node: u8, words: &str) -> Result<String> {
    let net = format!("--net=/run/netns/{}", bed.netns(node));
    let mut args = vec![net.as_str(), "nft"];
    args.extend(words.split_whitespace());
    sh("nsenter", &args)
}

/// How soon all of these are answered again after a change by somebody else.
fn back_after(change: &str, addresses: &[(String, SocketAddr)]) -> Result<()> {
    let begun = Instant::now();
    for (netns, address) in addresses {
        wait_for(&format!("{address} to answer after {change}"), Duration::from_secs(5), || {
            load::fetch(netns, *address, "/", Duration::from_millis(100))
        })?;
    }
    let took = begun.elapsed();
    if took < Duration::from_secs(1) { Ok(()) } else { bail!("after {change} it took {took:?}") }
}

fn repaired(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("web", &format!("type: NodePort, {WEB}"))?;
    let sticky = bed.service("sticky", &format!("sessionAffinity: ClientIP, {WEB}"))?;
    let lines = bed.service("lines", "selector: {app: web}, ports: [{port: 80, targetPort: 7001}]")?;
    let client = bed.pods.near.netns.clone();
    let mut addresses = vec![];
    for ip in svc.ips()? {
        addresses.push((client.clone(), SocketAddr::new(ip, 80)));
        addresses.push((bed.netns(1), SocketAddr::new(ip, 80)));
        addresses.push((bed.outside(), SocketAddr::new(bed.node(1, ip)?, svc.node_port()?)));
    }
    for (netns, address) in &addresses {
        answered_by(netns, *address, &["one", "two"])?;
    }
    let sticks = sticky.at(80)?[0];
    wait_for("one endpoint", LIMIT, || only(&client, sticks))?;
    let chosen = only(&client, sticks)?;
    let mut open = wait_for("a connection", LIMIT, || Lines::open(&client, lines.at(80)?[0]))?;
    open.ask("before")?;
    let ip = svc.ips()?[0];
    let families = if svc.ips()?.len() == 2 { vec!["ip", "ip6"] } else { vec!["ip"] };
    // Each of these is noticed by itself.
    nft(bed, 1, &format!("delete element ip ferrolet services {{ {ip} . tcp . 80 }}"))?;
    back_after("an element was deleted", &addresses)?;
    nft(bed, 1, "flush map ip ferrolet service-slots")?;
    back_after("a map was emptied", &addresses)?;
    nft(bed, 1, "flush chain ip ferrolet find-service")?;
    back_after("a chain was emptied", &addresses)?;
    for family in &families {
        nft(bed, 1, &format!("flush table {family} ferrolet"))?;
    }
    back_after("all rules were flushed", &addresses)?;
    if only(&client, sticks)? != chosen {
        bail!("affinity was lost with the rules");
    }
    for family in &families {
        nft(bed, 1, &format!("delete table {family} ferrolet"))?;
    }
    back_after("the tables were deleted", &addresses)?;
    nft(bed, 1, "flush ruleset")?;
    back_after("the whole ruleset was flushed", &addresses)?;
    // A rule of somebody else's in our chain goes too.
    nft(bed, 1, &format!("insert rule ip ferrolet find-service ip daddr {ip} drop"))?;
    back_after("a rule was put in between", &addresses)?;
    for (netns, address) in &addresses {
        answers_now(netns, *address, &["one", "two"])?;
    }
    let seen = open.ask("after").context("the connection that was open all the time")?;
    if seen.ends_with("after") { Ok(()) } else { bail!("the open connection said {seen:?}") }
}

fn only(netns: &str, address: SocketAddr) -> Result<String> {
    let seen = load::spread(netns, address, 16)?;
    if seen.len() == 1 { seen.into_keys().next().context("nobody") } else { bail!("answered by {seen:?}") }
}

/// Slices that no controller would write; the good part of them is served, and so is everything else.
fn odd(bed: &mut Bed) -> Result<()> {
    let good = bed.service("good", WEB)?;
    let manual = bed.service("manual", "ports: [{name: p, port: 80}, {name: q, port: 81}]")?;
    let (one, two) = (&bed.pods.near, &bed.pods.far);
    let slice = |name: &str, kind: &str, ports: Value, endpoints: Value| {
        let labels = json!({"kubernetes.io/service-name": "manual"});
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
            "metadata": {"name": name, "labels": labels}, "ports": ports, "endpoints": endpoints,
        });
        bed.ns.apply(&object.to_string()).map(drop)
    };
    let port = json!([{"name": "p", "port": 8080, "protocol": "TCP"}]);
    let ready = |ip: &std::net::IpAddr| json!({"addresses": [ip]});
    // No conditions at all count as ready. The same endpoint twice, in one slice and in two, counts once.
    slice(
        "manual-a",
        "IPv4",
        port.clone(),
        json!([ready(&one.ips[0]), ready(&one.ips[0]), {"addresses": [two.ips[0]], "conditions": {"ready": false}}]),
    )?;
    slice("manual-b", "IPv4", port.clone(), json!([ready(&one.ips[0])]))?;
    let address = manual.at(80)?[0];
    answered_by(&bed.netns(1), address, &["near"])?;
    // A port without a number, a port that the service does not have, no ports, no endpoints, names instead of addresses.
    slice(
        "manual-c",
        "IPv4",
        json!([{"name": "q", "protocol": "TCP"}, {"name": "nothing", "port": 1}]),
        json!([ready(&two.ips[0])]),
    )?;
    slice("manual-d", "IPv4", Value::Null, json!([ready(&two.ips[0])]))?;
    slice("manual-e", "IPv4", port.clone(), json!([]))?;
    let _ = slice("manual-f", "FQDN", port.clone(), json!([{"addresses": ["example.com"]}]));
    // What a strict API server refuses, this one may take.
    let _ = slice("manual-g", "IPv4", port.clone(), json!([{"addresses": ["not an address"]}, {"addresses": []}]));
    let _ = slice("manual-h", "IPv4", port.clone(), json!([{"addresses": ["fd00:10:244:1::99"]}]));
    slice("manual-i", "IPv4", port.clone(), json!([{"addresses": [two.ips[0]], "conditions": {"ready": true}}]))?;
    answered_by(&bed.netns(1), address, &["near", "far"])?;
    answered_by(&bed.pods.one.netns, address, &["near", "far"])?;
    // Moved between slices: in both for a while, then only in the other.
    slice("manual-e", "IPv4", port.clone(), json!([ready(&two.ips[0])]))?;
    slice("manual-i", "IPv4", port, json!([]))?;
    answered_by(&bed.netns(1), address, &["near", "far"])?;
    for gone in ["manual-a", "manual-b"] {
        answers_now(&bed.netns(1), address, &["near", "far"])?;
        bed.ns.kubectl(&["delete", "endpointslice", gone])?;
    }
    answered_by(&bed.netns(1), address, &["far"])?;
    meets(&bed.netns(1), (address.ip(), 81).into(), Fate::Refused)?;
    for good in good.at(80)? {
        answered_by(&bed.netns(1), good, &["one", "two"])?;
    }
    // What this test left is as it should be for whoever comes next: a new service works at once.
    let later = bed.service("later", &format!("selector: {{pod: two}}, {HTTP}"))?;
    later.at(80)?.into_iter().try_for_each(|a| answered_by(&bed.pods.near.netns, a, &["two"]))
}

/// In one slice, the most that the API takes. Only two of them are there, at both ends.
fn thousand(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("many", "ports: [{port: 80}]")?;
    let (first, last) = (bed.pods.near.ips[0], bed.pods.far.ips[0]);
    // Within the pods' range, where the fabric has no node and no way.
    let nobody = |n: u32| std::net::IpAddr::from([10, 244, 200 + (n / 250) as u8, 1 + (n % 250) as u8]);
    let mut ips = vec![first];
    ips.extend((0..998).map(nobody));
    ips.push(last);
    bed.slice("many", "many-1", "", &ips)?;
    let address = svc.at(80)?[0];
    for n in [1, 2] {
        wait_for("a thousand endpoints", LIMIT, || match slots(bed, n, address)? {
            1000 => Ok(()),
            n => bail!("{n} endpoints"),
        })?;
    }
    // Those in between go, and the two that are left are moved to the first slots.
    bed.slice("many", "many-1", "", &[first, last])?;
    for n in [1, 2] {
        wait_for("two endpoints", LIMIT, || match slots(bed, n, address)? {
            2 => Ok(()),
            n => bail!("{n} endpoints"),
        })?;
        answers_now(&bed.netns(n), address, &["near", "far"])?;
    }
    bed.slice("many", "many-1", "", &ips[1..])?;
    bed.slice("many", "many-2", "", &ips[..1])?;
    bed.slice("many", "many-1", "", &[last])?;
    for n in [1, 2] {
        wait_for("two endpoints", LIMIT, || match slots(bed, n, address)? {
            2 => Ok(()),
            n => bail!("{n} endpoints"),
        })?;
        answers_now(&bed.netns(n), address, &["near", "far"])?;
    }
    Ok(())
}

/// Endpoints of an address in a node's rules.
fn slots(bed: &Bed, node: u8, address: SocketAddr) -> Result<usize> {
    let listed = nft(bed, node, "list map ip ferrolet service-slots")?;
    Ok(listed.matches(&format!("{} . tcp . {} . ", address.ip(), address.port())).count())
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: churn}
spec:
  replicas: 3
  selector: {matchLabels: {app: churn}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 2}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: main
        image: IMAGE
        args: [serve]
        env: [{name: WEB_DRAIN_MS, value: '2500'}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
";

/// Clients everywhere, while a Deployment is scaled and rolled and both agents are killed and started again.
fn churn(bed: &mut Bed) -> Result<()> {
    bed.ns.apply(&DEPLOYMENT.replace("IMAGE", ferrolet_tests::images::WEB))?;
    let svc = bed.service("churn", &format!("type: NodePort, selector: {{app: churn}}, {HTTP}"))?;
    let rolled = |ns: &crate::shared::Ns| ns.kubectl(&["rollout", "status", "deployment/churn", "--timeout=40s"]).map(drop);
    rolled(bed.ns)?;
    let mut clients = vec![];
    for ip in svc.ips()? {
        clients.extend(bed.inside().into_iter().map(|(who, netns)| (format!("{who} to {ip}"), netns, SocketAddr::new(ip, 80))));
        for n in [1, 2] {
            let address = SocketAddr::new(bed.node(n, ip)?, svc.node_port()?);
            clients.push((format!("outside to {address}"), bed.outside(), address));
        }
    }
    for (who, netns, address) in &clients {
        wait_for(&format!("an answer from {who}"), LIMIT, || load::get(netns, *address, "/"))?;
    }
    let every = Duration::from_millis(20);
    let loads: Vec<_> = clients.into_iter().map(|(who, netns, address)| (who, Load::start(&netns, address, every))).collect();
    let changed = (|| {
        let scale = |n: &str| bed.ns.kubectl(&["scale", "deployment/churn", &format!("--replicas={n}")]).map(drop);
        scale("6")?;
        rolled(bed.ns)?;
        bed.ns.kubectl(&["rollout", "restart", "deployment/churn"])?;
        // In the middle of it.
        for index in 0..2 {
            bed.ns.lab.nodes[index].kill_agent()?;
            bed.ns.lab.start_agent(index)?;
        }
        rolled(bed.ns)?;
        bed.ns.kubectl(&["scale", "deployment/churn", "--replicas=2"])?;
        bed.ns.lab.nodes[1].kill_agent()?;
        bed.ns.lab.start_agent(1)?;
        rolled(bed.ns)?;
        wait_for("two pods", LIMIT, || {
            match bed.ns.list("pods")?.iter().filter(|p| p["metadata"]["labels"]["app"] == "churn").count() {
                2 => Ok(()),
                n => bail!("{n} pods"),
            }
        })
    })();
    let mut failures = vec![];
    let mut requests = 0;
    for (who, load) in loads {
        match load.finish_clean() {
            Ok(tally) => requests += tally.requests,
            Err(error) => failures.push(format!("{who}: {error:#}")),
        }
    }
    changed?;
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    println!("{requests} requests, none failed");
    Ok(())
}
