//! `cargo lab bench configs`: how soon a change of a ConfigMap is in the volumes of all pods that show it, and what the objects
//! cost that the agent watches for its pods. The runtime is the fake on a real socket; API, watches and volumes are the real ones.

use crate::cluster::Lab;
use crate::images;
use anyhow::{Context, Result, bail};
use ferrolet_cri::fake::Fake;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LAB: &str = "bench-configs";
const PODS: usize = 100;
const CHANGES: usize = 10;
/// So many pods with so many objects each.
const WATCHERS: usize = 10;
const EACH: usize = 100;
/// In which a change has to be everywhere.
const WITHIN: Duration = Duration::from_secs(2);
const REST: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(300);

pub fn run() -> Result<()> {
    super::on_fake(LAB, 300, measure)
}

fn measure(lab: &mut Lab, _: &Fake) -> Result<()> {
    changes(lab)?;
    watched(lab)
}

fn pod(name: &str, sources: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{bench: configs}}}}\nspec:\n  automountServiceAccountToken: false\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: '{}', args: [serve], volumeMounts: [{{name: v, mountPath: /v}}]}}]\n  \
         volumes: [{{name: v, projected: {{sources: [{sources}]}}}}]\n---\n",
        images::WEB
    )
}

fn all_run(lab: &Lab, count: usize) -> Result<()> {
    until("all run", || {
        let phases = lab.kubectl(&["get", "pods", "-l", "bench=configs", "-o", "jsonpath={.items[*].status.phase}"])?;
        Ok(phases.split_whitespace().filter(|p| *p == "Running").count() == count)
    })
}

fn changes(lab: &Lab) -> Result<()> {
    lab.kubectl(&["create", "configmap", "shared", "--from-literal=value=0"])?;
    lab.apply(&(0..PODS).map(|n| pod(&format!("show-{n}"), "{configMap: {name: shared}}")).collect::<String>())?;
    all_run(lab, PODS)?;
    let uids = lab.kubectl(&["get", "pods", "-l", "bench=configs", "-o", "jsonpath={.items[*].metadata.uid}"])?;
    let pods = lab.nodes[0].root_dir().join("pods");
    let files: Vec<PathBuf> =
        uids.split_whitespace().map(|uid| pods.join(uid).join("volumes/kubernetes.io~projected/v/value")).collect();
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    for change in 1..=CHANGES {
        let value = change.to_string();
        let patch = format!("{{\"data\":{{\"value\":\"{value}\"}}}}");
        // From before the request: kubectl's own time is in it, and is told.
        let begun = Instant::now();
        lab.kubectl(&["patch", "configmap", "shared", "-p", &patch])?;
        let asked = begun.elapsed();
        let mut left: Vec<&PathBuf> = files.iter().collect();
        let mut first = None;
        while !left.is_empty() {
            left.retain(|file| std::fs::read_to_string(file).is_ok_and(|text| text != value) || !file.exists());
            if left.len() < files.len() && first.is_none() {
                first = Some(begun.elapsed());
            }
            if begun.elapsed() > LIMIT {
                bail!("{} volumes were never brought up to date", left.len());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let last = begun.elapsed();
        firsts.push(first.unwrap_or(last).max(asked));
        lasts.push(last.max(asked));
    }
    lasts.sort();
    firsts.sort();
    let (median, worst) = (lasts[CHANGES / 2], lasts[CHANGES - 1]);
    println!(
        "a changed ConfigMap in the volumes of {PODS} pods, with kubectl's own time: first {} ms, all {} ms, at worst {} ms of {CHANGES}: {}",
        firsts[CHANGES / 2].as_millis(),
        median.as_millis(),
        worst.as_millis(),
        if worst < WITHIN { "within 2 s" } else { "ABOVE 2 s" }
    );
    lab.kubectl(&["delete", "pods", "-l", "bench=configs", "--timeout=120s"]).map(drop)
}

fn rss(lab: &Lab) -> Result<f64> {
    std::thread::sleep(REST);
    Ok(lab.nodes[0].agent.as_ref().context("no agent")?.rss_kib()? as f64 / 1024.0)
}

/// The same pods once with one object each for all, once with many that are nobody else's.
fn watched(lab: &Lab) -> Result<()> {
    let mut objects = String::new();
    for n in 0..WATCHERS * EACH {
        write!(objects, "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: own-{n}}}\ndata: {{value-{n}: '{n}'}}\n---\n")?;
    }
    lab.apply(&objects)?;
    let empty = rss(lab)?;
    lab.apply(&(0..WATCHERS).map(|n| pod(&format!("few-{n}"), "{configMap: {name: shared}}")).collect::<String>())?;
    all_run(lab, WATCHERS)?;
    let few = rss(lab)?;
    lab.kubectl(&["delete", "pods", "-l", "bench=configs", "--timeout=120s"])?;
    let mut many = String::new();
    for n in 0..WATCHERS {
        let sources: Vec<String> = (0..EACH).map(|i| format!("{{configMap: {{name: own-{}}}}}", n * EACH + i)).collect();
        many.push_str(&pod(&format!("many-{n}"), &sources.join(", ")));
    }
    let begun = Instant::now();
    lab.apply(&many)?;
    all_run(lab, WATCHERS)?;
    let started = begun.elapsed();
    let many = rss(lab)?;
    lab.kubectl(&["delete", "pods", "-l", "bench=configs", "--timeout=120s"])?;
    let after = rss(lab)?;
    let count = WATCHERS * EACH;
    println!(
        "the agent's memory: {empty:.1} MiB without pods, {few:.1} MiB with {WATCHERS} pods of one object, {many:.1} MiB with {WATCHERS} pods of \
         {count} watched objects ({:.1} KiB each; all ran after {:.1} s), {after:.1} MiB when they are gone",
        (many - few) * 1024.0 / count as f64,
        started.as_secs_f64()
    );
    Ok(())
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !done()? {
        if Instant::now() > end {
            bail!("waited in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
