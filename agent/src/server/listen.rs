//! Accepting connections, within bounds.

use super::authn::PeerIdentity;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

/// Streams included: each exec and port-forward is a connection.
const MAX_CONNECTIONS: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(15);
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// After an accept that failed for want of descriptors or memory.
const RECOVER: Duration = Duration::from_millis(100);

/// Serves until cancelled; connections that are open then are dropped.
pub async fn https(listener: TcpListener, tls: Arc<ServerConfig>, app: Router, cancel: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    accept(listener, cancel, move |stream| {
        let (acceptor, app) = (acceptor.clone(), app.clone());
        async move {
            let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!(%error, "handshake failed"),
                Err(_) => return debug!("handshake took too long"),
            };
            // The chain was verified in the handshake, or there is none.
            let peer = PeerIdentity::of(stream.get_ref().1.peer_certificates());
            serve(stream, app.layer(axum::Extension(peer))).await;
        }
    })
    .await;
}

pub async fn plain(listener: TcpListener, app: Router, cancel: CancellationToken) {
    accept(listener, cancel, move |stream| serve(stream, app.clone())).await;
}

async fn accept<F>(listener: TcpListener, cancel: CancellationToken, handle: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let all = cancel.child_token();
    loop {
        // Full means that clients wait in the kernel's queue.
        let slot = tokio::select! {
            () = cancel.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let stream = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(RECOVER).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (work, cancel) = (handle(stream), all.clone());
        connections.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
            drop(slot);
        });
    }
    all.cancel();
    connections.close();
    connections.wait().await;
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, app: Router) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(MAX_HEADER_BYTES).max_headers(MAX_HEADERS);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(MAX_HEADER_BYTES as u32);
    builder.http2().keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(Duration::from_secs(15));
    let service = TowerToHyperService::new(app.into_service::<hyper::body::Incoming>().boxed_clone());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        debug!(error = %error, "connection ended");
    }
}
