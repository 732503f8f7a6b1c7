//! Whether a pod may run on a node, and if not, why not in the words users know from `kubectl describe`.
//! Pure. All that refuses is said at once, so that a user need not fix one thing after the other.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Taint, Toleration, TopologySpreadConstraint};

use super::node::{HostPort, NodeInfo, host_ports};
use super::resources::{self, Amounts};
use crate::controllers::meta::{self, Labels, expression, selects};

const HOSTNAME: &str = "kubernetes.io/hostname";
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Insufficient(String),
    TooManyPods,
    NodeName,
    Unschedulable,
    Taint(String),
    NodeAffinity,
    HostPorts,
    PodAffinity,
    PodAntiAffinity,
    ExistingAntiAffinity,
    TopologySpread,
    TopologySpreadLabel,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Refusal::TooManyPods => f.write_str("Too many pods"),
            Refusal::NodeName => f.write_str("node(s) didn't match the requested node name"),
            Refusal::Unschedulable => f.write_str("node(s) were unschedulable"),
            Refusal::Taint(taint) => write!(f, "node(s) had untolerated taint {{{taint}}}"),
            Refusal::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Refusal::HostPorts => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Refusal::PodAffinity => f.write_str("node(s) didn't match pod affinity rules"),
            Refusal::PodAntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Refusal::ExistingAntiAffinity => f.write_str("node(s) didn't satisfy existing pods anti-affinity rules"),
            Refusal::TopologySpread => f.write_str("node(s) didn't match pod topology spread constraints"),
            Refusal::TopologySpreadLabel => {
                f.write_str("node(s) didn't match pod topology spread constraints (missing required label)")
            }
        }
    }
}

/// How many nodes were refused for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    pub nodes: usize,
    pub counts: BTreeMap<Refusal, usize>,
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> = self.counts.iter().map(|(why, n)| format!("{n} {why}")).collect();
        reasons.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// What a pod asks of its node, read once for all nodes.
#[derive(Debug)]
pub struct Question<'a> {
    pub pod: &'a Pod,
    pub requests: Amounts,
    pub for_scoring: Amounts,
    pub host_ports: Vec<HostPort>,
    pub tolerations: &'a [Toleration],
}

impl<'a> Question<'a> {
    pub fn new(pod: &'a Pod) -> Self {
        Question {
            pod,
            requests: resources::of_pod(pod),
            for_scoring: resources::for_scoring(pod),
            host_ports: host_ports(pod),
            tolerations: pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default(),
        }
    }

    fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }
}

/// All reasons against a node; none means that it fits.
pub fn refuse(question: &Question, node: &NodeInfo, all: &[NodeInfo]) -> Vec<Refusal> {
    let mut why = vec![];
    let Some(spec) = &question.pod.spec else { return why };
    // As with the other schedulers, what is about the node itself is said alone: the rest does not matter then.
    let cordon = Taint { key: UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
    if node.unschedulable && !is_tolerated(&cordon, question.tolerations) {
        return vec![Refusal::Unschedulable];
    }
    let hard = |t: &&Taint| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute");
    if let Some(taint) = node.taints.iter().filter(hard).find(|t| !is_tolerated(t, question.tolerations)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![Refusal::Taint(format!("{}: {value}", taint.key))];
    }
    if spec.node_name.as_ref().is_some_and(|n| !n.is_empty() && *n != node.name) {
        return vec![Refusal::NodeName];
    }
    if !matches_node(spec, node) {
        return vec![Refusal::NodeAffinity];
    }
    if question.host_ports.iter().any(|p| node.host_ports.iter().any(|q| clash(p, q))) {
        why.push(Refusal::HostPorts);
    }
    why.extend(lacks(question, node));
    why.extend(spread(question, spec, node, all));
    why.extend(affinity(question, spec, node, all));
    why
}

fn lacks(question: &Question, node: &NodeInfo) -> Vec<Refusal> {
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(0);
    let mut why = vec![];
    if node.allocatable.contains_key("pods") && node.pods.len() as i64 + 1 > of(&node.allocatable, "pods") {
        why.push(Refusal::TooManyPods);
    }
    for (name, want) in &question.requests {
        if of(&node.requested, name).saturating_add(*want) > of(&node.allocatable, name) {
            why.push(Refusal::Insufficient(name.clone()));
        }
    }
    why
}

fn clash((ip, protocol, port): &HostPort, (ip2, protocol2, port2): &HostPort) -> bool {
    let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
    port == port2 && protocol == protocol2 && (ip == ip2 || any(ip) || any(ip2))
}

/// Whether one toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let same_value = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    let number = |v: &Option<String>| v.as_deref().and_then(|v| v.parse::<i64>().ok());
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "" | "Equal" => !key.is_empty() && same_value,
            "Exists" => true,
            "Lt" => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(taint, t)| taint < t),
            "Gt" => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(taint, t)| taint > t),
            _ => false,
        }
}

pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

fn matches_node(spec: &PodSpec, node: &NodeInfo) -> bool {
    let plain = spec.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    plain && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

/// A term with nothing in it matches no node.
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let values = |v: &Option<Vec<String>>| v.clone().unwrap_or_default();
    expressions.iter().all(|e| expression(&e.operator, node.labels.get(&e.key).map(String::as_str), &values(&e.values)))
        && fields.iter().all(|f| f.key == "metadata.name" && expression(&f.operator, Some(&node.name), &values(&f.values)))
}

/// The value of a topology key on a node. A node without the hostname label is its own host all the same.
pub fn domain<'a>(node: &'a NodeInfo, key: &str) -> Option<&'a str> {
    node.labels.get(key).map(String::as_str).or_else(|| (key == HOSTNAME).then_some(node.name.as_str()))
}

/// Whether `other` is one of the pods a term of `owner` speaks about. Namespaces chosen by their labels are not known
/// here: an empty namespace selector means all of them, any other none.
pub fn term_selects(term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let namespace = meta::namespace(&other.metadata);
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match &term.namespace_selector {
        None if listed.is_empty() => namespace == meta::namespace(&owner.metadata),
        None => listed.iter().any(|n| n == namespace),
        Some(s) => selects(Some(s), None) || listed.iter().any(|n| n == namespace),
    };
    let same = |keys: &Option<Vec<String>>, equal: bool| {
        let of = |p: &Pod, k: &str| meta::label(&p.metadata, k).map(str::to_owned);
        keys.iter().flatten().filter(|k| of(owner, k).is_some()).all(|k| (of(owner, k) == of(other, k)) == equal)
    };
    in_namespace
        && selects(term.label_selector.as_ref(), other.metadata.labels.as_ref())
        && same(&term.match_label_keys, true)
        && same(&term.mismatch_label_keys, false)
}

fn required(pod: &Pod, anti: bool) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let terms = if anti {
        affinity.and_then(|a| a.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref())
    } else {
        affinity.and_then(|a| a.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref())
    };
    terms.unwrap_or_default()
}

/// The pods in the same domain as a node.
fn neighbours<'a>(node: &'a NodeInfo, all: &'a [NodeInfo], key: &'a str) -> impl Iterator<Item = &'a Pod> {
    let here = domain(node, key);
    let near = all.iter().filter(move |n| here.is_some() && domain(n, key) == here);
    near.flat_map(|n| n.pods.iter().map(|p| &**p))
}

fn affinity(question: &Question, _spec: &PodSpec, node: &NodeInfo, all: &[NodeInfo]) -> Vec<Refusal> {
    let pod = question.pod;
    let mut why = vec![];
    let wanted = required(pod, false);
    let met = |t: &PodAffinityTerm| neighbours(node, all, &t.topology_key).any(|p| term_selects(t, pod, p));
    // The first of a group that wants to be with its like may start anywhere.
    let first = || {
        wanted.iter().all(|t| term_selects(t, pod, pod) && domain(node, &t.topology_key).is_some())
            && !all.iter().flat_map(|n| &n.pods).any(|p| wanted.iter().all(|t| term_selects(t, pod, p)))
    };
    if !wanted.iter().all(met) && !first() {
        why.push(Refusal::PodAffinity);
    }
    let disturbed = |t: &PodAffinityTerm| neighbours(node, all, &t.topology_key).any(|p| term_selects(t, pod, p));
    if required(pod, true).iter().any(disturbed) {
        why.push(Refusal::PodAntiAffinity);
    }
    let disturbs = all.iter().any(|other| {
        other.pods.iter().any(|p| {
            required(p, true).iter().any(|t| {
                let here = domain(node, &t.topology_key);
                here.is_some() && here == domain(other, &t.topology_key) && term_selects(t, p, pod)
            })
        })
    });
    if disturbs {
        why.push(Refusal::ExistingAntiAffinity);
    }
    why
}

fn spread(question: &Question, spec: &PodSpec, node: &NodeInfo, all: &[NodeInfo]) -> Vec<Refusal> {
    let mut why = vec![];
    for constraint in spec.topology_spread_constraints.iter().flatten().filter(|c| c.when_unsatisfiable == "DoNotSchedule") {
        let Some(here) = domain(node, &constraint.topology_key) else {
            why.push(Refusal::TopologySpreadLabel);
            continue;
        };
        let counts = per_domain(question, spec, constraint, all);
        let wanted = usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1);
        let fewest = if counts.len() < wanted { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let itself = i64::from(selects(constraint.label_selector.as_ref(), question.labels()));
        if counts.get(here).copied().unwrap_or(0) + itself - fewest > i64::from(constraint.max_skew) {
            why.push(Refusal::TopologySpread);
        }
    }
    why.dedup();
    why
}

/// The matching pods in each domain that the pod could go to.
pub fn per_domain<'a>(
    question: &Question,
    spec: &PodSpec,
    constraint: &TopologySpreadConstraint,
    all: &'a [NodeInfo],
) -> BTreeMap<&'a str, i64> {
    let mut counts = BTreeMap::new();
    let honour_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honour_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    for node in all {
        let Some(domain) = domain(node, &constraint.topology_key) else { continue };
        let tainted = node.taints.iter().any(|t| t.effect != "PreferNoSchedule" && !is_tolerated(t, question.tolerations));
        if (honour_affinity && !matches_node(spec, node)) || (honour_taints && tainted) {
            continue;
        }
        let same = |p: &Pod| {
            meta::namespace(&p.metadata) == meta::namespace(&question.pod.metadata)
                && !meta::is_deleting(&p.metadata)
                && selects(constraint.label_selector.as_ref(), p.metadata.labels.as_ref())
                && constraint
                    .match_label_keys
                    .iter()
                    .flatten()
                    .all(|k| meta::label(&p.metadata, k) == meta::label(&question.pod.metadata, k))
        };
        *counts.entry(domain).or_insert(0) += node.pods.iter().filter(|p| same(p)).count() as i64;
    }
    counts
}
