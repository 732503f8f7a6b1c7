//! A node that reboots: everything of its pods is gone but what lies on the disk, and they start again where they were.

use crate::shared::{LIMIT, Ns, is_ready, must_contain, pod, test};
use crate::standalone;
use crate::static_pods::Folder;
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeSet;

pub fn trials() -> Vec<Trial> {
    vec![test("faults::reboot", reboot)]
}

const VOLUMES: &str = "initContainers: [{name: first, image: ferrolet.dev/web:1, args: [exit, '0']}]
volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}, {name: told, configMap: {name: told}}]";
const MOUNTS: &str = "env: [{name: WEB_DRAIN_MS, value: '0'}]
readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: told, mountPath: /told}]";

fn reboot(ns: &mut Ns) -> Result<()> {
    let folder = Folder::of(ns)?;
    ns.kubectl(&["create", "configmap", "told", "--from-literal=word=before"])?;
    ns.apply(&pod("web", "serve", MOUNTS, VOLUMES))?;
    ns.apply(&pod("never", "sleep, '10000'", "", "restartPolicy: Never"))?;
    ns.apply(&pod("done", "exit, '0'", "", "restartPolicy: Never"))?;
    ns.apply(&pod("failing", "sleep, '10000'", "", "restartPolicy: OnFailure"))?;
    ns.apply(&pod("deleted", "sleep, '10000'", "", ""))?;
    folder.put(ns, "fixed.yaml", &pod("fixed", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    let fixed = format!("fixed-{}", ns.lab.nodes[0].name);
    for name in ["web", "never", "failing", "deleted", &fixed] {
        ns.ready(name)?;
    }
    let over = ns.pod("done", "over", |p| p["status"]["phase"] == "Succeeded")?;
    for place in ["disk", "memory"] {
        ns.kubectl(&["exec", "web", "--", "/web", "write", &format!("/{place}/kept"), place])?;
    }
    let before = ns.get("pod", "web")?;
    without_api(ns, &fixed)?;
    started_again(ns, &before, 1, "before")?;
    started_again_is(ns, "failing", 1)?;
    // What ended with the node's power has ended for good, and what was over before is as it was.
    let never = ns.pod("never", "over", |p| p["status"]["phase"] == "Failed")?;
    let ended = &never["status"]["containerStatuses"][0];
    if ended["restartCount"] != 0 || ended["state"]["terminated"]["exitCode"] != 255 {
        bail!("what was to run once: {}", never["status"]);
    }
    let still = ns.get("pod", "done")?;
    if still["status"] != over["status"] {
        bail!("a pod that was over was changed: {} became {}", over["status"], still["status"]);
    }

    let before = ns.get("pod", "web")?;
    with_api(ns)?;
    ns.kubectl(&["wait", "--for=delete", "pod/deleted", "--timeout=40s"])?;
    started_again(ns, &before, 2, "after")?;
    started_again_is(ns, "failing", 2)?;
    started_again_is(ns, &fixed, 2)?;
    addresses_are_those_of_pods(ns)?;
    alone(ns, &fixed)
}

/// The control plane comes back after the node: static pods do not wait for it, all others do.
fn without_api(ns: &mut Ns, fixed: &str) -> Result<()> {
    ns.lab.cut_power(0)?;
    ns.lab.stop_stub()?;
    ns.lab.nodes[0].containerd.start()?;
    ns.lab.start_agent(0)?;
    wait_for("the static pod to run without an API server", LIMIT, || {
        let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
        let of = |name: &str| tasks.iter().filter(|t| t.container.is_some() && t.pod.as_deref() == Some(name)).count();
        if of(fixed) == 1 { Ok(()) } else { bail!("there are {tasks:#?}") }
    })?;
    let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
    if let Some(early) = tasks.iter().find(|t| t.pod.as_deref() != Some(fixed)) {
        bail!("started without having been asked for: {early:#?}");
    }
    ns.lab.start_stub()?;
    started_again_is(ns, fixed, 1)
}

/// The agent is up before the runtime, and the API is there all the time; it has a pod to be ended, and a word that changed.
fn with_api(ns: &mut Ns) -> Result<()> {
    ns.lab.cut_power(0)?;
    let node = ns.lab.nodes[0].name.clone();
    // The kernel's own cannot be changed: the node's last word of it is made another.
    let other = r#"{"status": {"nodeInfo": {"bootID": "another"}}}"#;
    ns.lab.kubectl(&["patch", "node", &node, "--subresource=status", "--type=merge", "-p", other])?;
    ns.kubectl(&["delete", "pod", "deleted", "--wait=false"])?;
    ns.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: told}\ndata: {word: after}\n")?;
    ns.lab.start_agent(0)?;
    ns.lab.nodes[0].containerd.start()?;
    ns.lab.wait_ready()?;
    wait_for("the node's event", LIMIT, || must_contain(&ns.lab.kubectl(&["describe", "node", &node])?, "Rebooted"))
}

/// A node that is alone has nobody but its runtime to remember for it.
fn alone(ns: &mut Ns, fixed: &str) -> Result<()> {
    ns.lab.nodes[0].stop_agent()?;
    ns.lab.stop_stub()?;
    ns.lab.cut_power(0)?;
    ns.lab.nodes[0].containerd.start()?;
    ns.lab.start_agent_alone(0)?;
    let again = |p: &Value| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 3;
    let shown = standalone::until(ns, fixed, "ready again", again).map(drop);
    ns.lab.nodes[0].stop_agent()?;
    shown
}

fn started_again_is(ns: &Ns, name: &str, count: u64) -> Result<()> {
    let once = |p: &Value| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == count;
    let pod = ns.pod(name, &format!("ready, restarted {count} times"), once)?;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    if last["exitCode"] == 255 { Ok(()) } else { bail!("{name} was not ended by a reboot: {last}") }
}

fn started_again(ns: &Ns, before: &Value, count: u64, word: &str) -> Result<()> {
    started_again_is(ns, "web", count)?;
    let after = ns.get("pod", "web")?;
    let status = &after["status"];
    if after["metadata"]["uid"] != before["metadata"]["uid"] || status["startTime"] != before["status"]["startTime"] {
        bail!("it is another pod: {}", after["metadata"]);
    }
    if status["initContainerStatuses"][0]["restartCount"] != count {
        bail!("its init container did not run again: {status}");
    }
    if status["podIP"] == before["status"]["podIP"] {
        bail!("it has the address of a sandbox that is gone: {}", status["podIP"]);
    }
    ns.event("web", "SandboxChanged", "will be killed and re-created")?;
    let see = |words: &[&str]| ns.kubectl(&[&["exec", "web", "--", "/web"], words].concat());
    must_contain(&see(&["cat", "/disk/kept"])?, "disk")?;
    must_contain(&see(&["cat", "/told/word"])?, word)?;
    let memory = see(&["ls", "/memory"])?;
    if !memory.trim().is_empty() {
        bail!("what was in memory is there: {memory}");
    }
    see(&["write", "/memory/kept", "memory"])?;
    let ip = status["podIP"].as_str().context("no address")?;
    ferrolet_tests::load::get(&ns.lab.nodes[0].netns, format!("{ip}:8080").parse()?, "/").map(drop)
}

/// CNI has given back what sandboxes had that are gone.
fn addresses_are_those_of_pods(ns: &Ns) -> Result<()> {
    let ipam = ns.lab.nodes[0].dir.join("containerd/ipam");
    wait_for("the addresses of earlier sandboxes to be free", LIMIT, || {
        let pods = ns.list("pods")?;
        let used: BTreeSet<String> = pods.iter().filter_map(|p| Some(p["status"]["podIP"].as_str()?.to_owned())).collect();
        let mut kept = BTreeSet::new();
        for network in std::fs::read_dir(&ipam)?.flatten() {
            let names = std::fs::read_dir(network.path())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            kept.extend(names.filter(|n| n.starts_with("10.")));
        }
        if kept.is_subset(&used) { Ok(()) } else { bail!("{kept:?} are kept for pods with {used:?}") }
    })
}
