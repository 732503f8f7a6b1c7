//! kube-proxy in its nftables mode, where a variable names its program: the same services, the same namespaces, the same run.
//!
//! Only what can be seen from outside is measured: packets, what nf_tables tells, memory and processor time. All its settings are
//! its own defaults, but that it leaves the host's connection tracking as it is and reads JSON.

use super::api::Api;
use super::changes::{Changes, one_by_one, paced};
use super::driver::{Memory, memory};
use super::figures::{Table, milliseconds, percentile};
use super::objects::{self, Shape};
use super::packets::Path;
use super::plane;
use super::{LAB, RATE, REST};
use crate::cluster::state_dir;
use crate::sys::{Proc, tail};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Names the program.
pub const VARIABLE: &str = "FERROLET_KUBE_PROXY";
/// For its rules to be there. What takes longer is left out, and said.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Single changes, and as many at least when there is no more time for them.
const CHANGES: usize = 30;
const FEWEST_CHANGES: usize = 3;
const TIME_FOR_CHANGES: Duration = Duration::from_secs(60);
/// It runs no program for so long: it is at rest. Between two syncs it leaves a second (`minSyncPeriod`), and a sync that replaced
/// chains is followed by one that removes them.
const QUIET: Duration = Duration::from_millis(2200);

/// The program, if one is named.
pub fn program() -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(None) };
    if !path.is_file() {
        bail!("{VARIABLE} names {}, which is no file", path.display());
    }
    Ok(Some(path))
}

/// Ended when dropped; its rules stay.
pub struct KubeProxy {
    process: Proc,
    api: Api,
}

impl KubeProxy {
    pub fn start(program: &std::path::Path, netns: &str, shape: Shape) -> Result<KubeProxy> {
        let api = Api::start(netns, shape)?;
        let log = state_dir(LAB);
        std::fs::create_dir_all(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut argv = vec![program.display().to_string(), format!("--master=http://{}", api.address)];
        let flags = [
            "--proxy-mode=nftables",
            "--kube-api-content-type=application/json",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--healthz-bind-address=127.0.0.1:10256",
        ];
        argv.extend(flags.map(str::to_owned));
        argv.push(format!("--hostname-override={}", objects::NODE));
        let process = Proc::spawn("kube-proxy", LAB, Some(netns), &log.join("kube-proxy.log"), &argv, &[])?;
        Ok(KubeProxy { process, api })
    }

    /// Waits until the first, the middle and the last service answer. `None`: not within its time.
    pub fn wait(&mut self, path: &mut Path) -> Result<Option<()>> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.process.check_alive()?;
            if path.answers(Duration::from_millis(200))? {
                return Ok(Some(()));
            }
        }
        eprintln!("kube-proxy has no rules after {PATIENCE:?}:\n{}", tail(&self.process.log, 15));
        Ok(None)
    }

    fn memory(&self) -> Result<Memory> {
        memory(self.process.pid() as u32)
    }

    /// Waits until it has nothing more to do.
    fn rest(&self) -> Result<()> {
        let (end, mut busy) = (Instant::now() + PATIENCE, Instant::now());
        while busy.elapsed() < QUIET {
            if Instant::now() > end {
                bail!("kube-proxy is not at rest after {PATIENCE:?}");
            }
            if has_children(self.process.pid())? {
                busy = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// With that of the `nft` programs it ran.
    pub fn cpu(&self) -> Result<f64> {
        let pid = self.process.pid().to_string();
        Ok(plane::cpu(&pid)? + plane::cpu_of_children(&pid)?)
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

fn has_children(pid: i32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("kube-proxy has ended")? {
        // A thread may end meanwhile.
        if std::fs::read_to_string(task?.path().join("children")).is_ok_and(|list| !list.trim().is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The figures of a size but those of packets, beside those that the table has; the numbers of its namespaces begin with `first`.
pub fn measure(table: &mut Table, program: &std::path::Path, shape: Shape, first: u8, seconds: u32) -> Result<()> {
    let names = super::Names(shape);
    let empty = empty(program, first)?;
    let mut path = Path::new(first + 3, shape, "kube-proxy".into())?;
    let mut kube = KubeProxy::start(program, &path.node, shape)?;
    if kube.wait(&mut path)?.is_none() {
        for figure in [names.memory(), names.change()] {
            table.beside(&figure, format!("no rules within {} s", PATIENCE.as_secs()));
        }
        drop(kube);
        return path.delete();
    }
    kube.rest()?;
    std::thread::sleep(REST);
    let full = kube.memory()?;
    let mb = |kib: u64| kib as f64 / 1024.0;
    let above = mb(full.resident.saturating_sub(empty.resident));
    let text =
        format!("{above:.1} MB after {} s; peak {:.1} MB; empty {:.1} MB", REST.as_secs(), mb(full.peak), mb(empty.resident));
    table.beside(&names.memory(), text);
    let mut changes = Changes::new(shape);
    let node = path.node.clone();
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.len() < FEWEST_CHANGES || (times.len() < CHANGES && began.elapsed() < TIME_FOR_CHANGES) {
        kube.rest()?;
        times.extend(one_by_one(&mut |line| kube.api.send(line), &node, &mut changes, 1, Duration::ZERO)?);
    }
    let times = milliseconds(&times);
    let [p50, worst] = [0.5, 1.0].map(|part| percentile(&times, part));
    table.beside(&names.change(), format!("p50 {p50:.1} ms, worst {worst:.1} ms of {}", times.len()));
    kube.rest()?;
    let (cpu, began) = (kube.cpu()?, Instant::now());
    let latest = paced(&mut changes, RATE, seconds, |line, _| kube.api.send(line))?;
    let cpu = (kube.cpu()? - cpu) / began.elapsed().as_secs_f64();
    let settled = one_by_one(&mut |line| kube.api.send(line), &node, &mut changes, 1, Duration::ZERO)?[0];
    let text = format!("latest {:.0} ms behind, settled in {:.0} ms", latest.as_secs_f64() * 1e3, settled.as_secs_f64() * 1e3);
    table.beside(&names.stream(), text);
    table.beside(super::STREAM_CPU, format!("{:.1} % of one core, with its nft", cpu * 100.0));
    drop(kube);
    path.delete()
}

/// Its memory once it has synced no service at all.
fn empty(program: &std::path::Path, first: u8) -> Result<Memory> {
    let path = Path::new(first, Shape { services: 0, endpoints: 1, udp: false }, "kube-proxy, empty".into())?;
    let kube = KubeProxy::start(program, &path.node, Shape { services: 0, endpoints: 1, udp: false })?;
    std::thread::sleep(REST);
    let memory = kube.memory()?;
    drop(kube);
    path.delete()?;
    Ok(memory)
}
