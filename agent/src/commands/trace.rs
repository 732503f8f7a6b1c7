//! `ferrolet trace`: what the service rules do to the first packet of a connection, and why.
//!
//! Owns the arguments, the question and its answer as they go over the socket, and the text of it. Decides nothing itself: the
//! data plane does, in the running daemon or in one made up from the API.

use super::socket;
use crate::api::watch::chain;
use ferrolet_netproxy::proxy::explain::Explained;
use ferrolet_netproxy::ruleset::Front;
use ferrolet_netproxy::trace::{Outcome, Packet};
use ferrolet_netproxy::{Family, Proto};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Says which service, frontend and endpoints a packet meets, or why it is rejected, dropped or passed
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "ferrolet trace")]
pub struct Args {
    /// The packet's source address
    #[arg(long, value_name = "IP")]
    pub from: String,
    /// Its destination, such as 10.96.0.10:53/udp or [fd00::a]:443/tcp; without a protocol tcp
    #[arg(long, value_name = "IP:PORT/PROTOCOL")]
    pub to: String,
    /// The interface by which it comes, where pods are told by interface; without it the packet is this host's own
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The root folder of the daemon that is asked
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Without a running daemon: how to reach the API server
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Without a running daemon: the KubeProxyConfiguration it would run with
    #[arg(long, value_name = "FILE")]
    pub proxy_config: Option<PathBuf>,
    /// Without a running daemon: the node on which the packet is, instead of this host
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// The answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Log verbosity, as of the daemon
    #[arg(short = 'v', long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub v: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--from: {0:?} is not an IP address")]
    From(String),
    #[error("--to: {0:?} is not of the form IP:PORT/tcp, /udp or /sctp, with an IPv6 address in brackets")]
    To(String),
    #[error("--to: port 0 cannot be reached")]
    NoPort,
    #[error("--from {from} and --to {to} are not of one address family")]
    Families { from: IpAddr, to: IpAddr },
    #[error("--interface: {0:?} is not the name of an interface")]
    Interface(String),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error("no ferrolet answers at {}: start it, name its --root-dir, or name a --kubeconfig to ask the API", .0.display())]
    Nobody(PathBuf),
    #[error("the answer was not one to a trace")]
    OtherAnswer,
    #[error(transparent)]
    Offline(#[from] super::offline::Error),
}

/// One packet, in text: what crosses the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub interface: Option<String>,
}

impl Ask {
    pub fn packet(&self) -> Result<Packet, Error> {
        let src = plain(self.from.parse().map_err(|_| Error::From(brief(&self.from)))?);
        let (address, proto) = target(&self.to).ok_or_else(|| Error::To(brief(&self.to)))?;
        let dst = plain(address.ip());
        if address.port() == 0 {
            return Err(Error::NoPort);
        }
        if Family::of(&src) != Family::of(&dst) {
            return Err(Error::Families { from: src, to: dst });
        }
        if let Some(name) = &self.interface {
            let usable = (1..16).contains(&name.len()) && !name.contains(|c: char| c == '/' || c.is_whitespace());
            if !usable {
                return Err(Error::Interface(brief(name)));
            }
        }
        Ok(Packet { src, dst, proto, dst_port: address.port(), from_interface: self.interface.clone(), random: 0 })
    }
}

fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

/// IPv4 packets are met by the IPv4 table, however their addresses are written.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn target(text: &str) -> Option<(SocketAddr, Proto)> {
    let (address, proto) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let proto = match proto.to_ascii_lowercase().as_str() {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        _ => return None,
    };
    Some((address.parse().ok()?, proto))
}

/// What the rules do, as it crosses the socket and as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub from: String,
    pub to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// forwarded, rejected, dropped or passed
    pub verdict: String,
    pub why: String,
    /// namespace/name
    pub service: Option<String>,
    pub frontend: Option<String>,
    /// The chain that picks the endpoint.
    pub chain: Option<String>,
    pub endpoints: Vec<Choice>,
    pub unused: Vec<Left>,
    pub affinity_seconds: Option<u32>,
    /// A service with this address that the kernel refused.
    pub set_aside: Option<String>,
    /// False until the daemon has the complete lists in the kernel.
    pub synced: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    pub address: String,
    /// Of new connections, in percent.
    pub share: f64,
    /// kept or masqueraded
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    pub address: String,
    pub why: String,
}

impl Report {
    pub fn new(ask: &Ask, explained: Explained, synced: bool) -> Report {
        let Explained { verdict, endpoints, unused, chain, affinity, set_aside } = explained;
        let (word, front) = match verdict.outcome {
            Outcome::Forward { front, .. } => ("forwarded", Some(front)),
            Outcome::Reject => ("rejected", None),
            Outcome::Drop => ("dropped", None),
            Outcome::Pass => ("passed", None),
        };
        let share = 100.0 / endpoints.len().max(1) as f64;
        let choice = |(to, masquerade): (ferrolet_netproxy::ruleset::Backend, bool)| Choice {
            address: SocketAddr::new(to.ip, to.port).to_string(),
            share,
            source: if masquerade { "masqueraded" } else { "kept" }.into(),
        };
        Report {
            from: ask.from.clone(),
            to: ask.to.clone(),
            interface: ask.interface.clone(),
            verdict: word.into(),
            why: verdict.why.into(),
            service: verdict.service.map(|key| key.to_string()),
            frontend: front.as_ref().map(frontend),
            chain,
            endpoints: endpoints.into_iter().map(choice).collect(),
            unused: unused.into_iter().map(|u| Left { address: u.ip.to_string(), why: u.why.into() }).collect(),
            affinity_seconds: affinity,
            set_aside: set_aside.map(|key| key.to_string()),
            synced,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let by = self.interface.as_deref().map(|name| format!(" by {name}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "packet     {} -> {}{by}", self.from, self.to);
        let _ = writeln!(out, "verdict    {}: {}", self.verdict, self.why);
        let mut line = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(out, "{name:<11}{value}");
            }
        };
        line("service", &self.service);
        line("frontend", &self.frontend);
        line("chain", &self.chain);
        let affinity = self.affinity_seconds.map(|s| format!("a client stays with its endpoint until it is silent for {s} s"));
        line("affinity", &affinity);
        let aside = self.set_aside.as_ref().map(|key| format!("{key}: the kernel refused its rules, so they are left out"));
        line("set aside", &aside);
        let list = |out: &mut String, title: &str, lines: Vec<(String, String)>| {
            let width = lines.iter().map(|(address, _)| address.len()).max().unwrap_or(0);
            for (n, (address, rest)) in lines.into_iter().enumerate() {
                let _ = writeln!(out, "{:<11}{address:<width$}  {rest}", if n == 0 { title } else { "" });
            }
        };
        let endpoint = |c: &Choice| {
            let source = match c.source.as_str() {
                "kept" => "source kept",
                _ => "source masqueraded",
            };
            (c.address.clone(), format!("{:.1} % of new connections, {source}", c.share))
        };
        list(&mut out, "endpoints", self.endpoints.iter().map(endpoint).collect());
        list(&mut out, "not used", self.unused.iter().map(|u| (u.address.clone(), u.why.clone())).collect());
        if !self.synced {
            out.push_str("           the daemon has not programmed all services yet\n");
        }
        out
    }
}

fn frontend(front: &Front) -> String {
    let at = |ip: IpAddr, port: u16, proto: Proto| format!("{}/{proto}", SocketAddr::new(ip, port));
    match *front {
        Front::ClusterIp { ip, proto, port } => format!("cluster IP {}", at(ip, port, proto)),
        Front::External { ip, proto, port } => format!("external address {}", at(ip, port, proto)),
        Front::LocalExternal { ip, proto, port } => {
            format!("external address {} for this node's endpoints", at(ip, port, proto))
        }
        Front::NodePort { proto, port, .. } => format!("node port {port}/{proto}"),
        Front::LocalNodePort { proto, port, .. } => format!("node port {port}/{proto} for this node's endpoints"),
    }
}

/// Asks the running daemon, or without one the API; what is to be printed.
pub async fn run(args: &Args) -> Result<String, Error> {
    let ask = Ask { from: args.from.clone(), to: args.to.clone(), interface: args.interface.clone() };
    let packet = ask.packet()?;
    let request = socket::Request::Trace(ask.clone());
    let asked = match (socket::ask(&args.root_dir, &request).await, &args.kubeconfig) {
        // Who names a kubeconfig has another way to an answer.
        (Err(error), Some(_)) if !matches!(error, socket::Error::Refused(_)) => {
            eprintln!("{}", chain(&error));
            None
        }
        (asked, _) => asked?,
    };
    let (report, source) = match asked {
        Some(socket::Answer::Trace(report)) => {
            (*report, format!("the running ferrolet, {}", args.root_dir.join(socket::NAME).display()))
        }
        Some(_) => return Err(Error::OtherAnswer),
        None => {
            let Some(kubeconfig) = &args.kubeconfig else { return Err(Error::Nobody(args.root_dir.join(socket::NAME))) };
            let (explained, whose) = super::offline::explain(args, kubeconfig, packet).await?;
            (Report::new(&ask, explained, true), whose)
        }
    };
    Ok(match args.json {
        true => json(&report, &source),
        false => format!("{}answer of  {source}\n", report.text()),
    })
}

fn json(report: &Report, source: &str) -> String {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["answerOf"] = source.into();
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests;
