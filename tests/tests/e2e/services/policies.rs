//! Which endpoints are meant: traffic policies, health checks for load balancers, terminating and unready endpoints.

use super::ingress::{source_outside, vips};
use super::{Bed, Fate, HTTP, NO_DRAIN, SOON, WEB, answered_by, answers_now, meets, running, server, source, test};
use crate::shared::LIMIT;
use anyhow::{Context, Result, bail};
use ferrolet_tests::load::{self, Lines, Load};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::external_policy_local_keeps_the_source_and_the_node", external_local),
        test("services::internal_policy_local", internal_local),
        test("services::health_check_node_port", health_check),
        test("services::proxy_health_and_node_eligibility", proxy_health),
        test("services::terminating_endpoints", terminating),
        test("services::publish_not_ready_addresses", not_ready),
    ]
}

/// The only endpoint is on node-1.
fn external_local(bed: &mut Bed) -> Result<()> {
    let spec = format!("type: LoadBalancer, externalTrafficPolicy: Local, selector: {{pod: one}}, {HTTP}");
    let svc = bed.service("local", &spec)?;
    let vips = vips(&svc.ips()?, 40)?;
    let external = super::ingress::vips(&svc.ips()?, 41)?;
    bed.patch("service", "local", &json!({"spec": {"externalIPs": external}}).to_string())?;
    bed.load_balancer("local", vips.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>().into())?;
    for (vip, external) in vips.into_iter().zip(external) {
        for (ip, port) in [(vip, 80), (external, 80)] {
            let on_two = bed.route(ip, 2)?;
            meets(&bed.outside(), (ip, port).into(), Fate::Dropped)?;
            drop(on_two);
            let _on_one = bed.route(ip, 1)?;
            local_from_outside(bed, (ip, port).into())?;
        }
        let port = svc.node_port()?;
        local_from_outside(bed, (bed.node(1, vip)?, port).into())?;
        meets(&bed.outside(), (bed.node(2, vip)?, port).into(), Fate::Dropped)?;
        // The cluster's own traffic gets all endpoints, also on the node that has none.
        for address in [(vip, 80).into(), (external, 80).into(), SocketAddr::new(bed.node(2, vip)?, port)] {
            for (who, netns) in bed.inside() {
                if who == "node-1" && address.port() == port {
                    // From node-1 to node-2 comes from outside, for node-2.
                    meets(&netns, address, Fate::Dropped)?;
                    continue;
                }
                if who == "a pod of node-1" && address.port() == port {
                    // Its own address is kept, so the answer would not come back through node-2, as with kube-proxy.
                    continue;
                }
                answered_by(&netns, address, &["one"]).with_context(|| format!("{address} from {who}"))?;
            }
        }
        // A pod's way to the load balancer's address is the one to the cluster IP: nobody masquerades it.
        let seen = source(&bed.pods.far.netns, (vip, 80).into())?;
        if seen != bed.pods.far.ip(vip)? {
            bail!("from a pod of node-2 the server saw {seen}");
        }
    }
    // Cluster again: every node answers.
    bed.patch("service", "local", r#"{"spec": {"externalTrafficPolicy": "Cluster"}}"#)?;
    for ip in svc.ips()? {
        answered_by(&bed.outside(), (bed.node(2, ip)?, svc.node_port()?).into(), &["one"])?;
    }
    Ok(())
}

fn local_from_outside(bed: &Bed, address: SocketAddr) -> Result<()> {
    answered_by(&bed.outside(), address, &["one"])?;
    let (seen, own) = (source(&bed.outside(), address)?, source_outside(bed, address.ip())?);
    if seen == own { Ok(()) } else { bail!("through {address} the server saw {seen}, the client is {own}") }
}

fn internal_local(bed: &mut Bed) -> Result<()> {
    let both = bed.service("both", &format!("internalTrafficPolicy: Local, {WEB}"))?;
    let one = bed.service("one", &format!("type: NodePort, internalTrafficPolicy: Local, selector: {{pod: one}}, {HTTP}"))?;
    for address in both.at(80)? {
        for (who, netns) in bed.inside() {
            let own = if who.ends_with('1') { "one" } else { "two" };
            answered_by(&netns, address, &[own]).context(who)?;
        }
    }
    for address in one.at(80)? {
        for (who, netns) in bed.inside() {
            let wanted = if who.ends_with('1') { Fate::Answered } else { Fate::Dropped };
            meets(&netns, address, wanted).context(who)?;
        }
        // It is no policy for those from outside.
        answered_by(&bed.outside(), (bed.node(2, address.ip())?, one.node_port()?).into(), &["one"])?;
    }
    Ok(())
}

fn health_check(bed: &mut Bed) -> Result<()> {
    let spec = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32100, selector: {pod: one}";
    let svc = bed.service("checked", &format!("{spec}, {HTTP}"))?;
    for ip in svc.ips()? {
        says(bed, (bed.node(1, ip)?, 32100).into(), 200, 1)?;
        says(bed, (bed.node(2, ip)?, 32100).into(), 503, 0)?;
        // The node port it goes with answers where the check says so.
        answered_by(&bed.outside(), (bed.node(1, ip)?, svc.node_port()?).into(), &["one"])?;
    }
    bed.patch("service", "checked", r#"{"spec": {"selector": {"pod": null, "app": "web"}}}"#)?;
    for ip in svc.ips()? {
        for n in [1, 2] {
            says(bed, (bed.node(n, ip)?, 32100).into(), 200, 1)?;
        }
    }
    bed.ns.kubectl(&["delete", "service", "checked"])?;
    svc.ips()?.into_iter().try_for_each(|ip| meets(&bed.outside(), (bed.node(1, ip)?, 32100).into(), Fate::Refused))
}

fn says(bed: &Bed, address: SocketAddr, status: u16, endpoints: u64) -> Result<()> {
    wait_for(&format!("{address} to say {status} and {endpoints}"), LIMIT, || {
        let answer = load::fetch(&bed.outside(), address, "/", SOON)?;
        let body: Value = serde_json::from_str(&answer.body).with_context(|| format!("not JSON: {:?}", answer.body))?;
        let wanted = json!({
            "service": {"namespace": super::NAMESPACE, "name": "checked"},
            "localEndpoints": endpoints, "serviceProxyHealthy": true,
        });
        let weight = format!("x-load-balancing-endpoint-weight: {endpoints}");
        let right = answer.status == status && body == wanted && answer.head.to_lowercase().contains(&weight);
        if right { Ok(()) } else { bail!("answered {answer:?}") }
    })
}

fn proxy_health(bed: &mut Bed) -> Result<()> {
    let address = |n: u8| -> Result<SocketAddr> { Ok((bed.node(n, [0, 0, 0, 0].into())?, 10256).into()) };
    let is = |n: u8, path: &str, status: u16, eligible: Option<bool>| {
        wait_for(&format!("{path} of node-{n} to say {status}"), LIMIT, || {
            let answer = load::fetch(&bed.outside(), address(n)?, path, SOON)?;
            let body: Value = serde_json::from_str(&answer.body)?;
            let right = answer.status == status && body["lastUpdated"].is_string() && body["currentTime"].is_string();
            let right = right && body.get("nodeEligible").and_then(Value::as_bool) == eligible;
            if right { Ok(()) } else { bail!("answered {answer:?}") }
        })
    };
    is(1, "/healthz", 200, Some(true))?;
    is(2, "/healthz", 200, Some(true))?;
    is(2, "/livez", 200, None)?;
    // A node that the autoscaler is about to remove takes no new traffic, and lives.
    let taint = "ToBeDeletedByClusterAutoscaler";
    bed.ns.lab.kubectl(&["taint", "node", "node-2", &format!("{taint}=now:PreferNoSchedule")])?;
    let tainted = is(2, "/healthz", 503, Some(false)).and_then(|()| is(2, "/livez", 200, None));
    bed.ns.lab.kubectl(&["taint", "node", "node-2", &format!("{taint}-")])?;
    tainted?;
    is(1, "/healthz", 200, Some(true))?;
    is(2, "/healthz", 200, Some(true))
}

/// A server that goes on answering for a while after it was told to end.
fn leaving(name: &str, node: u8) -> String {
    server(name, node, "app: leaving", 8080, "env: [{name: WEB_DRAIN_MS, value: '5000'}]")
}

fn terminating(bed: &mut Bed) -> Result<()> {
    bed.ns.apply(&[leaving("t1", 1), leaving("t2", 2)].concat())?;
    let policy = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32101";
    let svc = bed
        .service("leaving", &format!("{policy}, selector: {{app: leaving}}, ports: [{{name: h, port: 80, targetPort: http}}]"))?;
    let lines = bed.service("lines", "selector: {pod: t1}, ports: [{port: 80, targetPort: 7001}]")?;
    running(bed.ns, "t1")?;
    running(bed.ns, "t2")?;
    let clients = [bed.pods.near.netns.clone(), bed.pods.far.netns.clone(), bed.netns(2)];
    for address in svc.at(80)? {
        clients.iter().try_for_each(|netns| answered_by(netns, address, &["t1", "t2"]))?;
    }
    let mut open = vec![];
    for address in lines.at(80)? {
        for netns in &clients {
            open.push(wait_for("a connection", LIMIT, || Lines::open(netns, address))?);
        }
    }
    for line in &mut open {
        line.ask("before")?;
    }
    bed.ns.kubectl(&["delete", "pod", "t1", "--wait=false"])?;
    let port = svc.node_port()?;
    for ip in svc.ips()? {
        let near = SocketAddr::new(bed.node(1, ip)?, port);
        // Others are ready: new connections of the cluster go there.
        clients.iter().try_for_each(|netns| answered_by(netns, (ip, 80).into(), &["t2"]))?;
        // On its own node it is all there is for those from outside. The load balancer is told to go elsewhere.
        answers_now(&bed.outside(), near, &["t1"])?;
        says_503(bed, (near.ip(), 32101).into())?;
    }
    for line in &mut open {
        let seen = line.ask("meanwhile").context("an open connection of a terminating endpoint")?;
        if !seen.starts_with("t1 ") || !seen.ends_with("meanwhile") {
            bail!("the open connection said {seen:?}");
        }
    }
    // Now all are terminating, and better than none.
    let load = Load::start(&clients[1], svc.at(80)?[0], Duration::from_millis(20));
    bed.ns.kubectl(&["delete", "pod", "t2", "--wait=false"])?;
    wait_for("all endpoints to be terminating", LIMIT, || {
        let slices = bed.ns.kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=leaving", "-o", "json"])?;
        let slices: Value = serde_json::from_str(&slices)?;
        let endpoints = || slices["items"].as_array().into_iter().flatten().filter_map(|s| s["endpoints"].as_array()).flatten();
        let all = endpoints().all(|e| e["conditions"]["terminating"] == true && e["conditions"]["ready"] == false);
        if all && endpoints().any(|e| e["conditions"]["serving"] == true) { Ok(()) } else { bail!("{slices}") }
    })?;
    for address in svc.at(80)? {
        let seen = load::spread(&clients[0], address, 24)?;
        if !seen.contains_key("t2") {
            bail!("while all are terminating {address} is answered by {seen:?}");
        }
    }
    load.finish_clean().context("while the last endpoint became a terminating one")?;
    bed.ns.kubectl(&["wait", "--for=delete", "pod/t1", "pod/t2", "--timeout=30s"])?;
    svc.at(80)?.into_iter().try_for_each(|address| meets(&clients[1], address, Fate::Refused))
}

fn says_503(bed: &Bed, address: SocketAddr) -> Result<()> {
    wait_for("the health check to say 503", LIMIT, || match load::fetch(&bed.outside(), address, "/", SOON)? {
        answer if answer.status == 503 => Ok(()),
        answer => bail!("{answer:?}"),
    })
}

fn not_ready(bed: &mut Bed) -> Result<()> {
    let probe = "readinessProbe: {httpGet: {path: /nothing-here, port: 8080}, periodSeconds: 1}";
    bed.ns.apply(&server("unready", 1, "app: unready", 8080, &format!("{NO_DRAIN}\n    {probe}")))?;
    let open = bed.service("open", &format!("publishNotReadyAddresses: true, selector: {{app: unready}}, {HTTP}"))?;
    let strict = bed.service("strict", &format!("selector: {{app: unready}}, {HTTP}"))?;
    for (open, strict) in open.at(80)?.into_iter().zip(strict.at(80)?) {
        answered_by(&bed.pods.far.netns, open, &["unready"])?;
        answered_by(&bed.netns(1), open, &["unready"])?;
        meets(&bed.pods.far.netns, strict, Fate::Refused)?;
    }
    Ok(())
}
