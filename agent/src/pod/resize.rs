//! Resize in place: what is to be done so that a pod has what the node has granted it. Pure.
//!
//! `due` and `restarts` are what the plan asks; `steps` gives the order of the writes. The order is kubelet's: memory before cpu;
//! the pod's cgroup is raised before its containers and lowered after them; those that shrink come before those that grow. So the
//! limits of the containers together never exceed the pod's.

pub mod record;
pub mod steps;
pub mod words;

use super::allocation::Allocation;
use super::desired::{Container as Spec, Desired, Role};
use super::observed::{Container, Observed, State};
use super::resources::Resources;
use crate::pod::Time;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1 as api;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a container is to have of cpu and memory, and what a change of it means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With the pod's limits where it has none of its own.
    pub resources: Resources,
    pub cpu_restarts: bool,
    pub memory_restarts: bool,
}

impl Wanted {
    pub fn of(c: &api::Container, pod: Option<&api::ResourceRequirements>) -> Wanted {
        let mut resources = super::allocation::resizable(c.resources.as_ref());
        for (name, whole) in super::allocation::resizable(pod).limits {
            if amount(&resources.limits, &name).is_zero() && !amount_of(&whole).is_zero() {
                resources.limits.insert(name, whole);
            }
        }
        Wanted { resources, cpu_restarts: asks_restart(c, "cpu"), memory_restarts: asks_restart(c, "memory") }
    }
}

/// Whether the container is to run anew when this resource of it changes (`resizePolicy`).
pub fn asks_restart(c: &api::Container, resource: &str) -> bool {
    let policy = c.resize_policy.iter().flatten().find(|p| p.resource_name == resource);
    policy.is_some_and(|p| p.restart_policy == "RestartContainer")
}

/// What must survive the agent of a pod's resizes; in the pod's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub allocation: Allocation,
    /// The pod has not been brought to it in all.
    pub unsettled: bool,
    /// When it was granted to a pod that had something else.
    pub since: Option<Time>,
    /// By container id: what was set since it was made.
    pub actuated: BTreeMap<String, Resources>,
    /// By container id: what was read back after that.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub real: BTreeMap<String, Real>,
}

/// What waits, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub infeasible: bool,
    /// The reason in the event, which says what there is too little of.
    pub cause: String,
    pub message: String,
    pub generation: i64,
    pub since: Time,
}

/// What the dispatcher tells a pod's actor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    pub allocation: Arc<Allocation>,
    /// What the pod asks for beyond that.
    pub pending: Option<Pending>,
}

/// What the agent knows of one pod's resizes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resized {
    pub record: Record,
    pub pending: Option<Pending>,
}

/// Read back from the runtime or the kernel; `None` where it does not say, or where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Real {
    pub cpu_request_milli: Option<i64>,
    pub cpu_limit_milli: Option<i64>,
    pub memory_limit: Option<u64>,
}

/// Whole amounts: thousandths of cores, and bytes. Zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_request: i64,
    pub cpu_limit: i64,
    pub memory_request: i64,
    pub memory_limit: i64,
}

impl Amounts {
    pub fn of(r: &Resources) -> Amounts {
        Amounts {
            cpu_request: amount(&r.requests, "cpu").milli(),
            cpu_limit: amount(&r.limits, "cpu").milli(),
            memory_request: amount(&r.requests, "memory").units(),
            memory_limit: amount(&r.limits, "memory").units(),
        }
    }
}

impl Amounts {
    /// Writes them into a list, in the words of `like` where it says the same.
    pub fn put(&self, into: &mut Resources, like: &Resources) {
        let cpu = |milli: i64| Quantity::from_milli(milli).to_string();
        let bytes = |bytes: i64| Quantity::from_units(bytes).to_string();
        let mut put = |limit: bool, name: &str, amount: i64, text: String| {
            let (list, like) = if limit { (&mut into.limits, &like.limits) } else { (&mut into.requests, &like.requests) };
            let same = |known: &&String| amount_of(known) == amount_of(&text);
            match like.get(name).filter(same).or_else(|| list.get(name).filter(same)).cloned() {
                Some(known) => drop(list.insert(name.to_owned(), known)),
                None if amount == 0 => drop(list.remove(name)),
                None => drop(list.insert(name.to_owned(), text)),
            }
        };
        put(false, "cpu", self.cpu_request, cpu(self.cpu_request));
        put(true, "cpu", self.cpu_limit, cpu(self.cpu_limit));
        put(false, "memory", self.memory_request, bytes(self.memory_request));
        put(true, "memory", self.memory_limit, bytes(self.memory_limit));
    }
}

fn amount(list: &BTreeMap<String, String>, name: &str) -> Quantity {
    list.get(name).map(|text| amount_of(text)).unwrap_or_default()
}

fn amount_of(text: &str) -> Quantity {
    text.parse().unwrap_or_default()
}

/// What the instance was given last; `None` where something else made it and nothing was set since.
pub fn given<'a>(n: &'a Container, o: &'a Observed) -> Option<&'a Resources> {
    o.local.resize.record.actuated.get(&n.id).or(n.resources.as_ref())
}

/// What it was given, where that is not what it is to have.
pub fn differs(c: &Spec, n: &Container, o: &Observed) -> Option<Amounts> {
    let given = given(n, o).map(Amounts::of)?;
    (given != Amounts::of(&c.resize.resources)).then_some(given)
}

/// The running containers of the sandbox that a resize is about.
pub fn running<'a>(d: &'a Desired, o: &'a Observed) -> impl Iterator<Item = (&'a Spec, &'a Container)> {
    let counted = d.containers.iter().filter(|c| c.role != Role::Ephemeral);
    counted.filter_map(|c| Some((c, o.newest(&c.name).filter(|n| n.running())?)))
}

/// Whether the pod has not all that it was granted.
pub fn due(d: &Desired, o: &Observed) -> bool {
    o.local.resize.record.unsettled || running(d, o).any(|(c, n)| differs(c, n, o).is_some())
}

/// Whether the container is to run anew to get what it was granted.
pub fn restarts(c: &Spec, n: &Container, o: &Observed) -> bool {
    let Some(had) = differs(c, n, o).filter(|_| c.role != Role::Ephemeral) else { return false };
    let wants = Amounts::of(&c.resize.resources);
    let cpu = (had.cpu_request, had.cpu_limit) != (wants.cpu_request, wants.cpu_limit);
    let memory = (had.memory_request, had.memory_limit) != (wants.memory_request, wants.memory_limit);
    (cpu && c.resize.cpu_restarts) || (memory && c.resize.memory_restarts)
}

/// Whether it has ended to get what it was granted: one that ended by itself before that stays ended.
pub fn brings_back(c: &Spec, n: &Container, o: &Observed) -> bool {
    let State::Exited { finished_at, .. } = n.state else { return false };
    let since = o.local.resize.record.since;
    // The runtime's clock and this one may differ by a little, and the API's times are whole seconds.
    since.is_some_and(|since| finished_at >= since) && restarts(c, n, o)
}

#[cfg(test)]
mod tests;
