//! Reads what is used in cgroups. Blocks, and changes nothing. What the kernel does not say is `None`, never zero.
//!
//! Sources: cgroup-v1/cpuacct.rst, cgroup-v1/memory.rst, cgroup-v2.rst, accounting/psi.rst of the kernel.

use super::hierarchy::Hierarchy;
use super::manager::Version;
use super::read::{self, V1_UNLIMITED};
use std::path::{Path, PathBuf};

/// What a cgroup and all below it use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Processor time since the cgroup was made, in nanoseconds.
    pub cpu_ns: Option<u64>,
    pub throttling: Option<Throttling>,
    pub memory: Option<Memory>,
    pub swap_bytes: Option<u64>,
    /// `None` where swap has no limit.
    pub swap_limit: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// Of the CFS quota; time in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    pub periods: u64,
    pub throttled: u64,
    pub time_ns: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    /// Without the files that were not used of late: what cannot be taken back at once.
    pub working_set: u64,
    /// Anonymous.
    pub rss: Option<u64>,
    pub cache: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
    /// `None` where there is no limit.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// Averages in percent over 10, 60 and 300 seconds; the total in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    pub avg: [f64; 3],
    pub total_ns: u64,
}

/// A pod's cgroup and those of its containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodUsage {
    pub pod: Option<Usage>,
    /// In the order asked for.
    pub containers: Vec<Option<Usage>>,
    /// One of its processes.
    pub process: Option<i32>,
}

/// `None` if no hierarchy has such a cgroup.
pub(super) fn of(version: Version, hierarchies: &[Hierarchy], path: &Path) -> Option<Usage> {
    let mut usage = None;
    for h in hierarchies {
        let folder = h.folder(path);
        let wanted = version == Version::V2 || ["cpu", "cpuacct", "memory", "pids"].iter().any(|c| h.has(c));
        if wanted && folder.is_dir() {
            let usage = usage.get_or_insert_with(Usage::default);
            match version {
                Version::V1 => v1(h, &folder, usage),
                Version::V2 => v2(&folder, usage),
            }
        }
    }
    usage
}

pub(super) fn of_pod(version: Version, hierarchies: &[Hierarchy], path: &Path, ids: &[String]) -> PodUsage {
    let names: Vec<String> =
        hierarchies.iter().find_map(|h| h.children(path).ok().filter(|names| !names.is_empty())).unwrap_or_default();
    let name_of = |id: &String| names.iter().find(|name| read::bears(name, id));
    let containers: Vec<Option<PathBuf>> = ids.iter().map(|id| name_of(id).map(|name| path.join(name))).collect();
    let process = containers.iter().flatten().find_map(|path| process(hierarchies, path));
    let used = |path: Option<PathBuf>| path.and_then(|path| of(version, hierarchies, &path));
    PodUsage { pod: of(version, hierarchies, path), containers: containers.into_iter().map(used).collect(), process }
}

fn process(hierarchies: &[Hierarchy], path: &Path) -> Option<i32> {
    let first = |h: &Hierarchy| text(h.folder(path).join("cgroup.procs"))?.lines().next()?.parse().ok();
    hierarchies.iter().find_map(first)
}

fn text(path: PathBuf) -> Option<String> {
    read::text(path).ok().flatten()
}

fn number(path: PathBuf) -> Option<u64> {
    read::number(path).ok().flatten()
}

/// A line of a file of names and numbers.
pub(super) fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

fn v1(h: &Hierarchy, folder: &Path, usage: &mut Usage) {
    if h.has("cpuacct") {
        usage.cpu_ns = number(folder.join("cpuacct.usage"));
    }
    if h.has("cpu") {
        let stat = text(folder.join("cpu.stat")).unwrap_or_default();
        usage.throttling = throttling(&stat, "throttled_time", 1);
    }
    if h.has("memory") {
        let stat = text(folder.join("memory.stat")).unwrap_or_default();
        // The sums of all below, where the kernel makes them.
        let of = |name: &str| field(&stat, &format!("total_{name}")).or_else(|| field(&stat, name));
        usage.memory = number(folder.join("memory.usage_in_bytes")).map(|used| Memory {
            usage: used,
            working_set: used.saturating_sub(of("inactive_file").unwrap_or(0)),
            rss: of("rss"),
            cache: of("cache"),
            page_faults: of("pgfault"),
            major_page_faults: of("pgmajfault"),
            limit: number(folder.join("memory.limit_in_bytes")).filter(|limit| *limit < V1_UNLIMITED),
        });
        usage.swap_bytes = of("swap");
        let both = number(folder.join("memory.memsw.limit_in_bytes")).filter(|limit| *limit < V1_UNLIMITED);
        usage.swap_limit = both.zip(usage.memory.and_then(|m| m.limit)).map(|(both, memory)| both.saturating_sub(memory));
    }
    if h.has("pids") {
        usage.tasks = number(folder.join("pids.current"));
    }
}

fn v2(folder: &Path, usage: &mut Usage) {
    let cpu = text(folder.join("cpu.stat")).unwrap_or_default();
    usage.cpu_ns = field(&cpu, "usage_usec").map(|us| us.saturating_mul(1000));
    usage.throttling = throttling(&cpu, "throttled_usec", 1000);
    let stat = text(folder.join("memory.stat")).unwrap_or_default();
    usage.memory = number(folder.join("memory.current")).map(|used| Memory {
        usage: used,
        working_set: used.saturating_sub(field(&stat, "inactive_file").unwrap_or(0)),
        rss: field(&stat, "anon"),
        cache: field(&stat, "file"),
        page_faults: field(&stat, "pgfault"),
        major_page_faults: field(&stat, "pgmajfault"),
        limit: number(folder.join("memory.max")),
    });
    usage.swap_bytes = number(folder.join("memory.swap.current"));
    usage.swap_limit = number(folder.join("memory.swap.max"));
    usage.tasks = number(folder.join("pids.current"));
    let pressure = |name: &str| text(folder.join(name)).and_then(|text| pressure(&text));
    usage.cpu_pressure = pressure("cpu.pressure");
    usage.memory_pressure = pressure("memory.pressure");
    usage.io_pressure = pressure("io.pressure");
}

fn throttling(stat: &str, time: &str, to_ns: u64) -> Option<Throttling> {
    let (periods, throttled) = (field(stat, "nr_periods")?, field(stat, "nr_throttled")?);
    Some(Throttling { periods, throttled, time_ns: field(stat, time)?.saturating_mul(to_ns) })
}

/// `None` without a line `some`; `full` may be missing, as for the processors of old kernels.
fn pressure(text: &str) -> Option<Pressure> {
    let stall = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let of = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let avg = |key: &str| of(key).and_then(|value| value.parse::<f64>().ok());
        let total = of("total")?.parse::<u64>().ok()?;
        Some(Stall { avg: [avg("avg10")?, avg("avg60")?, avg("avg300")?], total_ns: total.saturating_mul(1000) })
    };
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests;
