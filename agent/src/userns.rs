//! Which ids of the host stand for those of a pod with a user namespace of its own.
//!
//! Each such pod has a block of ids that no other pod has, so that what gets out of it is nobody. Pure, but for `host`. The
//! block is recorded in the pod's folder, in kubelet's format; `volume::Manager` reads and writes it. Facts from kubelet's
//! `pkg/kubelet/userns`.

pub mod host;

use crate::metrics::Metrics;
use ferrolet_cri::types as cri;
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};

/// Blocks are multiples of this, and never begin below it: those ids are the host's own users.
pub const UNIT: u32 = 65536;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("kubelet mappings: {0}")]
    Range(String),
    #[error("could not find an empty slot to allocate a user namespace")]
    Full,
    #[error("invalid user namespace mappings file: {0}")]
    File(String),
}

/// How many pods with a user namespace were started, and how many of those starts failed. In kubelet's names.
#[derive(Debug, Clone)]
pub struct Counts {
    pub started: IntCounter,
    pub failed: IntCounter,
}

impl Counts {
    pub fn new(metrics: &Metrics) -> Result<Counts, prometheus::Error> {
        let counter = |end: &str, help| metrics.counter(&format!("kubelet_started_user_namespaced_pods_{end}"), help);
        Ok(Counts {
            started: counter("total", "Cumulative number of pods with user namespaces started")?,
            failed: counter("errors_total", "Cumulative number of errors when starting pods with user namespaces")?,
        })
    }
}

/// The ids of this host that are there for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    ids_per_pod: u32,
    blocks: u32,
}

/// A pod's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub first: u32,
    pub length: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Range {
    /// All ids of the host but the first, if nothing else is configured.
    pub fn whole(ids_per_pod: u32, max_pods: u32) -> Result<Range, Error> {
        Range::new(ids_per_pod, (1 << 32) - u64::from(ids_per_pod), ids_per_pod, max_pods)
    }

    /// These ids, checked as kubelet does.
    pub fn new(first: u32, length: u64, ids_per_pod: u32, max_pods: u32) -> Result<Range, Error> {
        let wrong = |text: String| Err(Error::Range(text));
        let (start, each) = (u64::from(first), u64::from(ids_per_pod));
        if each == 0 || !ids_per_pod.is_multiple_of(UNIT) {
            return wrong(format!("{ids_per_pod} ids a pod are not a multiple of {UNIT}"));
        }
        if !start.is_multiple_of(each) {
            return wrong(format!("the first assigned id {first} is not a multiple of {ids_per_pod}"));
        }
        if start < each {
            return wrong(format!("the first assigned id {first} must be greater than or equal to {ids_per_pod}"));
        }
        if !length.is_multiple_of(each) {
            return wrong(format!("the number of assigned ids {length} is not a multiple of {ids_per_pod}"));
        }
        if start + length > 1 << 32 {
            return wrong(format!("{length} ids from {first} on are more than there are"));
        }
        let blocks = u32::try_from(length / each).unwrap_or(u32::MAX);
        if blocks < max_pods {
            return wrong(format!("{length} assigned ids are not enough for {max_pods} pods"));
        }
        Ok(Range { first, ids_per_pod, blocks })
    }

    /// A block that none of `taken` touches: the first such from a random one on, so that ids of pods that are gone rest.
    pub fn choose(&self, taken: &[Block], random: u32) -> Result<Block, Error> {
        let mut used: Vec<(u64, u64)> =
            taken.iter().map(|b| (u64::from(b.first), u64::from(b.first) + u64::from(b.length))).collect();
        used.sort_unstable();
        let free = |block: &Block| {
            let (from, to) = (u64::from(block.first), u64::from(block.first) + u64::from(block.length));
            // Blocks may overlap only where a file was made by hand, so all that begin before its end are looked at.
            !used.iter().take_while(|(begin, _)| *begin < to).any(|(_, end)| *end > from)
        };
        let from = random.checked_rem(self.blocks).unwrap_or(0);
        let order = (from..self.blocks).chain(0..from);
        let block = |n: u32| Block { first: self.first + n * self.ids_per_pod, length: self.ids_per_pod };
        order.map(block).find(free).ok_or(Error::Full)
    }
}

impl Block {
    /// The content of the pod's file.
    pub fn to_file(self) -> String {
        let mapping = || vec![Mapping { host_id: self.first, container_id: 0, length: self.length }];
        serde_json::to_string(&File { uid_mappings: mapping(), gid_mappings: mapping() }).unwrap_or_default()
    }

    /// Only what an agent may have written: one block, the same for users and groups, with root in it, and not the host's own.
    pub fn of_file(text: &[u8]) -> Result<Block, Error> {
        let wrong = |text: &str| Err(Error::File(text.to_owned()));
        let file: File = serde_json::from_slice(text).map_err(|e| Error::File(e.to_string()))?;
        let ([uids], [gids]) = (file.uid_mappings.as_slice(), file.gid_mappings.as_slice()) else {
            return wrong("exactly one mapping of users and one of groups is allowed");
        };
        if uids != gids {
            return wrong("the mappings of users and groups must be the same");
        }
        if uids.container_id != 0 {
            return wrong("id 0 must be mapped");
        }
        if uids.length == 0 || uids.host_id < UNIT || u64::from(uids.host_id) + u64::from(uids.length) > 1 << 32 {
            return wrong("the host's ids are out of range");
        }
        Ok(Block { first: uids.host_id, length: uids.length })
    }

    /// As the runtime is told.
    pub fn namespace(self) -> cri::UserNamespace {
        let ids = vec![cri::IdMapping { host_id: self.first, container_id: 0, length: self.length }];
        cri::UserNamespace { mode: cri::NamespaceMode::Pod, uids: ids.clone(), gids: ids }
    }
}

/// Why a runtime cannot give the pod a user namespace.
pub fn unsupported(status: &cri::RuntimeStatus, handler: &str) -> Option<String> {
    let mut message = "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned();
    if !handler.is_empty() {
        message = format!("can't set `spec.hostUsers: false`, RuntimeClass handler {handler:?} does not support user namespaces");
    }
    match status.handlers.get(handler) {
        Some(features) if features.user_namespaces => None,
        // A runtime that tells nothing of its handlers is too old.
        None if !status.handlers.is_empty() => Some(format!("{message}: the handler {handler:?} is not known")),
        _ => Some(message),
    }
}

/// The one line of `getsubids`: `0: kubelet 65536 2147483648`.
fn subids(output: &str) -> Result<(u32, u32), String> {
    let mut lines = output.trim_matches('\n').split('\n');
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(format!("error parsing line {output:?}: it must contain only one line"));
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, first, length] = words.as_slice() else { return Err(format!("invalid line {output:?}")) };
    let number = |text: &str| text.parse::<u32>().map_err(|e| format!("error parsing line {output:?}: {e}"));
    Ok((number(first)?, number(length)?))
}

#[cfg(test)]
mod tests;
