//! The kernel's settings that Services need: sizes and timeouts of connection tracking, and forwarding.
//!
//! `plan` (pure) says which values are wanted and whether a larger one that is there may stay; `apply` compares and writes only what
//! differs. A setting that cannot be written is a warning that names it and its value, never an error: in a network namespace some
//! of them are the host's.

use crate::config::Conntrack;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};

/// Above this kube-proxy does not go by the number of cores either.
const MOST_CONNECTIONS: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Below the root folder.
    pub path: PathBuf,
    pub value: u64,
    pub rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Exactly this value.
    Is,
    /// At least this value: what is larger was chosen by somebody.
    AtLeast,
    /// The same where the file is there; the module behind it may not be loaded, and then there is nothing to set.
    IsIfThere,
    /// At least this value, unless the setting before it may not be written: then this is not ours to write either.
    AtLeastWithLast,
    /// Exactly this value, but for an administrator to set.
    Wanted,
}

/// What is wanted on a machine with so many cores. Pure.
///
/// IPv6 forwarding is only asked for: with it a host ignores router advertisements, and may lose its own route.
pub fn plan(conntrack: &Conntrack, cores: u64, v6: bool) -> Vec<Setting> {
    let setting = |path: &str, value, rule| Setting { path: path.into(), value, rule };
    let sysctl = |name: &str, value, rule| setting(&format!("proc/sys/net/{name}"), value, rule);
    let mut all = vec![sysctl("ipv4/ip_forward", 1, Rule::Is)];
    if v6 {
        all.push(sysctl("ipv6/conf/all/forwarding", 1, Rule::Wanted));
    }
    // Without these, packets between pods on one bridge do not meet the rules on their way back.
    all.push(sysctl("bridge/bridge-nf-call-iptables", 1, Rule::IsIfThere));
    if v6 {
        all.push(sysctl("bridge/bridge-nf-call-ip6tables", 1, Rule::IsIfThere));
    }
    if let Some(most) = most_connections(conntrack, cores) {
        all.push(sysctl("netfilter/nf_conntrack_max", most, Rule::AtLeast));
        all.push(setting("sys/module/nf_conntrack/parameters/hashsize", most / 4, Rule::AtLeastWithLast));
    }
    let timeouts = [
        ("nf_conntrack_tcp_timeout_established", conntrack.tcp_established_timeout),
        ("nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait_timeout),
        ("nf_conntrack_udp_timeout", conntrack.udp_timeout),
        ("nf_conntrack_udp_timeout_stream", conntrack.udp_stream_timeout),
    ];
    for (name, timeout) in timeouts.into_iter().filter(|(_, timeout)| *timeout > Duration::ZERO) {
        all.push(sysctl(&format!("netfilter/{name}"), timeout.as_secs(), Rule::Is));
    }
    if conntrack.tcp_be_liberal {
        all.push(sysctl("netfilter/nf_conntrack_tcp_be_liberal", 1, Rule::Is));
    }
    all
}

/// `None`: the limit stays as it is.
fn most_connections(conntrack: &Conntrack, cores: u64) -> Option<u64> {
    let scaled = u64::from(conntrack.max_per_core) * cores;
    match scaled {
        0 => None,
        _ if scaled > MOST_CONNECTIONS => Some(MOST_CONNECTIONS),
        _ => Some(scaled.max(conntrack.min.into())).filter(|most| *most > 0),
    }
}

/// What became of one setting.
#[derive(Debug)]
pub enum Outcome {
    /// It is as wanted already, or does not exist and need not.
    Kept,
    Written {
        before: Option<u64>,
    },
    Refused(io::Error),
    /// It should be otherwise, but is not ours to write.
    Differs,
}

/// Sets what differs, below a folder that is `/` except in tests.
pub fn apply(root: &Path, settings: &[Setting]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(settings.len());
    for setting in settings {
        let refused = matches!(outcomes.last(), Some(Outcome::Refused(error)) if error.kind() != io::ErrorKind::NotFound);
        let outcome = match setting.rule {
            Rule::AtLeastWithLast if refused => Outcome::Kept,
            _ => one(&root.join(&setting.path), setting),
        };
        outcomes.push(outcome);
    }
    outcomes
}

fn one(path: &Path, setting: &Setting) -> Outcome {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse::<u64>().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && setting.rule == Rule::IsIfThere => return Outcome::Kept,
        Err(error) => return Outcome::Refused(error),
    };
    let good = before.is_some_and(|now| match setting.rule {
        Rule::Is | Rule::IsIfThere | Rule::Wanted => now == setting.value,
        Rule::AtLeast | Rule::AtLeastWithLast => now >= setting.value,
    });
    if good {
        return Outcome::Kept;
    }
    if setting.rule == Rule::Wanted {
        return Outcome::Differs;
    }
    // Only what exists is written: a file made in a folder of settings would set nothing.
    let written = std::fs::OpenOptions::new().write(true).open(path);
    match written.and_then(|mut file| io::Write::write_all(&mut file, setting.value.to_string().as_bytes())) {
        Ok(()) => Outcome::Written { before },
        Err(error) => Outcome::Refused(error),
    }
}

/// Plans and applies on this host, whose node has an IPv6 address or not, and says what was changed or could not be. What does not
/// exist is given back: a module that is loaded later may bring it.
pub fn set(conntrack: &Conntrack, v6: bool) -> Vec<Setting> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let settings = plan(conntrack, online_cores(Path::new("/")).unwrap_or(cores), v6);
    let outcomes = apply(Path::new("/"), &settings);
    let absent = |outcome: &Outcome| matches!(outcome, Outcome::Refused(error) if error.kind() == io::ErrorKind::NotFound);
    let (missing, found): (Vec<_>, Vec<_>) = settings.into_iter().zip(outcomes).partition(|(_, outcome)| absent(outcome));
    found.iter().for_each(|(setting, outcome)| say(setting, outcome));
    missing.into_iter().map(|(setting, _)| setting).collect()
}

/// What was missing before: now it counts.
pub fn set_again(missing: &[Setting]) {
    for (setting, outcome) in missing.iter().zip(apply(Path::new("/"), missing)) {
        say(setting, &outcome);
    }
}

fn say(setting: &Setting, outcome: &Outcome) {
    let (path, value) = (Path::new("/").join(&setting.path), setting.value);
    match outcome {
        Outcome::Kept => {}
        Outcome::Written { before } => info!(setting = %path.display(), value, before, "kernel setting changed"),
        Outcome::Differs => {
            warn!(setting = %path.display(), value, "this kernel setting is needed and has to be made by an administrator");
        }
        Outcome::Refused(error) => {
            warn!(setting = %path.display(), value, %error, "kernel setting could not be changed, Services may need it");
        }
    }
}

/// Of the machine, not those this process may use.
fn online_cores(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("sys/devices/system/cpu/online")).ok()?;
    let ranges = text.trim().split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    ranges.sum::<Option<u64>>().filter(|n| *n > 0)
}

/// `oomScoreAdj`: whom the kernel kills last.
pub fn set_oom_score(value: i16) {
    let path = "/proc/self/oom_score_adj";
    if let Err(error) = std::fs::write(path, value.to_string()) {
        warn!(setting = path, value, %error, "the kernel's preference when memory is short could not be changed");
    }
}

#[cfg(test)]
mod tests;
