//! Services and EndpointSlices on their way to the data plane, and the few bytes of each Service that pods' environments need.
//!
//! Owns no copy of the whole objects: they are passed on. Waits where the data plane is behind; the watch then waits too.

use super::snapshot::{ObjectKey, Snapshot, Watched, apply};
use super::watch::{self, Change, Sink};
use super::wire::Selector;
use ferrolet_netproxy::{Input, Key, wire};
use std::sync::Arc;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Slices that some other proxy serves, or nobody should, as kube-proxy leaves them out.
pub const SLICES: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// The part of a Service that a pod's environment tells of; headless ones are not in it. Pure.
pub fn address(service: &wire::Service) -> Option<wire::Service> {
    let spec = &service.spec;
    let cluster_ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    let metadata = wire::Metadata {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..wire::Metadata::default()
    };
    let spec = wire::ServiceSpec { cluster_ip: Some(cluster_ip), ports: spec.ports.clone(), ..wire::ServiceSpec::default() };
    Some(wire::Service { metadata, spec })
}

/// Starts both watches. The snapshot holds the Services with an address.
pub fn spawn(
    client: &kube::Client,
    inputs: mpsc::Sender<Input>,
    cancel: &CancellationToken,
) -> (Watched<wire::Service>, [JoinHandle<()>; 2]) {
    let (addresses, receiver) = channel::channel(Arc::new(Snapshot::default()));
    let services = Services { inputs: inputs.clone(), addresses };
    let slices = Slices { inputs };
    let services = watch::run(client.clone(), Selector::default(), services, cancel.clone());
    let slices = watch::run(client.clone(), Selector::labels(SLICES), slices, cancel.clone());
    (receiver, [tokio::spawn(services), tokio::spawn(slices)])
}

struct Services {
    inputs: mpsc::Sender<Input>,
    addresses: channel::Sender<Arc<Snapshot<wire::Service>>>,
}

impl Sink<wire::Service> for Services {
    async fn apply(&mut self, change: Change<wire::Service>) {
        let (known, input) = match change {
            Change::Replaced { items, malformed } => {
                let known = items.iter().filter_map(|(key, service)| Some((key.clone(), address(service)?))).collect();
                let all = items.into_iter().map(|(_, service)| service).collect();
                (Change::Replaced { items: known, malformed }, Input::Services(all))
            }
            Change::Applied(key, service) => {
                let known = match address(&service) {
                    Some(address) => Change::Applied(key.clone(), address),
                    None => Change::Deleted(key.clone()),
                };
                (known, Input::Service(of(&key), Some(service)))
            }
            Change::Deleted(key) => {
                let input = Input::Service(of(&key), None);
                (Change::Deleted(key), input)
            }
        };
        self.addresses.send_modify(|snapshot| *snapshot = Arc::new(apply(snapshot, known)));
        // A closed channel means that the data plane ended, which ends the process elsewhere.
        let _ = self.inputs.send(input).await;
    }
}

struct Slices {
    inputs: mpsc::Sender<Input>,
}

impl Sink<wire::EndpointSlice> for Slices {
    async fn apply(&mut self, change: Change<wire::EndpointSlice>) {
        let input = match change {
            Change::Replaced { items, .. } => Input::Slices(items.into_iter().map(|(_, slice)| slice).collect()),
            Change::Applied(key, slice) => Input::Slice(of(&key), Some(slice)),
            Change::Deleted(key) => Input::Slice(of(&key), None),
        };
        let _ = self.inputs.send(input).await;
    }
}

fn of(key: &ObjectKey) -> Key {
    Key { namespace: key.namespace.as_str().into(), name: key.name.as_str().into() }
}

#[cfg(test)]
mod tests;
