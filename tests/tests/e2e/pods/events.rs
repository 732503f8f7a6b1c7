//! Events as users and tools read them: reasons, texts, what they are about, who sends them, and how many.

use crate::shared::{LIMIT, Ns, contains, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![test("events::of_pods", of_pods), test("events::of_the_node", of_the_node)]
}

fn of_pods(ns: &mut Ns) -> Result<()> {
    // Each check fails with other words.
    let probe = "readinessProbe: {exec: {command: [/web, cat, /proc/uptime, /none]}, periodSeconds: 1}";
    ns.apply(&pod("chatty", "serve", probe, ""))?;
    let init = "initContainers: [{name: one, image: ferrolet.dev/web:1, args: [echo, x]}]";
    ns.apply(&pod("p", "serve", "", init))?;
    ns.ready("p")?;
    ns.kubectl(&["delete", "pod", "p", "--timeout=30s"])?;
    let wanted = [
        ("spec.initContainers{one}", "Pulled", "already present on machine and can be accessed by the pod"),
        ("spec.initContainers{one}", "Created", "Container created"),
        ("spec.initContainers{one}", "Started", "Container started"),
        ("spec.containers{main}", "Pulled", "already present on machine"),
        ("spec.containers{main}", "Created", "Container created"),
        ("spec.containers{main}", "Started", "Container started"),
        ("spec.containers{main}", "Killing", "Stopping container main"),
    ];
    for (path, reason, text) in wanted {
        let event = wait_for(&format!("{reason} of {path}"), LIMIT, || {
            let all = ns.list("events")?;
            let about = |e: &&Value| e["involvedObject"]["name"] == "p" && e["involvedObject"]["fieldPath"] == path;
            let found = all.iter().filter(about).find(|e| e["reason"] == reason && contains(&e["message"], text));
            found.cloned().context("not yet")
        })?;
        let sender = (&event["source"]["component"], &event["source"]["host"], &event["reportingComponent"], &event["type"]);
        if sender.0 != "kubelet" || sender.1 != "node-1" || sender.2 != "kubelet" || sender.3 != "Normal" {
            bail!("event: {event}");
        }
    }
    let combined = ns.event("chatty", "Unhealthy", "(combined from similar events): Readiness probe failed: ")?;
    wait_for("more of them in the same event", LIMIT, || {
        let event = ns.get("event", combined["metadata"]["name"].as_str().unwrap_or_default())?;
        if event["count"].as_u64() >= Some(2) { Ok(()) } else { bail!("count {}", event["count"]) }
    })?;
    let apart = ns.list("events")?;
    let apart = apart.iter().filter(|e| e["involvedObject"]["name"] == "chatty" && e["reason"] == "Unhealthy").count();
    if apart > 10 { bail!("{apart} events of one reason") } else { Ok(()) }
}

fn of_the_node(ns: &mut Ns) -> Result<()> {
    let told = |reason: &str, text: &str| {
        wait_for(&format!("event {reason} about the node"), LIMIT, || {
            let all: Value = serde_json::from_str(&ns.lab.kubectl(&["get", "events", "--namespace=default", "-o", "json"])?)?;
            let all = all["items"].as_array().cloned().unwrap_or_default();
            let about = |e: &&Value| e["involvedObject"]["kind"] == "Node" && e["involvedObject"]["name"] == "node-1";
            let found = all.iter().filter(about).find(|e| e["reason"] == reason && e["message"] == text);
            found.cloned().with_context(|| format!("{} events", all.len()))
        })
    };
    told("Starting", "Starting kubelet.")?;
    told("NodeReady", "Node node-1 status is now: NodeReady")?;
    ns.lab.kubectl(&["cordon", "node-1"])?;
    let cordoned = told("NodeNotSchedulable", "Node node-1 status is now: NodeNotSchedulable");
    ns.lab.kubectl(&["uncordon", "node-1"])?;
    cordoned?;
    must_contain(&ns.lab.kubectl(&["describe", "node", "node-1"])?, "Starting kubelet.")
}
