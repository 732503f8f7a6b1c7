//! Finding and removing everything a lab made, also one that was killed.
//!
//! Only what carries the lab's name is touched: marked processes, namespaces by name, and cgroups, mounts and folders
//! below the lab's own.

use crate::cluster::{cgroup_root, cni_network, ns_name, run_dir, state_dir};
use crate::netns;
use crate::sys::{kill_all, marked, wait_for};
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Removes all of a lab. Safe to call when there is nothing.
pub fn remove(lab: &str) -> Result<()> {
    // The agent and containerd first, so that nothing starts again what is ended after them.
    kill_all(&marked(lab))?;
    for dir in cgroups(lab) {
        kill_all(&processes_below(&dir))?;
    }
    kill_all(&below_lab(lab))?;
    for mount in mounts(lab) {
        umount2(&mount, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    for ns in namespaces(lab) {
        netns::delete(&ns)?;
    }
    for pod in attached(lab) {
        if let Some(ns) = &pod.namespace {
            netns::delete(ns)?;
        }
        pod.files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
    for dir in cgroups(lab) {
        remove_cgroup(&dir)?;
    }
    for dir in [state_dir(lab), run_dir(lab)] {
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        // The parent too, when no other lab uses it.
        if let Some(parent) = dir.parent() {
            let _ = std::fs::remove_dir(parent);
        }
    }
    Ok(())
}

/// What of a lab is still there, in words; empty if nothing.
pub fn find(lab: &str) -> Vec<String> {
    let mut found: Vec<String> = marked(lab).iter().map(|pid| format!("process {pid}")).collect();
    found.extend(below_lab(lab).iter().map(|pid| format!("process {pid}")));
    found.extend(mounts(lab).iter().map(|m| format!("mount {}", m.display())));
    found.extend(namespaces(lab).iter().map(|ns| format!("network namespace {ns}")));
    found.extend(attached(lab).iter().filter_map(|a| a.files.first()).map(|f| format!("CNI result {}", f.display())));
    found.extend(cgroups(lab).iter().map(|c| format!("cgroup {}", c.display())));
    found.extend([state_dir(lab), run_dir(lab)].iter().filter(|d| d.exists()).map(|d| format!("folder {}", d.display())));
    found
}

/// Processes whose arguments name the lab's folders (the runtime's shims do).
fn below_lab(lab: &str) -> Vec<i32> {
    shims_below(&[state_dir(lab), run_dir(lab)])
}

/// Those of the runtime's shims whose arguments name one of these folders.
pub fn shims_below(folders: &[PathBuf]) -> Vec<i32> {
    let folders: Vec<String> = folders.iter().map(|folder| format!("{}/", folder.display())).collect();
    let own = std::process::id() as i32;
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("containerd-shim") && folders.iter().any(|folder| line.contains(folder))
        })
        .collect()
}

/// Mount points below the lab's folders and the lab's pod namespaces, deepest first.
pub fn mounts(lab: &str) -> Vec<PathBuf> {
    mounts_below(&[state_dir(lab), run_dir(lab)])
}

/// Mount points below these folders, deepest first.
pub fn mounts_below(roots: &[PathBuf]) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| PathBuf::from(p.replace("\\040", " ")));
    let mut found: Vec<PathBuf> = points.filter(|p| roots.iter().any(|root| p.starts_with(root))).collect();
    found.reverse();
    found
}

/// The fabric's, the client's and the nodes' namespaces.
fn namespaces(lab: &str) -> Vec<String> {
    let all = list_namespaces();
    let node = ns_name(lab, "node-");
    let others = ["fabric", "client"].map(|role| ns_name(lab, role));
    all.into_iter().filter(|ns| others.contains(ns) || ns.strip_prefix(&node).is_some_and(|n| n.parse::<u8>().is_ok())).collect()
}

/// What libcni keeps of each attached pod, for the lab's own network; gone when the pod was detached in order.
struct Attached {
    files: Vec<PathBuf>,
    namespace: Option<String>,
    /// With their lengths.
    addresses: Vec<String>,
}

/// The network namespaces of a node's pods.
pub fn pod_namespaces(lab: &str, node: u8) -> Vec<String> {
    let range = netns::pod_cidr(node);
    let prefix = range.split_once("0/").map_or(range.as_str(), |(prefix, _)| prefix);
    let ours = attached(lab).into_iter().filter(|pod| pod.addresses.iter().any(|a| a.starts_with(prefix)));
    ours.filter_map(|pod| pod.namespace).collect()
}

fn attached(lab: &str) -> Vec<Attached> {
    let results = Path::new("/var/lib/cni/results");
    let prefix = format!("{}-", cni_network(lab));
    let entries = std::fs::read_dir(results).into_iter().flatten().flatten();
    let ours = entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path());
    ours.filter_map(|file| {
        let kept: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        let loopback = results.join(format!("cni-loopback-{}-lo", kept["containerId"].as_str()?));
        let interfaces = kept["result"]["interfaces"].as_array().cloned().unwrap_or_default();
        let sandbox = interfaces.iter().find_map(|i| i["sandbox"].as_str()?.rsplit_once("netns/"));
        let namespace = sandbox.map(|(_, name)| name.to_owned()).filter(|name| name.starts_with("cni-") && netns::exists(name));
        let ips = kept["result"]["ips"].as_array().cloned().unwrap_or_default();
        let addresses = ips.iter().filter_map(|ip| Some(ip["address"].as_str()?.to_owned())).collect();
        Some(Attached { files: vec![file, loopback], namespace, addresses })
    })
    .collect()
}

pub fn list_namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// The lab's folder in every mounted cgroup hierarchy that has it.
pub fn cgroups(lab: &str) -> Vec<PathBuf> {
    cgroups_at(&cgroup_root(lab))
}

/// The folders of one cgroup in all hierarchies that have it.
pub fn cgroups_at(root: &str) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    mounts.map(|m| m.join(root.trim_start_matches('/'))).filter(|p| p.exists()).collect()
}

pub fn processes_below(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = walk(dir)
        .iter()
        .filter_map(|d| std::fs::read_to_string(d.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// A folder and all below it, deepest first.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut all: Vec<PathBuf> = folders.flat_map(|e| walk(&e.path())).collect();
    all.push(dir.to_owned());
    all
}

pub fn remove_cgroup(dir: &Path) -> Result<()> {
    wait_for(&format!("cgroup {} to be removed", dir.display()), Duration::from_secs(10), || {
        for folder in walk(dir) {
            std::fs::remove_dir(&folder)?;
        }
        if dir.exists() { bail!("still there") } else { Ok(()) }
    })?;
    if let Some(parent) = dir.parent() {
        // The folder of all labs, when this was the last.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}
