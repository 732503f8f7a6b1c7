//! Tells the owners of Services which the data plane had to leave out, and whose health check port could not be opened: a warning
//! event on each, once until that changes.
//!
//! Owns what was told. Never touches the data plane. Cancelled by its token.

use crate::events::{EventRecorder, Severity};
use ferrolet_netproxy as netproxy;
use ferrolet_netproxy::health::Failures;
use k8s_openapi::api::core::v1 as api;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(10);

pub struct Teller {
    kube: kube::Client,
    events: EventRecorder,
    node: String,
    /// By namespace/name.
    told: BTreeSet<String>,
    ports_told: BTreeMap<netproxy::Key, String>,
}

pub fn spawn(
    mut proxy: netproxy::Handle,
    mut failures: watch::Receiver<Failures>,
    mut teller: Teller,
    cancel: CancellationToken,
) -> JoinHandle<()> {
    let work = async move {
        loop {
            teller.tell(&proxy.stats().set_aside).await;
            let failed = failures.borrow_and_update().clone();
            teller.tell_ports(&failed).await;
            let go_on = tokio::select! {
                more = proxy.stats_changed() => more,
                more = failures.changed() => more.is_ok(),
            };
            if !go_on {
                // Its end ends the process elsewhere.
                std::future::pending::<()>().await;
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

impl Teller {
    pub fn new(kube: kube::Client, events: EventRecorder, node: &str) -> Teller {
        Teller { kube, events, node: node.to_owned(), told: BTreeSet::new(), ports_told: BTreeMap::new() }
    }

    /// All that are left out now. One that is back and left out again is told of again.
    pub async fn tell(&mut self, set_aside: &[String]) {
        self.told.retain(|key| set_aside.contains(key));
        for key in set_aside {
            if !self.told.insert(key.clone()) {
                continue;
            }
            let Some((namespace, name)) = key.split_once('/') else { continue };
            let object = self.service(namespace, name).await;
            let message = format!("The kernel of node {} refused the rules of this service: it is not served there", self.node);
            self.events.record(object, Severity::Warning, "FailedToProgramService", message);
        }
    }

    /// All `healthCheckNodePort`s that are not open now, in kube-proxy's words.
    async fn tell_ports(&mut self, failures: &Failures) {
        let now = failures.services.iter().map(|(key, failure)| {
            let why = failure.reasons.join(", ");
            let message = format!("node {} failed to start healthcheck \"{key}\" on port {}: {why}", self.node, failure.port);
            (key.clone(), message)
        });
        let now: BTreeMap<netproxy::Key, String> = now.collect();
        for (key, message) in &now {
            if self.ports_told.get(key) != Some(message) {
                let object = self.service(&key.namespace, &key.name).await;
                self.events.record(object, Severity::Warning, "FailedToStartServiceHealthcheck", message.clone());
            }
        }
        self.ports_told = now;
    }

    async fn service(&self, namespace: &str, name: &str) -> api::ObjectReference {
        api::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: self.uid(namespace, name).await,
            ..Default::default()
        }
    }

    /// `kubectl describe` finds events by it. An event without one is better than none.
    async fn uid(&self, namespace: &str, name: &str) -> Option<String> {
        let api = kube::Api::<api::Service>::namespaced(self.kube.clone(), namespace);
        let found = tokio::time::timeout(LIMIT, api.get_metadata(name)).await.ok()?.ok()?;
        found.metadata.uid
    }
}

#[cfg(test)]
mod tests;
