//! What the demo and the tests compare before and after, and what must be gone in the end.

use crate::cluster::{Lab, condition};
use crate::leftovers;
use crate::netns::within;
use crate::sys::{sh, wait_for};
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What may not change while the agent is away: container IDs, restart counts, and since when each pod is Ready.
pub fn identities(pods: &[Value]) -> BTreeMap<String, Vec<String>> {
    let text = |v: &Value| v.to_string();
    let of = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let mut list: Vec<String> = statuses.iter().map(|s| format!("{} {}", s["containerID"], s["restartCount"])).collect();
        let ready = condition(pod, "Ready");
        list.push(format!("ready {} since {}", text(&ready["status"]), text(&ready["lastTransitionTime"])));
        list
    };
    pods.iter().map(|p| (p["metadata"]["name"].as_str().unwrap_or_default().to_owned(), of(p))).collect()
}

/// Waits until the agent that was just started answers for its pods: its own healthz, then a log through its server.
pub fn agent_took_over(lab: &mut Lab, limit: Duration) -> Result<()> {
    wait_for("the agent to take over", limit, || {
        if let Some(agent) = lab.nodes[0].agent.as_mut() {
            agent.check_alive()?;
        }
        let netns = lab.nodes[0].netns.clone();
        let address = "127.0.0.1:10248".parse()?;
        within(&netns, move || crate::load::get_here(address, "/healthz"))??;
        lab.kubectl(&["logs", "deployment/hello", "--tail=1"]).map(drop)
    })?;
    lab.wait_ready()
}

/// Everything of the deleted pods and Services that is still on the node, in words.
pub fn traces(lab: &Lab, service_ips: &[String], namespaces_before: &[String]) -> Result<Vec<String>> {
    let mut left = vec![];
    for node in &lab.nodes {
        left.extend(node.containerd.containers()?.iter().map(|id| format!("container {id}")));
        let entries = |dir: std::path::PathBuf| -> Vec<String> {
            let list = std::fs::read_dir(dir).into_iter().flatten().flatten();
            list.map(|e| e.path().display().to_string()).collect()
        };
        left.extend(entries(node.root_dir().join("pods")).iter().map(|p| format!("pod folder {p}")));
        left.extend(entries(node.dir.join("pod-logs")).iter().map(|p| format!("logs {p}")));
        let netns = node.netns.clone();
        let rules = within(&netns, || sh("nft", &["list", "ruleset"]))??;
        let lines = rules.lines().filter(|l| service_ips.iter().any(|ip| l.contains(&format!("{ip} "))));
        left.extend(lines.map(|l| format!("nf_tables: {}", l.trim())));
    }
    let pods = leftovers::mounts(&lab.name).into_iter().filter(|m| m.to_string_lossy().contains("/pods/"));
    left.extend(pods.map(|m| format!("mount {}", m.display())));
    let folders = leftovers::cgroups(&lab.name).iter().flat_map(|c| leftovers::walk(c)).collect::<Vec<_>>();
    let pod_cgroups =
        folders.iter().filter(|d| d.file_name().is_some_and(|n| n.to_string_lossy().contains("pod") && !is_class(n)));
    left.extend(pod_cgroups.map(|d| format!("cgroup {}", d.display())));
    let new = leftovers::list_namespaces().into_iter().filter(|ns| ns.starts_with("cni-"));
    left.extend(new.filter(|ns| !namespaces_before.contains(ns)).map(|ns| format!("network namespace {ns}")));
    Ok(left)
}

/// `kubepods` and its classes stay for as long as the node is there.
fn is_class(name: &std::ffi::OsStr) -> bool {
    name == "kubepods"
}
