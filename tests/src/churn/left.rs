//! What pods may leave on a node when they are gone.

use crate::cluster::{Lab, cgroup_root, cni_network};
use crate::leftovers;
use crate::sys::sh;
use anyhow::Result;
use ferrolet_cri::types::{ContainerFilter, SandboxFilter};
use ferrolet_cri::{Client, Options};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many elements each set and map of the node's rules has. Chains that were needed once stay, and are bounded.
pub type Elements = BTreeMap<String, usize>;

pub fn elements(lab: &Lab) -> Result<Elements> {
    let net = format!("--net=/run/netns/{}", lab.nodes[0].netns);
    let all: Value = serde_json::from_str(&sh("nsenter", &[&net, "nft", "-j", "list", "ruleset"])?)?;
    let sets = all["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|o| [&o["set"], &o["map"]].into_iter().find(|s| s.is_object()));
    let counted = sets.map(|s| {
        let name = format!("{} {}", s["table"].as_str().unwrap_or_default(), s["name"].as_str().unwrap_or_default());
        (name, s["elem"].as_array().map_or(0, Vec::len))
    });
    Ok(counted.filter(|(_, count)| *count > 0).collect())
}

/// Once they have not changed for two seconds.
pub fn settled(lab: &Lab) -> Result<Elements> {
    let (mut last, mut since) = (elements(lab)?, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(200));
        let now = elements(lab)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// In words; empty if nothing.
pub fn find(lab: &Lab, before: &Elements) -> Result<Vec<String>> {
    let node = &lab.nodes[0];
    let mut found = of_runtime(lab)?;
    found.extend(lab.list("pods", "")?.iter().map(|p| format!("pod {}", p["metadata"]["name"])));
    for folder in
        [node.root_dir().join("pods"), node.dir.join("pod-logs"), node.dir.join("containerd/ipam").join(cni_network(&lab.name))]
    {
        let names = entries(&folder).into_iter().filter(|name| name != "lock" && !name.starts_with("last_reserved_ip"));
        found.extend(names.map(|name| folder.join(name).display().to_string()));
    }
    found.extend(leftovers::mounts_below(&[node.root_dir()]).iter().map(|m| format!("mount {}", m.display())));
    for top in leftovers::cgroups_at(&format!("{}/{}", cgroup_root(&lab.name), node.name)) {
        let pods = leftovers::walk(&top)
            .into_iter()
            .filter(|dir| dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("pod")));
        found.extend(pods.map(|dir| format!("cgroup {}", dir.display())));
    }
    found.extend(leftovers::pod_namespaces(&lab.name, 1).iter().map(|ns| format!("network namespace {ns}")));
    let now = elements(lab)?;
    if now != *before {
        found.push(format!("elements of rules: {now:?}, before {before:?}"));
    }
    Ok(found)
}

/// Shims that containerd no longer knows when it was killed while it started them: nobody else can tell whose they are.
pub fn shims(lab: &Lab) -> usize {
    let roots = [lab.nodes[0].dir.clone(), crate::cluster::run_dir(&lab.name)];
    leftovers::shims_below(&roots).len()
}

fn of_runtime(lab: &Lab) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(&lab.nodes[0].containerd.endpoint(), Options::default())?;
        let sandboxes = client.list_pod_sandbox(&SandboxFilter::default()).await?;
        let containers = client.list_containers(&ContainerFilter::default()).await?;
        let sandboxes = sandboxes.iter().map(|s| format!("sandbox {} of {}", s.id, s.metadata.name));
        Ok(sandboxes.chain(containers.iter().map(|c| format!("container {}", c.id))).collect())
    })
}

fn entries(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    all.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}
