//! How good a node is for a pod that may run on it. Pure; the larger the better.

use k8s_openapi::api::core::v1::{Pod, WeightedPodAffinityTerm};

use super::fit::{Question, domain, is_tolerated, per_domain, term_matches, term_selects};
use super::node::NodeInfo;
use crate::controllers::meta;

/// Each part is 0 to 100 times its weight.
const LEAST_ALLOCATED: i64 = 1;
const BALANCED: i64 = 1;
const SPREAD: i64 = 2;
const PREFERRED: i64 = 2;
const SOFT_TAINTS: i64 = 3;

pub fn score(question: &Question, node: &NodeInfo, all: &[NodeInfo]) -> i64 {
    LEAST_ALLOCATED * least_allocated(question, node)
        + BALANCED * balanced(question, node)
        + SPREAD * spread(question, node, all)
        + PREFERRED * preferred(question, node, all)
        + SOFT_TAINTS * soft_taints(question, node)
}

/// Thousandths of a node's cpu and memory that are used with this pod on it.
fn used(question: &Question, node: &NodeInfo, name: &str) -> Option<i64> {
    let of = |a: &super::resources::Amounts| a.get(name).copied().unwrap_or(0);
    let have = of(&node.allocatable);
    let want = of(&node.for_scoring).saturating_add(of(&question.for_scoring));
    (have > 0).then(|| i64::try_from(i128::from(want) * 1000 / i128::from(have)).unwrap_or(1000).clamp(0, 1000))
}

fn least_allocated(question: &Question, node: &NodeInfo) -> i64 {
    let parts: Vec<i64> = ["cpu", "memory"].iter().filter_map(|r| used(question, node, r)).map(|u| (1000 - u) / 10).collect();
    if parts.is_empty() { 0 } else { parts.iter().sum::<i64>() / parts.len() as i64 }
}

/// Cpu and memory used in the same measure leave no remainder that nobody can use.
fn balanced(question: &Question, node: &NodeInfo) -> i64 {
    match (used(question, node, "cpu"), used(question, node, "memory")) {
        (Some(cpu), Some(memory)) => 100 - (cpu - memory).abs() / 20,
        _ => 0,
    }
}

/// Few pods of the same owner, and an even spread over the domains the pod names.
fn spread(question: &Question, node: &NodeInfo, all: &[NodeInfo]) -> i64 {
    let owner = meta::controller_of(&question.pod.metadata).map(|o| o.uid.as_str());
    let siblings = |n: &NodeInfo| match owner {
        Some(uid) => {
            n.pods.iter().filter(|p| !meta::is_deleting(&p.metadata) && meta::controlled_by(&p.metadata, uid)).count() as i64
        }
        None => 0,
    };
    let most = all.iter().map(siblings).max().unwrap_or(0);
    let mut score = if most == 0 { 100 } else { 100 - siblings(node) * 100 / most };
    let Some(spec) = &question.pod.spec else { return score };
    for soft in spec.topology_spread_constraints.iter().flatten().filter(|c| c.when_unsatisfiable == "ScheduleAnyway") {
        let counts = per_domain(question, spec, soft, all);
        let most = counts.values().copied().max().unwrap_or(0).max(1);
        score += match domain(node, &soft.topology_key) {
            Some(here) => 100 - counts.get(here).copied().unwrap_or(0) * 100 / most,
            None => 0,
        };
    }
    score
}

fn preferred(question: &Question, node: &NodeInfo, all: &[NodeInfo]) -> i64 {
    let Some(affinity) = question.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return 0 };
    let of_node: i64 = affinity
        .node_affinity
        .iter()
        .flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
        .filter(|p| term_matches(&p.preference, node))
        .map(|p| i64::from(p.weight))
        .sum();
    let near = |terms: Option<&Vec<WeightedPodAffinityTerm>>| -> i64 {
        terms.into_iter().flatten().map(|t| i64::from(t.weight) * neighbours(question.pod, t, node, all)).sum()
    };
    let with = near(affinity.pod_affinity.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
    let apart =
        near(affinity.pod_anti_affinity.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
    of_node + with - apart
}

fn neighbours(pod: &Pod, term: &WeightedPodAffinityTerm, node: &NodeInfo, all: &[NodeInfo]) -> i64 {
    let term = &term.pod_affinity_term;
    let Some(here) = domain(node, &term.topology_key) else { return 0 };
    let near = all.iter().filter(|n| domain(n, &term.topology_key) == Some(here));
    near.flat_map(|n| &n.pods).filter(|p| term_selects(term, pod, p)).count() as i64
}

fn soft_taints(question: &Question, node: &NodeInfo) -> i64 {
    let bad = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !is_tolerated(t, question.tolerations)).count();
    100 / (1 + bad as i64)
}
