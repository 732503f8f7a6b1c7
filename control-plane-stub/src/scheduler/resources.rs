//! How much of each resource a pod asks for.
//!
//! The rule of the API: what the containers and sidecars want together, or the largest init container on top of the
//! sidecars started before it, whichever is more; plus the overhead. Amounts are exact: nanos in `i128` behind
//! `Quantity`, cpu in milli and everything else in whole units here.

use std::collections::BTreeMap;

use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Milli for cpu, units for all others.
pub type Amounts = BTreeMap<String, i64>;

/// Cpu and memory that scoring takes a container for which says nothing.
pub const UNSAID: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024)];

fn amount(name: &str, text: &Text) -> i64 {
    // What is stored was validated; anything else counts as nothing.
    let quantity: Quantity = text.0.parse().unwrap_or(Quantity::ZERO);
    if name == "cpu" { quantity.milli() } else { quantity.units() }
}

pub fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    list.into_iter().flatten().map(|(name, text)| (name.clone(), amount(name, text))).collect()
}

pub fn add(into: &mut Amounts, more: &Amounts) {
    for (name, n) in more {
        let sum = into.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
}

pub fn subtract(from: &mut Amounts, less: &Amounts) {
    for (name, n) in less {
        let left = from.entry(name.clone()).or_default();
        *left = left.saturating_sub(*n);
    }
}

fn max(into: &mut Amounts, other: &Amounts) {
    for (name, n) in other {
        let have = into.entry(name.clone()).or_default();
        *have = (*have).max(*n);
    }
}

fn requests(container: &Container, unsaid: bool) -> Amounts {
    let mut asked = amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    if unsaid {
        for (name, n) in UNSAID {
            asked.entry(name.into()).or_insert(n);
        }
    }
    asked
}

/// What a pod reserves on its node: what it asks for, and as much as it still has while it is resized. What can never be granted does
/// not count.
pub fn of_pod(pod: &Pod) -> Amounts {
    sum(pod, false)
}

/// As `of_pod`, with small amounts for containers that do not say what they need.
pub fn for_scoring(pod: &Pod) -> Amounts {
    sum(pod, true)
}

fn sum(pod: &Pod, unsaid: bool) -> Amounts {
    pod.spec.as_ref().map(|spec| sum_of(spec, pod.status.as_ref(), unsaid)).unwrap_or_default()
}

/// What the node says that containers, and the pod as a whole, have.
struct Had<'a> {
    status: Option<&'a PodStatus>,
    /// The spec asks for what can never be granted.
    infeasible: bool,
}

impl Had<'_> {
    fn of(status: Option<&PodStatus>) -> Had<'_> {
        let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let mut pending = conditions.filter(|c| c.type_ == "PodResizePending");
        Had { status, infeasible: pending.any(|c| c.reason.as_deref() == Some("Infeasible")) }
    }

    /// The most of both, as long as a resize is under way.
    fn most(&self, asked: Amounts, granted: Option<&BTreeMap<String, Text>>, real: Option<&ResourceRequirements>) -> Amounts {
        let Some(real) = real else { return asked };
        let mut all = if self.infeasible { Amounts::new() } else { asked };
        max(&mut all, &amounts(granted));
        max(&mut all, &amounts(real.requests.as_ref()));
        all
    }

    fn container(&self, container: &Container, unsaid: bool) -> Amounts {
        let asked = requests(container, unsaid);
        let lists = self.status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
        let mut known = lists.into_iter().flatten().flatten().flatten();
        match known.find(|c| c.name == container.name) {
            Some(known) => self.most(asked, known.allocated_resources.as_ref(), known.resources.as_ref()),
            None => asked,
        }
    }
}

fn sum_of(spec: &PodSpec, status: Option<&PodStatus>, unsaid: bool) -> Amounts {
    let had = Had::of(status);
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &had.container(container, unsaid));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            let asked = had.container(container, unsaid);
            add(&mut running, &asked);
            add(&mut sidecars, &asked);
            max(&mut peak, &sidecars);
        } else {
            let mut while_it_runs = sidecars.clone();
            add(&mut while_it_runs, &requests(container, unsaid));
            max(&mut peak, &while_it_runs);
        }
    }
    max(&mut running, &peak);
    // Resources given to the pod as a whole take the place of the sum.
    if let Some(whole) = &spec.resources {
        let (granted, real) = (status.and_then(|s| s.allocated_resources.as_ref()), status.and_then(|s| s.resources.as_ref()));
        for (name, n) in had.most(amounts(whole.requests.as_ref()), granted, real) {
            running.insert(name, n);
        }
    }
    add(&mut running, &amounts(spec.overhead.as_ref()));
    running.retain(|_, n| *n > 0);
    running
}
