//! Services with real packets on two nodes with a routed pod network: from pods, nodes and outside.
//!
//! Most tests share four pods (a server and a client on each node) and make Services of their own on them; what a test
//! leaves is removed after it. Every check is made in each IP family the lab has.

mod affinity;
mod flows;
mod frontends;
mod ingress;
mod policies;
mod repair;
mod tools;
mod topology;

use crate::shared::{LIMIT, Ns, PAIR};
use anyhow::{Context, Result, bail};
use ferrolet_tests::load;
use ferrolet_tests::netns::ip;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

const NAMESPACE: &str = "services";
/// Longer than any packet needs here; what takes longer was dropped.
pub const SOON: Duration = Duration::from_millis(300);

pub fn trials() -> Vec<Trial> {
    [
        frontends::trials(),
        ingress::trials(),
        policies::trials(),
        topology::trials(),
        affinity::trials(),
        flows::trials(),
        repair::trials(),
        tools::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A running pod, and where its packets come from.
#[derive(Debug, Clone)]
pub struct Pod {
    pub name: String,
    pub ips: Vec<IpAddr>,
    /// Its network namespace, as [`ferrolet_tests::netns::within`] takes it.
    pub netns: String,
}

impl Pod {
    pub fn ip(&self, like: IpAddr) -> Result<IpAddr> {
        let ip = self.ips.iter().find(|ip| ip.is_ipv4() == like.is_ipv4()).copied();
        ip.with_context(|| format!("{} has no address of the family of {like}: {:?}", self.name, self.ips))
    }
}

#[derive(Debug, Clone)]
pub struct Pods {
    /// Servers labelled `app: web`, on node-1 and node-2. HTTP on their port `http`, which is 8080 on one and 8181 on the
    /// other; datagrams, lines and SCTP on 9000, 7001 and 7002.
    pub one: Pod,
    pub two: Pod,
    /// Clients on node-1 and node-2.
    pub near: Pod,
    pub far: Pod,
}

static PODS: Mutex<Option<Pods>> = Mutex::new(None);

/// A test's view: the lab, the Kubernetes namespace that all these tests share, and its pods.
pub struct Bed<'a, 'b> {
    pub ns: &'a mut Ns<'b>,
    pub pods: Pods,
    outside: String,
}

/// A test on the shared pods.
pub fn test(name: &'static str, body: fn(&mut Bed) -> Result<()>) -> Trial {
    crate::trial(name, move || on_pods(body))
}

fn on_pods(body: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    let result = PAIR.within(NAMESPACE, |ns| {
        let pods = pods(ns)?;
        let outside = ns.lab.client()?;
        body(&mut Bed { ns, pods, outside })
    });
    result.and(PAIR.within(NAMESPACE, |ns| clean(ns)))
}

/// A server's manifest; `more` are further lines of its container, `labels` of its labels.
pub fn server(name: &str, node: u8, labels: &str, http: u16, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{pod: {name}, {labels}}}}}\nspec:\n  nodeName: node-{node}\n  terminationGracePeriodSeconds: 10\n  containers:\n  - name: main\n    image: {}\n    args: [serve, --port, '{http}', --udp, '9000', --lines, '7001', --sctp, '7002']\n    ports: [{{name: http, containerPort: {http}}}]\n    {more}\n---\n",
        ferrolet_tests::images::WEB,
    )
}

pub const NO_DRAIN: &str = "env: [{name: WEB_DRAIN_MS, value: '0'}]";

fn pods(ns: &Ns) -> Result<Pods> {
    let mut kept = PODS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(pods) = &*kept {
        return Ok(pods.clone());
    }
    ns.lab.kubectl(&["create", "namespace", NAMESPACE])?;
    let keep = "fixture: kept";
    let manifest = [
        server("one", 1, &format!("app: web, {keep}"), 8080, NO_DRAIN),
        server("two", 2, &format!("app: web, {keep}"), 8181, NO_DRAIN),
        server("near", 1, keep, 8080, NO_DRAIN),
        server("far", 2, keep, 8080, NO_DRAIN),
    ];
    ns.apply(&manifest.concat())?;
    let pods = Pods { one: running(ns, "one")?, two: running(ns, "two")?, near: running(ns, "near")?, far: running(ns, "far")? };
    Ok(kept.insert(pods).clone())
}

/// Waits until a pod is Ready.
pub fn running(ns: &Ns, name: &str) -> Result<Pod> {
    let pod = ns.ready(name)?;
    let addresses = pod["status"]["podIPs"].as_array().context("no podIPs")?;
    let ips = addresses.iter().map(|a| Ok(a["ip"].as_str().context("no ip")?.parse()?)).collect::<Result<_>>()?;
    let id =
        pod["status"]["containerStatuses"][0]["containerID"].as_str().and_then(|id| id.rsplit('/').next()).context("no ID")?;
    let node = ns.lab.nodes.iter().find(|n| pod["spec"]["nodeName"] == n.name.as_str()).context("on no node of the lab")?;
    let tasks = node.containerd.tasks()?;
    let (_, pid) = tasks.iter().find(|(task, _)| task == id).with_context(|| format!("no process of {name}"))?;
    Ok(Pod { name: name.into(), ips, netns: format!("/proc/{pid}/ns/net") })
}

/// Removes all but the shared pods, and what a test may have told those.
fn clean(ns: &Ns) -> Result<()> {
    ns.kubectl(&["delete", "services,endpointslices,deployments,pods", "-l", "!fixture", "--timeout=60s"])?;
    ns.kubectl(&["label", "--overwrite", "pods", "one", "two", "app=web", "role-"])?;
    Ok(())
}

/// A Service as the API server returned it.
pub struct Svc {
    pub name: String,
    pub object: Value,
}

impl Svc {
    /// Its cluster IPs.
    pub fn ips(&self) -> Result<Vec<IpAddr>> {
        let ips = self.object["spec"]["clusterIPs"].as_array().with_context(|| format!("no clusterIPs: {}", self.object))?;
        ips.iter().map(|ip| Ok(ip.as_str().context("not a text")?.parse()?)).collect()
    }

    /// Its cluster IPs with a port.
    pub fn at(&self, port: u16) -> Result<Vec<SocketAddr>> {
        Ok(self.ips()?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The node port of its first port.
    pub fn node_port(&self) -> Result<u16> {
        let port =
            self.object["spec"]["ports"][0]["nodePort"].as_u64().with_context(|| format!("no nodePort: {}", self.object))?;
        Ok(port as u16)
    }
}

/// The HTTP port of the shared servers, as a service's only port 80.
pub const HTTP: &str = "ports: [{port: 80, targetPort: http}]";
pub const WEB: &str = "selector: {app: web}, ports: [{port: 80, targetPort: http}]";

impl Bed<'_, '_> {
    /// Makes or changes a Service; in both families where the lab has both.
    pub fn service(&self, name: &str, spec: &str) -> Result<Svc> {
        let families = if spec.contains("ExternalName") || spec.contains("ipFamilyPolicy") {
            ""
        } else {
            "ipFamilyPolicy: PreferDualStack, "
        };
        self.service_like("", name, &format!("{families}{spec}"))
    }

    /// The same with further metadata.
    pub fn service_like(&self, metadata: &str, name: &str, spec: &str) -> Result<Svc> {
        self.ns.apply(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, {metadata}}}\nspec: {{{spec}}}\n"))?;
        Ok(Svc { name: name.into(), object: self.ns.get("service", name)? })
    }

    /// A node's address of a family.
    pub fn node(&self, n: u8, like: IpAddr) -> Result<IpAddr> {
        self.ns.lab.nodes[usize::from(n) - 1].ip_like(like)
    }

    /// The namespace of a client that is no node.
    pub fn outside(&self) -> String {
        self.outside.clone()
    }

    pub fn netns(&self, n: u8) -> String {
        self.ns.lab.nodes[usize::from(n) - 1].netns.clone()
    }

    /// Pods and nodes, by name and namespace.
    pub fn inside(&self) -> Vec<(&'static str, String)> {
        vec![
            ("a pod of node-1", self.pods.near.netns.clone()),
            ("a pod of node-2", self.pods.far.netns.clone()),
            ("node-1", self.netns(1)),
            ("node-2", self.netns(2)),
        ]
    }

    /// Sends an address from the fabric to a node, for as long as the guard lives.
    pub fn route(&self, address: IpAddr, node: u8) -> Result<Route> {
        let via = self.node(node, address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let route = Route { netns: self.ns.lab.fabric.clone(), words: format!("{address}/{bits}") };
        ip(&route.netns, &format!("route add {} via {via}", route.words))?;
        Ok(route)
    }

    /// Cleared when the test ends, whether it failed or not.
    pub fn load_balancer(&self, name: &str, ingress: Value) -> Result<()> {
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
        self.ns.kubectl(&["patch", "service", name, "--subresource=status", "--type=merge", "-p", &patch]).map(drop)
    }

    /// An EndpointSlice made by hand, of the family of its first address, for port 8080; `labels` end with a comma.
    pub fn slice(&self, service: &str, name: &str, labels: &str, ips: &[IpAddr]) -> Result<()> {
        let kind = if ips.first().is_none_or(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" };
        let endpoints: Vec<Value> = ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        self.ns
            .apply(&format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{{labels}kubernetes.io/service-name: {service}}}}}\naddressType: {kind}\nports: [{{name: '', port: 8080, protocol: TCP}}]\nendpoints: {}\n",
                Value::from(endpoints),
            ))
            .map(drop)
    }

    pub fn patch(&self, kind: &str, name: &str, patch: &str) -> Result<()> {
        self.ns.kubectl(&["patch", kind, name, "--type=merge", "-p", patch]).map(drop)
    }

    /// What `nft` shows of our table in a node's namespace.
    pub fn listed(&self, node: u8, family: &str) -> Result<String> {
        let netns = self.netns(node);
        let net = format!("--net=/run/netns/{netns}");
        ferrolet_tests::sys::sh("nsenter", &[&net, "nft", "list", "table", family, "ferrolet"])
    }
}

/// A route of the fabric, taken away when dropped.
pub struct Route {
    netns: String,
    words: String,
}

impl Drop for Route {
    fn drop(&mut self) {
        let _ = ip(&self.netns, &format!("route del {}", self.words));
    }
}

/// How often to ask, to see every one of two endpoints with near certainty.
pub const ENOUGH: usize = 24;

/// Waits until exactly these pods answer.
pub fn answered_by(netns: &str, address: SocketAddr, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    wait_for(&format!("{address} to be answered by {wanted:?}"), LIMIT, || {
        let seen = load::spread(netns, address, ENOUGH)?;
        if seen.keys().map(String::as_str).eq(wanted.iter().copied()) { Ok(()) } else { bail!("answered by {seen:?}") }
    })
}

/// Fails unless exactly these pods answer now.
pub fn answers_now(netns: &str, address: SocketAddr, wanted: &[&str]) -> Result<()> {
    let seen = load::spread(netns, address, ENOUGH)?;
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    if seen.keys().map(String::as_str).eq(wanted.iter().copied()) { Ok(()) } else { bail!("{address} is answered by {seen:?}") }
}

/// The client's address as the server sees it.
pub fn source(netns: &str, address: SocketAddr) -> Result<IpAddr> {
    Ok(load::get(netns, address, "/peer")?.trim().parse()?)
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    Refused,
    Dropped,
}

pub fn fate(netns: &str, address: SocketAddr) -> Result<Fate> {
    fate_within(netns, address, SOON)
}

/// The same where an answer is expected, and a busy machine may take its time.
pub fn fate_within(netns: &str, address: SocketAddr, limit: Duration) -> Result<Fate> {
    let error = match load::fetch(netns, address, "/", limit) {
        Ok(_) => return Ok(Fate::Answered),
        Err(error) => error,
    };
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    match kind {
        Some(std::io::ErrorKind::ConnectionRefused) => Ok(Fate::Refused),
        Some(std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock) => Ok(Fate::Dropped),
        _ => Err(error),
    }
}

/// Waits until connections meet this fate.
pub fn meets(netns: &str, address: SocketAddr, wanted: Fate) -> Result<()> {
    wait_for(&format!("connections to {address} to be {wanted:?}"), LIMIT, || match fate(netns, address)? {
        seen if seen == wanted => Ok(()),
        other => bail!("{other:?}"),
    })
}

/// The answer to a datagram: the server's name, or with the text `peer` also the address it saw.
pub fn udp(netns: &str, from: u16, to: SocketAddr) -> Result<String> {
    load::ask_udp(netns, from, to, "who", SOON)
}

/// Waits until a datagram of this very flow is answered by this pod.
pub fn udp_answered_by(netns: &str, from: u16, to: SocketAddr, wanted: &str) -> Result<()> {
    wait_for(&format!("datagrams from port {from} to {to} to be answered by {wanted}"), LIMIT, || {
        let name = udp(netns, from, to)?;
        if name == wanted { Ok(()) } else { bail!("{name} answered") }
    })
}
