//! The heartbeat: this node's Lease, renewed every quarter of its duration.
//!
//! A task of its own: it shares nothing with the rest but the API client, so that no slow pod, runtime or disk can make
//! the cluster believe that the node is gone. Every attempt is bounded; failures are tried again sooner.

use crate::api::{Class, class_of, watch::chain};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

const NAMESPACE: &str = "kube-node-lease";

/// When the last renewal succeeded, for the health check.
pub type Renewed = watch::Receiver<Option<Instant>>;

pub struct Heartbeat {
    pub client: kube::Client,
    pub node_name: String,
    pub duration: Duration,
    /// The Node's uid once it is known: the Lease goes with it.
    pub node_uid: watch::Receiver<Option<String>>,
}

/// Renews until cancelled.
pub fn spawn(heartbeat: Heartbeat, cancel: CancellationToken) -> (Renewed, tokio::task::JoinHandle<()>) {
    let (sender, renewed) = watch::channel(None);
    let task = tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = heartbeat.run(sender) => {}
        }
    });
    (renewed, task)
}

impl Heartbeat {
    async fn run(mut self, renewed: watch::Sender<Option<Instant>>) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let every = self.duration / 4;
        let mut known: Option<Lease> = None;
        let mut failures = 0u32;
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            let started = Instant::now();
            let uid = self.node_uid.borrow_and_update().clone();
            match timeout(every.max(Duration::from_secs(1)), self.renew(&api, known.take(), uid)).await {
                Ok(Ok(lease)) => {
                    if failures > 0 {
                        tracing::info!(failures, "lease is renewed again");
                    }
                    failures = 0;
                    known = Some(lease);
                    renewed.send_replace(Some(Instant::now()));
                    next = started + jitter(every);
                }
                Ok(Err(error)) => {
                    complain(&mut failures, &chain(&error));
                    next = Instant::now() + retry(failures, every);
                }
                Err(_) => {
                    complain(&mut failures, "no answer in time");
                    next = Instant::now() + retry(failures, every);
                }
            }
        }
    }

    /// Writes on top of what was read last; anything unexpected means reading it anew.
    async fn renew(&self, api: &Api<Lease>, known: Option<Lease>, uid: Option<String>) -> Result<Lease, kube::Error> {
        let mut known = known;
        // Conflicts come from somebody else's write between our two: read and write again at once.
        for _ in 0..5 {
            let current = match known.take() {
                Some(lease) => Some(lease),
                None => api.get_opt(&self.node_name).await?,
            };
            let wanted = self.wanted(current.as_ref(), uid.as_deref(), Timestamp::now());
            let written = match current {
                Some(_) => api.replace(&self.node_name, &PostParams::default(), &wanted).await,
                None => api.create(&PostParams::default(), &wanted).await,
            };
            match written {
                Ok(lease) => return Ok(lease),
                Err(kube::Error::Api(status))
                    if status.code == 409 || class_of(&kube::Error::Api(status.clone())) == Class::Gone =>
                {
                    debug!(reason = status.reason, "lease changed under us, reading it again");
                }
                Err(error) => return Err(error),
            }
        }
        let current = api.get_opt(&self.node_name).await?;
        let wanted = self.wanted(current.as_ref(), uid.as_deref(), Timestamp::now());
        api.replace(&self.node_name, &PostParams::default(), &wanted).await
    }

    /// The Lease to write. Pure.
    fn wanted(&self, current: Option<&Lease>, uid: Option<&str>, now: Timestamp) -> Lease {
        let mut lease = current.cloned().unwrap_or_default();
        let metadata = ObjectMeta { name: Some(self.node_name.clone()), namespace: Some(NAMESPACE.into()), ..lease.metadata };
        lease.metadata = metadata;
        if let (Some(uid), true) = (uid, lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)) {
            lease.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: self.node_name.clone(),
                uid: uid.into(),
                ..OwnerReference::default()
            }]);
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.node_name.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(now));
        lease
    }
}

/// Up to 4 % later, so that nodes that started together drift apart.
fn jitter(every: Duration) -> Duration {
    every + every.mul_f64(0.04 * rand::random::<f64>())
}

/// 200 ms doubling, but never later than the next renewal would have been.
fn retry(failures: u32, every: Duration) -> Duration {
    let base = Duration::from_millis(200).saturating_mul(1 << failures.saturating_sub(1).min(6));
    base.min(Duration::from_secs(7)).min(every).mul_f64(0.75 + 0.5 * rand::random::<f64>())
}

fn complain(failures: &mut u32, error: &str) {
    *failures = failures.saturating_add(1);
    if failures.is_power_of_two() {
        warn!(error, failures, "cannot renew the node's lease");
    }
}

#[cfg(test)]
mod tests;
