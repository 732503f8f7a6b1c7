//! The lab's network: a fabric namespace with a bridge, a namespace for each node, and no route out of either.
//!
//! The fabric holds blackhole routes for the pod and service ranges, so that a packet that no rule caught dies there.

use crate::sys::{run, sh};
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;

pub const FABRIC_IP: &str = "192.168.77.1";
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
pub const SERVICE_CIDR: &str = "10.96.0.0/16";

/// `192.168.77.1N`
pub fn node_ip(n: u8) -> String {
    format!("192.168.77.1{n}")
}

/// `10.244.N.0/24`
pub fn pod_cidr(n: u8) -> String {
    format!("10.244.{n}.0/24")
}

pub fn exists(ns: &str) -> bool {
    std::path::Path::new("/run/netns").join(ns).exists()
}

pub fn create_fabric(ns: &str) -> Result<()> {
    sh("ip", &["netns", "add", ns])?;
    ip(ns, "link set lo up")?;
    ip(ns, "link add br0 type bridge")?;
    ip(ns, &format!("addr add {FABRIC_IP}/24 dev br0"))?;
    ip(ns, "link set br0 up")?;
    ip(ns, &format!("route add blackhole {CLUSTER_CIDR}"))?;
    ip(ns, &format!("route add blackhole {SERVICE_CIDR}"))?;
    sysctl(ns, "net.ipv4.ip_forward", "1")
}

pub fn create_node(fabric: &str, ns: &str, n: u8) -> Result<()> {
    sh("ip", &["netns", "add", ns])?;
    ip(ns, "link set lo up")?;
    ip(fabric, &format!("link add veth{n} type veth peer name eth0 netns {ns}"))?;
    ip(fabric, &format!("link set veth{n} master br0 up"))?;
    ip(ns, &format!("addr add {}/24 dev eth0", node_ip(n)))?;
    ip(ns, "link set eth0 up")?;
    ip(ns, &format!("route add default via {FABRIC_IP}"))?;
    ip(fabric, &format!("route add {} via {}", pod_cidr(n), node_ip(n)))?;
    sysctl(ns, "net.ipv4.ip_forward", "1")
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
