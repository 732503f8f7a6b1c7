//! kube-proxy's own metrics port (`metricsBindAddress`): `/metrics`, `/proxyMode` and `/healthz`, plain HTTP.
//!
//! Owns the listener. A port that is taken is said and tried again; only `bindAddressHardFail` makes it an end. Cancelled by its
//! token.

use super::Metrics;
use crate::server::listen;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

const AGAIN: Duration = Duration::from_secs(5);

fn app(metrics: Arc<Metrics>) -> Router {
    let text = |body: String, kind: &'static str| {
        ([(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response()
    };
    const PLAIN: &str = "text/plain; charset=utf-8";
    let page = move |State(metrics): State<Arc<Metrics>>| async move { text(metrics.proxy_page(), "text/plain; version=0.0.4") };
    Router::new()
        .route("/metrics", get(page))
        .route("/proxyMode", get(move || async move { text("nftables".into(), PLAIN) }))
        .route("/healthz", get(move || async move { text("ok".into(), PLAIN) }))
        .with_state(metrics)
}

/// The task ends by itself only if the port must be had and cannot.
pub fn spawn(address: SocketAddr, hard: bool, metrics: Arc<Metrics>, cancel: CancellationToken) -> JoinHandle<()> {
    let work = async move {
        let mut said = false;
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    info!(%address, "metrics of the data plane are served");
                    return listen::plain(listener, app(metrics), CancellationToken::new()).await;
                }
                Err(problem) if hard => {
                    return error!(%address, error = %problem, "the metrics port cannot be opened, and bindAddressHardFail is set");
                }
                Err(problem) if !said => {
                    said = true;
                    warn!(%address, error = %problem, "the metrics port cannot be opened, trying again from time to time");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    })
}

#[cfg(test)]
mod tests;
