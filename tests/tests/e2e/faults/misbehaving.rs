//! Pods that harm themselves, or that the runtime cannot end: each shows why it is as it is, and nobody else notices.

use super::beside::Beside;
use crate::shared::{LIMIT, Ns, SMALL, SMALL_PIDS, is_ready, must_contain, pod};
use crate::waits;
use anyhow::{Context, Result, bail};
use ferrolet_tests::images::{self, Image};
use ferrolet_tests::leftovers;
use ferrolet_tests::registry::Registry;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        SMALL.test("faults::a_pod_that_forks_without_end", forks),
        SMALL.test("faults::a_hundred_thousand_environment_variables", environment),
        SMALL.test("faults::a_log_line_of_100_mb", long_line),
        SMALL.test("faults::a_pull_that_never_ends", pull),
        SMALL.test("faults::a_container_that_cannot_be_killed", unkillable),
    ]
}

/// The cgroup folder of a container's process in the hierarchy of one controller.
pub(super) fn cgroup_of(pid: i32, controller: &str) -> Result<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = text.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller)));
    let path = line.and_then(|l| l.splitn(3, ':').nth(2)).with_context(|| format!("no {controller} in {text}"))?;
    Ok(PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}")))
}

/// The process of a pod's container.
fn pid_of(ns: &Ns, name: &str) -> Result<i32> {
    let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
    let found = tasks.iter().find(|t| t.pod.as_deref() == Some(name) && t.container.is_some());
    Ok(found.with_context(|| format!("no process of {name} among {tasks:#?}"))?.pid)
}

/// A pod beside that is made while the fault lasts, and goes again.
fn another_lives(ns: &Ns) -> Result<()> {
    let begun = Instant::now();
    ns.apply(&pod("another", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    ns.ready("another")?;
    ns.kubectl(&["delete", "pod", "another", "--timeout=30s"])?;
    if begun.elapsed() > Duration::from_secs(20) { bail!("another pod took {:?}", begun.elapsed()) } else { Ok(()) }
}

fn forks(ns: &mut Ns) -> Result<()> {
    let beside = Beside::start(ns)?;
    ns.apply(&pod("forks", "forks", "", "terminationGracePeriodSeconds: 1"))?;
    wait_for("it to say why it is held", LIMIT, || must_contain(&ns.kubectl(&["logs", "forks"])?, "cannot fork"))?;
    let pod = cgroup_of(pid_of(ns, "forks")?, "pids")?.parent().context("no folder above")?.to_owned();
    let processes = leftovers::processes_below(&pod);
    if processes.len() > SMALL_PIDS {
        bail!("{} processes in {}, which may have {SMALL_PIDS}", processes.len(), pod.display());
    }
    another_lives(ns)?;
    beside.untouched(ns)?;
    ns.kubectl(&["delete", "pod", "forks", "--timeout=40s"])?;
    let left: Vec<_> = processes.into_iter().filter(|pid| ferrolet_tests::sys::alive(*pid)).collect();
    if left.is_empty() { Ok(()) } else { bail!("these outlived their pod: {left:?}") }
}

/// How many of our variables the runtime was told to give a pod's container.
fn told(ns: &Ns, name: &str) -> Result<usize> {
    let containerd = &ns.lab.nodes[0].containerd;
    let filter = format!("labels.\"io.kubernetes.pod.name\"=={name}");
    let counts = containerd.ctr(&["containers", "list", "-q", &filter])?;
    let counts = counts.split_whitespace().map(|id| {
        let info: Value = serde_json::from_str(&containerd.ctr(&["containers", "info", id])?)?;
        let env = info["Spec"]["process"]["env"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|v| v.as_str().is_some_and(|v| v.ends_with("=x"))).count());
        Ok(env)
    });
    Ok(counts.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0))
}

/// The runtime takes its time to start it, more than the square of their number: nobody waits for that.
fn environment(ns: &mut Ns) -> Result<()> {
    const EACH: usize = 50_000;
    let beside = Beside::start(ns)?;
    for half in ["A", "B"] {
        let data: Map<String, Value> = (0..EACH).map(|i| (format!("{half}{i:05}"), json!("x"))).collect();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": half.to_lowercase()}, "data": data});
        let file = ns.lab.dir.join("many.json");
        std::fs::write(&file, map.to_string())?;
        // Applying would keep a second copy in an annotation, for which there is no room.
        ns.kubectl(&["create", "-f", &file.to_string_lossy()])?;
    }
    ns.apply(&pod("many", "serve", "envFrom: [{configMapRef: {name: a}}, {configMapRef: {name: b}}]", ""))?;
    wait_for("the runtime to be told all", LIMIT, || match told(ns, "many")? {
        count if count == 2 * EACH => Ok(()),
        count => bail!("{count} variables so far"),
    })?;
    another_lives(ns)?;
    ns.kubectl(&["delete", "pod", "many", "--grace-period=1", "--timeout=60s"])?;
    // More than the kernel takes.
    let large: String = (0..150).map(|i| format!("- {{name: C{i}, value: '{}'}}\n", "y".repeat(16_000))).collect();
    ns.create(&pod("over", "serve", &format!("env:\n{large}"), ""))?;
    let why = || must_contain(&ns.kubectl(&["logs", "over"])?, "argument list too long");
    wait_for("it to say that it has too many", LIMIT, why)?;
    beside.untouched(ns)
}

/// The highest that the agent's memory was since the last call, in KiB.
fn peak(ns: &Ns) -> Result<u64> {
    let pid = ns.lab.nodes[0].agent.as_ref().context("no agent")?.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("no VmHWM")?;
    let peak = line.split_whitespace().nth(1).context("no number")?.parse()?;
    // 5 stands for the highest resident size.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    Ok(peak)
}

fn long_line(ns: &mut Ns) -> Result<()> {
    const LENGTH: usize = 100_000_000;
    let beside = Beside::start(ns)?;
    ns.apply(&pod("says", &format!("line, '{LENGTH}'"), "", ""))?;
    peak(ns)?;
    let before = peak(ns)?;
    let log = ns.lab.dir.join("long-line");
    wait_for("all of it to be in the log", LIMIT, || {
        let out = std::fs::File::create(&log)?;
        let mut kubectl = ns.lab.kubectl_command(&["--namespace", &ns.name, "logs", "says"]);
        let status = kubectl.stdout(out).stderr(std::process::Stdio::null()).status()?;
        let length = std::fs::metadata(&log)?.len();
        if status.success() && length == LENGTH as u64 + 1 { Ok(()) } else { bail!("{status}, {length} bytes") }
    })?;
    let text = std::fs::read(&log)?;
    if text.iter().filter(|b| **b == b'x').count() != LENGTH || text.last() != Some(&b'\n') {
        bail!("it is not the line that was said");
    }
    let tail = ns.kubectl(&["logs", "says", "--tail=1"])?;
    if tail.len() > 20_000 || !tail.ends_with('\n') {
        bail!("its end has {} bytes", tail.len());
    }
    let after = peak(ns)?;
    if after > before + (16 << 10) {
        bail!("the agent had {before} KiB and came to {after} KiB");
    }
    beside.untouched(ns)?;
    std::fs::remove_file(log)?;
    ns.kubectl(&["delete", "pod", "says", "--grace-period=1", "--timeout=40s"]).map(drop)
}

fn pull(ns: &mut Ns) -> Result<()> {
    let registry = Registry::start(&ns.lab.nodes[0].netns, 5003)?;
    let image = |user: &'static str| {
        // The second file makes it a layer that the node does not have.
        let files: &[(&str, &std::path::Path)] = &[("/web", &ns.lab.bins.web), ("/large", &ns.lab.bins.pause)];
        images::build(&Image { name: "", files, entrypoint: &["/web"], arguments: &["serve"], user })
    };
    let (never, other) = (registry.offer("never", image("")?), registry.offer("other", image("web")?));
    registry.stall(true);
    let beside = Beside::start(ns)?;
    let of = |name: &str, image: &str| {
        pod(name, "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", "").replace(ferrolet_tests::images::WEB, image)
    };
    ns.apply(&of("waits", &never))?;
    ns.apply(&of("goes", &never))?;
    wait_for("the pull to have half of it", LIMIT, || if registry.stalled() > 0 { Ok(()) } else { bail!("none has") })?;
    ns.event("waits", "Pulling", &never)?;
    waits::says(ns, "waits", &["image", &never])?;
    another_lives(ns)?;
    // Its pull is under way for another still.
    ns.kubectl(&["delete", "pod", "goes", "--timeout=20s"])?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    beside.untouched(ns)?;
    registry.stall(false);
    ns.apply(&of("late", &other))?;
    for name in ["waits", "late"] {
        let once = |p: &Value| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 0;
        ns.pod(name, "ready", once)?;
    }
    beside.untouched(ns)
}

/// Puts a process to sleep until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Result<Stopped> {
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
        Ok(Stopped(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGCONT);
    }
}

struct Frozen(PathBuf);

impl Frozen {
    fn new(folder: PathBuf) -> Result<Frozen> {
        std::fs::write(folder.join("freezer.state"), "FROZEN")?;
        Ok(Frozen(folder))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
    }
}

/// One whose processes the kernel keeps still, and one whose shim does not answer.
fn unkillable(ns: &mut Ns) -> Result<()> {
    let beside = Beside::start(ns)?;
    for name in ["frozen", "stopped"] {
        ns.apply(&pod(name, "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", "terminationGracePeriodSeconds: 1"))?;
    }
    ns.ready("frozen")?;
    ns.ready("stopped")?;
    let (frozen_pid, stopped_pid) = (pid_of(ns, "frozen")?, pid_of(ns, "stopped")?);
    let pod_cgroup = cgroup_of(frozen_pid, "freezer")?.parent().context("no folder above")?.to_owned();
    let frozen = Frozen::new(pod_cgroup)?;
    let status = std::fs::read_to_string(format!("/proc/{stopped_pid}/status"))?;
    let shim = status.lines().find_map(|l| l.strip_prefix("PPid:")).context("no parent")?.trim().parse()?;
    let stopped = Stopped::new(shim)?;
    ns.kubectl(&["delete", "pod", "frozen", "stopped", "--wait=false"])?;
    another_lives(ns)?;
    // The reason is in the pods' events, and for who asks the agent.
    ns.event("stopped", "FailedKillPod", "main")?;
    waits::says(ns, "stopped", &["main"])?;
    for name in ["frozen", "stopped"] {
        let still = ns.get("pod", name)?;
        if still["metadata"]["deletionTimestamp"].is_null() {
            bail!("{name} is not being deleted: {}", still["metadata"]);
        }
    }
    beside.untouched(ns)?;
    drop(stopped);
    drop(frozen);
    ns.kubectl(&["wait", "--for=delete", "pod/frozen", "pod/stopped", "--timeout=40s"])?;
    let left: Vec<_> = [frozen_pid, stopped_pid].into_iter().filter(|pid| ferrolet_tests::sys::alive(*pid)).collect();
    if !left.is_empty() {
        bail!("these outlived their pods: {left:?}");
    }
    beside.untouched(ns)
}
