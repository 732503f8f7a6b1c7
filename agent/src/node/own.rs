//! What the data plane must know of this node's own object: its zone, its pods' ranges, and whether new connections should still
//! come.
//!
//! Owns nothing but what it said last. Never writes to the API. Cancelled by its token.

use crate::api::snapshot::Watched;
use ferrolet_netproxy::Input;
use ferrolet_netproxy::health::NodeState;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Well-known label of the API.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Set by the cluster autoscaler on a node that it is about to remove (KEP-3836).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Follows the own Node. The state is that of a node not known yet until the first list has it.
pub fn spawn(
    mut node: Watched<Node>,
    inputs: mpsc::Sender<Input>,
    cancel: CancellationToken,
) -> (watch::Receiver<NodeState>, JoinHandle<()>) {
    let (states, receiver) = watch::channel(NodeState::default());
    let work = async move {
        let (mut zone_told, mut ranges_told) = (None, None);
        loop {
            // The watch is for this node alone, so there is one object at the most.
            let own = node.borrow_and_update().items.values().next().cloned();
            let zone = own.as_deref().and_then(zone);
            if zone != zone_told {
                zone_told.clone_from(&zone);
                if inputs.send(Input::NodeZone(zone)).await.is_err() {
                    break;
                }
            }
            // A node that has none yet will get some: where pods are told by them, no rule is made before.
            let ranges = own.as_deref().map(pod_ranges).filter(|ranges| !ranges.is_empty());
            if ranges.is_some() && ranges != ranges_told {
                ranges_told.clone_from(&ranges);
                if inputs.send(Input::NodePodCidrs(ranges.unwrap_or_default())).await.is_err() {
                    break;
                }
            }
            let state = own.as_deref().map(state).unwrap_or_default();
            states.send_if_modified(|last| std::mem::replace(last, state) != state);
            if node.changed().await.is_err() {
                break;
            }
        }
        // The end of what is followed ends the process elsewhere.
        std::future::pending::<()>().await;
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    });
    (receiver, task)
}

/// All that a node's object says to the data plane, at once.
pub fn told(node: &Node) -> [Input; 2] {
    [Input::NodeZone(zone(node)), Input::NodePodCidrs(pod_ranges(node))]
}

/// What cannot be read is left out; the API has checked it.
fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|spec| spec.pod_cidrs.clone()).filter(|many| !many.is_empty());
    let texts = many.or_else(|| Some(vec![spec?.pod_cidr.clone()?])).unwrap_or_default();
    texts.iter().filter_map(|text| text.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref().and_then(|labels: &BTreeMap<_, _>| labels.get(ZONE)).filter(|zone| !zone.is_empty()).cloned()
}

fn state(node: &Node) -> NodeState {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    NodeState {
        known: true,
        deleting: node.metadata.deletion_timestamp.is_some(),
        to_be_deleted: taints.iter().any(|taint| taint.key == TO_BE_DELETED),
    }
}

#[cfg(test)]
mod tests;
