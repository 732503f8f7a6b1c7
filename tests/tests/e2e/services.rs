//! Services with real packets, from a pod, from the node and from outside.

use crate::shared::{LIMIT, Ns, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::load;
use ferrolet_tests::netns::{node_ip, within};
use ferrolet_tests::sys::{sh, wait_for};
use libtest_mimic::Trial;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::cluster_ip_from_pod_node_and_itself", cluster_ip),
        test("services::node_port_from_outside", node_port),
        test("services::no_endpoints_is_refused_at_once", refused),
        test("services::udp_follows_its_endpoint", udp),
        test("services::readiness_decides", readiness),
        test("services::named_target_port", named),
    ]
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn address(ns: &Ns, name: &str, port: u16) -> Result<SocketAddr> {
    let ip = ns.get("service", name)?["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    Ok(format!("{ip}:{port}").parse()?)
}

/// The answer from the service as soon as it is the wanted one.
fn answers(netns: &str, address: SocketAddr, wanted: &str) -> Result<()> {
    wait_for(&format!("{address} to answer {wanted}"), LIMIT, || {
        let body = load::get(netns, address, "/")?;
        if body.trim() == wanted { Ok(()) } else { bail!("answered {body:?}") }
    })
}

fn cluster_ip(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("server", "serve", "", ""))?;
    ns.apply(&pod("client", "serve", "", ""))?;
    ns.apply(&service("s", "selector: {app: server}, ports: [{port: 80, targetPort: 8080}]"))?;
    ns.ready("server")?;
    ns.ready("client")?;
    let address = address(ns, "s", 80)?;
    answers(&ns.lab.nodes[0].netns, address, "server")?;
    // From a pod, and from the pod to itself through its own service.
    for from in ["client", "server"] {
        let body = ns.kubectl(&["exec", from, "--", "/web", "get", &address.to_string(), "/"])?;
        if body.trim() != "server" {
            bail!("from {from}: {body:?}");
        }
    }
    // Pod to pod through a service keeps the client's address.
    let client = ns.get("pod", "client")?["status"]["podIP"].as_str().context("no IP")?.to_owned();
    let peer = ns.kubectl(&["exec", "client", "--", "/web", "get", &address.to_string(), "/peer"])?;
    if peer.trim() != client {
        bail!("the server saw {peer:?}, the client is {client}");
    }
    Ok(())
}

fn node_port(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("server", "serve", "", ""))?;
    ns.apply(&service("s", "type: NodePort, selector: {app: server}, ports: [{port: 80, targetPort: 8080, nodePort: 30123}]"))?;
    ns.ready("server")?;
    answers(&ns.lab.fabric, format!("{}:30123", node_ip(1)).parse()?, "server")?;
    ns.kubectl(&["delete", "service", "s"])?;
    wait_for("the node port to close", LIMIT, || match load::get(&ns.lab.fabric, format!("{}:30123", node_ip(1)).parse()?, "/") {
        Ok(_) => bail!("still answers"),
        Err(_) => Ok(()),
    })
}

fn refused(ns: &mut Ns) -> Result<()> {
    ns.apply(&service("empty", "selector: {app: nobody}, ports: [{port: 80}]"))?;
    let address = address(ns, "empty", 80)?;
    wait_for("connections to be refused", LIMIT, || {
        let error = match load::get(&ns.lab.nodes[0].netns, address, "/") {
            Ok(body) => bail!("answered {body:?}"),
            Err(error) => format!("{error:#}"),
        };
        if error.contains("refused") { Ok(()) } else { bail!("failed with: {error}") }
    })
}

fn ask(netns: &str, to: SocketAddr) -> Result<String> {
    within(netns, move || -> Result<String> {
        // One source port for all: a stale conntrack entry would hold the flow.
        let socket = UdpSocket::bind("0.0.0.0:45454")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send_to(b"who", to)?;
        let mut buffer = [0; 200];
        let (n, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    })?
}

fn udp(ns: &mut Ns) -> Result<()> {
    let server = |name: &str| {
        pod(name, "serve, --udp, '9000'", "env: [{name: WEB_DRAIN_MS, value: '0'}]", "")
            .replace(&format!("labels: {{app: {name}}}"), "labels: {app: udp}")
    };
    ns.apply(&server("first"))?;
    ns.apply(&service("u", "selector: {app: udp}, ports: [{port: 90, protocol: UDP, targetPort: 9000}]"))?;
    ns.ready("first")?;
    let address = address(ns, "u", 90)?;
    let netns = ns.lab.nodes[0].netns.clone();
    let from = |wanted: &str| {
        wait_for(&format!("an answer from {wanted}"), LIMIT, || {
            let name = ask(&netns, address)?;
            if name == wanted { Ok(()) } else { bail!("{name} answered") }
        })
    };
    from("first")?;
    ns.apply(&server("second"))?;
    ns.ready("second")?;
    ns.kubectl(&["delete", "pod", "first", "--timeout=30s"])?;
    from("second")
}

fn readiness(ns: &mut Ns) -> Result<()> {
    let probe = "readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}";
    let server = |name: &str| pod(name, "serve", probe, "").replace(&format!("labels: {{app: {name}}}"), "labels: {app: both}");
    ns.apply(&server("one"))?;
    ns.apply(&server("two"))?;
    ns.apply(&service("s", "selector: {app: both}, ports: [{port: 80, targetPort: 8080}]"))?;
    ns.ready("one")?;
    ns.ready("two")?;
    let address = address(ns, "s", 80)?;
    let netns = ns.lab.nodes[0].netns.clone();
    let only = |wanted: &[&str]| {
        wait_for(&format!("answers from {wanted:?} only"), LIMIT, || {
            let seen = load::spread(&netns, address, 40)?;
            if seen.keys().map(String::as_str).collect::<Vec<_>>() == wanted { Ok(()) } else { bail!("saw {seen:?}") }
        })
    };
    only(&["one", "two"])?;
    ns.kubectl(&["exec", "one", "--", "/web", "get", "127.0.0.1:8080", "/fail-ready"])?;
    only(&["two"])?;
    ns.kubectl(&["exec", "one", "--", "/web", "get", "127.0.0.1:8080", "/recover"])?;
    only(&["one", "two"])
}

fn named(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("server", "serve, --port, '8123'", "ports: [{name: odd, containerPort: 8123}]", ""))?;
    ns.apply(&service("s", "selector: {app: server}, ports: [{name: x, port: 80, targetPort: odd}]"))?;
    ns.ready("server")?;
    answers(&ns.lab.nodes[0].netns, address(ns, "s", 80)?, "server")?;
    // What was programmed reads as a table to an operator.
    let netns = ns.lab.nodes[0].netns.clone();
    let rules = within(&netns, || sh("nft", &["list", "table", "ip", "ferrolet"]))??;
    if !rules.contains("8123") {
        bail!("the endpoint's port is not in what nft lists:\n{rules}");
    }
    Ok(())
}
