//! What the agent knows of its own pods before the API shows it, laid over the conditions of their endpoints.
//!
//! Pure. Owns which endpoints of which slices are this node's pods, the conditions the API gave them, and the agent's word on
//! each pod with the time until which it counts. It never makes or removes an endpoint, never touches one of another node, and
//! never reads a clock.
//!
//! # Why it is safe
//! - **Whose word it is.** An endpoint's conditions are the pod's Ready condition and its deletion, copied by the EndpointSlice
//!   controller: `serving` is Ready, `terminating` is the deletion timestamp, `ready` is serving and not terminating. The Ready
//!   condition is written by the agent of the pod's node and nobody else while the node is reachable. So for a pod of this node
//!   the agent's word is not a guess at the API's answer but its source, only sooner. Where conditions are made otherwise the API
//!   counts alone: slices not managed by that controller (mirrored or written by hand), endpoints that name no pod, and services
//!   that publish addresses which are not ready.
//! - **Which endpoint.** Matched by the pod's uid, which is never used twice, and only on this node. An address alone would not do:
//!   it can be the next pod's by now. Traffic is added only to an address that the pod has now; taken away at any.
//! - **Terminating** counts for as long as the agent has the pod: a pod's end is never taken back, so the API can only come to
//!   agree. The endpoint keeps `serving`, so when all others are gone it still gets traffic, as Kubernetes promises.
//! - **Not ready** counts as long as the API server has not taken the status that says so, since it cannot agree before; then for
//!   30 s at most. The risk is an API that goes on disagreeing, and then its word counts, as it does without this.
//! - **Ready** counts for 10 s, and only for endpoints that are listed already and are not terminating. The risk is traffic to a pod
//!   that the API would not have chosen; the pod passed its own readiness probe, so it is ready to answer.
//! - Within its time a word counts even after the API agreed: what the API shows just then may be an older state on its way.
//! - **Gone**: nothing runs any more, and the uid does not come back. Counts until no slice has it, 30 s at most.
//! - A new agent says nothing until what it sees differs from what the API had, so a restart changes no endpoint.
//! - Pods of other nodes, and other nodes' rules, are not affected: each node is ahead of the API for its own pods only.

use crate::model::{Endpoint, Key, Slice};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the API may take to call an endpoint ready after the agent did.
pub const READY_FOR: Duration = Duration::from_secs(10);
/// How long after it was told the API may take to call an endpoint not ready.
pub const NOT_READY_FOR: Duration = Duration::from_secs(30);
/// How long endpoints of a gone pod may stay in their slices and still be left out.
pub const GONE_FOR: Duration = Duration::from_secs(30);

pub type Uid = Arc<str>;

/// What the agent says of one of its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodWord {
    /// It is being ended; never taken back.
    pub terminating: bool,
    /// The Ready condition, once the agent has seen it differ from the API's. `None`: the API's word counts.
    pub ready: Option<bool>,
    /// The addresses it has now.
    pub ips: Vec<IpAddr>,
    /// The API has taken a status that says the same about Ready.
    pub told: bool,
}

/// All that the agent has to say. A pod that is not in it any more is gone.
pub type Words = BTreeMap<Uid, PodWord>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Conditions {
    fn of(e: &Endpoint) -> Conditions {
        Conditions { ready: e.ready, serving: e.serving, terminating: e.terminating }
    }
}

/// The agent's word on one address of a pod, as far as it counts now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    pub terminating: bool,
    pub ready: Option<bool>,
}

/// What an endpoint counts as. Where nothing is said, or the two agree, it is what the API says.
pub fn effective(api: Conditions, said: Said) -> Conditions {
    let terminating = api.terminating || said.terminating;
    // While it terminates readiness can only be taken away.
    let said_ready = said.ready.filter(|ready| !(*ready && terminating));
    let serving = said_ready.unwrap_or(api.serving);
    let ready = !said.terminating && said_ready.unwrap_or(api.ready);
    Conditions { ready, serving, terminating }
}

#[derive(Debug, Clone)]
struct Entry {
    word: PodWord,
    /// What it says of readiness counts.
    holds: bool,
    /// The agent has it no more.
    gone: bool,
    /// When `holds` ends, or the entry if it is gone.
    until: Option<Instant>,
}

impl Entry {
    fn new(word: &PodWord, now: Instant) -> Entry {
        let mut entry = Entry { word: PodWord::default(), holds: false, gone: false, until: None };
        entry.update(word, now);
        entry
    }

    fn update(&mut self, new: &PodWord, now: Instant) {
        let changed = (self.word.ready, &self.word.ips) != (new.ready, &new.ips);
        let told = new.told && (changed || !self.word.told);
        if changed {
            self.holds = new.ready.is_some();
            self.until = (new.ready == Some(true)).then(|| now + READY_FOR);
        }
        if told && self.holds && new.ready == Some(false) {
            self.until = Some(now + NOT_READY_FOR);
        }
        // Never taken back.
        let terminating = self.word.terminating || new.terminating;
        self.word = PodWord { terminating, ..new.clone() };
    }

    fn said(&self, ip: &IpAddr) -> Said {
        if self.gone {
            return Said { terminating: true, ready: Some(false) };
        }
        let ready = self.word.ready.filter(|_| self.holds);
        // One that it does not have any more is not ready, whatever the pod is.
        let ready = ready.map(|ready| ready && self.word.ips.contains(ip));
        Said { terminating: self.word.terminating, ready }
    }
}

/// An endpoint of a slice that is a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Here {
    /// Its place in the slice.
    at: usize,
    pod: Uid,
    api: Conditions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tracked {
    service: Key,
    here: Box<[Here]>,
}

#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Only slices with such endpoints.
    slices: BTreeMap<Key, Tracked>,
    by_pod: BTreeMap<Uid, BTreeSet<Key>>,
    /// Services that publish addresses which are not ready.
    publishing: BTreeSet<Key>,
    entries: BTreeMap<Uid, Entry>,
}

impl Overlay {
    /// A slice as the API has it, which is given the conditions that count. `pods` are its endpoints that are this node's pods.
    pub fn see(&mut self, key: &Key, slice: &mut Slice, pods: impl IntoIterator<Item = (usize, Uid)>) {
        self.forget(key);
        let here = pods.into_iter().filter_map(|(at, pod)| {
            let e = slice.endpoints.get(at).filter(|e| e.local)?;
            Some(Here { at, pod, api: Conditions::of(e) })
        });
        let here: Box<[Here]> = here.collect();
        if here.is_empty() {
            return;
        }
        for h in &here {
            self.by_pod.entry(h.pod.clone()).or_default().insert(key.clone());
        }
        self.slices.insert(key.clone(), Tracked { service: slice.service.clone(), here });
        self.apply(key, slice);
    }

    /// The slice is gone, or is not to be used.
    pub fn forget(&mut self, key: &Key) {
        let Some(old) = self.slices.remove(key) else { return };
        for h in &old.here {
            if let Some(slices) = self.by_pod.get_mut(&h.pod) {
                slices.remove(key);
                if slices.is_empty() {
                    self.by_pod.remove(&h.pod);
                }
            }
        }
    }

    pub fn forget_slices(&mut self) {
        self.slices.clear();
        self.by_pod.clear();
    }

    /// Whether a service publishes addresses that are not ready. Returns the slices to apply to again.
    pub fn publishes(&mut self, service: &Key, publishes: bool) -> BTreeSet<Key> {
        let changed = match publishes {
            true => self.publishing.insert(service.clone()),
            false => self.publishing.remove(service),
        };
        if !changed {
            return BTreeSet::new();
        }
        self.slices.iter().filter(|(_, t)| t.service == *service).map(|(k, _)| k.clone()).collect()
    }

    /// The services of a complete list that publish addresses which are not ready. Returns the slices to apply to again.
    pub fn publish_only(&mut self, all: BTreeSet<Key>) -> BTreeSet<Key> {
        let before = std::mem::replace(&mut self.publishing, all);
        let changed: BTreeSet<&Key> = before.symmetric_difference(&self.publishing).collect();
        self.slices.iter().filter(|(_, t)| changed.contains(&t.service)).map(|(k, _)| k.clone()).collect()
    }

    /// What the agent says now, and what time it is. Returns the slices to apply to again.
    pub fn advance(&mut self, words: &Words, now: Instant) -> BTreeSet<Key> {
        let mut affected = BTreeSet::new();
        for (uid, word) in words {
            match self.entries.get_mut(uid) {
                Some(e) if e.word == *word => continue,
                Some(e) => e.update(word, now),
                None => drop(self.entries.insert(uid.clone(), Entry::new(word, now))),
            }
            affected.insert(uid.clone());
        }
        for (uid, e) in &mut self.entries {
            if !e.gone && !words.contains_key(uid) {
                (e.gone, e.until) = (true, Some(now + GONE_FOR));
                affected.insert(uid.clone());
            }
            if e.until.is_some_and(|until| until <= now) {
                (e.holds, e.until) = (false, None);
                affected.insert(uid.clone());
            }
        }
        let by_pod = &self.by_pod;
        self.entries.retain(|uid, e| !e.gone || (e.until.is_some() && by_pod.contains_key(uid)));
        affected.iter().filter_map(|uid| self.by_pod.get(uid)).flatten().cloned().collect()
    }

    /// When `advance` is to be called even if the agent says nothing new.
    pub fn due(&self) -> Option<Instant> {
        self.entries.values().filter_map(|e| e.until).min()
    }

    /// Gives this node's endpoints of a slice the conditions that count.
    pub fn apply(&self, key: &Key, slice: &mut Slice) {
        let Some(tracked) = self.slices.get(key) else { return };
        let published = self.publishing.contains(&tracked.service);
        let hinted = slice.endpoints.iter().any(|e| e.hints.is_some());
        for h in &tracked.here {
            let Some(e) = slice.endpoints.get_mut(h.at) else { continue };
            let mut said = match self.entries.get(&h.pod) {
                Some(entry) if !published => entry.said(&e.ip),
                _ => Said::default(),
            };
            // The API gives hints to ready endpoints only. One ready endpoint without would void the hints of all others.
            if said.ready == Some(true) && !h.api.ready && hinted && e.hints.is_none() {
                said.ready = None;
            }
            let now = effective(h.api, said);
            (e.ready, e.serving, e.terminating) = (now.ready, now.serving, now.terminating);
        }
    }

    /// Pods that the agent has had something to say about.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
