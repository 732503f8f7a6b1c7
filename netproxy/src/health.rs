//! What load balancers ask this node: whether a service has endpoints here, and whether the node's service rules are kept.
//!
//! Owns the listeners of `healthCheckNodePort`s, one for each service and address, and the one of `/healthz` and `/livez`. Bodies,
//! headers and status codes are kube-proxy's. Only reads what the proxy publishes.

mod answer;

use crate::model::{Family, Key};
use crate::proxy::Handle;
use answer::{Answer, node_answer, service_answer};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A port that was taken may be free later.
const BIND_AGAIN: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once for each listener; others wait to be accepted.
const CONNECTIONS: usize = 64;

/// What is published for the services that have a `healthCheckNodePort`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthChecks {
    /// Where to listen; `None`: on all addresses.
    pub listen: Option<BTreeSet<IpAddr>>,
    pub services: BTreeMap<Key, HealthCheck>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints on this node, each address once.
    pub local_v4: usize,
    pub local_v6: usize,
}

impl HealthCheck {
    pub fn local_endpoints(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.local_v4,
            Family::V6 => self.local_v6,
        }
    }
}

/// How far the proxy has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// When all that was known was in the kernel last; `None` before the first time.
    pub updated: Option<SystemTime>,
    /// Since when something waits to be programmed.
    pub pending: Option<Instant>,
    pub families: BTreeSet<Family>,
}

impl Progress {
    /// Whether nothing has waited for too long. Before the first sync it is starting, not ill.
    pub fn healthy(&self, now: Instant, timeout: Duration) -> bool {
        let late = self.pending.is_some_and(|since| now.saturating_duration_since(since) >= timeout);
        !(late && self.updated.is_some())
    }
}

/// Whether load balancers should send new connections to this node. The default, a node not known yet, is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeState {
    pub known: bool,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// It has the taint ToBeDeletedByClusterAutoscaler.
    pub to_be_deleted: bool,
}

impl NodeState {
    pub fn eligible(&self) -> bool {
        self.known && !self.deleting && !self.to_be_deleted
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Where `/healthz` and `/livez` are served; `None`: nowhere.
    pub bind: Option<SocketAddr>,
    /// How long a change may wait to be programmed: twice kube-proxy's sync period.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { bind: Some((Ipv6Addr::UNSPECIFIED, 10_256).into()), timeout: Duration::from_secs(60) }
    }
}

/// What could not be opened, each with its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// The port of `/healthz` and `/livez`.
    pub node: Option<String>,
    /// The `healthCheckNodePort` of a service.
    pub services: BTreeMap<Key, Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub port: u16,
    pub reasons: Vec<String>,
}

/// How often `/healthz` and `/livez` were answered well and otherwise.
#[derive(Debug, Default)]
pub struct Answered {
    pub healthz: [AtomicU64; 2],
    pub livez: [AtomicU64; 2],
}

impl Answered {
    fn count(&self, path: &str, good: bool) {
        let counters = match path {
            "/healthz" => &self.healthz,
            "/livez" => &self.livez,
            _ => return,
        };
        counters[usize::from(!good)].fetch_add(1, Ordering::Relaxed);
    }
}

/// The other end of the servers.
pub struct Servers {
    pub failures: watch::Receiver<Failures>,
    pub answered: Arc<Answered>,
    pub task: JoinHandle<()>,
}

/// What every answer is made from.
#[derive(Clone)]
struct Source {
    checks: watch::Receiver<Arc<HealthChecks>>,
    progress: watch::Receiver<Progress>,
    node: watch::Receiver<NodeState>,
    answered: Arc<Answered>,
    timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Page {
    Node,
    Service(Key, Family),
}

impl Source {
    fn answer(&self, page: &Page, path: &str) -> Answer {
        let progress = self.progress.borrow().clone();
        let healthy = progress.healthy(Instant::now(), self.timeout);
        match page {
            Page::Node => {
                let answer = node_answer(path, &progress, healthy, self.node.borrow().eligible(), SystemTime::now());
                self.answered.count(path, answer.status.is_success());
                answer
            }
            Page::Service(key, family) => {
                let count = self.checks.borrow().services.get(key).map_or(0, |c| c.local_endpoints(*family));
                service_answer(key, count, healthy)
            }
        }
    }
}

/// Serves until cancelled. A port that cannot be had is told, and tried again; it never ends the task.
pub fn spawn(options: Options, proxy: &Handle, node: watch::Receiver<NodeState>, cancel: CancellationToken) -> Servers {
    let answered = Arc::new(Answered::default());
    let source = Source {
        checks: proxy.health_checks.clone(),
        progress: proxy.progress.clone(),
        node,
        answered: answered.clone(),
        timeout: options.timeout,
    };
    let (failed, failures) = watch::channel(Failures::default());
    Servers { failures, answered, task: tokio::spawn(run(options.bind, source, failed, cancel)) }
}

async fn run(bind: Option<SocketAddr>, mut source: Source, failed: watch::Sender<Failures>, cancel: CancellationToken) {
    let mut open: BTreeMap<(Page, SocketAddr), CancellationToken> = BTreeMap::new();
    loop {
        let checks = source.checks.borrow_and_update().clone();
        let wanted = wanted(bind, &checks);
        open.retain(|what, listener| {
            let keep = wanted.contains(what);
            if !keep {
                listener.cancel();
            }
            keep
        });
        let mut failures = Failures::default();
        for what in wanted {
            if open.contains_key(&what) {
                continue;
            }
            match listen(what.1, matches!(what.0, Page::Service(..))) {
                Ok(listener) => {
                    let stop = cancel.child_token();
                    info!(address = %what.1, page = ?what.0, "health checks are answered");
                    tokio::spawn(serve(listener, what.0.clone(), source.clone(), stop.clone()));
                    open.insert(what, stop);
                }
                Err(e) => {
                    warn!(address = %what.1, page = ?what.0, error = %e, "health check port could not be opened, trying again later");
                    failures.add(&what.0, what.1, &e);
                }
            }
        }
        let missing = failures != Failures::default();
        failed.send_if_modified(|told| std::mem::replace(told, failures) != *told);
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = source.checks.changed() => if changed.is_err() {
                // The proxy ended; what was last known is still answered.
                cancel.cancelled().await;
                return;
            },
            () = tokio::time::sleep(BIND_AGAIN), if missing => {}
        }
    }
}

impl Failures {
    fn add(&mut self, page: &Page, at: SocketAddr, error: &io::Error) {
        match page {
            Page::Node => self.node = Some(format!("cannot listen on {at}: {error}")),
            Page::Service(key, _) => {
                let failure = self.services.entry(key.clone()).or_insert(Failure { port: at.port(), reasons: Vec::new() });
                failure.reasons.push(format!("cannot listen on {at}: {error}"));
            }
        }
    }
}

fn wanted(bind: Option<SocketAddr>, checks: &HealthChecks) -> BTreeSet<(Page, SocketAddr)> {
    let everywhere = || [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)].into();
    let on = checks.listen.clone().unwrap_or_else(everywhere);
    let service = |(key, check): (&Key, &HealthCheck)| {
        let page = |ip: &IpAddr| (Page::Service(key.clone(), Family::of(ip)), SocketAddr::new(*ip, check.port));
        on.iter().map(page).collect::<Vec<_>>()
    };
    bind.map(|b| (Page::Node, b)).into_iter().chain(checks.services.iter().flat_map(service)).collect()
}

fn listen(address: SocketAddr, one_family: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &one_family)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

async fn serve(listener: TcpListener, page: Page, source: Source, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    warn!(error = %e, "health check connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
        };
        let (page, source, stop) = (page.clone(), source.clone(), stop.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(response(source.answer(&page, request.uri().path()))))
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that goes away or talks nonsense is its own affair.
                _ = connection => {}
            }
            drop(permit);
        });
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Some(weight) = answer.weight {
        headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(weight));
    }
    response
}

#[cfg(test)]
mod tests;
