//! `cargo lab bench probes`: what a thousand checks a second cost.
//!
//! The probe driver alone, in a process and a network namespace of its own, against a server in another: the figures are those
//! of an optimised build, a debug one builds and runs that.

pub mod exec;
pub mod parts;

use super::services::figures::{Table, Verdict};
use crate::cluster::{self, ns_name};
use crate::netns::{self, Stack};
use crate::sys::MARK;
use crate::{bins, leftovers};
use anyhow::{Context, Result, bail};
use parts::{Said, Work};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The name by which everything of this bench is found again.
pub const LAB: &str = "bench-probes";

const RATE: usize = 1000;
const REST: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(20);
/// More sockets than that at once, of a thousand checks a second, would be waiting for something.
const BOUND: usize = 200;

pub fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench makes network namespaces: run it as root");
    }
    if cfg!(debug_assertions) {
        let status = Command::new(bins::optimised_lab()?).args(["bench", "probes"]).status()?;
        return if status.success() { Ok(()) } else { bail!("the optimised build of this bench failed: {status}") };
    }
    let mut table = Table::new();
    println!("probes; load {}", load());
    let done = network(&mut table);
    println!("\n{table}\nload afterwards {}", load());
    done
}

/// What else the host does; figures are worth little without it.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn network(table: &mut Table) -> Result<()> {
    let _lock = cluster::lock(LAB)?;
    leftovers::remove(LAB)?;
    let (fabric, nodes) = (ns_name(LAB, "fabric"), [1, 2].map(|n| ns_name(LAB, &format!("node-{n}"))));
    netns::create_fabric(&fabric, Stack::V4)?;
    for (n, node) in (1..).zip(&nodes) {
        netns::create_node(&fabric, node, n, Stack::V4)?;
    }
    let server = format!("{}:8080", netns::node_ip(2)).parse()?;
    let done = [true, false].iter().try_for_each(|http| one(table, &nodes, Work { http: *http, probes: RATE, server }));
    leftovers::remove(LAB)?;
    done
}

fn one(table: &mut Table, nodes: &[String; 2], work: Work) -> Result<()> {
    let kind = if work.http { "HTTP" } else { "TCP" };
    let mut server = Part::start(&nodes[1], "bench-probed")?;
    server.ask()?;
    let mut prober = Part::start(&nodes[0], "bench-prober")?;
    prober.send(&serde_json::to_string(&Work { probes: 0, ..work })?)?;
    let empty = prober.ask()?;
    let mut prober = Part::start(&nodes[0], "bench-prober")?;
    prober.send(&serde_json::to_string(&work)?)?;
    std::thread::sleep(REST);
    let (first, taken, begun) = (prober.ask()?, server.ask()?.count, Instant::now());
    let mut most = 0;
    while begun.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(500));
        most = most.max(prober.sockets()?.values().sum());
    }
    let (last, checks, took) = (prober.ask()?, server.ask()?.count - taken, begun.elapsed().as_secs_f64());
    let (ours, theirs) = (prober.sockets()?, server.sockets()?);
    let (share, rate) = ((last.cpu - first.cpu) / took, checks as f64 / took);
    let text = format!("{:.1} % of one core, {:.0} µs each ({rate:.0} a second)", share * 100.0, share / rate * 1e6);
    let kept = share <= 0.3 && rate > 0.95 * RATE as f64;
    table.row(format!("processor time of {RATE} {kind} checks a second"), text, "30 %, keeps up", kept);
    let text = format!("{} of {RATE}", last.count);
    table.row(format!("{kind} probes that succeed"), text, "all", last.count == RATE as u64);
    let text = format!("prober {ours:?}, at most {most}; server {theirs:?}");
    let bounded = most < BOUND && !ours.contains_key("TIME_WAIT");
    table.row(format!("sockets by state, {kind}"), text, "no TIME_WAIT, bounded", bounded);
    let above = last.resident_kib.saturating_sub(empty.resident_kib);
    let text = format!("{above} KiB above {} KiB, {:.2} KiB each", empty.resident_kib, above as f64 / RATE as f64);
    table.row(format!("memory of {RATE} {kind} probes"), text, "", Verdict::Plain);
    Ok(())
}

/// One of the processes; ended when dropped.
struct Part {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Part {
    fn start(netns: &str, part: &str) -> Result<Part> {
        let program = std::env::current_exe().context("cannot find this program itself")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).arg(program).arg(part).env(MARK, LAB);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a part")?;
        let to = child.stdin.take().context("no input")?;
        let from = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Part { child, to, from })
    }

    fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}").context("the process takes no input")
    }

    fn ask(&mut self) -> Result<Said> {
        self.send("")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the process said {line:?}"))
    }

    /// TCP sockets of its namespace by state; not those that listen.
    fn sockets(&self) -> Result<BTreeMap<&'static str, usize>> {
        const STATES: [&str; 12] = [
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT1",
            "FIN_WAIT2",
            "TIME_WAIT",
            "CLOSE",
            "CLOSE_WAIT",
            "LAST_ACK",
            "LISTEN",
            "CLOSING",
            "other",
        ];
        let text = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.child.id()))?;
        let mut out = BTreeMap::new();
        for state in text.lines().skip(1).filter_map(|l| l.split_whitespace().nth(3)) {
            let at = usize::from_str_radix(state, 16).unwrap_or(0).clamp(1, 12) - 1;
            if STATES[at] != "LISTEN" {
                *out.entry(STATES[at]).or_default() += 1;
            }
        }
        Ok(out)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
