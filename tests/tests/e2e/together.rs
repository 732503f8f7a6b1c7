//! The rule action `RestartAllContainers` on real containerd: a pod started anew in its sandbox.

use crate::shared::{Ns, is_ready, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::condition;
use libtest_mimic::Trial;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![
        test("together::all_containers_restart_in_place", in_place),
        test("together::an_agent_killed_halfway_goes_on", killed_halfway),
    ]
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: all}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 30
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: first, image: ferrolet.dev/web:1, args: [write, /v/file, kept], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: side, image: ferrolet.dev/web:1, args: [sleep, '10000'], restartPolicy: Always}
  containers:
  - name: source
    image: ferrolet.dev/web:1
    args: [serve]
    readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
  - {name: other, image: ferrolet.dev/web:1, args: [ignore-term, '10000']}
";

fn all(pod: &Value) -> Vec<&Value> {
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| pod["status"][list].as_array());
    lists.into_iter().flatten().flatten().collect()
}

fn restarted(pod: &Value, count: u64) -> bool {
    is_ready(pod) && all(pod).iter().all(|c| c["restartCount"] == count)
}

/// Has the source end with the code that its rule names.
fn trigger(ns: &Ns, pod: &Value) -> Result<()> {
    let address = pod["status"]["podIP"].as_str().context("no address")?;
    let _ = ferrolet_tests::load::get(&ns.lab.nodes[0].netns, format!("{address}:8080").parse()?, "/exit?42");
    Ok(())
}

fn in_place(ns: &mut Ns) -> Result<()> {
    ns.apply(POD)?;
    let before = ns.ready("all")?;
    if condition(&before, "AllContainersRestarting")["status"] != "False" {
        bail!("conditions: {}", before["status"]["conditions"]);
    }
    trigger(ns, &before)?;
    let after = ns.pod("all", "all containers restarted once", |p| restarted(p, 1))?;
    for c in all(&after) {
        if c["lastState"]["terminated"]["reason"] != "RestartingAllContainers" {
            bail!("last state of {}: {}", c["name"], c["lastState"]);
        }
    }
    if after["status"]["podIP"] != before["status"]["podIP"] || after["status"]["phase"] != "Running" {
        bail!("not in its sandbox, or not running: {}", after["status"]);
    }
    let condition = condition(&after, "AllContainersRestarting");
    if condition["status"] != "False" || condition["lastTransitionTime"].is_null() {
        bail!("condition: {condition}");
    }
    // Another code ends this container for good.
    let address = after["status"]["podIP"].as_str().context("no address")?;
    let _ = ferrolet_tests::load::get(&ns.lab.nodes[0].netns, format!("{address}:8080").parse()?, "/exit?7");
    ns.pod("all", "the source ended for good", |p| {
        let source = all(p).into_iter().find(|c| c["name"] == "source").cloned().unwrap_or_default();
        source["state"]["terminated"]["exitCode"] == 7 && source["restartCount"] == 1 && p["status"]["phase"] == "Running"
    })
    .map(drop)
}

fn killed_halfway(ns: &mut Ns) -> Result<()> {
    ns.apply(POD)?;
    let mut pod = ns.ready("all")?;
    // Kills spread over the second that ending and starting everything takes.
    for round in 1..=5u64 {
        trigger(ns, &pod)?;
        std::thread::sleep(std::time::Duration::from_millis((round - 1) * 250));
        ns.lab.nodes[0].kill_agent()?;
        ns.lab.start_agent(0)?;
        pod = ns.pod("all", &format!("all containers restarted {round} times"), |p| {
            // A start that the runtime gave up, as its caller went away, counts too.
            is_ready(p) && all(p).iter().all(|c| c["restartCount"].as_u64() >= Some(round))
        })?;
    }
    let most = all(&pod).iter().filter_map(|c| c["restartCount"].as_u64()).max();
    if most > Some(10) {
        bail!("restarted more often than told: {}", pod["status"]);
    }
    Ok(())
}
