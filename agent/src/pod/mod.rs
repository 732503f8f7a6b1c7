//! Pods: the pure core (desired, observed, lifecycle, backoff, plan, status) and the actor that carries it out.
//!
//! The flow of one pod: `dispatch` gives each pod an `actor`; the actor holds the lifecycle and the backoffs, asks
//! `plan` what should be under way, lets `execute` do it, and sends what `status` says to the pod's reporter. Pure
//! modules (all but `actor` and `execute`) take the time as a value.

pub mod actor;
mod again;
pub mod allocation;
pub mod backoff;
pub mod container;
pub mod desired;
pub mod dns;
pub mod env;
pub mod ephemeral;
pub mod execute;
pub mod explain;
pub mod health;
pub mod hosts;
pub mod labels;
pub mod lifecycle;
pub mod observed;
pub mod plan;
pub mod qos;
pub mod resize;
pub mod resources;
pub mod round;
pub mod stage;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod timeline;
pub mod traffic;

pub use desired::{Desired, PodId};

/// All containers of a pod but the ephemeral ones.
pub fn containers(spec: &k8s_openapi::api::core::v1::PodSpec) -> impl Iterator<Item = &k8s_openapi::api::core::v1::Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What `dispatch` needs to run pods.
pub struct Deps {
    pub config: Arc<crate::config::Config>,
    pub cri: ferrolet_cri::Client,
    pub kube: kube::Client,
    /// The ConfigMaps and Secrets of pods.
    pub objects: crate::objects::Store,
    pub volumes: crate::volume::Manager,
    /// The ids for pods with a user namespace of their own.
    pub user_ids: crate::userns::Range,
    /// Takes what came of those pods.
    pub user_counts: crate::userns::Counts,
    pub resize_counts: crate::metrics::resizes::Resizes,
    pub cgroups: crate::cgroup::Manager,
    pub probes: ferrolet_probes::Driver,
    pub probe_events: mpsc::Receiver<ferrolet_probes::ProbeEvent>,
    /// What the node registers with, and its object: whether a new pod may start depends on labels and taints.
    pub registered: crate::admission::NodeView,
    pub node: crate::api::snapshot::Watched<k8s_openapi::api::core::v1::Node>,
    /// The pods bound to this node.
    pub pods: crate::api::snapshot::Watched<k8s_openapi::api::core::v1::Pod>,
    /// The pods that this node has by itself.
    pub statics: crate::static_pods::Watched,
    /// Takes what is known of those.
    pub statuses: crate::static_pods::Statuses,
    /// True once Services can answer: no new pod starts before.
    pub gate: watch::Receiver<bool>,
    /// Takes what is known of pods here before the API shows it.
    pub own_pods: ferrolet_netproxy::OwnPods,
    pub events: crate::events::EventRecorder,
    pub runtime: crate::observe::Handle,
    /// For the variables that tell of Services; without it pods learn only of the API's own address.
    pub services: Option<crate::api::snapshot::Watched<ferrolet_netproxy::wire::Service>>,
    /// The node's allocatable resources, which a missing limit stands for in `resourceFieldRef`.
    pub allocatable: BTreeMap<String, ferrolet_quantity::Quantity>,
    /// Who asks how the pods stand.
    pub asks: mpsc::Receiver<crate::dispatch::ask::Ask>,
}

/// A moment. Taken from the clock only in the actor.
pub type Time = jiff::Timestamp;

/// `t + d`, at the end of time at the latest.
pub fn after(t: Time, d: std::time::Duration) -> Time {
    t.saturating_add(d).unwrap_or(Time::MAX)
}

/// From `from` to `to`; zero if the clock went backwards.
pub fn elapsed(from: Time, to: Time) -> std::time::Duration {
    std::time::Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// From nanoseconds since the epoch, as the runtime has it; zero means never.
pub fn time_of_nanos(nanos: i64) -> Option<Time> {
    (nanos > 0).then(|| Time::from_nanosecond(i128::from(nanos)).ok()).flatten()
}
