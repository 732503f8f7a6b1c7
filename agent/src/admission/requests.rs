//! What a pod asks of a node in all. Pure.

use super::Amounts;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

/// The greater of what runs at last (main containers and sidecars) and the most that any init container needs beside the
/// sidecars before it; what the pod as a whole asks for stands in place of that; and the overhead of its runtime class.
pub fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut running = Amounts::new();
    spec.containers.iter().for_each(|c| add(&mut running, &of(c)));
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for c in spec.init_containers.iter().flatten() {
        let own = of(c);
        let mut now = sidecars.clone();
        add(&mut now, &own);
        raise(&mut most, &now);
        if c.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &own);
            sidecars = now;
        }
    }
    raise(&mut running, &most);
    let whole = amounts(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    running.extend(whole);
    add(&mut running, &amounts(spec.overhead.as_ref()));
    running
}

fn of(c: &Container) -> Amounts {
    amounts(c.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

/// Unreadable and negative amounts, which the API does not let in, count nothing.
fn amounts(list: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    let read = |(name, q): (&String, &ApiQuantity)| {
        let amount = q.0.parse::<Quantity>().ok().filter(|q| !q.is_negative())?;
        Some((name.clone(), amount))
    };
    list.into_iter().flatten().filter_map(read).collect()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let now = to.entry(name.clone()).or_default();
        *now = (*now).max(*amount);
    }
}
