//! The node's servers: HTTPS for logs, exec, attach, port-forward, metrics; and plain health on the loopback.
//!
//! - `tls` finds or makes the serving certificate; `listen` accepts connections within bounds.
//! - `authn` tells who asks, `authz` whether they may (pure: what is asked of whom; the rest is a cached review).
//! - `routes` is the table of paths; `logs`, `stream` and `health` answer them.
//!
//! A client that is slow, gone or hostile costs one connection slot and nothing else: headers, handshakes and the number
//! of connections are bounded, and no handler holds anything that another part of the node waits for.

pub mod authn;
pub mod authz;
pub mod cache;
pub mod find;
pub mod health;
pub mod listen;
pub mod logs;
pub mod routes;
pub mod stream;
pub mod tls;

use crate::api::snapshot::Watched;
use crate::config::Config;
use crate::metrics::Metrics;
use k8s_openapi::api::core::v1::Pod;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot read or write {what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} {}: {detail}", path.display())]
    Pem { what: &'static str, path: PathBuf, detail: String },
    #[error("cannot make a serving certificate")]
    SelfSigned(#[from] rcgen::Error),
    #[error("cannot set up TLS for the node's server")]
    Tls(#[from] rustls::Error),
    #[error("cannot check client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What the handlers look at.
#[derive(Clone)]
pub struct Deps {
    pub config: Arc<Config>,
    pub cri: ferrolet_cri::Client,
    pub client: kube::Client,
    pub pods: Watched<Pod>,
    pub statics: crate::static_pods::Watched,
    pub statuses: crate::static_pods::Statuses,
    pub metrics: Arc<Metrics>,
    pub probes: ferrolet_probes::Driver,
    pub stats: crate::stats::Stats,
    pub health: health::Checks,
}

/// A server that listens.
pub struct Serving {
    pub address: SocketAddr,
    pub task: JoinHandle<()>,
}

/// Starts the HTTPS server.
pub async fn serve(deps: Deps, cancel: CancellationToken) -> Result<Serving, Error> {
    let config = deps.config.clone();
    let tls = tls::server_config(&config)?;
    let address = SocketAddr::new(config.server.address, config.server.port);
    let listener = bind(address).await?;
    let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    let app = routes::app(deps);
    let task = tokio::spawn(listen::https(listener, tls, app, cancel));
    Ok(Serving { address, task })
}

/// Starts a plain server for health checks.
pub async fn serve_health(address: SocketAddr, checks: health::Checks, cancel: CancellationToken) -> Result<Serving, Error> {
    let listener = bind(address).await?;
    let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    let task = tokio::spawn(listen::plain(listener, health::app(checks), cancel));
    Ok(Serving { address, task })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
