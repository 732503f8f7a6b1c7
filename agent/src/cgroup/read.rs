//! Reads what is in force in a cgroup. Blocks, and changes nothing.

use super::hierarchy::Hierarchy;
use super::manager::Version;
use super::plan::{Limits, cpu_shares_of_weight};
use super::{Error, Result, usage};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Limits that are in force, and what is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// `None` where there is no limit.
    pub limits: Limits,
    pub memory_used: Option<u64>,
}

/// v1 says "no limit" by a number that no machine has.
pub(super) const V1_UNLIMITED: u64 = 1 << 62;

/// A container's id is long; a shorter one could be part of another's name.
const ID_MIN: usize = 12;

pub(super) fn folder(version: Version, hierarchies: &[Hierarchy], path: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut there = false;
    for h in hierarchies {
        let folder = h.folder(path);
        if !folder.is_dir() {
            continue;
        }
        there = true;
        match version {
            Version::V1 => v1(h, &folder, &mut found)?,
            Version::V2 => v2(&folder, &mut found)?,
        }
    }
    if there {
        return Ok(found);
    }
    let source = std::io::Error::from(ErrorKind::NotFound);
    Err(Error::Io { op: "read cgroup", path: path.to_owned(), source })
}

/// By the id in its name: what stands around it is the runtime's choice.
pub(super) fn container(version: Version, hierarchies: &[Hierarchy], pod: &Path, id: &str) -> Result<Option<Found>> {
    for h in hierarchies {
        if let Some(name) = h.children(pod)?.into_iter().find(|name| bears(name, id)) {
            return folder(version, hierarchies, &pod.join(name)).map(Some);
        }
    }
    Ok(None)
}

/// Whether a cgroup's name is that of the container.
pub(super) fn bears(name: &str, id: &str) -> bool {
    id.len() >= ID_MIN && !id.contains('/') && name.contains(id)
}

pub(super) fn text(path: PathBuf) -> Result<Option<String>> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        // A controller or a feature that is not there.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { op: "read", path, source }),
    }
}

pub(super) fn number<T: std::str::FromStr>(path: PathBuf) -> Result<Option<T>> {
    Ok(text(path)?.and_then(|text| text.parse().ok()))
}

/// Memory that could only be had back by killing or swapping: all but what caches files. v2.
pub(super) fn held(folder: &Path) -> Option<u64> {
    let used: u64 = number(folder.join("memory.current")).ok()??;
    let stat = text(folder.join("memory.stat")).ok()??;
    let of = |name: &str| usage::field(&stat, name).unwrap_or(0);
    Some(used.saturating_sub(of("inactive_file")).saturating_sub(of("active_file")))
}

fn v1(h: &Hierarchy, folder: &Path, found: &mut Found) -> Result<()> {
    if h.has("cpu") {
        found.limits.cpu_shares = number(folder.join("cpu.shares"))?;
        found.limits.cpu_quota_us = number(folder.join("cpu.cfs_quota_us"))?.filter(|q: &i64| *q > 0);
        found.limits.cpu_period_us = number(folder.join("cpu.cfs_period_us"))?;
    }
    if h.has("memory") {
        found.limits.memory_bytes = number(folder.join("memory.limit_in_bytes"))?.filter(|m| *m < V1_UNLIMITED);
        found.memory_used = number(folder.join("memory.usage_in_bytes"))?;
    }
    if h.has("pids") {
        found.limits.pids = number(folder.join("pids.max"))?;
    }
    Ok(())
}

fn v2(folder: &Path, found: &mut Found) -> Result<()> {
    found.limits.cpu_shares = number(folder.join("cpu.weight"))?.map(cpu_shares_of_weight);
    if let Some(max) = text(folder.join("cpu.max"))? {
        let mut words = max.split_whitespace();
        found.limits.cpu_quota_us = words.next().and_then(|quota| quota.parse().ok());
        found.limits.cpu_period_us = words.next().and_then(|period| period.parse().ok());
    }
    found.limits.memory_bytes = number(folder.join("memory.max"))?;
    found.memory_used = number(folder.join("memory.current"))?;
    found.limits.pids = number(folder.join("pids.max"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
