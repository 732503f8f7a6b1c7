//! An API server that is away for long, and connections to it that go silent without an end.

use crate::shared::{LIMIT, Ns, is_ready, pod, test};
use crate::static_pods::Folder;
use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::API_PORT;
use ferrolet_tests::netns::FABRIC_IP;
use ferrolet_tests::proxy::Proxy;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        test("faults::control_plane_gone_while_pods_die_and_static_pods_change", gone),
        test("faults::connections_that_go_silent", silent),
    ]
}

/// How long the control plane is away: longer than every wait of the agent's between two tries.
const AWAY: Duration = Duration::from_secs(45);

/// Running containers by pod, with their processes.
fn running(ns: &Ns) -> Result<Vec<(String, i32)>> {
    let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
    Ok(tasks.into_iter().filter(|t| t.container.is_some()).filter_map(|t| Some((t.pod?, t.pid))).collect())
}

fn of(tasks: &[(String, i32)], name: &str) -> Option<i32> {
    tasks.iter().find(|(pod, _)| pod == name).map(|(_, pid)| *pid)
}

/// Ends a pod's container as nobody asked it to; waits until there is another, if there is to be one.
fn die(ns: &Ns, name: &str, again: bool) -> Result<()> {
    let pid = of(&running(ns)?, name).with_context(|| format!("{name} does not run"))?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    wait_for(&format!("{name} to go on"), LIMIT, || match of(&running(ns)?, name) {
        Some(now) if now == pid => bail!("it has not ended"),
        Some(_) if again => Ok(()),
        None if !again => Ok(()),
        other => bail!("its process is {other:?}"),
    })
}

fn gone(ns: &mut Ns) -> Result<()> {
    let folder = Folder::of(ns)?;
    let web = |name: &str, text: &str| {
        let env = format!("env: [{{name: WEB_DRAIN_MS, value: '0'}}, {{name: TEXT, value: {text}}}]");
        pod(name, "serve", &env, "terminationGracePeriodSeconds: 2")
    };
    let node = ns.lab.nodes[0].name.clone();
    let fixed = |name: &str| format!("{name}-{node}");
    let (before, load) = super::served(ns, "stays")?;
    for name in ["dies", "twice", "late"] {
        ns.apply(&web(name, "a"))?;
    }
    ns.apply(&pod("once", "sleep, '10000'", "", "restartPolicy: Never"))?;
    for name in ["changes", "goes"] {
        folder.put(ns, &format!("{name}.yaml"), &web(name, "a"))?;
    }
    for name in ["dies", "twice", "late", "once", &fixed("changes"), &fixed("goes")] {
        ns.ready(name)?;
    }
    let changed = of(&running(ns)?, &fixed("changes")).context("it does not run")?;

    ns.lab.stop_stub()?;
    let away = Instant::now();
    die(ns, "dies", true)?;
    die(ns, "once", false)?;
    die(ns, "twice", true)?;
    folder.put(ns, "changes.yaml", &web("changes", "b"))?;
    folder.put(ns, "comes.yaml", &web("comes", "a"))?;
    folder.remove("goes.yaml")?;
    wait_for("the static pods to follow their files", LIMIT, || {
        let tasks = running(ns)?;
        let now = of(&tasks, &fixed("changes"));
        let as_wanted = now.is_some_and(|pid| pid != changed)
            && of(&tasks, &fixed("comes")).is_some()
            && of(&tasks, &fixed("goes")).is_none();
        if as_wanted { Ok(()) } else { bail!("these run: {tasks:?}") }
    })?;
    // The second death waits out its delay, 10 s, with nobody to tell.
    die(ns, "twice", true)?;
    // An agent that starts now knows what runs, and not what is to run: it ends nothing and starts nothing of the API's.
    ns.lab.nodes[0].kill_agent()?;
    die(ns, "late", false)?;
    ns.lab.start_agent(0)?;
    // The fault itself: as long as it lasts, not a wait for anything.
    std::thread::sleep(AWAY.saturating_sub(away.elapsed()));
    ns.lab.start_stub()?;

    let back = Instant::now();
    let restarted = |count: u64| move |p: &Value| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == count;
    ns.pod("dies", "restarted once", restarted(1))?;
    ns.pod("late", "restarted once", restarted(1))?;
    ns.pod("twice", "restarted twice", restarted(2))?;
    ns.pod("once", "failed", |p| {
        p["status"]["phase"] == "Failed" && p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    })?;
    ns.pod(&fixed("changes"), "the other one", |p| is_ready(p) && p["spec"]["containers"][0]["env"][1]["value"] == "b")?;
    ns.ready(&fixed("comes"))?;
    wait_for("the mirror of what is gone to go", LIMIT, || {
        let name = fixed("goes");
        let there = ns.list("pods")?.iter().any(|p| p["metadata"]["name"] == name.as_str());
        if there { bail!("{name} is there") } else { Ok(()) }
    })?;
    if back.elapsed() > Duration::from_secs(30) {
        bail!("it took {:?} until the API had it all", back.elapsed());
    }
    // The rules served on all the time, and take what is new.
    ns.lab.wait_ready()?;
    ns.apply(&web("after", "a"))?;
    ns.ready("after")?;
    load.finish_clean()?;
    let ids = |p: &Value| p["status"]["containerStatuses"][0]["containerID"].clone();
    let after = ns.get("pod", "stays")?;
    if ids(&before) == ids(&after) && is_ready(&after) { Ok(()) } else { bail!("{before}\nbecame\n{after}") }
}

/// Nothing ends, nothing fails: only that nothing comes any more.
fn silent(ns: &mut Ns) -> Result<()> {
    let to = format!("{FABRIC_IP}:{API_PORT}").parse()?;
    let port = API_PORT + 1;
    let proxy = Proxy::start(&ns.lab.fabric, format!("{FABRIC_IP}:{port}").parse()?, to)?;
    ns.lab.nodes[0].stop_agent()?;
    ns.lab.start_agent_through(0, port)?;
    ns.lab.wait_ready()?;
    ns.apply(&pod("stays", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    let before = super::identity(&ns.ready("stays")?);
    let connections = proxy.connections();
    proxy.silence();
    let begun = Instant::now();
    ns.apply(&pod("new", "serve", "", ""))?;
    let lease = super::beside::lease(ns)?;
    ns.ready("new")?;
    let noticed = begun.elapsed();
    wait_for("the lease to be renewed", LIMIT, || {
        let now = super::beside::lease(ns)?;
        if now > lease { Ok(()) } else { bail!("still {now}") }
    })?;
    ns.lab.wait_ready()?;
    let after = super::identity(&ns.get("pod", "stays")?);
    ns.lab.nodes[0].stop_agent()?;
    if before != after {
        bail!("the pod that ran was touched: {before} became {after}");
    }
    if proxy.connections() == connections {
        bail!("there was nothing to notice: the agent has {connections} connections");
    }
    // A ping every ten seconds, with ten seconds for its answer.
    if noticed > Duration::from_secs(30) { bail!("it was noticed after {noticed:?}") } else { Ok(()) }
}
