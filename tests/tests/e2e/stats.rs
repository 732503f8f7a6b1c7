//! What the node says of what is used, read through the API server as metrics-server and dashboards do.

use crate::shared::{LIMIT, Ns, must_contain, pod, test};
use anyhow::{Context, Result, ensure};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![test("stats::summary_resource_and_cadvisor", pages)]
}

fn ask(ns: &Ns, node: &str, path: &str) -> Result<String> {
    ns.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/{path}")])
}

fn pages(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod(
        "used",
        "serve",
        "resources: {limits: {memory: 64Mi}}\nvolumeMounts: [{name: own, mountPath: /own}]",
        "volumes: [{name: own, emptyDir: {}}]",
    ))?;
    let object = ns.ready("used")?;
    let node = object["spec"]["nodeName"].as_str().context("no node")?;
    let uid = &object["metadata"]["uid"];
    let own = |summary: &Value| {
        let pods = summary["pods"].as_array().into_iter().flatten();
        pods.into_iter().find(|p| p["podRef"]["uid"] == *uid).cloned().context("the pod is not in the summary")
    };
    // Runtimes measure layers from time to time.
    let used = wait_for("the summary to have all of the pod", LIMIT, || {
        let used = own(&serde_json::from_str(&ask(ns, node, "stats/summary")?)?)?;
        ensure!(used["containers"][0]["rootfs"]["usedBytes"].is_u64(), "no layer: {used}");
        let volumes = used["volume"].as_array().into_iter().flatten();
        ensure!(volumes.into_iter().any(|v| v["name"] == "own" && v["usedBytes"].is_u64()), "no size of the volume: {used}");
        Ok(used)
    })?;
    let container = &used["containers"][0];
    for (what, value) in [
        ("the container's processor time", &container["cpu"]["usageCoreNanoSeconds"]),
        ("its rate", &container["cpu"]["usageNanoCores"]),
        ("its memory", &container["memory"]["workingSetBytes"]),
        ("what is left of its limit", &container["memory"]["availableBytes"]),
        ("the room for its logs", &container["logs"]["capacityBytes"]),
        ("the pod's processor time", &used["cpu"]["usageCoreNanoSeconds"]),
        ("the pod's memory", &used["memory"]["workingSetBytes"]),
        ("the pod's network", &used["network"]["rxBytes"]),
    ] {
        ensure!(value.as_u64() > Some(0), "{what} is {value} in {used}");
    }
    ensure!(container["memory"]["availableBytes"].as_u64() < Some(64 << 20), "more is left than the limit: {container}");
    ensure!(used["network"]["name"] == "eth0", "the default interface is {}", used["network"]["name"]);

    let brief: Value = serde_json::from_str(&ask(ns, node, "stats/summary?only_cpu_and_memory=true")?)?;
    ensure!(own(&brief)?.get("network").is_none() && brief["node"]["memory"].is_object(), "not brief: {brief}");

    let labels = format!("namespace=\"{}\",pod=\"used\"", ns.name);
    let resource = ask(ns, node, "metrics/resource")?;
    must_contain(&resource, &format!("pod_memory_working_set_bytes{{{labels}}} "))?;
    must_contain(&resource, "node_cpu_usage_seconds_total ")?;
    must_contain(&resource, "resource_scrape_error 0 ")?;
    let cadvisor = ask(ns, node, "metrics/cadvisor")?;
    let network = cadvisor.lines().find(|l| l.starts_with("container_network_receive_bytes_total{") && l.contains(&labels));
    must_contain(network.context("no network of the pod")?, "interface=\"eth0\"")
}
