//! The agent gets no thread and no process more: it goes on with those that it has.

use super::beside::Beside;
use super::misbehaving::cgroup_of;
use crate::shared::{LIMIT, Ns, SMALL, pod};
use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::cgroup_root;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![SMALL.test("faults::forks_of_the_agent_fail", forks_fail)]
}

/// A process that gets nothing more from fork and clone than EAGAIN, until this is dropped.
struct Limited {
    process: i32,
    before: PathBuf,
    limit: PathBuf,
}

impl Limited {
    fn new(lab: &str, process: i32) -> Result<Limited> {
        let before = cgroup_of(process, "pids")?;
        let limit = Path::new("/sys/fs/cgroup/pids").join(cgroup_root(lab).trim_start_matches('/')).join("no-forks");
        std::fs::create_dir_all(&limit)?;
        std::fs::write(limit.join("pids.max"), "1")?;
        std::fs::write(limit.join("cgroup.procs"), process.to_string())?;
        Ok(Limited { process, before, limit })
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = std::fs::write(self.before.join("cgroup.procs"), self.process.to_string());
        let _ = std::fs::remove_dir(&self.limit);
    }
}

fn threads(process: i32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/task"))?.count())
}

/// Twice as long as a thread stays without work.
const LASTS: Duration = Duration::from_secs(20);

fn forks_fail(ns: &mut Ns) -> Result<()> {
    let beside = Beside::start(ns)?;
    ns.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: told}\ndata: {a: b}\n")?;
    let agent = ns.lab.nodes[0].agent.as_ref().context("no agent")?.pid();
    let limited = Limited::new(&ns.lab.name, agent)?;
    let (begun, most) = (Instant::now(), threads(agent)?);
    wait_for("the agent's idle threads to end", LIMIT, || {
        if begun.elapsed() >= LASTS { Ok(()) } else { bail!("{} threads of {most} are left", threads(agent)?) }
    })?;
    let mount = "volumeMounts: [{name: told, mountPath: /told}]\nenv: [{name: WEB_DRAIN_MS, value: '0'}]";
    ns.apply(&pod("late", "serve", mount, "volumes: [{name: told, configMap: {name: told}}]"))?;
    ns.ready("late")?;
    beside.untouched(ns)?;
    if threads(agent)? > most {
        bail!("the agent got a thread: the fault did not work");
    }
    drop(limited);
    ns.kubectl(&["delete", "pod", "late", "--timeout=30s"])?;
    beside.untouched(ns)
}
