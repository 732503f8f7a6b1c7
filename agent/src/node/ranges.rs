//! The cluster's service ranges, for the data plane: what is in them and no service's is dropped.
//!
//! Follows the ServiceCIDR objects where the API server has them and lets this node read them; both are optional, and asked for again
//! from time to time. Cancelled by its token.

use crate::api::snapshot::{self, Snapshot};
use crate::api::wire::{self, Ask, Selector, Wire};
use ferrolet_netproxy::Input;
use ipnet::IpNet;
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Between two questions to a server that has no such kind, or does not let this node read it.
const AGAIN: Duration = Duration::from_secs(300);
/// After a failure of another kind.
const SOON: Duration = Duration::from_secs(10);

/// `networking.k8s.io/v1` ServiceCIDR, as far as it is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidr {
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    cidrs: Option<Vec<String>>,
}

impl Wire for ServiceCidr {
    const BASE: &'static str = "/apis/networking.k8s.io/v1";
    const PLURAL: &'static str = "servicecidrs";
}

/// All of them, sorted; what cannot be read is left out, as the API has checked it.
fn ranges(all: &Snapshot<ServiceCidr>) -> Vec<IpNet> {
    let texts = all.items.values().flat_map(|item| item.spec.cidrs.iter().flatten());
    let mut ranges: Vec<IpNet> = texts.filter_map(|text| text.parse::<IpNet>().ok()).map(|range| range.trunc()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

pub fn spawn(client: kube::Client, inputs: mpsc::Sender<Input>, cancel: CancellationToken) -> JoinHandle<()> {
    let token = cancel.clone();
    let work = async move {
        wait_until_readable(&client).await;
        let (mut watched, _task) = snapshot::spawn::<ServiceCidr>(client, Selector::default(), token);
        let mut told = None;
        loop {
            let now = {
                let all = watched.borrow_and_update();
                all.synced.then(|| ranges(&all))
            };
            if now.is_some() && now != told {
                told.clone_from(&now);
                if inputs.send(Input::ServiceCidrs(now.unwrap_or_default())).await.is_err() {
                    break;
                }
            }
            if watched.changed().await.is_err() {
                break;
            }
        }
        // The end of the data plane ends the process elsewhere.
        std::future::pending::<()>().await;
    };
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    })
}

/// A watch of what is not there would be told of as trouble over and over.
async fn wait_until_readable(client: &kube::Client) {
    let uri = wire::uri::<ServiceCidr>(&Selector::default(), Ask::Page { limit: 1, cursor: None });
    let mut said = false;
    loop {
        let Ok(request) = http::Request::get(&uri).header(http::header::ACCEPT, "application/json").body(Vec::new()) else {
            return;
        };
        let pause = match client.request_text(request).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                debug!("the api server has no ServiceCIDR objects");
                AGAIN
            }
            Err(kube::Error::Api(status)) if status.code == 403 && said => AGAIN,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                said = true;
                info!(
                    why = status.message,
                    "packets to unused service addresses are not dropped: the service ranges may not be read"
                );
                AGAIN
            }
            Err(error) => {
                debug!(%error, "the service ranges could not be read");
                SOON
            }
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
