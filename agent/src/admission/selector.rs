//! `nodeSelector` and the required part of node affinity. Pure.

use super::NodeView;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use std::collections::BTreeMap;

pub fn matches(node: &NodeView, spec: &PodSpec) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| fits_any(&node.name, &node.labels, &r.node_selector_terms))
}

/// Whether a node of this name fits one of the terms.
pub fn fits_any(name: &str, own: &BTreeMap<String, String>, terms: &[NodeSelectorTerm]) -> bool {
    terms.iter().any(|term| fits(name, own, term))
}

/// A term without any requirement matches nothing.
fn fits(name: &str, own: &BTreeMap<String, String>, term: &NodeSelectorTerm) -> bool {
    let (labels, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
    // The name is the only field there is.
    let field = |r: &NodeSelectorRequirement| r.key == "metadata.name" && holds(r, Some(name));
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| holds(r, own.get(&r.key).map(String::as_str)))
        && fields.iter().all(field)
}

fn holds(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = |greater: bool| match (value.and_then(number), values) {
        (Some(has), [bound]) => number(bound).is_some_and(|bound| if greater { has > bound } else { has < bound }),
        _ => false,
    };
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|one| one == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|one| one != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(true),
        "Lt" => compared(false),
        _ => false,
    }
}
