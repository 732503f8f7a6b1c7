//! What the status says of a resize in place: two conditions, and what each container has been granted and has.

use super::{Inputs, whole_seconds};
use crate::pod::Time;
use crate::pod::backoff::Subject;
use crate::pod::observed::Container;
use crate::pod::resize::{self, Amounts, Real};
use crate::{admission, cgroup};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use std::collections::BTreeMap;

pub(crate) const PENDING: &str = "PodResizePending";
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// They are there only while there is something to say.
pub(super) fn conditions(i: &Inputs<'_>) -> Vec<api::PodCondition> {
    let own = &i.observed.local.resize;
    let mut out = Vec::new();
    if !i.lifecycle.active() {
        return out;
    }
    if let Some(p) = &own.pending {
        let reason = if p.infeasible { "Infeasible" } else { "Deferred" };
        out.push(condition(i, PENDING, Some(reason), Some(p.message.clone()), (p.generation, Some(p.since))));
    }
    if resize::due(i.desired, i.observed) {
        let failed = i.backoffs.failures.get(&Subject::Resize);
        let reason = failed.map(|f| f.reason.as_str());
        let message = failed.map(|f| f.message.clone());
        out.push(condition(i, IN_PROGRESS, reason, message, (own.record.allocation.generation, None)));
    }
    out
}

/// The time is that of its reason.
fn condition(
    i: &Inputs<'_>,
    name: &str,
    reason: Option<&str>,
    message: Option<String>,
    (generation, since): (i64, Option<Time>),
) -> api::PodCondition {
    let before = i.prev.conditions.iter().flatten().find(|c| c.type_ == name && c.reason.as_deref() == reason);
    let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(ApiTime(whole_seconds(since.unwrap_or(i.now))));
    api::PodCondition {
        type_: name.to_owned(),
        status: "True".to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: Some(since),
        observed_generation: (generation > 0).then_some(generation),
        ..Default::default()
    }
}

/// What the container was granted, with what it really has where that is known.
pub(super) fn has(i: &Inputs<'_>, spec: &api::Container, n: &Container) -> api::ResourceRequirements {
    let mut all = spec.resources.clone().unwrap_or_default();
    if !n.running() {
        return all;
    }
    let real = i.observed.local.resize.record.real.get(&n.id).copied().unwrap_or_default();
    if let Some(given) = resize::given(n, i.observed) {
        let amounts = Amounts::of(given);
        let Real { cpu_request_milli, cpu_limit_milli, memory_limit } = real;
        let memory_limit = memory_limit.and_then(|m| i64::try_from(m).ok());
        let milli = Quantity::from_milli;
        put(&mut all.requests, "cpu", given.requests.get("cpu"), cpu_request_milli.map(milli), milli(amounts.cpu_request), 2);
        put(&mut all.limits, "cpu", given.limits.get("cpu"), cpu_limit_milli.map(milli), milli(amounts.cpu_limit), 10);
        let units = Quantity::from_units;
        put(&mut all.requests, "memory", given.requests.get("memory"), None, units(amounts.memory_request), 0);
        put(&mut all.limits, "memory", given.limits.get("memory"), memory_limit.map(units), units(amounts.memory_limit), 0);
    }
    all
}

/// What the pod as a whole was granted.
pub(super) fn allocated(i: &Inputs<'_>) -> Option<BTreeMap<String, ApiQuantity>> {
    let all = admission::requests(&i.desired.pod).into_iter().filter(|(_, q)| !q.is_zero());
    let all: BTreeMap<_, _> = all.map(|(name, q)| (name, ApiQuantity(q.to_string()))).collect();
    (!all.is_empty()).then_some(all)
}

/// What the pod as a whole has. While it is being changed that is what it had.
pub(super) fn of_pod(i: &Inputs<'_>) -> Option<api::ResourceRequirements> {
    if let Some(before) = i.prev.resources.as_ref().filter(|_| resize::due(i.desired, i.observed)) {
        return Some(before.clone());
    }
    let spec = i.desired.pod.spec.as_ref()?;
    let limits = cgroup::pod_limits(spec);
    let amounts = [("cpu", limits.0), ("memory", limits.1)].into_iter().filter_map(|(name, q)| Some((name.to_owned(), q?)));
    let limits: BTreeMap<_, _> = amounts.map(|(name, q)| (name, ApiQuantity(q.to_string()))).collect();
    let requests = allocated(i);
    let some = requests.is_some() || !limits.is_empty();
    some.then(|| api::ResourceRequirements { requests, limits: (!limits.is_empty()).then_some(limits), ..Default::default() })
}

/// One amount in a list that is there. What is read back of amounts too small for the kernel says nothing.
fn put(
    list: &mut Option<BTreeMap<String, ApiQuantity>>,
    name: &str,
    given: Option<&String>,
    real: Option<Quantity>,
    was_given: Quantity,
    least_milli: i64,
) {
    let Some(list) = list else { return };
    let tells = |q: &Quantity| least_milli == 0 || q.milli() > least_milli || was_given.milli() > least_milli;
    match (real.filter(tells).filter(|q| *q != was_given), given) {
        (Some(real), _) => drop(list.insert(name.to_owned(), ApiQuantity(real.to_string()))),
        // In the words of whoever asked for it.
        (None, Some(given)) if !list.get(name).is_some_and(|q| q.0.parse() == Ok(was_given)) => {
            list.insert(name.to_owned(), ApiQuantity(given.clone()));
        }
        (None, Some(_)) => {}
        (None, None) => drop(list.remove(name)),
    }
}
