//! Which pods end so that a critical one finds room. Pure.
//!
//! As few and as small as possible, and never a Guaranteed one where a Burstable one does, nor that where a BestEffort one does.

use super::{Amounts, Refusal, amount_of, critical, priority, qos, requests};
use crate::cgroup::Qos;
use k8s_openapi::api::core::v1::Pod;

/// `status.reason`, and the reason of the event.
pub const REASON: &str = "Preempting";
/// `status.message`, and the event's.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
/// That of the condition `DisruptionTarget`.
pub const CONDITION_MESSAGE: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// How much of a resource is still to be freed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    resource: String,
    amount: i64,
}

struct Candidate {
    at: usize,
    requests: Amounts,
}

impl Candidate {
    /// A pod frees one place.
    fn frees(&self, resource: &str) -> i64 {
        if resource == "pods" { 1 } else { self.requests.get(resource).map_or(0, |q| amount_of(resource, *q)) }
    }

    fn size(&self) -> (i64, i64) {
        (self.frees("memory"), self.frees("cpu"))
    }
}

/// Places in `others`, BestEffort ones first.
pub fn victims(pod: &Pod, others: &[&Pod], short: &[Refusal]) -> Result<Vec<usize>, String> {
    let needs: Vec<Need> = short.iter().filter_map(need).collect();
    let of_class = |class: Qos| -> Vec<Candidate> {
        let may = others.iter().enumerate().filter(|(_, p)| qos(p) == class && preemptable(pod, p));
        may.map(|(at, p)| Candidate { at, requests: requests(p) }).collect()
    };
    let (best_effort, burstable, guaranteed) = (of_class(Qos::BestEffort), of_class(Qos::Burstable), of_class(Qos::Guaranteed));
    let guaranteed = fewest(guaranteed, left(&needs, best_effort.iter().chain(&burstable)))?;
    let burstable = fewest(burstable, left(&needs, best_effort.iter().chain(&guaranteed)))?;
    let best_effort = fewest(best_effort, left(&needs, burstable.iter().chain(&guaranteed)))?;
    Ok(best_effort.iter().chain(&burstable).chain(&guaranteed).map(|c| c.at).collect())
}

fn need(refusal: &Refusal) -> Option<Need> {
    match refusal {
        Refusal::Short { resource, requested, used, capacity } => {
            let amount = requested.saturating_add(*used).saturating_sub(*capacity);
            Some(Need { resource: resource.clone(), amount })
        }
        _ => None,
    }
}

fn preemptable(by: &Pod, victim: &Pod) -> bool {
    if critical(by) && !critical(victim) {
        return true;
    }
    matches!((priority(by), priority(victim)), (Some(a), Some(b)) if a > b)
}

fn left<'a>(needs: &[Need], gone: impl Iterator<Item = &'a Candidate> + Clone) -> Vec<Need> {
    let rest = needs.iter().map(|n| {
        let freed: i64 = gone.clone().map(|c| c.frees(&n.resource)).sum();
        Need { resource: n.resource.clone(), amount: n.amount.saturating_sub(freed) }
    });
    rest.filter(|n| n.amount > 0).collect()
}

/// One after the other the pod that comes nearest to what is needed, the smaller of two that come as near.
fn fewest(mut from: Vec<Candidate>, mut needs: Vec<Need>) -> Result<Vec<Candidate>, String> {
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let best = (0..from.len()).min_by(|a, b| {
            let (a, b) = (&from[*a], &from[*b]);
            distance(&needs, a).total_cmp(&distance(&needs, b)).then_with(|| a.size().cmp(&b.size()))
        });
        let Some(best) = best else {
            let text: String = needs.iter().map(|n| format!("(res: {}, q: {}), ", n.resource, n.amount)).collect();
            return Err(format!(
                "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{text}]"
            ));
        };
        let one = from.swap_remove(best);
        needs = left(&needs, std::iter::once(&one));
        chosen.push(one);
    }
    Ok(chosen)
}

/// What would be left, each resource by its share, squared.
fn distance(needs: &[Need], c: &Candidate) -> f64 {
    let part = |n: &Need| {
        let rest = n.amount.saturating_sub(c.frees(&n.resource)).max(0);
        (rest as f64 / n.amount as f64).powi(2)
    };
    needs.iter().map(part).sum()
}
