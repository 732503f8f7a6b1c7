//! What pods may leave on a node when they are gone.

use crate::cluster::{Lab, cgroup_root, cni_network};
use crate::leftovers;
use crate::sys::sh;
use anyhow::Result;
use ferrolet_cri::types::{ContainerFilter, SandboxFilter};
use ferrolet_cri::{Client, Options};
use std::path::Path;

/// All rules of the node, without their counters.
pub fn rules(lab: &Lab) -> Result<String> {
    let net = format!("--net=/run/netns/{}", lab.nodes[0].netns);
    sh("nsenter", &[&net, "nft", "--stateless", "list", "ruleset"])
}

/// In words; empty if nothing.
pub fn find(lab: &Lab, rules_before: &str) -> Result<Vec<String>> {
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
    let roots = [node.dir.clone(), crate::cluster::run_dir(&lab.name)];
    found.extend(leftovers::shims_below(&roots).iter().map(|pid| format!("shim {pid}")));
    let now = rules(lab)?;
    if now != rules_before {
        let new = now.lines().filter(|line| !rules_before.lines().any(|before| before == *line));
        found.extend(new.map(|line| format!("rule {line}")));
        found.push("the rules are not what they were".to_owned());
    }
    Ok(found)
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
