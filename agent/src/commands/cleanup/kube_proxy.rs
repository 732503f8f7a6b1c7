//! What kube-proxy left behind: its nf_tables tables, its iptables chains of both kinds, its virtual servers, sets and interface.
//!
//! Owns the order: rules that refer to sets go before the sets. Programs are used as they are found in PATH; what is not installed
//! is said. Nothing is run that would load a kernel module for something that is not there.

use super::{Done, iptables};
use ferrolet_netproxy::{Family, netlink};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const INTERFACE: &str = "kube-ipvs0";
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// With `KUBE-6-` in front for IPv6.
const SETS: [&str; 17] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];

/// Removes all of it, as far as that is possible.
pub async fn remove(done: &mut Done) {
    let before = done.lines.len();
    for family in Family::ALL {
        let name = match family {
            Family::V4 => "table ip kube-proxy",
            Family::V6 => "table ip6 kube-proxy",
        };
        match netlink::remove_table(family, "kube-proxy") {
            Ok(true) => done.removed(format!("nf_tables {name}")),
            Ok(false) => {}
            Err(error) => done.failed(format!("nf_tables {name}: {}", crate::api::watch::chain(&error))),
        }
    }
    for program in ["iptables", "ip6tables"] {
        chains(program, done).await;
    }
    ipvs(done).await;
    sets(done).await;
    if done.lines.len() == before {
        done.lines.push("nothing of kube-proxy was there".into());
    }
}

/// Runs a program to its end. `None`: it is not installed.
async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Option<Result<String, String>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let work = async {
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let outcome = timeout(LIMIT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match outcome {
        Ok(Output { status, stdout, .. }) if status.success() => Some(Ok(String::from_utf8_lossy(&stdout).into_owned())),
        Ok(Output { stderr, status, .. }) => {
            let text = String::from_utf8_lossy(&stderr);
            Some(Err(format!("{program}: {status}: {}", text.trim().lines().next().unwrap_or("no reason given"))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("{program}: {error}"))),
    }
}

/// Of one address family, in nf_tables and in the older kernel interface.
async fn chains(program: &str, done: &mut Done) {
    let mut found = false;
    for kind in ["nft", "legacy"] {
        found |= chains_by(&format!("{program}-{kind}"), done).await;
    }
    // Where only one kind is installed, it has no name of its own.
    if !found && !chains_by(program, done).await {
        done.left(format!(
            "whatever is in {program}: neither {program}-nft-save nor {program}-legacy-save nor {program}-save is installed"
        ));
    }
}

/// False if the program is not installed.
async fn chains_by(program: &str, done: &mut Done) -> bool {
    // Without a table named, no table is made that was not there.
    let saved = match run(&format!("{program}-save"), &[], None).await {
        None => return false,
        Some(Err(why)) => {
            done.failed(why);
            return true;
        }
        Some(Ok(saved)) => saved,
    };
    let plan = iptables::plan(&saved);
    for table in &plan.unreadable {
        done.left(format!("table {table}, which {program}-save cannot read as it has rules of another program in it"));
    }
    for what in &plan.left {
        done.left(format!("{program}: {what}"));
    }
    if plan.input.is_empty() {
        return true;
    }
    match run(&format!("{program}-restore"), &["--noflush"], Some(&plan.input)).await {
        Some(Ok(_)) => {
            for (table, chains, jumps) in &plan.removed {
                done.removed(format!("{program}: {chains} chains of kube-proxy in table {table} and {jumps} jumps to them"));
            }
        }
        Some(Err(why)) => done.failed(format!("the chains of kube-proxy: {why}")),
        None => done.failed(format!("the chains of kube-proxy: {program}-restore is not installed")),
    }
    true
}

/// Only if the interface of kube-proxy's ipvs mode is there: others use virtual servers too.
async fn ipvs(done: &mut Done) {
    let bound = addresses_of(INTERFACE);
    if !nix::net::if_::if_nametoindex(INTERFACE).is_ok_and(|index| index > 0) {
        return;
    }
    let here: BTreeSet<IpAddr> = crate::node::addresses::all().into_iter().collect();
    match run("ipvsadm", &["-S", "-n"], None).await {
        None => done.failed("the virtual servers of kube-proxy's ipvs mode: ipvsadm is not installed"),
        Some(Err(why)) => done.failed(format!("the virtual servers of kube-proxy's ipvs mode: {why}")),
        Some(Ok(saved)) => {
            let (ours, others) = servers(&saved, &bound, &here);
            let mut gone = 0;
            for server in &ours {
                match run("ipvsadm", &["-D", &server.0, &server.1], None).await {
                    Some(Ok(_)) => gone += 1,
                    Some(Err(why)) => done.failed(format!("the virtual server {}: {why}", server.1)),
                    None => {}
                }
            }
            if gone > 0 {
                done.removed(format!("ipvs: {gone} virtual servers"));
            }
            for (kind, address) in others {
                done.left(format!("the virtual server {kind} {address}, which does not look like kube-proxy's"));
            }
        }
    }
    match run("ip", &["link", "delete", INTERFACE], None).await {
        Some(Ok(_)) => done.removed(format!("interface {INTERFACE}")),
        Some(Err(why)) => done.failed(format!("interface {INTERFACE}: {why}")),
        None => done.failed(format!("interface {INTERFACE}: the program ip is not installed")),
    }
}

fn addresses_of(interface: &str) -> BTreeSet<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter(|found| found.interface_name == interface);
    let ip = |found: nix::ifaddrs::InterfaceAddress| {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    all.filter_map(ip).collect()
}

type Server = (String, String);

/// The virtual servers in what `ipvsadm -S -n` prints: those on service addresses or on node ports, and the others. Pure.
fn servers(saved: &str, bound: &BTreeSet<IpAddr>, here: &BTreeSet<IpAddr>) -> (Vec<Server>, Vec<Server>) {
    let added = saved.lines().filter_map(|line| {
        let mut words = line.strip_prefix("-A ")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    added.partition(|(_, text)| {
        text.parse::<SocketAddr>().is_ok_and(|address| {
            bound.contains(&address.ip()) || here.contains(&address.ip()) && NODE_PORTS.contains(&address.port())
        })
    })
}

fn is_set(name: &str) -> bool {
    // Names of sets end after 31 bytes.
    let v6 = |set: &str| format!("KUBE-6-{set}").starts_with(name) && name.len() >= ("KUBE-6-".len() + set.len()).min(31);
    SETS.iter().any(|set| name.strip_prefix("KUBE-") == Some(set) || v6(set))
}

async fn sets(done: &mut Done) {
    // Not installed: kube-proxy's ipvs mode could not have run here.
    let Some(Ok(list)) = run("ipset", &["list", "-n"], None).await else { return };
    for name in list.lines().map(str::trim).filter(|name| is_set(name)) {
        match run("ipset", &["destroy", name], None).await {
            Some(Err(why)) => done.failed(format!("ipset {name}: {why}")),
            _ => done.removed(format!("ipset {name}")),
        }
    }
}

#[cfg(test)]
mod tests;
