//! A pod's quality-of-service class, from its spec alone. Pure.

use super::plan::amount;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

/// The class that decides a pod's place in the hierarchy and in eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// The API's spelling (`status.qosClass`).
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

type Sums = BTreeMap<&'static str, Quantity>;

/// Adds the positive amounts of cpu and memory to `sums`; true if both were there.
fn add(sums: &mut Sums, list: Option<&BTreeMap<String, ApiQuantity>>) -> bool {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let amount = amount(list, name);
        if !amount.is_zero() && !amount.is_negative() {
            found += 1;
            *sums.entry(name).or_default() += amount;
        }
    }
    found == 2
}

/// BestEffort: nothing asked for. Guaranteed: every container limits cpu and memory and the sums of requests equal the sums
/// of limits. Everything else is Burstable. Init containers and sidecars count like the others; ephemeral containers
/// cannot have resources. Pod-level resources, where set, decide alone.
pub fn qos(pod: &Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let (mut requests, mut limits) = (Sums::new(), Sums::new());
    let mut all_limited = true;
    let mut count = |resources: Option<&ResourceRequirements>| {
        add(&mut requests, resources.and_then(|r| r.requests.as_ref()));
        if !add(&mut limits, resources.and_then(|r| r.limits.as_ref())) {
            all_limited = false;
        }
    };
    match &spec.resources {
        Some(pod_level) if says_something(pod_level) => count(Some(pod_level)),
        _ => crate::pod::containers(spec).for_each(|c| count(c.resources.as_ref())),
    }
    if requests.is_empty() && limits.is_empty() {
        Qos::BestEffort
    } else if all_limited && requests == limits {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

fn says_something(r: &ResourceRequirements) -> bool {
    r.requests.iter().chain(&r.limits).any(|list| !list.is_empty())
}

#[cfg(test)]
mod tests;
