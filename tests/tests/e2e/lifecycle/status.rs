//! Conditions, their order and times, and the generations they are of. How containers ended is in the scenarios.

use super::record::{Record, container, life, with};
use crate::shared::{Ns, is_ready, test};
use anyhow::{Result, ensure};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::images::WEB;
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub fn trials() -> Vec<Trial> {
    vec![test("lifecycle::status::conditions_and_generations", conditions)]
}

const KINDS: [&str; 5] = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

fn conditions(ns: &mut Ns) -> Result<()> {
    let probe = json!({"readinessProbe": {"exec": {"command": ["/web", "cat", "/log/go"]}, "periodSeconds": 1}});
    let spec = json!({"readinessGates": [{"conditionType": "ferrolet.dev/ok"}],
        "initContainers": [life("i", "2", "0", 0)], "containers": [with(life("main", "-", "0", 0), probe)]});
    let r = Record::of(ns, "gated", spec)?;
    let image = "ferrolet.dev/none:1";
    Record::of(
        ns,
        "changed",
        json!({"containers": [with(life("main", "-", "0", 0), json!({"image": image, "imagePullPolicy": "Never"}))]}),
    )?;
    let host = json!({"hostNetwork": true, "containers": [with(life("main", "-", "0", 0), json!({"image": image, "imagePullPolicy": "Never"}))]});
    Record::of(ns, "host", host)?;
    let state = |p: &Value| KINDS.map(|kind| condition(p, kind)["status"] == "True");
    ns.pod("gated", "initializing", |p| state(p) == [true, true, false, false, false])?;
    ns.pod("gated", "initialized", |p| state(p) == [true, true, true, false, false])?;
    ensure!(condition(&ns.get("pod", "gated")?, "Ready")["message"] == "containers with unready status: [main]");
    r.say("go")?;
    let waits = ns.pod("gated", "waiting for its gate", |p| state(p) == [true, true, true, true, false])?;
    let ready = condition(&waits, "Ready");
    let expected = "corresponding condition of pod readiness gate \"ferrolet.dev/ok\" does not exist.";
    ensure!(ready["reason"] == "ReadinessGatesNotReady" && ready["message"] == expected, "{ready}");
    let gate = r#"{"status":{"conditions":[{"type":"ferrolet.dev/ok","status":"True"}]}}"#;
    ns.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", gate])?;
    let done = ns.ready("gated")?;
    let times: Vec<&str> = KINDS.iter().map(|k| condition(&done, k)["lastTransitionTime"].as_str().unwrap_or_default()).collect();
    ensure!(times.is_sorted() && times[2] > times[1], "{times:?}");
    ns.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", &gate.replace("True", "False")])?;
    ns.pod("gated", "not ready by its gate", |p| !is_ready(p) && condition(p, "ferrolet.dev/ok")["status"] == "False")?;
    // Each change of the spec is seen, and the conditions say so.
    let seen = |p: &Value, generation: i64| {
        p["status"]["observedGeneration"] == generation
            && KINDS.iter().all(|k| condition(p, k)["observedGeneration"] == generation)
    };
    let waiting = |p: &Value| container(p, "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    ns.pod("changed", "seen", |p| seen(p, 1) && waiting(p))?;
    let change = json!({"spec": {"containers": [{"name": "main", "image": WEB}]}}).to_string();
    ns.kubectl(&["patch", "pod", "changed", "-p", &change])?;
    let pod = ns.pod("changed", "seen again, and ready", |p| seen(p, 2) && is_ready(p))?;
    ensure!(container(&pod, "main")["restartCount"] == 0, "{}", pod["status"]);
    // The host's addresses are known before anything of a pod runs.
    let pod = ns.pod("host", "waits for its image", waiting)?;
    let ip = ns.lab.nodes[0].ip.as_str();
    ensure!(pod["status"]["podIP"] == ip && pod["status"]["podIPs"][0]["ip"] == ip, "{}", pod["status"]);
    Ok(())
}
