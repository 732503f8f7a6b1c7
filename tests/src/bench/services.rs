//! `cargo lab bench services`: how fast and how small the service data plane is.
//!
//! Everything runs in network namespaces of its own without a route out, which go at the end, and with the next run if this one
//! is killed. The figures are those of an optimised build: a debug one builds and runs that. Where `FERROLET_KUBE_PROXY` names a
//! kube-proxy, what can be seen of it from outside stands beside them.

pub mod api;
pub mod changes;
pub mod driver;
pub mod figures;
pub mod kube_proxy;
pub mod listen;
pub mod objects;
pub mod packets;
pub mod plane;

use crate::cluster::{self, ns_name};
use crate::sys::sh;
use crate::{bins, leftovers, netns};
use anyhow::{Context, Result, bail};
use changes::{Changes, PAUSE, one_by_one, stream};
use driver::{Memory, Plane};
use figures::{Table, Verdict, median, milliseconds, percentile, sorted};
use objects::{Shape, thousands};
use plane::{QUEUE, Start};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The name by which everything of this bench is found again.
pub const LAB: &str = "bench-services";

const WIDE: Shape = Shape { services: 10_000, endpoints: 10, udp: false };
const MANY: Shape = Shape { services: 44_000, endpoints: 4, udp: false };
const COLD_STARTS: usize = 3;
const CHANGES: usize = 600;
const RATE: u32 = 1000;
/// After which memory is looked at again.
const REST: Duration = Duration::from_secs(10);

pub fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench makes network namespaces: run it as root");
    }
    if cfg!(debug_assertions) {
        let status = Command::new(bins::optimised_lab()?).args(["bench", "services"]).status()?;
        return if status.success() { Ok(()) } else { bail!("the optimised build of this bench failed: {status}") };
    }
    let _lock = cluster::lock(LAB)?;
    leftovers::remove(LAB)?;
    println!("service data plane; load {}", load());
    let mut table = Table::new();
    let done = kube_proxy::program().and_then(|other| measure(&mut table, other.as_deref()));
    println!("\n{table}\nload afterwards {}", load());
    leftovers::remove(LAB)?;
    done
}

/// What else the host does; figures are worth little without it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// What figures are called, where another program is to have the same.
struct Names(Shape);

impl Names {
    fn memory(&self) -> String {
        format!("memory above the empty process, {} endpoints", thousands(self.0.services * self.0.endpoints))
    }

    fn change(&self) -> String {
        format!("one endpoint changed, {}: watch event to kernel", self.0)
    }

    fn stream(&self) -> String {
        format!("{RATE} changes a second, {}", self.0)
    }
}

const STREAM_CPU: &str = "processor time of that";

fn measure(table: &mut Table, other: Option<&Path>) -> Result<()> {
    match other {
        Some(_) => table.against("kube-proxy"),
        None => println!("not compared with kube-proxy: {} names none", kube_proxy::VARIABLE),
    }
    let seconds = match std::env::var("FERROLET_BENCH_SECONDS") {
        Ok(text) => text.parse().context("FERROLET_BENCH_SECONDS is not a number of seconds")?,
        Err(_) => 60,
    };
    let mut wide = Size::start(table, WIDE, 1.0)?;
    wide.changes(table)?;
    wide.stream(table, seconds)?;
    let wide = wide.end()?;
    let mut many = Size::start(table, MANY, 4.0)?;
    many.changes(table)?;
    let many = many.end()?;
    let (p50, p99) = (many.0 / wide.0, many.1 / wide.1);
    let ratio = format!("p50 {p50:.2}, p99 {p99:.2}");
    let figure = format!("the same, {} to {}", thousands(MANY.services), thousands(WIDE.services));
    table.row(figure, ratio, "at most 2", p50 <= 2.0 && p99 <= 2.0);
    if let Some(program) = other {
        kube_proxy::measure(table, program, WIDE, 200, seconds)?;
    }
    packets::measure(table, other)
}

/// A data plane at one size.
struct Size {
    shape: Shape,
    netns: String,
    plane: Plane,
    changes: Changes,
    /// Of single changes, in milliseconds.
    p50: f64,
    p99: f64,
}

impl Size {
    /// Cold starts, and the memory of the last of them.
    fn start(table: &mut Table, shape: Shape, within: f64) -> Result<Size> {
        let mut starts: Vec<Start> = Vec::new();
        let once = |starts: &mut Vec<Start>| -> Result<(String, Plane, Memory)> {
            let netns = namespace(1)?;
            let mut plane = Plane::start(&netns)?;
            let empty = plane.memory()?;
            starts.push(plane.list(shape)?);
            Ok((netns, plane, empty))
        };
        for _ in 1..COLD_STARTS {
            let (netns, plane, _) = once(&mut starts)?;
            drop(plane);
            netns::delete(&netns)?;
        }
        let (netns, plane, empty) = once(&mut starts)?;
        let of = |what: fn(&Start) -> f64| starts.iter().map(what).collect::<Vec<f64>>();
        let (seconds, cpu) = (of(|s| s.seconds), median(&of(|s| s.cpu)));
        let all = seconds.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(" ");
        let middle = median(&seconds);
        let figure = format!("cold start, {shape}: objects in memory to kernel");
        let text = format!("{middle:.2} s (of {all}), {cpu:.2} s of processor time");
        table.row(figure, text, &format!("under {within} s"), middle < within);
        let longest = percentile(&sorted(of(|s| s.longest_batch)), 1.0) * 1e3;
        let text = format!("{longest:.0} ms, of {} batches in all", starts[0].batches);
        table.row("the longest that one batch of it held the kernel", text, "under 100 ms", longest < 100.0);
        let size = Size { shape, netns, plane, changes: Changes::new(shape), p50: 0.0, p99: 0.0 };
        size.memory(table, empty)?;
        Ok(size)
    }

    fn memory(&self, table: &mut Table, empty: Memory) -> Result<()> {
        let above = |kib: u64| kib.saturating_sub(empty.resident) as f64 / 1024.0;
        let first = self.plane.memory()?;
        std::thread::sleep(REST);
        let later = self.plane.memory()?;
        let text = format!(
            "{:.1} MB, after {} s {:.1} MB; peak {:.1} MB; empty process {:.1} MB",
            above(first.resident),
            REST.as_secs(),
            above(later.resident),
            above(later.peak),
            empty.resident as f64 / 1024.0,
        );
        // The figure to reach is for a hundred thousand endpoints.
        let verdict = if self.shape == WIDE { (above(later.resident) < 40.0).into() } else { Verdict::Plain };
        let to_reach = if self.shape == WIDE { "under 40 MB" } else { "" };
        table.row(Names(self.shape).memory(), text, to_reach, verdict);
        Ok(())
    }

    fn changes(&mut self, table: &mut Table) -> Result<()> {
        let plane = &mut self.plane;
        let times = one_by_one(&mut |line| plane.send(line), &self.netns, &mut self.changes, CHANGES, PAUSE)?;
        let times = milliseconds(&times);
        let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|part| percentile(&times, part));
        let text = format!("p50 {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms of {CHANGES}");
        table.row(Names(self.shape).change(), text, "p50 2 ms, p99 20 ms", p50 < 2.0 && p99 < 20.0);
        (self.p50, self.p99) = (p50, p99);
        Ok(())
    }

    fn stream(&mut self, table: &mut Table, seconds: u32) -> Result<()> {
        let seen = stream(&mut self.plane, &self.netns, &mut self.changes, RATE, seconds)?;
        let (first, last) = seen.queue();
        let text = format!(
            "{} in {:.1} s; queue of {QUEUE}: mean {first:.1} at first, {last:.1} at last, at most {}; latest {:.0} ms behind, settled in {:.1} ms",
            seen.sent,
            seen.took.as_secs_f64(),
            seen.longest_queue(),
            seen.latest.as_secs_f64() * 1e3,
            seen.settled.as_secs_f64() * 1e3,
        );
        // A second late in all is a generator that had to wait; a queue that grows would end full.
        let kept = seen.took.as_secs_f64() < f64::from(seconds) + 0.5 && last < first + 8.0 && seen.longest_queue() < QUEUE;
        table.row(Names(self.shape).stream(), text, "keeps up, queue does not grow", kept);
        let syncs = seen.reports.last().map_or(0, |r| r.syncs);
        let text = format!("{:.1} % of one core ({syncs} syncs since the start)", seen.cpu * 100.0);
        table.row(STREAM_CPU, text, "30 %", seen.cpu <= 0.3);
        Ok(())
    }

    fn end(self) -> Result<(f64, f64)> {
        drop(self.plane);
        netns::delete(&self.netns)?;
        Ok((self.p50, self.p99))
    }
}

/// An empty namespace.
fn namespace(n: u8) -> Result<String> {
    let name = ns_name(LAB, &format!("node-{n}"));
    sh("ip", &["netns", "add", &name])?;
    netns::ip(&name, "link set lo up")?;
    Ok(name)
}
