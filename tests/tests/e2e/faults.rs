//! The agent, the control plane and the runtime killed, restarted and hung: the node keeps its heartbeat, what runs
//! goes on, and all converges when the fault ends.

mod api;
mod beside;
mod events;
mod full;
mod misbehaving;
mod reboot;
mod threads;

use crate::shared::{LIMIT, Ns, is_ready, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::load::Load;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    let mut all = vec![
        test("faults::agent_killed_at_many_moments_of_a_pods_start", agent_killed_while_starting),
        test("faults::agent_away_while_containers_end_and_pods_go", agent_away),
        test("faults::control_plane_killed_loses_nothing", stub_killed),
        test("faults::containerd_killed_and_restarted", runtime_killed),
        test("faults::containerd_hangs", runtime_hangs),
        test("faults::a_hanging_probe_delays_nobody", hanging_probe),
    ];
    all.extend(reboot::trials());
    all.extend(events::trials());
    all.extend(api::trials());
    all.extend(full::trials());
    all.extend(misbehaving::trials());
    all.extend(threads::trials());
    all
}

fn identity(pod: &Value) -> String {
    let status = &pod["status"]["containerStatuses"][0];
    let since = &ferrolet_tests::cluster::condition(pod, "Ready")["lastTransitionTime"];
    format!("{} {} {since}", status["containerID"], status["restartCount"])
}

/// A server behind a Service, with a stream of requests on it.
fn served(ns: &Ns, name: &str) -> Result<(Value, Load)> {
    ns.apply(&pod(name, "serve", "readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}", ""))?;
    ns.apply(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"))?;
    let ready = ns.ready(name)?;
    let ip = ns.get("service", name)?["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    let address: SocketAddr = format!("{ip}:80").parse()?;
    wait_for("the service to answer", LIMIT, || ferrolet_tests::load::get(&ns.lab.nodes[0].netns, address, "/"))?;
    Ok((ready, Load::start(&ns.lab.nodes[0].netns, address, Duration::from_millis(20))))
}

fn agent_killed_while_starting(ns: &mut Ns) -> Result<()> {
    // Kills spread over the first 400 ms of a pod's life, at a different moment each round.
    for round in 0..8u64 {
        let name = format!("p{round}");
        ns.apply(&pod(&name, "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
        std::thread::sleep(Duration::from_millis(round * 50));
        ns.lab.nodes[0].kill_agent()?;
        ns.lab.start_agent(0)?;
        ns.ready(&name)?;
    }
    // Nothing that ran was restarted. A runtime gives up a start whose caller went away: that one never ran, and counts.
    let touched = |p: &&Value| {
        let status = &p["status"]["containerStatuses"][0];
        let gave_up = status["restartCount"] == 1 && status["lastState"]["terminated"]["reason"] == "StartError";
        status["restartCount"] != 0 && !gave_up
    };
    if let Some(pod) = ns.list("pods")?.iter().find(touched) {
        bail!("a container was restarted: {}", pod["status"]["containerStatuses"]);
    }
    // Nothing runs twice; what a start that was broken off may have left of a sandbox goes on its own.
    let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
    let mut containers: Vec<_> = tasks.iter().filter(|t| t.container.is_some()).map(|t| (&t.pod, &t.container)).collect();
    containers.sort_unstable();
    if let Some(twice) = containers.windows(2).find(|two| two[0] == two[1]) {
        bail!("{twice:?} run at once: {tasks:#?}");
    }
    wait_for("8 pods to have one sandbox and one container each", LIMIT, || {
        let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
        if tasks.len() == 16 { Ok(()) } else { bail!("{} processes: {tasks:#?}", tasks.len()) }
    })
}

fn agent_away(ns: &mut Ns) -> Result<()> {
    for name in ["stays", "ends", "deleted"] {
        ns.apply(&pod(name, "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    }
    for name in ["stays", "ends", "deleted"] {
        ns.ready(name)?;
    }
    let before = identity(&ns.get("pod", "stays")?);
    let ends = ns.get("pod", "ends")?;
    ns.lab.nodes[0].kill_agent()?;
    let id =
        ends["status"]["containerStatuses"][0]["containerID"].as_str().and_then(|id| id.rsplit('/').next()).context("no ID")?;
    let pid = ns.lab.nodes[0].containerd.tasks()?.into_iter().find(|(task, _)| task == id).context("no task")?.1;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    ns.kubectl(&["delete", "pod", "deleted", "--wait=false"])?;
    ns.lab.start_agent(0)?;
    ns.pod("ends", "restarted once", |p| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 1)?;
    ns.kubectl(&["wait", "--for=delete", "pod/deleted", "--timeout=40s"])?;
    let after = identity(&ns.get("pod", "stays")?);
    if before == after { Ok(()) } else { bail!("the pod that ran was touched: {before} became {after}") }
}

fn stub_killed(ns: &mut Ns) -> Result<()> {
    let (before, load) = served(ns, "server")?;
    for i in 0..20 {
        ns.kubectl(&["create", "configmap", &format!("kept-{i}")])?;
    }
    ns.lab.stub.take().context("no control plane")?.kill()?;
    ns.lab.start_stub()?;
    let maps = ns.list("configmaps")?;
    if maps.len() != 21 {
        bail!("{} of 21 ConfigMaps survived", maps.len());
    }
    ns.apply(&pod("after", "serve", "", ""))?;
    ns.ready("after")?;
    load.finish_clean()?;
    let after = ns.get("pod", "server")?;
    if identity(&before) == identity(&after) { Ok(()) } else { bail!("{} became {}", identity(&before), identity(&after)) }
}

fn runtime_killed(ns: &mut Ns) -> Result<()> {
    let (before, load) = served(ns, "server")?;
    ns.lab.nodes[0].containerd.kill()?;
    // Something to do that the runtime cannot do now.
    ns.apply(&pod("waits", "serve", "", ""))?;
    ns.lab.nodes[0].containerd.start()?;
    ns.ready("waits")?;
    ns.lab.wait_ready()?;
    load.finish_clean()?;
    let after = ns.get("pod", "server")?;
    if identity(&before) == identity(&after) { Ok(()) } else { bail!("{} became {}", identity(&before), identity(&after)) }
}

fn runtime_hangs(ns: &mut Ns) -> Result<()> {
    let (before, load) = served(ns, "server")?;
    let first = beside::lease(ns)?;
    ns.lab.nodes[0].containerd.process()?.signal(Signal::SIGSTOP)?;
    let renewed = wait_for("the lease to be renewed while the runtime hangs", LIMIT, || {
        let now = beside::lease(ns)?;
        if now > first { Ok(now) } else { bail!("still {now}") }
    });
    // Once more: the first renewal may have been under way.
    let again = renewed.and_then(|second| {
        wait_for("the lease to be renewed again", LIMIT, || {
            let now = beside::lease(ns)?;
            if now > second { Ok(()) } else { bail!("still {now}") }
        })
    });
    ns.lab.nodes[0].containerd.process()?.signal(Signal::SIGCONT)?;
    again?;
    ns.lab.wait_ready()?;
    ns.apply(&pod("after", "serve", "", ""))?;
    ns.ready("after")?;
    load.finish_clean()?;
    let after = ns.get("pod", "server")?;
    if identity(&before) == identity(&after) { Ok(()) } else { bail!("{} became {}", identity(&before), identity(&after)) }
}

fn hanging_probe(ns: &mut Ns) -> Result<()> {
    let probe = "readinessProbe: {exec: {command: [/web, sleep, '1000']}, periodSeconds: 1, timeoutSeconds: 1000}";
    for i in 0..5 {
        ns.apply(&pod(&format!("hangs-{i}"), "serve", probe, ""))?;
    }
    ns.pod("hangs-4", "running", |p| p["status"]["containerStatuses"][0]["state"]["running"].is_object())?;
    let begun = Instant::now();
    ns.apply(&pod("beside", "serve", "readinessProbe: {exec: {command: [/web, echo]}, periodSeconds: 1}", ""))?;
    ns.ready("beside")?;
    if begun.elapsed() > Duration::from_secs(15) {
        bail!("the pod beside took {:?}", begun.elapsed());
    }
    ns.kubectl(&["delete", "pods", "--all", "--timeout=60s"]).map(drop)
}
