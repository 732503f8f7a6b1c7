//! What a pod asks for: effective requests, and the quality of service that follows.

use crate::kinds::meta::{Object, list};
use ferrolet_quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

pub type Amounts = BTreeMap<String, Quantity>;

fn amounts(resources: &Value, which: &str) -> Amounts {
    let entries = resources[which].as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.parse().ok()?))).collect()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

fn max(to: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let entry = to.entry(name).or_insert(amount);
        *entry = (*entry).max(amount);
    }
}

/// The containers' requests as scheduling counts them: the running containers and sidecars together, or the hungriest
/// init container with the sidecars started before it.
pub fn effective_requests(spec: &Object) -> Amounts {
    let spec = Value::Object(spec.clone());
    let mut total = Amounts::new();
    for container in list(&spec, "containers") {
        add(&mut total, &amounts(&container["resources"], "requests"));
    }
    let mut sidecars = Amounts::new();
    let mut init_peak = Amounts::new();
    for container in list(&spec, "initContainers") {
        let own = amounts(&container["resources"], "requests");
        let mut with_sidecars = sidecars.clone();
        add(&mut with_sidecars, &own);
        if container["restartPolicy"] == "Always" {
            sidecars = with_sidecars.clone();
        }
        max(&mut init_peak, with_sidecars);
    }
    add(&mut total, &sidecars);
    max(&mut total, init_peak);
    total
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let pod_level = &spec["resources"];
    let has_pod_level = ["requests", "limits"].iter().any(|w| pod_level[*w].as_object().is_some_and(|m| !m.is_empty()));
    let sources: Vec<&Value> = if has_pod_level {
        vec![pod_level]
    } else {
        list(spec, "containers").iter().chain(list(spec, "initContainers")).map(|c| &c["resources"]).collect()
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in sources {
        let (requests, limits) = (amounts(resources, "requests"), amounts(resources, "limits"));
        for name in ["cpu", "memory"] {
            let request = requests.get(name).filter(|q| !q.is_zero());
            let limit = limits.get(name).filter(|q| !q.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
