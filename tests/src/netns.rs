//! The lab's network: a fabric namespace with a bridge, a namespace for each node, if wanted one for a client
//! outside the cluster, and no route out of any of them. IPv4, or IPv4 and IPv6.
//!
//! The fabric holds blackhole routes for the pod and service ranges, so that a packet that no rule caught dies there.

use crate::sys::{run, sh};
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;

pub const FABRIC_IP: &str = "192.168.77.1";
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
pub const FABRIC_IP6: &str = "fd00:77::1";
pub const CLUSTER_CIDR6: &str = "fd00:10:244::/48";
pub const SERVICE_CIDR6: &str = "fd00:10:96::/112";
/// The client outside the cluster.
pub const CLIENT_IP: &str = "192.168.77.100";
pub const CLIENT_IP6: &str = "fd00:77::100";

/// The address families of a lab's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stack {
    #[default]
    V4,
    /// IPv4 first.
    Dual,
}

impl Stack {
    pub fn has_v6(self) -> bool {
        self == Stack::Dual
    }

    /// `a`, or `a,b` where the lab has IPv6.
    pub fn join(self, v4: &str, v6: &str) -> String {
        if self.has_v6() { format!("{v4},{v6}") } else { v4.to_owned() }
    }
}

/// `192.168.77.1N`
pub fn node_ip(n: u8) -> String {
    format!("192.168.77.1{n}")
}

/// `fd00:77::1N`
pub fn node_ip6(n: u8) -> String {
    format!("fd00:77::1{n}")
}

/// `10.244.N.0/24`
pub fn pod_cidr(n: u8) -> String {
    format!("10.244.{n}.0/24")
}

/// `fd00:10:244:N::/64`
pub fn pod_cidr6(n: u8) -> String {
    format!("fd00:10:244:{n}::/64")
}

pub fn exists(ns: &str) -> bool {
    std::path::Path::new("/run/netns").join(ns).exists()
}

pub fn create_fabric(ns: &str, stack: Stack) -> Result<()> {
    create(ns, stack)?;
    // Both ends of what it forwards are on its bridge: it must not tell them to do without it.
    for interface in ["all", "default"] {
        sysctl(ns, &format!("net.ipv4.conf.{interface}.send_redirects"), "0")?;
    }
    ip(ns, "link add br0 type bridge")?;
    ip(ns, &format!("addr add {FABRIC_IP}/24 dev br0"))?;
    if stack.has_v6() {
        ip(ns, &format!("addr add {FABRIC_IP6}/64 dev br0"))?;
    }
    ip(ns, "link set br0 up")?;
    ip(ns, &format!("route add blackhole {CLUSTER_CIDR}"))?;
    ip(ns, &format!("route add blackhole {SERVICE_CIDR}"))?;
    if stack.has_v6() {
        ip(ns, &format!("-6 route add blackhole {CLUSTER_CIDR6}"))?;
        ip(ns, &format!("-6 route add blackhole {SERVICE_CIDR6}"))?;
    }
    forward(ns, stack)
}

pub fn create_node(fabric: &str, ns: &str, n: u8, stack: Stack) -> Result<()> {
    create(ns, stack)?;
    forward(ns, stack)?;
    plug(fabric, ns, &format!("veth{n}"), &node_ip(n), &node_ip6(n), stack)?;
    ip(fabric, &format!("route add {} via {}", pod_cidr(n), node_ip(n)))?;
    if stack.has_v6() {
        ip(fabric, &format!("-6 route add {} via {}", pod_cidr6(n), node_ip6(n)))?;
    }
    Ok(())
}

/// A host on the fabric's bridge that is no part of the cluster.
pub fn create_client(fabric: &str, ns: &str, stack: Stack) -> Result<()> {
    create(ns, stack)?;
    if stack.has_v6() {
        for interface in ["all", "default"] {
            sysctl(ns, &format!("net.ipv6.conf.{interface}.accept_redirects"), "0")?;
        }
    }
    plug(fabric, ns, "client", CLIENT_IP, CLIENT_IP6, stack)
}

fn create(ns: &str, stack: Stack) -> Result<()> {
    if stack.has_v6() && !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        bail!("this lab is to have IPv6, and the host's kernel has none (ipv6.disable=1?)");
    }
    sh("ip", &["netns", "add", ns])?;
    if stack.has_v6() {
        // Nobody else is here: an address may be used as soon as it is set.
        sysctl(ns, "net.ipv6.conf.default.accept_dad", "0")?;
    }
    ip(ns, "link set lo up")?;
    Ok(())
}

fn forward(ns: &str, stack: Stack) -> Result<()> {
    if stack.has_v6() {
        sysctl(ns, "net.ipv6.conf.all.forwarding", "1")?;
    }
    sysctl(ns, "net.ipv4.ip_forward", "1")
}

/// A cable to the fabric's bridge: eth0 with its addresses, and the fabric as the way to everything else.
fn plug(fabric: &str, ns: &str, cable: &str, v4: &str, v6: &str, stack: Stack) -> Result<()> {
    ip(fabric, &format!("link add {cable} type veth peer name eth0 netns {ns}"))?;
    ip(fabric, &format!("link set {cable} master br0 up"))?;
    ip(ns, &format!("addr add {v4}/24 dev eth0"))?;
    if stack.has_v6() {
        ip(ns, &format!("addr add {v6}/64 dev eth0"))?;
    }
    ip(ns, "link set eth0 up")?;
    ip(ns, &format!("route add default via {FABRIC_IP}"))?;
    if stack.has_v6() {
        ip(ns, &format!("-6 route add default via {FABRIC_IP6}"))?;
    }
    Ok(())
}

pub fn delete(ns: &str) -> Result<()> {
    if exists(ns) {
        sh("ip", &["netns", "delete", ns])?;
    }
    Ok(())
}

/// One `ip` command inside a namespace.
pub fn ip(ns: &str, words: &str) -> Result<String> {
    run(Command::new("ip").arg("-n").arg(ns).args(words.split_whitespace()))
}

fn sysctl(ns: &str, key: &str, value: &str) -> Result<()> {
    let (path, value) = (format!("/proc/sys/{}", key.replace('.', "/")), value.to_owned());
    within(ns, move || std::fs::write(&path, value).with_context(|| format!("cannot write {path}")))?
}

/// Runs a closure on a thread of its own inside a namespace, given by name or by an absolute path.
pub fn within<T: Send + 'static>(ns: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let handle = File::open(std::path::Path::new("/run/netns").join(ns)).with_context(|| format!("no network namespace {ns}"))?;
    let thread = std::thread::spawn(move || -> Result<T> {
        setns(&handle, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        Ok(work())
    });
    thread.join().map_err(|_| anyhow!("the thread in namespace {ns} panicked"))?
}
