//! The life of pods, told once and held on every runtime: the agent itself, end to end, over a containerd and over the fake
//! runtime that imitates this containerd. Each has a node of one lab, and both play all scenarios, several at once.
//!
//! Afterwards all pods must look the same on both; a new agent must report each as it was; pods deleted while their runtime
//! is away must wait for it; and nothing must be left.

mod api;
mod holds;
mod run;
mod runtimes;
mod table;

use crate::trial;
use anyhow::{Context, Result, bail};
use api::{Api, PODS, Seen};
use ferrolet_tests::cluster::Lab;
use ferrolet_tests::leftovers;
use ferrolet_tests::setup::{self, Runtime, Tools};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use run::{LIMIT, Played};
use runtimes::Under;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use table::Scenario;

const LAB: &str = "e2e-scen";
/// So many scenarios at once on each runtime. Most of their time is waiting.
const AT_ONCE: usize = 8;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("scenarios::on_the_hosts_containerd_as_on_the_fake", || on(setup::prepare()?)),
        trial("scenarios::on_the_newest_containerd_as_on_the_fake", || {
            on(Tools { runtime: Runtime::newest()?, ..setup::prepare()? })
        }),
    ]
}

fn on(tools: Tools) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let guard = runtime.enter();
    let (mut lab, unders) = runtimes::lab(LAB, tools)?;
    let result = all(&mut lab, &unders, runtime.handle());
    if result.is_err() {
        println!("{}", lab.log_tails(15));
    }
    drop(unders);
    drop(guard);
    let destroyed = lab.destroy();
    result?;
    destroyed?;
    let left = leftovers::find(LAB);
    if left.is_empty() { Ok(()) } else { bail!("left: {}", left.join(", ")) }
}

fn all(lab: &mut Lab, unders: &[Under], runtime: &tokio::runtime::Handle) -> Result<()> {
    lab.start_stub()?;
    let api = Api::start(lab)?;
    for node in 0..lab.nodes.len() {
        lab.start_agent(node)?;
    }
    lab.wait_ready()?;
    let (played, mut failed) = play(&table::all(), unders, &api, lab);
    failed.extend(differing(&played, &api));
    failed.extend(new_agents(lab, &api, &played)?);
    for under in unders {
        let done = away(lab, &api, under, runtime);
        failed.extend(done.err().map(|error| format!("while {} is away: {error:#}", under.name)));
    }
    failed.extend(clean(lab, &api, unders, runtime).err().map(|error| format!("{error:#}")));
    if failed.is_empty() { Ok(()) } else { bail!("{} failed:\n{}", failed.len(), failed.join("\n\n")) }
}

/// All of them on all runtimes, and what failed, with its scenario and runtime.
fn play(scenarios: &[Scenario], unders: &[Under], api: &Api, lab: &Lab) -> (Vec<Played>, Vec<String>) {
    let begin = Instant::now();
    let results: Vec<Result<Played>> = std::thread::scope(|scope| {
        let mut threads = vec![];
        for under in unders {
            let next = std::sync::Arc::new(AtomicUsize::new(0));
            for _ in 0..AT_ONCE {
                let next = next.clone();
                threads.push(scope.spawn(move || {
                    let turn = || scenarios.get(next.fetch_add(1, Ordering::SeqCst));
                    std::iter::from_fn(turn).map(|s| run::play(s, under, api, lab)).collect::<Vec<_>>()
                }));
            }
        }
        let panicked = || vec![Err(anyhow::anyhow!("a scenario panicked"))];
        threads.into_iter().flat_map(|t| t.join().unwrap_or_else(|_| panicked())).collect()
    });
    let (mut played, mut failed) = (vec![], vec![]);
    for result in results {
        match result {
            Ok(one) => played.push(one),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let names: Vec<&str> = unders.iter().map(|u| u.name.as_str()).collect();
    println!(
        "{} of {} scenarios held on {} in {:.1?}",
        played.len(),
        played.len() + failed.len(),
        names.join(" and "),
        begin.elapsed()
    );
    if let Some(slowest) = played.iter().max_by_key(|p| p.took) {
        println!("the slowest was {} with {:.1?}", slowest.name, slowest.took);
    }
    (played, failed)
}

/// Those that rest come to the same status on all runtimes.
fn differing(played: &[Played], api: &Api) -> Vec<String> {
    let mut first: BTreeMap<&str, &Played> = BTreeMap::new();
    let mut failed = vec![];
    for one in played.iter().filter(|p| !p.deleted) {
        let other = *first.entry(one.scenario).or_insert(one);
        let same = wait_for("the same status", LIMIT, || {
            let [a, b] = [other, one].map(|p| api.history.of(&p.uid).versions.pop().unwrap_or_default());
            let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if over(&b) {
                // Its end is told before its sandbox is gone.
                holds::holds(&b, "PodReadyToStartContainers False")?;
            }
            let (a, b) = (holds::outcome(&a), holds::outcome(&b));
            if a == b { Ok(()) } else { bail!("{a}\n{b}") }
        });
        if let Err(error) = same {
            failed.push(format!("{} and {} differ: {error:#}", other.name, one.name));
        }
    }
    failed
}

fn pods(api: &Api) -> Result<BTreeMap<String, Value>> {
    let list: Value = serde_json::from_str(&api.call("GET", PODS, "", None)?)?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items.into_iter().map(|p| (p["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), p)).collect())
}

/// Makes a pod of one container; its uid.
fn make(api: &Api, lab: &Lab, node: usize, name: &str, policy: &str, args: &[&str]) -> Result<String> {
    let spec = json!({"nodeName": lab.nodes[node].name, "automountServiceAccountToken": false, "restartPolicy": policy,
        "containers": [{"name": "main", "image": table::WEB, "imagePullPolicy": "IfNotPresent", "args": args}]});
    let made = api.create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}))?;
    Ok(made["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

fn until(api: &Api, uid: &str, check: &str) -> Result<()> {
    api.history.wait(uid, LIMIT, |seen: &Seen| holds::holds(seen.versions.last().unwrap_or(&Value::Null), check))
}

/// Agents killed and started again report every pod that rests exactly as before; those that do not.
fn new_agents(lab: &mut Lab, api: &Api, played: &[Played]) -> Result<Vec<String>> {
    let before = pods(api)?;
    for node in 0..lab.nodes.len() {
        lab.nodes[node].kill_agent()?;
    }
    for node in 0..lab.nodes.len() {
        lab.start_agent(node)?;
    }
    // A pod made afterwards is seen through, so each agent has looked at all there is.
    let made = |node| make(api, lab, node, &format!("after-{}", node + 1), "Never", &["exit", "0"]);
    let after: Vec<String> = (0..lab.nodes.len()).map(made).collect::<Result<_>>()?;
    for uid in &after {
        until(api, uid, "phase Succeeded").context("a pod after a restart of its agent")?;
    }
    let after = pods(api)?;
    let mut failed = vec![];
    for one in played.iter().filter(|p| !p.deleted) {
        let old = &before.get(&one.uid).with_context(|| format!("{} is not there", one.name))?["status"];
        let new = &after.get(&one.uid).with_context(|| format!("{} is gone", one.name))?["status"];
        if old != new {
            failed.push(format!("after a restart of the agent {} is\n{new}\nbefore it was\n{old}", one.name));
        }
    }
    Ok(failed)
}

/// A pod that is deleted while its runtime is away is there until that is back, and ends then.
fn away(lab: &mut Lab, api: &Api, under: &Under, runtime: &tokio::runtime::Handle) -> Result<()> {
    let name = format!("away-{}", under.node + 1);
    let uid = make(api, lab, under.node, &name, "Always", &["sleep", "600"])?;
    until(api, &uid, "Ready True")?;
    runtime.block_on(under.kill(lab))?;
    let killed = api.delete(&name, 1).and_then(|()| {
        // Long past its grace.
        let gone = |seen: &Seen| seen.gone.context("still there");
        match api.history.wait(&uid, Duration::from_secs(3), gone) {
            Ok(_) => bail!("gone while nobody can say that its container has ended"),
            Err(_) => Ok(()),
        }
    });
    under.start(lab)?;
    killed?;
    let gone = |seen: &Seen| seen.gone.context("still there").map(drop);
    api.history.wait(&uid, LIMIT, gone).context("after the runtime came back")
}

/// All that is left is deleted, and nothing stays behind in any runtime.
fn clean(lab: &mut Lab, api: &Api, unders: &[Under], runtime: &tokio::runtime::Handle) -> Result<()> {
    for pod in pods(api)?.values() {
        api.delete(pod["metadata"]["name"].as_str().unwrap_or_default(), 1)?;
    }
    wait_for("all pods to go", LIMIT, || {
        let left = pods(api)?;
        let names: Vec<&Value> = left.values().map(|p| &p["metadata"]["name"]).collect();
        if left.is_empty() { Ok(()) } else { bail!("{names:?}") }
    })?;
    for under in unders {
        runtime.block_on(under.empty())?;
        let pods = lab.nodes[under.node].root_dir().join("pods");
        let left = std::fs::read_dir(&pods).map_or(0, |entries| entries.count());
        if left > 0 {
            bail!("{left} folders of pods are left in {}", pods.display());
        }
    }
    Ok(())
}
