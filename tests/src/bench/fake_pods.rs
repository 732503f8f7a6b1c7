//! `cargo lab bench fake-pods`: what many pods cost the agent itself. The runtime is the fake on a real socket, so nothing of a
//! container runtime or of processes is in the figures; agent, control plane, cgroups, folders and volumes are the real ones.

use crate::cluster::Lab;
use crate::images;
use anyhow::{Context, Result, bail};
use ferrolet_cri::fake::Fake;
use std::time::{Duration, Instant};

const LAB: &str = "bench-fake";
const SIZES: [u32; 4] = [10, 100, 300, 1000];
const IDLE: Duration = Duration::from_secs(30);
/// What the agent may hold with the most pods.
const MOST_MIB: f64 = 150.0;
const LIMIT: Duration = Duration::from_secs(600);

pub fn run() -> Result<()> {
    super::on_fake(LAB, 1100, measure)
}

/// The agent's memory, and the processor time it has had.
#[derive(Clone, Copy)]
struct Cost {
    mib: f64,
    cpu: f64,
    at: Instant,
}

struct Row {
    pods: u32,
    start: (f64, f64),
    mib: f64,
    idle: f64,
    end: (f64, f64),
    after: f64,
}

fn measure(lab: &mut Lab, fake: &Fake) -> Result<()> {
    let empty = cost(lab)?;
    println!("many pods on the fake runtime; the agent with none: {:.1} MiB\n", empty.mib);
    println!(
        "{:>6} | {:>8} {:>8} {:>9} | {:>8} {:>9} | {:>8} | {:>8} {:>8} | {:>9}",
        "pods", "start s", "cpu s", "cpu ms/pod", "RSS MiB", "KiB/pod", "idle %", "end s", "cpu s", "after MiB"
    );
    let mut rows = Vec::new();
    for pods in SIZES {
        let row = one(lab, fake, pods)?;
        println!(
            "{:>6} | {:>8.2} {:>8.2} {:>10.1} | {:>8.1} {:>9.1} | {:>8.2} | {:>8.2} {:>8.2} | {:>9.1}",
            row.pods,
            row.start.0,
            row.start.1,
            row.start.1 * 1e3 / f64::from(row.pods),
            row.mib,
            (row.mib - empty.mib) * 1024.0 / f64::from(row.pods),
            row.idle,
            row.end.0,
            row.end.1,
            row.after,
        );
        rows.push(row);
    }
    let (Some(first), Some(last)) = (rows.get(1), rows.last()) else { bail!("nothing was measured") };
    let each = |row: &Row| (row.start.1 + row.end.1) * 1e3 / f64::from(row.pods);
    let growth = each(last) / each(first);
    println!("\nprocessor time of one pod among {} is {growth:.2} times that of one among {}", last.pods, first.pods);
    println!("{:.1} MiB with {} pods: {}", last.mib, last.pods, if last.mib < MOST_MIB { "within 150" } else { "ABOVE 150" });
    Ok(())
}

fn cost(lab: &Lab) -> Result<Cost> {
    let agent = lab.nodes[0].agent.as_ref().context("no agent")?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid()))?;
    // The name in parentheses may hold anything; user and system time are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).context("no times in stat");
    // The kernel tells these in hundredths of a second, whatever its own clock's rate is.
    let cpu = (ticks(11)? + ticks(12)?) as f64 / 100.0;
    Ok(Cost { mib: agent.rss_kib()? as f64 / 1024.0, cpu, at: Instant::now() })
}

/// Seconds of the wall and of the processor.
fn between(from: Cost, to: Cost) -> (f64, f64) {
    ((to.at - from.at).as_secs_f64(), to.cpu - from.cpu)
}

fn one(lab: &Lab, fake: &Fake, pods: u32) -> Result<Row> {
    let before = cost(lab)?;
    lab.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: {pods}\n  selector: {{matchLabels: {{app: many}}}}\n  \
         template:\n    metadata: {{labels: {{app: many}}}}\n    spec: {{containers: [{{name: web, image: {}, args: [serve], env: [{{name: WEB_DRAIN_MS, value: '0'}}], resources: {{requests: {{cpu: 1m}}}}}}]}}\n",
        images::WEB
    ))?;
    until("all ready", || {
        let ready = lab.kubectl(&["get", "deployment", "many", "-o", "jsonpath={.status.readyReplicas}"])?;
        Ok(ready.trim().parse() == Ok(pods))
    })?;
    let up = cost(lab)?;
    std::thread::sleep(IDLE);
    let rested = cost(lab)?;
    let (wall, cpu) = between(up, rested);
    let going = cost(lab)?;
    lab.kubectl(&["delete", "deployment", "many", "--timeout=60s"])?;
    until("nothing left", || {
        let gone = fake.sandboxes().is_empty();
        Ok(gone && lab.kubectl(&["get", "pods", "-l", "app=many", "-o", "name"])?.trim().is_empty())
    })?;
    let gone = cost(lab)?;
    fake.clear_calls();
    Ok(Row {
        pods,
        start: between(before, up),
        mib: rested.mib,
        idle: cpu / wall * 100.0,
        end: between(going, gone),
        after: gone.mib,
    })
}

/// Asked seldom: on few cores whoever asks takes the time of what is measured.
fn until(what: &str, mut over: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !over()? {
        if begun.elapsed() > LIMIT {
            bail!("not {what} within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
