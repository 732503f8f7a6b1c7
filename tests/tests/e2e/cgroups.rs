//! What the kernel is told of pods as a whole and of the node's own cgroups, on real containerd.

use crate::shared::{LIMIT, Ns, contains, is_ready, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::leftovers;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    vec![test("cgroups::node_allocatable_is_enforced", allocatable)]
}

/// The same folder below the lab's in every hierarchy.
fn folders(ns: &Ns, below: &str) -> Vec<PathBuf> {
    leftovers::cgroups(&ns.lab.name).into_iter().map(|c| c.join(below)).collect()
}

/// The first of the files that is there in any of the folders.
fn value(folders: &[PathBuf], files: &[&str]) -> Result<String> {
    let found = folders.iter().flat_map(|d| files.iter().map(|f| d.join(f))).find_map(|f| std::fs::read_to_string(f).ok());
    Ok(found.with_context(|| format!("none of {files:?} in {folders:?}"))?.trim().to_owned())
}

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

fn allocatable(ns: &mut Ns) -> Result<()> {
    let kubepods = format!("{}/kubepods", ns.lab.nodes[0].name);
    let before: u64 = value(&folders(ns, &kubepods), &MEMORY)?.parse()?;
    let total: u64 = {
        let info = std::fs::read_to_string("/proc/meminfo")?;
        let line = info.lines().find_map(|l| l.strip_prefix("MemTotal:")).context("no MemTotal")?;
        line.trim_end_matches("kB").trim().parse::<u64>()? * 1024
    };
    if before != total {
        bail!("nothing is reserved, and pods may have {before} of {total}");
    }
    ns.apply(&pod("stays", "serve", "", ""))?;
    let stays = ns.ready("stays")?;

    for folder in folders(ns, "kube") {
        std::fs::create_dir_all(folder)?;
    }
    let own = format!("{}/kube", ferrolet_tests::cluster::cgroup_root(&ns.lab.name));
    let fields = json!({
        "systemReserved": {"memory": "300Mi", "cpu": "100m"}, "kubeReserved": {"memory": "200Mi", "cpu": "250m", "pid": "500"},
        "kubeReservedCgroup": own, "enforceNodeAllocatable": ["pods", "kube-reserved"],
    });
    ns.restart_with(fields.as_object().cloned().unwrap_or_default())?;
    let result = enforced(ns, &kubepods, total, &stays);
    ns.restart_with(Default::default())?;
    result?;
    let after: u64 = value(&folders(ns, &kubepods), &MEMORY)?.parse()?;
    if after == total { Ok(()) } else { bail!("nothing is reserved any more, and pods may have {after} of {total}") }
}

fn enforced(ns: &Ns, kubepods: &str, total: u64, stays: &Value) -> Result<()> {
    let memory: u64 = value(&folders(ns, kubepods), &MEMORY)?.parse()?;
    if memory != (total - (500 << 20)) / 4096 * 4096 {
        bail!("pods together may have {memory} of {total}");
    }
    let own = folders(ns, "kube");
    let shares = value(&own, &["cpu.shares", "cpu.weight"])?;
    let pids = value(&own, &["pids.max"])?;
    let memory = value(&own, &MEMORY)?;
    if (pids.as_str(), memory.as_str()) != ("500", "209715200") || !["256", "35"].contains(&shares.as_str()) {
        bail!("kube reserved: pids {pids}, memory {memory}, cpu {shares}");
    }
    let name = &ns.lab.nodes[0].name;
    for text in ["Updated Node Allocatable limit across pods", "Updated limits on kube reserved cgroup"] {
        wait_for(&format!("the event {text:?}"), LIMIT, || {
            let all = ns.lab.list("events", "")?;
            let of = |e: &&Value| e["involvedObject"]["name"] == **name && e["reason"] == "NodeAllocatableEnforced";
            all.iter().filter(of).find(|e| contains(&e["message"], text)).cloned().context("not there")
        })?;
    }
    let now = ns.get("pod", "stays")?;
    let started = |p: &Value| p["status"]["containerStatuses"][0]["containerID"].clone();
    if is_ready(&now) && started(&now) == started(stays) { Ok(()) } else { bail!("the pod was disturbed: {}", now["status"]) }
}
