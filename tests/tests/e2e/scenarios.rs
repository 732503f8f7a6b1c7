//! The life of pods, told once and held on every runtime: the agent itself, end to end, over the fake runtime, the host's
//! containerd and the newest one. Each runtime has a node of one lab, and all scenarios run at once on all of them.
//!
//! Afterwards all pods must look the same on all runtimes; a new agent must report each as it was; pods deleted while their
//! runtime is away must wait for it; and nothing must be left.

mod api;
mod run;
mod runtimes;
mod table;

use crate::trial;
use anyhow::{Context, Result, bail};
use api::{Api, PODS};
use ferrolet_tests::cluster::Lab;
use ferrolet_tests::leftovers;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use run::Played;
use runtimes::Under;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use table::Scenario;

const LAB: &str = "e2e-scen";

pub fn trials() -> Vec<Trial> {
    vec![trial("scenarios::the_same_on_every_runtime", the_same)]
}

fn the_same() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let guard = runtime.enter();
    let (mut lab, unders) = runtimes::lab(LAB)?;
    let result = all(&mut lab, &unders, runtime.handle()).map_err(|error| {
        let tails = lab.log_tails(15);
        error.context(tails)
    });
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
    let begin = Instant::now();
    let played = play(&table::all(), unders, &api, lab)?;
    println!("{} scenarios on {} runtimes in {:.1?}", played.len() / unders.len(), unders.len(), begin.elapsed());
    same(&played)?;
    new_agents(lab, &api, &played)?;
    for under in unders {
        away(lab, &api, under, runtime).with_context(|| format!("while {} is away", under.name))?;
    }
    clean(lab, &api, unders, runtime)?;
    println!("with all else {:.1?}", begin.elapsed());
    Ok(())
}

/// All of them on all runtimes at once. Every failure is told.
fn play(scenarios: &[Scenario], unders: &[Under], api: &Api, lab: &Lab) -> Result<Vec<Played>> {
    let results: Vec<Result<Played>> = std::thread::scope(|scope| {
        let all = scenarios.iter().flat_map(|s| unders.iter().map(move |under| (s, under)));
        let threads: Vec<_> = all.map(|(s, under)| scope.spawn(move || run::play(s, under, api, lab))).collect();
        let panicked = || Err(anyhow::anyhow!("a scenario panicked"));
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| panicked())).collect()
    });
    let (mut played, mut failed) = (vec![], vec![]);
    for result in results {
        match result {
            Ok(one) => played.push(one),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if let Some(slowest) = played.iter().max_by_key(|p| p.took) {
        println!("the slowest was {} with {:.1?}", slowest.name, slowest.took);
    }
    if failed.is_empty() { Ok(played) } else { bail!("{} failed:\n{}", failed.len(), failed.join("\n\n")) }
}

/// The last status of a scenario's pod is the same on all runtimes.
fn same(played: &[Played]) -> Result<()> {
    let mut first: BTreeMap<&str, &Played> = BTreeMap::new();
    for one in played {
        let scenario = one.name.rsplit_once('-').map_or("", |(scenario, _)| scenario);
        let other = first.entry(scenario).or_insert(one);
        if other.outcome != one.outcome {
            bail!("{} and {} differ:\n{}\n{}", other.name, one.name, other.outcome, one.outcome);
        }
    }
    Ok(())
}

fn pods(api: &Api) -> Result<BTreeMap<String, Value>> {
    let list: Value = serde_json::from_str(&api.call("GET", PODS, "", None)?)?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items.into_iter().map(|p| (p["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), p)).collect())
}

/// Agents killed and started again report every pod that rests exactly as before.
fn new_agents(lab: &mut Lab, api: &Api, played: &[Played]) -> Result<()> {
    let before = pods(api)?;
    for node in 0..lab.nodes.len() {
        lab.nodes[node].kill_agent()?;
    }
    for node in 0..lab.nodes.len() {
        lab.start_agent(node)?;
    }
    // A pod made afterwards is seen through, so each agent has looked at all there is.
    for node in &lab.nodes {
        let spec = json!({"restartPolicy": "Never", "nodeName": node.name, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": table::WEB, "imagePullPolicy": "IfNotPresent", "args": ["exit", "0"]}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("after-{}", node.name)}, "spec": spec});
        let uid = api.create(&pod)?["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        let done = |seen: &api::Seen| run::holds(seen.versions.last().unwrap_or(&Value::Null), "phase Succeeded");
        api.history.wait(&uid, Duration::from_secs(40), done).with_context(|| format!("a pod on {}", node.name))?;
    }
    let after = pods(api)?;
    let mut rest = 0;
    for one in played {
        let Some(old) = before.get(&one.uid) else { continue };
        let new = after.get(&one.uid).with_context(|| format!("{} is gone", one.name))?;
        if old["status"] != new["status"] {
            bail!("after a restart of the agent {} is\n{}\nbefore it was\n{}", one.name, new["status"], old["status"]);
        }
        rest += 1;
    }
    println!("{rest} pods as before after a restart of their agents");
    if rest < 30 { bail!("only {rest} pods rested") } else { Ok(()) }
}

/// A pod that is deleted while its runtime is away is there until that is back, and ends then.
fn away(lab: &mut Lab, api: &Api, under: &Under, runtime: &tokio::runtime::Handle) -> Result<()> {
    let name = format!("away-{}", under.node + 1);
    let spec = json!({"nodeName": lab.nodes[under.node].name, "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": table::WEB, "imagePullPolicy": "IfNotPresent", "args": ["sleep", "600"]}]});
    let made = api.create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}))?;
    let uid = made["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let ready = |seen: &api::Seen| run::holds(seen.versions.last().unwrap_or(&Value::Null), "Ready True");
    api.history.wait(&uid, Duration::from_secs(40), ready)?;
    runtime.block_on(under.kill(lab))?;
    let killed = api.delete(&name, 1).and_then(|()| {
        // Long past its grace.
        let gone = |seen: &api::Seen| seen.gone.context("still there");
        match api.history.wait(&uid, Duration::from_secs(3), gone) {
            Ok(_) => bail!("gone while nobody can say that its container has ended"),
            Err(_) => Ok(()),
        }
    });
    under.start(lab)?;
    killed?;
    let gone = |seen: &api::Seen| seen.gone.context("still there").map(drop);
    api.history.wait(&uid, Duration::from_secs(40), gone).context("after the runtime came back")
}

/// All that is left is deleted, and nothing stays behind in any runtime.
fn clean(lab: &mut Lab, api: &Api, unders: &[Under], runtime: &tokio::runtime::Handle) -> Result<()> {
    for pod in pods(api)?.values() {
        api.delete(pod["metadata"]["name"].as_str().unwrap_or_default(), 1)?;
    }
    wait_for("all pods to go", Duration::from_secs(40), || {
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
