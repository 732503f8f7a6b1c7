//! A runtime with events that was away when there was something to tell: what it never told is seen all the same.

use crate::security::with_user_namespaces;
use crate::shared::{LIMIT, Ns, is_ready, pod};
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![with_user_namespaces("faults::containers_die_while_a_runtime_with_events_is_away", lost)]
}

fn lost(ns: &mut Ns) -> Result<()> {
    for name in ["stays", "dies", "sandbox"] {
        ns.apply(&pod(name, "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    }
    ns.apply(&pod("once", "sleep, '10000'", "", "restartPolicy: Never"))?;
    for name in ["stays", "dies", "sandbox", "once"] {
        ns.ready(name)?;
    }
    let before = super::identity(&ns.get("pod", "stays")?);
    let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
    let die = |name: &str, container: bool| -> Result<()> {
        let found = tasks.iter().find(|t| t.pod.as_deref() == Some(name) && t.container.is_some() == container);
        let pid = found.with_context(|| format!("no process of {name}"))?.pid;
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    };
    // First it is only slow, then it is gone.
    ns.lab.nodes[0].containerd.process()?.signal(Signal::SIGSTOP)?;
    let died = die("dies", true);
    ns.lab.nodes[0].containerd.process()?.signal(Signal::SIGCONT)?;
    died?;
    let restarted = |p: &Value| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 1;
    ns.pod("dies", "restarted once", restarted)?;
    ns.lab.nodes[0].containerd.kill()?;
    die("once", true)?;
    die("sandbox", false)?;
    ns.lab.nodes[0].containerd.start()?;
    // A runtime that was away may not know any more how it ended, and says 255.
    ns.pod("once", "failed", |p| {
        let code = &p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        p["status"]["phase"] == "Failed" && (*code == 137 || *code == 255)
    })?;
    ns.pod("sandbox", "in another sandbox", restarted)?;
    wait_for("one process for each container that is to run", LIMIT, || {
        let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
        let running = tasks.iter().filter(|t| t.container.is_some()).count();
        if running == 3 { Ok(()) } else { bail!("{tasks:#?}") }
    })?;
    let after = super::identity(&ns.get("pod", "stays")?);
    if before == after { Ok(()) } else { bail!("the pod that ran was touched: {before} became {after}") }
}
