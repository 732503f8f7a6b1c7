//! What the data plane must know of this node's own object: its zone, and whether new connections should still come.
//!
//! Owns nothing but what it said last. Never writes to the API. Cancelled by its token.

use crate::api::snapshot::Watched;
use ferrolet_netproxy::Input;
use ferrolet_netproxy::health::NodeState;
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
        let mut told = None;
        loop {
            // The watch is for this node alone, so there is one object at the most.
            let own = node.borrow_and_update().items.values().next().cloned();
            let zone = own.as_deref().and_then(zone);
            if zone != told {
                told.clone_from(&zone);
                if inputs.send(Input::NodeZone(zone)).await.is_err() {
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
