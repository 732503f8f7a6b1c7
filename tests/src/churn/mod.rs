//! `cargo lab churn`: a node under pods that come, crash, change and go at random, its agent and its runtime killed now and
//! then; what the agent has in memory, descriptors and threads must come back, and nothing may be left.
//!
//! The same seed gives the same actions in the same order; when they meet what else happens is the machine's.

mod acts;
mod left;
mod random;

use crate::cluster::Lab;
use crate::sys::{anonymous_kib, wait_for};
use crate::{bins, setup};
use acts::Acts;
use anyhow::{Context, Result, bail};
use random::Random;
use std::time::{Duration, Instant};

const LAB: &str = "churn";
/// What an idle agent may have more than when it was new: what its allocator keeps.
const MEMORY_SLACK_KIB: u64 = 12 << 10;
/// What it may gain between two rests of the same process: there a leak shows.
const GAIN_SLACK_KIB: u64 = 3 << 10;
/// A connection or two that are kept for the next request.
const DESCRIPTOR_SLACK: usize = 4;
/// Threads for file work end after ten idle seconds.
const THREAD_SLACK: usize = 1;

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Anonymous: how many pages of its program are in memory tells of what it just did, not of what it keeps.
    kib: u64,
    descriptors: usize,
    threads: usize,
}

pub fn run(minutes: u64, seed: Option<u64>) -> Result<()> {
    let seed = seed.unwrap_or_else(random::seed);
    println!("churn for {minutes} min with --seed {seed}");
    let mut lab = Lab::create(LAB, 1, bins::build(true)?, setup::prepare()?)?;
    let result = churn(&mut lab, Duration::from_secs(minutes * 60), seed);
    if result.is_err() {
        println!("{}", lab.log_tails(40));
    }
    lab.destroy()?;
    result
}

/// Four quarters with a rest after each. The agent is killed in the first two, so that one process has the last two to itself.
fn churn(lab: &mut Lab, length: Duration, seed: u64) -> Result<()> {
    acts::second_image(lab)?;
    lab.start_stub()?;
    lab.start_agent(0)?;
    lab.wait_ready()?;
    acts::first_services(lab)?;
    let rules = left::settled(lab)?;
    let mut acts = Acts::new(Random::new(seed));
    head();
    let begun = Instant::now();
    let empty = rest(lab, &rules)?;
    row("empty", begun, &acts, empty);
    let mut rests = vec![];
    let mut failed = None;
    for quarter in 1..=4u32 {
        if quarter == 3 {
            // A process of its own for what follows, also where chance killed none before.
            acts.kill_agent(lab)?;
        }
        acts.may_kill_agent = quarter <= 2;
        let end = begun + length * quarter / 4;
        let mut told = Instant::now();
        while Instant::now() < end {
            acts.one(lab).with_context(|| format!("action {} of seed {seed}", acts.count))?;
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                row("busy", begun, &acts, sample(lab)?);
            }
        }
        acts.delete_all(lab)?;
        match rest(lab, &rules) {
            Ok(sample) => {
                row("at rest", begun, &acts, sample);
                rests.push(sample);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let Some(error) = failed {
        return Err(error.context(format!("after {} actions of seed {seed}", acts.count)));
    }
    let shims = left::shims(lab);
    if shims > 0 {
        println!("{shims} shims that containerd lost when it was killed are its own leftovers, and do not count");
    }
    judge(empty, &rests)
}

fn head() {
    println!(
        "{:>7} {:<8} {:>6} {:>5} {:>6} {:>6} {:>6}  {:>9} {:>11} {:>7}",
        "time", "", "acts", "pods", "alive", "agent", "cri", "MiB", "descriptors", "threads"
    );
}

fn row(what: &str, begun: Instant, acts: &Acts, sample: Sample) {
    println!(
        "{:>5} s {what:<8} {:>6} {:>5} {:>6} {:>6} {:>6}  {:>9.1} {:>11} {:>7}",
        begun.elapsed().as_secs(),
        acts.count,
        acts.made,
        acts.alive(),
        acts.agent_kills,
        acts.runtime_kills,
        sample.kib as f64 / 1024.0,
        sample.descriptors,
        sample.threads
    );
}

fn sample(lab: &Lab) -> Result<Sample> {
    let pid = lab.nodes[0].agent.as_ref().context("no agent")?.pid();
    let entries = |folder: &str| Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{pid}/{folder}"))?.count());
    Ok(Sample { kib: anonymous_kib(pid)?, descriptors: entries("fd")?, threads: entries("task")? })
}

/// Waits until nothing is left of any pod, and until what the agent has no longer shrinks.
fn rest(lab: &mut Lab, rules: &left::Elements) -> Result<Sample> {
    wait_for("all of the pods to be gone", Duration::from_secs(90), || {
        let left = left::find(lab, rules)?;
        if left.is_empty() { Ok(()) } else { bail!("left: {left:#?}") }
    })?;
    let end = Instant::now() + Duration::from_secs(15);
    let mut least = sample(lab)?;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        let now = sample(lab)?;
        least.kib = least.kib.min(now.kib);
        least.descriptors = least.descriptors.min(now.descriptors);
        least.threads = least.threads.min(now.threads);
    }
    Ok(least)
}

fn judge(empty: Sample, rests: &[Sample]) -> Result<()> {
    let (Some(end), Some(before)) = (rests.last(), rests.iter().rev().nth(1)) else { bail!("there were no rests") };
    let mut wrong = vec![];
    if end.kib > empty.kib + MEMORY_SLACK_KIB {
        wrong.push(format!("memory: {} KiB, {} KiB when it was empty", end.kib, empty.kib));
    }
    if end.kib > before.kib + GAIN_SLACK_KIB {
        wrong.push(format!("memory: {} KiB, {} KiB at the rest before", end.kib, before.kib));
    }
    if end.descriptors > empty.descriptors + DESCRIPTOR_SLACK {
        wrong.push(format!("descriptors: {}, {} when it was empty", end.descriptors, empty.descriptors));
    }
    if end.threads > empty.threads + THREAD_SLACK {
        wrong.push(format!("threads: {}, {} when it was empty", end.threads, empty.threads));
    }
    if wrong.is_empty() {
        println!("all came back, and nothing is left");
        return Ok(());
    }
    bail!("did not come back: {}", wrong.join("; "))
}
