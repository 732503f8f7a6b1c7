//! The annotation `ferrolet.dev/probe-period-ms`: periods that the API's whole seconds cannot say. Pure.
//!
//! `web.readiness=200,web.liveness=500`: container, probe, milliseconds. What is wrong in it is told and left out; that probe
//! keeps the period of its own field.

use crate::pod::desired::{Desired, Role};
use ferrolet_probes::Kind;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::time::Duration;

pub const ANNOTATION: &str = "ferrolet.dev/probe-period-ms";

/// A check costs the node a fraction of a millisecond, a command in a container tens of them.
const LEAST: u64 = 10;
const LEAST_EXEC: u64 = 100;
const MOST: u64 = 3_600_000;
/// Of all probes of a pod together, so that no pod takes the node's time from the others.
const MOST_CHECKS: u64 = 200;
/// An event is no place for more.
const SHOWN: usize = 80;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Periods {
    by_probe: BTreeMap<(String, Kind), Duration>,
    /// What is wrong, a whole message each.
    pub wrong: Vec<String>,
}

impl Periods {
    pub fn of(d: &Desired) -> Periods {
        let mut out = Periods::default();
        let Some(text) = d.pod.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION)) else { return out };
        let mut checks = 0;
        for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            match one(d, entry).and_then(|(key, ms)| out.fits(key, ms, &mut checks)) {
                Ok((key, period)) => drop(out.by_probe.insert(key, period)),
                // One message for all that is alike: an annotation may be long.
                Err(why) if out.wrong.len() < 8 => out.wrong.push(format!("annotation {ANNOTATION}: {why}")),
                Err(_) => {}
            }
        }
        out
    }

    pub fn get(&self, container: &str, kind: Kind) -> Option<Duration> {
        if self.by_probe.is_empty() {
            return None;
        }
        self.by_probe.get(&(container.to_owned(), kind)).copied()
    }

    fn fits(&self, key: (String, Kind), ms: u64, checks: &mut u64) -> Result<((String, Kind), Duration), String> {
        let name = format!("{}.{}", key.0, word(key.1));
        if self.by_probe.contains_key(&key) {
            return Err(format!("{name:?} is there twice, the first counts"));
        }
        let more = 1000_u64.div_ceil(ms);
        if *checks + more > MOST_CHECKS {
            return Err(format!("{name:?}: the pod's probes would be more than {MOST_CHECKS} checks a second"));
        }
        *checks += more;
        Ok((key, Duration::from_millis(ms)))
    }
}

fn one(d: &Desired, entry: &str) -> Result<((String, Kind), u64), String> {
    let shown: String = entry.chars().take(SHOWN).collect();
    let parts = entry.split_once('=').and_then(|(probe, ms)| Some((probe.trim().rsplit_once('.')?, ms.trim())));
    let ((container, kind), ms) = parts.ok_or_else(|| format!("{shown:?} is not of the form container.readiness=200"))?;
    let kind = [Kind::Startup, Kind::Readiness, Kind::Liveness].into_iter().find(|k| word(*k) == kind);
    let kind = kind.ok_or_else(|| format!("{shown:?} names none of startup, readiness and liveness"))?;
    let probed = d.containers.iter().find(|c| c.name == container && matches!(c.role, Role::Sidecar | Role::Main));
    let spec = probed.and_then(|c| d.spec_of(&c.name)).ok_or_else(|| format!("{shown:?}: the pod probes no such container"))?;
    let probe = probe_of(spec, kind).ok_or_else(|| format!("{shown:?}: the container has no such probe"))?;
    let least = if probe.exec.is_some() { LEAST_EXEC } else { LEAST };
    let fits = ms.parse().ok().filter(|ms| (least..=MOST).contains(ms));
    let ms = fits.ok_or_else(|| format!("{shown:?}: must be {least} to {MOST} milliseconds"))?;
    Ok(((container.to_owned(), kind), ms))
}

pub fn probe_of(c: &api::Container, kind: Kind) -> Option<&api::Probe> {
    match kind {
        Kind::Startup => c.startup_probe.as_ref(),
        Kind::Readiness => c.readiness_probe.as_ref(),
        Kind::Liveness => c.liveness_probe.as_ref(),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Startup => "startup",
        Kind::Readiness => "readiness",
        Kind::Liveness => "liveness",
    }
}
