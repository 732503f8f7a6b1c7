//! The systemd driver: pods' cgroups are slices that systemd makes, so that it keeps the values in them when it looks at them again.
//!
//! `properties` is pure: limits in systemd's words. What systemd has no word for is written into the files after it. Blocks.

use super::manager::Version;
use super::plan::{Limits, cpu_weight};
use super::{Error, Result};
use ferrolet_systemd::Value;
use ferrolet_systemd::units::Units;
use std::path::Path;

#[derive(Debug)]
pub(super) struct Slices {
    units: Units,
    /// Of systemd.
    release: u32,
}

impl Slices {
    /// Asks systemd who it is: without it there are no slices.
    pub(super) fn find(units: Units) -> Result<Slices> {
        let release = units.release().map_err(|error| Error::NoSystemd(Box::new(error)))?;
        Ok(Slices { units, release })
    }

    /// Makes the slice whose folder this is, with those above it, or gives these limits to the one that is there.
    pub(super) fn make(&self, path: &Path, version: Version, limits: &Limits) -> Result<()> {
        let name = unit(path)?;
        let made = self.units.slice(name, &format!("Kubernetes pods: {name}"), &properties(limits, version, self.release));
        made.map_err(failed("make", name))
    }

    /// A slice of others.
    pub(super) fn limit(&self, path: &Path, version: Version, limits: &Limits) -> Result<()> {
        let name = unit(path)?;
        self.units.set(name, &properties(limits, version, self.release)).map_err(failed("limit", name))
    }

    /// Nothing may run in it any more: systemd would give it its time to end.
    pub(super) fn stop(&self, path: &Path) -> Result<()> {
        let name = unit(path)?;
        self.units.stop(name).map_err(failed("stop", name))
    }
}

fn failed(op: &'static str, name: &str) -> impl FnOnce(ferrolet_systemd::Error) -> Error {
    let slice = name.to_owned();
    move |source| Error::Slice { op, slice, source: Box::new(source) }
}

fn unit(path: &Path) -> Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".slice"));
    name.ok_or_else(|| Error::Reserved(path.display().to_string()))
}

/// systemd tells quotas by the second, and takes none finer than this.
const QUOTA_STEP_US: u64 = 10_000;

fn properties(limits: &Limits, version: Version, release: u32) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    let mut put = |name: &'static str, value: Option<u64>| out.extend(value.map(|n| (name, Value::U64(n))));
    match version {
        Version::V1 => {
            put("CPUShares", limits.cpu_shares);
            put("MemoryLimit", limits.memory_bytes);
        }
        Version::V2 => {
            put("CPUWeight", limits.cpu_shares.map(cpu_weight));
            put("MemoryMax", limits.memory_bytes);
            if release >= 240 {
                put("MemoryMin", limits.memory_min);
                put("MemoryLow", limits.memory_low);
            }
        }
    }
    put("TasksMax", limits.pids);
    if let Some(quota) = limits.cpu_quota_us.filter(|quota| *quota != 0) {
        let period = limits.cpu_period_us.unwrap_or(100_000).max(1);
        // Older ones have a period of their own.
        if release >= 242 {
            put("CPUQuotaPeriodUSec", Some(period));
        }
        let by_second = |quota: u64| (u128::from(quota) * 1_000_000 / u128::from(period)).min(u128::from(u64::MAX)) as u64;
        let quota =
            u64::try_from(quota).map_or(u64::MAX, |q| by_second(q).checked_next_multiple_of(QUOTA_STEP_US).unwrap_or(u64::MAX));
        put("CPUQuotaPerSecUSec", Some(quota));
    }
    out
}

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;
