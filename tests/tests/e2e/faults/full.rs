//! No room, or no inodes, under the pods' folder, their logs or the runtime: who needs room waits and says why, everything
//! else goes on, and nothing that was written by half is taken for true.

use super::beside::Beside;
use crate::shared::{LIMIT, Ns, SMALL, contains, must_contain, pod};
use crate::waits;
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    vec![
        SMALL.test("faults::disk_full_under_the_pod_folder", pod_folder),
        SMALL.test("faults::disk_full_under_the_logs", logs),
        SMALL.test("faults::disk_full_under_the_runtime", runtime),
        SMALL.test("faults::no_inodes", inodes),
    ]
}

/// The runtime and the agent spell its beginning differently.
const NO_ROOM: &str = "o space left on device";

/// A folder whose file system has nothing left of one kind, until this is dropped.
struct Filled(PathBuf);

impl Filled {
    fn room(under: &Path) -> Result<Filled> {
        let filled = Filled(under.join("lab-filler"));
        std::fs::create_dir(&filled.0)?;
        let mut file = File::create(filled.0.join("file"))?;
        for size in [64 << 10, 1] {
            let block = vec![b'x'; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(filled)
    }

    fn inodes(under: &Path) -> Result<Filled> {
        let filled = Filled(under.join("lab-filler"));
        std::fs::create_dir(&filled.0)?;
        // Bounded by the size of the lab's file systems.
        let most = 10_000;
        let made = (0..most).take_while(|i| File::create(filled.0.join(i.to_string())).is_ok()).count();
        if made == most { bail!("{} has more inodes than expected", under.display()) } else { Ok(filled) }
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A pod that waits says what for, and so does an event.
fn waits_for_room(ns: &Ns, name: &str, event: &str) -> Result<()> {
    ns.event(name, event, NO_ROOM)?;
    let told = |p: &Value| contains(&p["status"]["containerStatuses"][0]["state"]["waiting"]["message"], NO_ROOM);
    ns.pod(name, "waits for room", told).map(drop)
}

const TOLD: &str = "volumes: [{name: told, configMap: {name: told}}]";
const MOUNT: &str = "volumeMounts: [{name: told, mountPath: /told}]\nenv: [{name: WEB_DRAIN_MS, value: '0'}]";

fn config_map(ns: &Ns, text: &str) -> Result<()> {
    let data = format!("{{a: {text:?}, b: {text:?}}}");
    ns.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: told}}\ndata: {data}\n")).map(drop)
}

fn shown(ns: &Ns, pod: &str) -> Result<(String, String)> {
    let cat = |file: &str| ns.kubectl(&["exec", pod, "--", "/web", "cat", &format!("/told/{file}")]);
    Ok((cat("a")?, cat("b")?))
}

fn pod_folder(ns: &mut Ns) -> Result<()> {
    let old = "o".repeat(4000);
    let new = "n".repeat(40_000);
    config_map(ns, &old)?;
    let sized = "resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}";
    ns.apply(&pod("reads", "serve", &format!("{MOUNT}\n{sized}"), TOLD))?;
    ns.apply(&pod("goes", "serve", MOUNT, TOLD))?;
    let beside = Beside::start(ns)?;
    ns.ready("reads")?;
    ns.ready("goes")?;
    let root = ns.lab.nodes[0].root_dir();
    let filled = Filled::room(&root)?;

    ns.apply(&pod("volume", "serve", MOUNT, TOLD))?;
    ns.apply(&pod("plain", "serve", "", ""))?;
    waits_for_room(ns, "volume", "FailedMount")?;
    waits_for_room(ns, "plain", "Failed")?;
    config_map(ns, &new)?;
    ns.event("reads", "FailedMount", NO_ROOM)?;
    let patch = r#"{"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "200m"}}}]}}"#;
    ns.kubectl(&["patch", "pod", "reads", "--subresource=resize", "-p", patch])?;
    let said = |p: &Value| contains(&ferrolet_tests::cluster::condition(p, "PodResizeInProgress")["message"], NO_ROOM);
    ns.pod("reads", "says why it is not resized", said)?;
    ns.kubectl(&["delete", "pod", "goes", "--timeout=30s"])?;
    // An agent that starts now finds its pods, whatever lies there by half.
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    ns.event("volume", "FailedMount", NO_ROOM)?;
    let seen = shown(ns, "reads")?;
    if seen != (old.clone(), old) {
        bail!("what was told before is not whole: {} and {} bytes", seen.0.len(), seen.1.len());
    }
    beside.untouched(ns)?;

    drop(filled);
    for name in ["volume", "plain", "reads"] {
        ns.ready(name)?;
    }
    wait_for("the new content", LIMIT, || {
        let seen = shown(ns, "reads")?;
        if seen == (new.clone(), new.clone()) { Ok(()) } else { bail!("{} and {} bytes", seen.0.len(), seen.1.len()) }
    })?;
    let resized = |p: &Value| {
        let status = &p["status"]["containerStatuses"][0];
        status["resources"]["limits"]["cpu"] == "200m" && status["restartCount"] == 0
    };
    ns.pod("reads", "resized", resized)?;
    only_whole(&root)?;
    beside.untouched(ns)
}

/// Of each volume only what is shown lies there, and of what pods were granted only whole files.
fn only_whole(root: &Path) -> Result<()> {
    for pod in std::fs::read_dir(root.join("pods"))?.flatten() {
        let record = pod.path().join("resources.json");
        if record.exists() {
            let text = std::fs::read_to_string(&record)?;
            serde_json::from_str::<Value>(&text).with_context(|| format!("{}: {text:?}", record.display()))?;
        }
        for volume in std::fs::read_dir(pod.path().join("volumes/kubernetes.io~configmap")).into_iter().flatten().flatten() {
            let names = std::fs::read_dir(volume.path())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            let folders: Vec<String> = names.filter(|n| n.starts_with("..2")).collect();
            if folders.len() != 1 {
                bail!("{} has {folders:?}", volume.path().display());
            }
        }
    }
    Ok(())
}

fn logs(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("talks", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    let beside = Beside::start(ns)?;
    ns.ready("talks")?;
    let filled = Filled::room(&ns.lab.nodes[0].dir.join("pod-logs"))?;
    // A pod runs without its words being kept, as with kubelet.
    ns.apply(&pod("mute", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    ns.ready("mute")?;
    must_contain(&ns.kubectl(&["logs", "talks"])?, "listening")?;
    ns.kubectl(&["logs", "mute"])?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    ns.kubectl(&["delete", "pod", "talks", "--timeout=30s"])?;
    beside.untouched(ns)?;
    drop(filled);
    ns.apply(&pod("after", "serve", "", ""))?;
    ns.ready("after")?;
    wait_for("its words to be kept", LIMIT, || must_contain(&ns.kubectl(&["logs", "after"])?, "listening"))?;
    beside.untouched(ns)
}

fn runtime(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("goes", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    let beside = Beside::start(ns)?;
    ns.ready("goes")?;
    let filled = Filled::room(&ns.lab.nodes[0].dir.join("containerd/root"))?;
    ns.apply(&pod("waits", "serve", "", ""))?;
    waits_for_room(ns, "waits", "FailedCreatePodSandBox")?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    beside.untouched(ns)?;
    drop(filled);
    ns.ready("waits")?;
    ns.kubectl(&["delete", "pod", "goes", "--timeout=30s"])?;
    beside.untouched(ns)
}

fn inodes(ns: &mut Ns) -> Result<()> {
    config_map(ns, "whole")?;
    ns.apply(&pod("goes", "serve", MOUNT, TOLD))?;
    let beside = Beside::start(ns)?;
    ns.ready("goes")?;
    let node = &ns.lab.nodes[0];
    let filled = [Filled::inodes(&node.root_dir())?, Filled::inodes(&node.dir.join("pod-logs"))?];
    ns.apply(&pod("volume", "serve", MOUNT, TOLD))?;
    ns.apply(&pod("plain", "serve", "", ""))?;
    waits_for_room(ns, "volume", "FailedMount")?;
    waits_for_room(ns, "plain", "FailedCreatePodSandBox")?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    ns.kubectl(&["delete", "pod", "goes", "--timeout=30s"])?;
    beside.untouched(ns)?;
    drop(filled);
    ns.ready("volume")?;
    ns.ready("plain")?;
    // The agent that came up without room for its socket has it by now.
    wait_for("ferrolet pod to be answered", LIMIT, || waits::asked(ns, &[]))?;
    beside.untouched(ns)
}
