//! Tells of static pods that cannot be read: in the log at once, and as events on the node once the API is there.
//!
//! Owns what was told of last. Each problem is told once for as long as it is the same. Decides nothing about pods. Cancelled by its token.

use super::Watched;
use crate::api::snapshot;
use crate::events::{EventRecorder, Severity};
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const REASON: &str = "InvalidStaticPod";

/// By file, URL or pod.
type Problems = BTreeMap<String, String>;

/// `name`: the node's.
pub fn spawn(
    mut all: Watched,
    mut node: snapshot::Watched<Node>,
    events: EventRecorder,
    name: &str,
    cancel: CancellationToken,
) -> JoinHandle<()> {
    let name = name.to_owned();
    let work = async move {
        let (mut logged, mut recorded) = (Problems::new(), Problems::new());
        loop {
            let now = all.borrow_and_update().problems.clone();
            for (place, why) in fresh(&logged, &now) {
                warn!(place, why, "could not process a static pod");
            }
            for place in logged.keys().filter(|place| !now.contains_key(*place)) {
                info!(place, "there is nothing wrong with this static pod any more");
            }
            let own = node.borrow_and_update().clone();
            if own.synced {
                // kubectl finds those of the name in the place of the uid too.
                let uid = own.items.values().next().and_then(|node| node.metadata.uid.clone()).unwrap_or_else(|| name.clone());
                for (place, why) in fresh(&recorded, &now) {
                    events.node(&name, Some(uid.clone()), Severity::Warning, REASON, format!("{place}: {why}"));
                }
                recorded.clone_from(&now);
            }
            logged = now;
            tokio::select! {
                Ok(()) = all.changed() => {}
                Ok(()) = node.changed() => {}
                else => std::future::pending().await,
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    })
}

/// What was not told of yet in these words. Pure.
fn fresh<'a>(told: &'a Problems, now: &'a Problems) -> impl Iterator<Item = (&'a String, &'a String)> {
    now.iter().filter(|(place, why)| told.get(*place) != Some(why))
}

#[cfg(test)]
mod tests;
