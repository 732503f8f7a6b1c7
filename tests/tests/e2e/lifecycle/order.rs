//! In which order the containers of a pod begin and end.

use super::record::{Record, container, end, hook, life, over, phase, sidecar, with};
use crate::shared::{LIMIT, Ns, test};
use anyhow::{Result, bail, ensure};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        test("lifecycle::order::everything_in_its_turn", turns),
        test("lifecycle::order::sidecars_end_last_first_and_their_hooks_begin_at_once", sidecars_end),
        test("lifecycle::order::what_never_came_up_holds_up_nobody", holds_up_nobody),
    ]
}

fn turns(ns: &mut Ns) -> Result<()> {
    let probe =
        json!({"startupProbe": {"exec": {"command": ["/web", "cat", "/log/go"]}, "periodSeconds": 1, "failureThreshold": 60}});
    let r = Record::of(
        ns,
        "turns",
        json!({
            "restartPolicy": "Never",
            "initContainers": [life("i1", "0.3", "0", 0), sidecar(with(life("s", "-", "0.3", 7), probe)), life("i2", "0.3", "0", 0)],
            "containers": [
                with(life("m1", "3", "0", 0), json!({"lifecycle": {"postStart": hook("h", "1")}})),
                life("m2", "1", "0", 0),
            ],
        }),
    )?;
    let waits = ns.pod("turns", "its sidecar runs", |p| container(p, "s")["state"]["running"].is_object())?;
    let said = &ferrolet_tests::cluster::condition(&waits, "Initialized")["message"];
    ensure!(said == "containers with incomplete status: [s i2]", "Initialized: {said}");
    ensure!(container(&waits, "s")["started"] == false && phase(&waits) == "Pending", "{}", waits["status"]);
    r.never("i2 started")?;
    r.say("go")?;
    let done = ns.pod("turns", "over", over)?;
    r.in_order(&[
        "i1 started",
        "i1 ended",
        "s started",
        "i2 started",
        "i2 ended",
        "m1 started",
        "h started",
        "h ended",
        "m2 started",
    ])?;
    r.in_order(&["m2 ended", "m1 ended", "s signalled", "s ended"])?;
    // How a sidecar ends says nothing about the pod.
    ensure!(phase(&done) == "Succeeded" && end(&done, "s") == ("Error", 7), "{}", done["status"]);
    ensure!(end(&done, "m1") == ("Completed", 0) && container(&done, "s")["restartCount"] == 0, "{}", done["status"]);
    let initialized = ferrolet_tests::cluster::condition(&done, "Initialized");
    ensure!(initialized["status"] == "True" && initialized["reason"] == "PodCompleted", "{initialized}");
    Ok(())
}

fn sidecars(hook_takes: &str, end: &str) -> Vec<Value> {
    let one = |name: &str| {
        let hook = hook(&format!("before-{name}"), hook_takes);
        sidecar(with(life(name, "-", end, 0), json!({"lifecycle": {"preStop": hook}})))
    };
    vec![one("s1"), one("s2"), one("s3")]
}

fn sidecars_end(ns: &mut Ns) -> Result<()> {
    let spec = |inits: Vec<Value>, main_end: &str, grace: u64| {
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": grace, "initContainers": inits,
            "containers": [life("main", "-", main_end, 0)]})
    };
    let neat = Record::held(ns, "neat", spec(sidecars("0.5", "0.3"), "2", 60), true)?;
    let late = Record::held(ns, "late", spec(sidecars("-", "20"), "0", 2), true)?;
    for r in [&neat, &late] {
        r.wait("main started")?;
        ns.ready(&r.pod)?;
    }
    ns.kubectl(&["delete", "pod", "neat", "late", "--wait=false"])?;
    let ended = ns.pod("neat", "over", over)?;
    ensure!(phase(&ended) == "Succeeded", "{}", ended["status"]);
    let begun = ["s1", "s2", "s3"].map(|s| neat.at(&format!("before-{s} started")));
    for at in begun {
        let at = at?;
        ensure!(at < neat.at("main ended")?, "a sidecar's hook waited for the main container");
        ensure!(at.abs_diff(neat.at("before-s1 started")?) < 1000, "the hooks did not begin at once");
    }
    neat.in_order(&["main ended", "s3 signalled", "s3 ended", "s2 signalled", "s2 ended", "s1 signalled", "s1 ended"])?;
    // At the deadline there are no turns any more, and two seconds later nothing at all.
    let ended = ns.pod("late", "over", over)?;
    for s in ["s1", "s2", "s3"] {
        ensure!(end(&ended, s) == ("Error", 137), "{s}: {}", ended["status"]);
        let (signalled, begun) = (late.at(&format!("{s} signalled"))?, late.at(&format!("before-{s} started"))?);
        ensure!((1500..4000).contains(&(signalled - begun)), "{s}: signalled after {} ms", signalled - begun);
        late.never(&format!("before-{s} ended"))?;
    }
    ensure!(phase(&ended) == "Succeeded", "{}", ended["status"]);
    neat.release(ns)?;
    late.release(ns)
}

fn holds_up_nobody(ns: &mut Ns) -> Result<()> {
    // It runs for long enough that its successor begins, and is down when that one ends.
    let crashing = Record::of(
        ns,
        "crashing",
        json!({"restartPolicy": "Never",
            "initContainers": [sidecar(life("s", "0.7", "0", 1)), life("i", "4", "0", 0)],
            "containers": [life("main", "1", "0", 0)]}),
    )?;
    let failing = Record::of(
        ns,
        "failing",
        json!({"restartPolicy": "Never",
            "initContainers": [sidecar(life("s", "-", "0", 0)), life("i", "1", "0", 3)],
            "containers": [life("main", "1", "0", 0)]}),
    )?;
    let first = |name: &str| {
        json!({"initContainers": [life("i", "-", "0", 0), sidecar(life(name, "-", "0", 0))],
        "containers": [life("main", "-", "0", 0)], "terminationGracePeriodSeconds": 30})
    };
    let early = Record::of(ns, "early", first("s"))?;
    let never = json!({"startupProbe": {"exec": {"command": ["/web", "exit", "1"]}, "failureThreshold": 600}});
    let unstarted = Record::of(
        ns,
        "unstarted",
        json!({"terminationGracePeriodSeconds": 60, "containers": [life("main", "-", "0", 0)],
            "initContainers": [sidecar(with(life("s", "-", "0.3", 0), never)), sidecar(life("t", "-", "0", 0))]}),
    )?;
    early.wait("i started")?;
    unstarted.wait("s started")?;
    let begun = Instant::now();
    ns.kubectl(&["delete", "pod", "early", "unstarted", "--wait=false"])?;
    wait_for("the pods to go", LIMIT, || {
        let names: Vec<Value> = ns.list("pods")?.iter().map(|p| p["metadata"]["name"].clone()).collect();
        if names.iter().any(|n| n == "early" || n == "unstarted") { bail!("{names:?} are there") } else { Ok(()) }
    })?;
    ensure!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    early.never("s started")?;
    for what in ["t started", "main started"] {
        unstarted.never(what)?;
    }
    let failed = ns.pod("failing", "over", over)?;
    ensure!(phase(&failed) == "Failed" && end(&failed, "i") == ("Error", 3), "{}", failed["status"]);
    ensure!(container(&failed, "main")["state"]["waiting"]["reason"] == "PodInitializing", "{}", failed["status"]);
    failing.in_order(&["s started", "i started", "i ended", "s ended"])?;
    failing.never("main started")?;
    let done = ns.pod("crashing", "over", over)?;
    ensure!(phase(&done) == "Succeeded", "{}", done["status"]);
    ensure!(crashing.times("s started")? >= 2 && crashing.times("i started")? == 1, "{}", done["status"]);
    Ok(())
}
