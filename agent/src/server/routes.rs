//! The table of paths of the node's HTTPS server, behind authentication and authorization.

use super::authn::{Authenticator, Denied, PeerIdentity};
use super::authz::{self, Authorizer};
use super::find::{self, Refusal};
use super::logs::{self, read::Alive};
use super::stream::{self, Kind};
use super::{Deps, health};
use crate::stats;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use ferrolet_cri::types::{ContainerFilter, ContainerState, SandboxFilter, SandboxState};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// None of our paths takes a body other than an upgraded stream.
const MAX_BODY: usize = 64 << 10;

#[derive(Clone)]
struct Guard {
    authn: Arc<Authenticator>,
    authz: Arc<Authorizer>,
}

pub fn app(deps: Deps) -> Router {
    let config = &deps.config;
    let guard = Guard {
        authn: Arc::new(Authenticator::new(deps.client.clone(), &config.authentication)),
        authz: Arc::new(Authorizer::new(deps.client.clone(), &config.node_name, &config.authorization)),
    };
    let health = health::app(deps.health.clone());
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route("/exec/{namespace}/{pod}/{container}", get(exec).post(exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", get(exec).post(exec))
        .route("/attach/{namespace}/{pod}/{container}", get(attach).post(attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", get(attach).post(attach))
        .route("/portForward/{namespace}/{pod}", get(port_forward).post(port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", get(port_forward).post(port_forward))
        .route("/pods", get(pods))
        .route("/runningpods", get(running_pods))
        .route("/runningpods/", get(running_pods))
        .route("/metrics", get(metrics))
        .route("/metrics/probes", get(probe_metrics))
        .route("/metrics/resource", get(resource_metrics))
        .route("/metrics/cadvisor", get(container_metrics))
        .route("/stats/summary", get(summary))
        .route("/stats/summary/", get(summary))
        .route("/configz", get(configz))
        .with_state(deps)
        .merge(health)
        .fallback(any(|| async { Refusal::new(StatusCode::NOT_FOUND, "404 page not found") }))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(guard, admit))
}

/// Nothing is reached without passing here.
async fn admit(State(guard): State<Guard>, Extension(peer): Extension<PeerIdentity>, request: Request, next: Next) -> Response {
    let user = match guard.authn.user(&peer, request.headers()).await {
        Ok(user) => user,
        Err(Denied::Unauthenticated) => return Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
        Err(Denied::Unavailable) => {
            return Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized: the token cannot be reviewed now").into_response();
        }
    };
    let Some(attributes) = authz::attributes(request.method(), request.uri().path()) else {
        return Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed").into_response();
    };
    if !guard.authz.allows(&user, &attributes).await {
        let (name, verb) = (&user.name, attributes.verb);
        let resources = attributes.subresources.iter().map(|s| format!("nodes/{s}")).collect::<Vec<_>>().join(" or ");
        let text = format!("Forbidden (user={name}, verb={verb}, resource={resources})");
        return Refusal::new(StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

type Names = Path<BTreeMap<String, String>>;

fn named<'a>(names: &'a BTreeMap<String, String>, key: &str) -> &'a str {
    names.get(key).map(String::as_str).unwrap_or_default()
}

/// The pod and the container that a path names.
fn meant(deps: &Deps, names: &BTreeMap<String, String>) -> Result<(Arc<k8s_openapi::api::core::v1::Pod>, String), Refusal> {
    let uid = names.get("uid").map(String::as_str);
    let pod = find::pod(deps, named(names, "namespace"), named(names, "pod"), uid)?;
    let container = named(names, "container");
    if !container.is_empty() && !find::has_container(&pod, container) {
        let text = format!("container {container:?} not found in pod {:?}", named(names, "pod"));
        return Err(Refusal::new(StatusCode::NOT_FOUND, text));
    }
    Ok((pod, container.to_owned()))
}

async fn exec(State(deps): State<Deps>, Path(names): Names, request: Request) -> Result<Response, Refusal> {
    let (pod, container) = meant(&deps, &names)?;
    stream::container(&deps.cri, Kind::Exec, &pod, &container, request).await
}

async fn attach(State(deps): State<Deps>, Path(names): Names, request: Request) -> Result<Response, Refusal> {
    let (pod, container) = meant(&deps, &names)?;
    stream::container(&deps.cri, Kind::Attach, &pod, &container, request).await
}

async fn port_forward(State(deps): State<Deps>, Path(names): Names, request: Request) -> Result<Response, Refusal> {
    let (pod, _) = meant(&deps, &names)?;
    stream::port_forward(&deps.cri, &pod, request).await
}

async fn container_logs(State(deps): State<Deps>, Path(names): Names, request: Request) -> Result<Response, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let options = logs::options::parse(query, Timestamp::now())
        .map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("invalid request: {error}")))?;
    let (pod, container) = meant(&deps, &names)?;
    let id = find::logged(&deps.cri, &pod, &container, options.previous).await?;
    let status = deps.cri.container_status(&id, false).await?;
    if status.log_path.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("container {container:?} has no log file")));
    }
    let (out, mut shown) = mpsc::channel(4);
    let alive = Container { cri: deps.cri.clone(), id };
    tokio::spawn(logs::read::run(status.log_path.into(), options, alive, out));
    let body = futures::stream::poll_fn(move |cx| shown.poll_recv(cx));
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((plain, Body::from_stream(body)).into_response())
}

struct Container {
    cri: ferrolet_cri::Client,
    id: String,
}

impl Alive for Container {
    async fn alive(&mut self) -> bool {
        match self.cri.container_status(&self.id, false).await {
            Ok(status) => status.state == ContainerState::Running,
            // Not knowing is no reason to end a stream, unless it is gone for good.
            Err(error) => error.class() != ferrolet_cri::Class::Gone,
        }
    }
}

async fn pods(State(deps): State<Deps>) -> Json<Value> {
    let items = find::pods(&deps);
    let items: Vec<&k8s_openapi::api::core::v1::Pod> = items.iter().map(AsRef::as_ref).collect();
    Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

/// What the runtime runs, whatever the API says.
async fn running_pods(State(deps): State<Deps>) -> Result<Json<Value>, Refusal> {
    let ready = SandboxFilter { state: Some(SandboxState::Ready), ..SandboxFilter::default() };
    let running = ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    let sandboxes = deps.cri.list_pod_sandbox(&ready).await?;
    let containers = deps.cri.list_containers(&running).await?;
    let item = |sandbox: &ferrolet_cri::types::SandboxSummary| {
        let own = containers.iter().filter(|c| c.sandbox_id == sandbox.id);
        let own: Vec<Value> = own.map(|c| json!({ "name": c.name, "image": c.image.image, "resources": {} })).collect();
        let meta = &sandbox.metadata;
        json!({ "metadata": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid }, "spec": { "containers": own }, "status": {} })
    };
    let items: Vec<Value> = sandboxes.iter().map(item).collect();
    Ok(Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })))
}

async fn metrics(State(deps): State<Deps>) -> Response {
    page(deps.metrics.scrape(&deps.cri).await)
}

async fn probe_metrics(State(deps): State<Deps>) -> Response {
    let tallies = deps.probes.tallies().await;
    page(crate::metrics::probes::page(&tallies, &find::pods(&deps)))
}

async fn resource_metrics(State(deps): State<Deps>) -> Response {
    page(stats::resource::page(&*deps.stats.sample(&find::pods(&deps)).await))
}

async fn container_metrics(State(deps): State<Deps>) -> Response {
    page(stats::cadvisor::page(&*deps.stats.sample(&find::pods(&deps)).await))
}

async fn summary(State(deps): State<Deps>, request: Request) -> Json<Value> {
    let query = request.uri().query().unwrap_or_default();
    let brief = form_urlencoded::parse(query.as_bytes()).any(|(k, v)| k == "only_cpu_and_memory" && v == "true");
    let pods = find::pods(&deps);
    let sample = deps.stats.sample(&pods).await;
    // Of the rest nothing is asked, where only this is wanted.
    let layers = if brief { Default::default() } else { deps.stats.layers(&pods).await };
    Json(stats::summary::document(&sample, &layers, brief))
}

fn page(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The part of the configuration that clients of kubelet read.
async fn configz(State(deps): State<Deps>) -> Json<Value> {
    let config = &deps.config;
    Json(json!({ "kubeletconfig": {
        "enableServer": config.server.enabled,
        "address": config.server.address.to_string(),
        "port": config.server.port,
        "podLogsDir": config.pod_logs_dir,
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "maxPods": config.max_pods,
        "cgroupRoot": config.cgroup_root,
        "cgroupDriver": match config.cgroup_driver {
            crate::config::CgroupDriver::Cgroupfs => "cgroupfs",
            crate::config::CgroupDriver::Systemd => "systemd",
        },
        "nodeLeaseDurationSeconds": config.node.lease_duration.as_secs(),
        "nodeStatusUpdateFrequency": format!("{}s", config.node.status_update_frequency.as_secs()),
        "nodeStatusReportFrequency": format!("{}s", config.node.status_report_frequency.as_secs()),
        "containerRuntimeEndpoint": config.container_runtime_endpoint,
    }}))
}
