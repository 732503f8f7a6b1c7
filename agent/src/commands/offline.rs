//! A trace without a running daemon: Services and EndpointSlices are listed once, and a data plane without a kernel is asked.
//!
//! Owns nothing that lasts and writes nowhere. The rules are those that a daemon of this version would make with the same
//! configuration; whether anybody has programmed them is not known.

use super::trace::Args;
use crate::api::transport::Transport;
use crate::api::wire::{self, Ask, Selector, Wire};
use crate::api::{self, feed};
use crate::config::{self, Config};
use crate::node::addresses;
use ferrolet_netproxy as netproxy;
use k8s_openapi::api::core::v1::Node;
use netproxy::conntrack::Flow;
use netproxy::diff::Transaction;
use netproxy::proxy::explain::Explained;
use netproxy::trace::Packet;
use netproxy::{Input, Proxy};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PAGE: u32 = 500;
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error("cannot list {what}")]
    List { what: &'static str, source: kube::Error },
    #[error("cannot read the list of {what}")]
    Page { what: &'static str, source: wire::WireError },
    #[error("cannot read node {name}")]
    Node { name: String, source: kube::Error },
    #[error("the api server took longer than {} s", LIMIT.as_secs())]
    Slow,
    #[error("the rules could not be compiled")]
    Compile,
}

/// Takes everything: the rules are only wanted as a value.
struct Nowhere;

impl netproxy::proxy::Kernel for Nowhere {
    fn commit(&mut self, _: &Transaction) -> Result<(), netproxy::Error> {
        Ok(())
    }

    fn check(&mut self, _: &Transaction) -> Result<(), netproxy::Error> {
        Ok(())
    }

    fn flows(&mut self) -> Result<Vec<Flow>, netproxy::Error> {
        Ok(Vec::new())
    }

    fn delete_flow(&mut self, _: &Flow) -> Result<(), netproxy::Error> {
        Ok(())
    }
}

/// What the rules of the node would do, and whose answer that is.
pub async fn explain(args: &Args, kubeconfig: &Path, packet: Packet) -> Result<(Explained, String), Error> {
    timeout(LIMIT, explained(args, kubeconfig, packet)).await.unwrap_or(Err(Error::Slow))
}

async fn explained(args: &Args, kubeconfig: &Path, packet: Packet) -> Result<(Explained, String), Error> {
    let config = config::for_trace(args.proxy_config.as_deref(), args.hostname_override.as_deref())?;
    let client = Transport::new(kubeconfig)?.client();
    let services = list(&client, &Selector::default()).await?;
    let slices = list(&client, &Selector::labels(feed::SLICES)).await?;
    let found = kube::Api::<Node>::all(client).get_opt(&config.node_name).await;
    let node = found.map_err(|source| Error::Node { name: config.node_name.clone(), source })?;
    let mut inputs = vec![Input::Services(services), Input::Slices(slices)];
    inputs.extend(of_node(&config, node.as_ref(), addresses::all()));
    let known = if node.is_some() { "" } else { ", which the API does not know" };
    let whose = format!("the API by {}, for node {}{known}; no ferrolet was asked", kubeconfig.display(), config.node_name);
    Ok((compiled(&config, inputs, packet).await?, whose))
}

async fn compiled(config: &Config, all: Vec<Input>, packet: Packet) -> Result<Explained, Error> {
    let (inputs, inbox) = mpsc::channel(all.len().max(1));
    for input in all {
        let _ = inputs.send(input).await;
    }
    let cancel = CancellationToken::new();
    let _stopped = cancel.clone().drop_guard();
    let (mut proxy, _task) = Proxy::spawn_on(crate::daemon::proxy_config(config), Box::new(Nowhere), inbox, cancel);
    proxy.synced.wait_for(|synced| *synced).await.map_err(|_| Error::Compile)?;
    proxy.explain(packet).await.ok_or(Error::Compile)
}

/// What the node's object says. This host's own addresses count if it is that node.
fn of_node(config: &Config, node: Option<&Node>, here: Vec<IpAddr>) -> Vec<Input> {
    let status = node.and_then(|n| n.status.as_ref()).and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let named = |kind: &'static str| status.iter().filter(move |a| a.type_ == kind).filter_map(|a| a.address.parse().ok());
    let listed: Vec<IpAddr> = named("InternalIP").chain(named("ExternalIP")).collect();
    let this_host = config.node_ips.is_empty() && listed.is_empty() || listed.iter().any(|ip| here.contains(ip));
    let all = addresses::primary_first(&listed, if this_host { here } else { Vec::new() });
    let mut inputs = vec![Input::NodeAddresses(all)];
    if let Some(node) = node {
        inputs.extend(crate::node::own::told(node));
    }
    inputs
}

async fn list<T: Wire>(client: &kube::Client, selector: &Selector) -> Result<Vec<T>, Error> {
    let what = T::PLURAL;
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let uri = wire::uri::<T>(selector, Ask::Page { limit: PAGE, cursor: cursor.as_deref() });
        let request = http::Request::get(uri).header(http::header::ACCEPT, "application/json").body(Vec::new());
        let request = request.map_err(|e| Error::List { what, source: kube::Error::HttpError(e) })?;
        let text = client.request_text(request).await.map_err(|source| Error::List { what, source })?;
        let page = wire::page::<T>(text.as_bytes()).map_err(|source| Error::Page { what, source })?;
        for item in page.items {
            match item.body {
                Ok(object) => all.push(object),
                Err(problem) => tracing::warn!(%problem, "left out"),
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests;
