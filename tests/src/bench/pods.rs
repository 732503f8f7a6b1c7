//! `cargo lab bench pods`: how long pods take to start and to end, through the agent and by bare CRI calls in the same run, and
//! what they cost.

mod bare;
mod seen;

use super::probes::load;
use super::services::figures::{Table, percentile, sorted};
use super::services::plane::cpu;
use crate::cluster::{Lab, cgroup_root};
use crate::images;
use crate::sys::wait_for;
use anyhow::{Context, Result};
use bare::Bare;
use seen::{Moments, Watch};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LAB: &str = "bench";
/// Pods started one at a time, each way.
const ROUNDS: usize = 40;
const MANY: [usize; 2] = [30, 100];
/// How long the idle agent is watched.
const IDLE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(300);
/// What the containers end by at once when they are told to.
const DRAIN: (&str, &str) = ("WEB_DRAIN_MS", "0");
const GRACE: Duration = Duration::from_secs(30);

/// Steps of one pod with their times, in order.
type Steps = Vec<(&'static str, Duration)>;

fn pod_cgroup(name: &str) -> String {
    format!("{}/bare/besteffort/pod-{name}", cgroup_root(LAB))
}

pub fn run() -> Result<()> {
    println!("pods; load {}", load());
    let mut table = Table::new();
    super::in_lab(LAB, 1, |lab| {
        let result = measure(lab, &mut table);
        println!("\n{table}\nload afterwards {}", load());
        result
    })
}

fn measure(lab: &mut Lab, table: &mut Table) -> Result<()> {
    let bare = Bare::new(lab)?;
    let by_calls: Vec<(Steps, Duration)> = (0..ROUNDS).map(|n| bare.one(&format!("one-{n}"))).collect::<Result<_>>()?;
    println!("one pod by bare CRI calls, median of {ROUNDS}");
    let (starts, ends): (Vec<Steps>, Vec<Duration>) = by_calls.into_iter().unzip();
    let (bare_start, bare_end) = (steps(&starts), sorted(ends.into_iter().map(ms).collect()));
    let many: Vec<(Duration, Duration)> = MANY.iter().map(|count| bare.many(*count)).collect::<Result<_>>()?;

    lab.start_stub()?;
    lab.start_agent(0)?;
    lab.wait_ready()?;
    let (share, resident) = idle(lab)?;
    table.row("an empty node: resident memory", format!("{resident:.1} MB"), "under 25 MB", resident < 25.0);
    table.note("an empty node: processor", format!("{:.2} % of a core", share * 100.0));
    let watch = Watch::start(lab)?;
    let mut ends = Vec::new();
    let through: Vec<Steps> = (0..ROUNDS)
        .map(|n| {
            let (steps, end) = agent_pod(lab, &watch, n)?;
            ends.push(end);
            Ok(steps)
        })
        .collect::<Result<_>>()?;
    println!("\none pod through the agent, median of {ROUNDS} (times since the API server had it)");
    let (start, ends) = (steps(&through), sorted(ends));
    for (part, name, limit) in [(0.5, "p50", 30.0), (0.99, "p99", 100.0)] {
        let [with, without] = [&start, &bare_start].map(|all| percentile(all, part));
        let text = format!("{:.1} ms ({with:.1} above {without:.1})", with - without);
        table.row(
            format!("one pod's start, {name} above the calls"),
            text,
            &format!("under {limit:.0} ms"),
            with - without < limit,
        );
    }
    for (part, name) in [(0.5, "p50"), (0.99, "p99")] {
        let [with, without] = [&ends, &bare_end].map(|all| percentile(all, part));
        let text = format!("{:.1} ms ({with:.1} above {without:.1})", with - without);
        table.row(format!("one pod's end, {name} above the calls"), text, "under 100 ms", with - without < 100.0);
    }
    for (count, (bare_up, bare_down)) in MANY.into_iter().zip(many) {
        crowd(lab, &watch, table, count, (bare_up, bare_down))?;
    }
    Ok(())
}

/// So many pods at once by a Deployment, at rest, and deleted.
fn crowd(lab: &Lab, watch: &Watch, table: &mut Table, count: usize, bare: (Duration, Duration)) -> Result<()> {
    let name = format!("crowd-{count}");
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {count}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: web, image: {}, args: [serve], env: [{{name: {}, value: '{}'}}], resources: {{requests: {{cpu: 1m}}}}}}]}}\n",
        images::WEB,
        DRAIN.0,
        DRAIN.1
    );
    lab.apply(&manifest)?;
    let up = span(&watch.wait(&name, count, LIMIT, |m| m.ready.is_some())?, |m| (Some(m.added), m.ready))?;
    let text = format!("{:.2} s (calls {:.2} s, all at once)", up.as_secs_f64(), bare.0.as_secs_f64());
    table.note(format!("{count} pods up: first made to last ready"), text);
    let (share, resident) = idle(lab)?;
    let goal = count == 100;
    if goal {
        table.row(format!("{count} idle pods: resident memory"), format!("{resident:.1} MB"), "under 40 MB", resident < 40.0);
        table.row(
            format!("{count} idle pods: processor"),
            format!("{:.2} % of a core", share * 100.0),
            "under 1 %",
            share < 0.01,
        );
    } else {
        table.note(format!("{count} idle pods: resident memory"), format!("{resident:.1} MB"));
    }
    lab.kubectl(&["delete", "deployment", &name, "--wait=false"])?;
    let down = span(&watch.wait(&name, count, LIMIT, |m| m.gone.is_some())?, |m| (m.deleting, m.gone))?;
    let text = format!("{:.2} s (calls {:.2} s, all at once)", down.as_secs_f64(), bare.1.as_secs_f64());
    table.note(format!("{count} pods deleted: first told to last gone"), text);
    Ok(())
}

/// From the first of one moment to the last of the other.
fn span(pods: &[Moments], of: impl Fn(&Moments) -> (Option<Instant>, Option<Instant>)) -> Result<Duration> {
    let first = pods.iter().filter_map(|m| of(m).0).min().context("no pod began")?;
    let last = pods.iter().filter_map(|m| of(m).1).max().context("no pod came to the end")?;
    Ok(last.saturating_duration_since(first))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Prints the median of each step; returns all of the last one in order, in milliseconds.
fn steps(rounds: &[Steps]) -> Vec<f64> {
    let mut last = Vec::new();
    for (i, (name, _)) in rounds.first().into_iter().flatten().enumerate() {
        last = sorted(rounds.iter().map(|r| ms(r[i].1)).collect());
        println!("  {name:<22} {:>8.1} ms", percentile(&last, 0.5));
    }
    last
}

/// A pod made and deleted with kubectl: the agent's own timeline of its start, which it logs when the pod is ready, and how many
/// milliseconds passed between the API server's word of its deletion and that of its end.
fn agent_pod(lab: &Lab, watch: &Watch, round: usize) -> Result<(Steps, f64)> {
    let name = format!("timed-{round:02}");
    lab.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: web, image: {}, args: [serve], env: [{{name: {}, value: '{}'}}]}}]}}\n",
        images::WEB, DRAIN.0, DRAIN.1
    ))?;
    // Nothing else is started meanwhile: on two cores a kubectl that waits would take its time from the pod.
    watch.wait(&name, 1, LIMIT, |m| m.ready.is_some())?;
    let line = ready_line(lab, &name)?;
    lab.kubectl(&["delete", "pod", &name, "--wait=false"])?;
    let end = span(&watch.wait(&name, 1, LIMIT, |m| m.gone.is_some())?, |m| (m.deleting, m.gone))?;
    Ok((timeline(&line)?, ms(end)))
}

/// The agent's own timeline of a pod's start, which it logs when the pod is ready.
pub(super) fn ready_line(lab: &Lab, pod: &str) -> Result<String> {
    wait_for("the agent's timeline", LIMIT, || {
        let text = std::fs::read_to_string(lab.nodes[0].agent_log())?;
        let found = text.lines().rfind(|l| l.contains("pod ready") && l.contains(&format!("pod={pod}_"))).map(str::to_owned);
        found.context("no timeline of the pod in the agent's log")
    })
}

/// Reads `step_ms=12.3` fields of a log line.
fn timeline(line: &str) -> Result<Steps> {
    let fields: BTreeMap<&str, &str> = line.split_whitespace().filter_map(|w| w.split_once('=')).collect();
    let steps = [("sandbox", "sandbox_ms"), ("image", "image_ms"), ("created", "created_ms"), ("started", "started_ms")];
    let steps = steps.iter().chain(&[("running reported", "running_reported_ms"), ("ready reported", "ready_reported_ms")]);
    steps
        .map(|(name, field)| {
            let text = fields.get(field).with_context(|| format!("no {field} in {line}"))?;
            Ok((*name, Duration::from_secs_f64(text.trim_matches('"').parse::<f64>()? / 1e3)))
        })
        .collect()
}

/// The agent's share of a core over a while in which nothing happens, and its resident memory in MB (10^6 bytes) afterwards.
fn idle(lab: &Lab) -> Result<(f64, f64)> {
    let agent = lab.nodes[0].agent.as_ref().context("no agent")?;
    let process = agent.pid().to_string();
    let (before, begun) = (cpu(&process)?, Instant::now());
    std::thread::sleep(IDLE);
    let share = (cpu(&process)? - before) / begun.elapsed().as_secs_f64();
    Ok((share, agent.rss_kib()? as f64 * 1024.0 / 1e6))
}
