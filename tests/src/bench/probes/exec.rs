//! `cargo lab bench exec-probes`: how long a pod takes to start while two hundred exec probes of other pods come every ten seconds, and while they do not.
//!
//! The probes are those of pods that run all the time; the annotation for their periods turns them on and off. Both take turns,
//! so that what else the host does falls on both.

use super::load;
use crate::bench::pods::ready_line;
use crate::bench::services::figures::{Table, percentile, sorted};
use crate::cluster::{Lab, condition};
use crate::images::WEB;
use crate::sys::wait_for;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LAB: &str = "bench-exec";
const PODS: usize = 10;
/// Of each of these pods; each has two probes.
const CONTAINERS: usize = 10;
const CHECKS: &str = "checks";
const TURNS: usize = 4;
/// Pods started in each turn.
const STARTS: usize = 8;
const LIMIT: Duration = Duration::from_secs(120);

pub fn run() -> Result<()> {
    println!("exec probes; load {}", load());
    let mut table = Table::new();
    crate::bench::in_lab(LAB, 1, |lab| {
        let result = compare(lab, &mut table);
        println!("\n{table}\nload afterwards {}", load());
        result
    })
}

fn compare(lab: &mut Lab, table: &mut Table) -> Result<()> {
    lab.start_stub()?;
    lab.start_agent(0)?;
    lab.wait_ready()?;
    for n in 0..PODS {
        lab.apply(&crowd(lab, n)?.to_string())?;
    }
    let ready = |pod: &Value| condition(pod, "Ready")["status"] == "True";
    wait_for("the crowd to be ready", LIMIT, || {
        let pods = lab.list("pods", "app=crowd")?;
        if pods.len() == PODS && pods.iter().all(ready) { Ok(()) } else { bail!("not yet") }
    })?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let (mut checks, mut seconds) = (0, 0.0);
    // The first ones warm everything up.
    start(lab, "warm")?;
    start(lab, "warm")?;
    for turn in 0..TURNS {
        turn_probes(lab, false)?;
        for n in 0..STARTS {
            without.push(start(lab, &format!("without-{turn}-{n}"))?);
        }
        turn_probes(lab, true)?;
        // Until all of them are in their ten seconds.
        std::thread::sleep(Duration::from_secs(11));
        let (before, begun) = (checked(lab)?, Instant::now());
        for n in 0..STARTS {
            with.push(start(lab, &format!("with-{turn}-{n}"))?);
        }
        (checks, seconds) = (checks + checked(lab)? - before, seconds + begun.elapsed().as_secs_f64());
    }
    let (without, with) = (sorted(without), sorted(with));
    let [a, b] = [&without, &with].map(|all| [percentile(all, 0.5), percentile(all, 0.9)]);
    let ratio = b[0] / a[0] - 1.0;
    let text = format!(
        "p50 {:.0} ms to {:.0} ms ({:+.1} %), p90 {:.0} ms to {:.0} ms; {} starts each",
        a[0],
        b[0],
        ratio * 100.0,
        a[1],
        b[1],
        without.len()
    );
    let probes = PODS * CONTAINERS * 2;
    let (rate, due) = (checks as f64 / seconds, probes as f64 / 10.0);
    table.row("exec checks a second meanwhile", format!("{rate:.1} of {due:.0}"), "none left out", rate > 0.9 * due);
    table.row(format!("a pod's start without and with {probes} exec probes at 10 s"), text, "at most 10 % more", ratio <= 0.1);
    Ok(())
}

fn crowd(lab: &Lab, n: usize) -> Result<Value> {
    std::fs::create_dir_all(lab.dir.join(CHECKS))?;
    let note = ["/web", "life", "/checks/all", "probe", "0", "0", "0"];
    let probe = json!({"exec": {"command": note}, "periodSeconds": 3600, "timeoutSeconds": 5});
    let container = |c: usize| {
        json!({"name": format!("c{c}"), "image": WEB, "args": ["sleep", "1000000"],
            "volumeMounts": [{"name": CHECKS, "mountPath": "/checks"}], "readinessProbe": probe, "livenessProbe": probe})
    };
    let volume = json!({"name": CHECKS, "hostPath": {"path": lab.dir.join(CHECKS)}});
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("crowd-{n}"), "labels": {"app": "crowd"}},
        "spec": {"terminationGracePeriodSeconds": 0, "volumes": [volume],
            "containers": (0..CONTAINERS).map(container).collect::<Vec<_>>()}}))
}

/// How many checks there have been.
fn checked(lab: &Lab) -> Result<usize> {
    let text = std::fs::read_to_string(lab.dir.join(CHECKS).join("all"))?;
    Ok(text.lines().filter(|l| l.ends_with("started")).count())
}

fn turn_probes(lab: &Lab, on: bool) -> Result<()> {
    let one = |c: usize| format!("c{c}.readiness=10000,c{c}.liveness=10000");
    let periods = (0..CONTAINERS).map(one).collect::<Vec<_>>().join(",");
    let change = if on { format!("ferrolet.dev/probe-period-ms={periods}") } else { "ferrolet.dev/probe-period-ms-".into() };
    lab.kubectl(&["annotate", "--overwrite", "pods", "--selector=app=crowd", &change]).map(drop)
}

/// Milliseconds from the API server's having it to its being ready, by the agent's own timeline.
fn start(lab: &Lab, name: &str) -> Result<f64> {
    lab.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 0, containers: [{{name: web, image: {WEB}, args: [serve]}}]}}\n"
    ))?;
    let line = ready_line(lab, name)?;
    lab.kubectl(&["delete", "pod", name, "--timeout=30s"])?;
    let field = line.split_whitespace().find_map(|w| w.strip_prefix("ready_reported_ms="));
    Ok(field.context("no time in the timeline")?.trim_matches('"').parse()?)
}
