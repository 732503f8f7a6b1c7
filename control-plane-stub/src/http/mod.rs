//! The API server: connections, who asks, whether they may, and what they get.
//!
//! Owns listeners and connections; all state is the registry's. A connection's tasks end with the connection or the process;
//! nothing that was answered depends on them. Must never decide what the API means: that is `registry`.

pub mod authn;
pub mod authz;
mod body;
mod discovery;
mod negotiate;
mod protobuf;
mod proxy;
mod resources;
mod reviews;
mod route;
pub mod tls;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::authn::Authenticator;
use self::authz::{Attributes, Decision};
use self::body::Body;
use self::negotiate::View;
use self::route::{Query, Target};
use crate::kinds::openapi;
use crate::registry::{Registry, User};
use crate::status::ApiError;

pub struct Api {
    pub registry: Registry,
    pub authn: Authenticator,
    /// For connections to nodes.
    pub kubelet: Arc<rustls::ClientConfig>,
    /// `host:port`, as clients reach this server.
    pub address: String,
    pub ready: AtomicBool,
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONNECTIONS: usize = 4096;
const MAX_STREAMS: u32 = 1000;

/// Accepts connections until cancelled; open ones are dropped then, and clients come again.
pub async fn serve(api: Arc<Api>, listener: TcpListener, config: rustls::ServerConfig, cancel: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(%peer, "too many connections");
            continue;
        };
        let (api, acceptor, cancel) = (Arc::clone(&api), acceptor.clone(), cancel.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = connection(api, acceptor, stream, peer) => {}
            }
            drop(slot);
        });
    }
}

async fn connection(api: Arc<Api>, acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "tls handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let user = certificate.and_then(authn::certificate_user).map(Arc::new);
    let service = service_fn(move |request| {
        let (api, user) = (Arc::clone(&api), user.clone());
        async move { Ok::<_, Infallible>(handle(&api, user, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).keep_alive_interval(Duration::from_secs(30));
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn handle(api: &Api, certificate: Option<Arc<User>>, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = std::time::Instant::now();
    let response = answer(api, certificate, request).await.unwrap_or_else(|error| body::error(&error));
    tracing::debug!(%method, path, status = response.status().as_u16(), took = ?started.elapsed(), "request");
    response
}

async fn answer(api: &Api, certificate: Option<Arc<User>>, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    if let Some(response) = public(api, &path)? {
        return Ok(response);
    }
    let user = authenticate(api, certificate, &request).await?;
    let query = Query::parse(request.uri().query());
    let target = route::parse(&path);
    let verb = route::verb(request.method(), &target, &query);
    let ask = match &target {
        Target::Resource(resource) => Attributes::resource(verb, resource, &query),
        Target::Other(path) => Attributes::path(verb, path),
    };
    if let Decision::Deny(reason) = authz::authorize(&api.registry, &user, &ask).await {
        let mut why = ask.describe(&user);
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        return Err(match ask.path {
            Some(path) => ApiError::forbidden(format!("forbidden: {why}")).about("", "", &path),
            None => ApiError::forbidden_object(&ask.group, &ask.resource, &ask.name, &why),
        });
    }
    match target {
        Target::Resource(resource) => resources::handle(api, resource, query, user, request).await,
        Target::Other(path) => other(api, &path, &request),
    }
}

/// What anybody may see.
fn public(api: &Api, path: &str) -> Result<Option<Response<Body>>, ApiError> {
    let text = |status, text: &'static str| Some(body::respond(status, "text/plain; charset=utf-8", body::full(text)));
    Ok(match path {
        "/healthz" | "/livez" => text(StatusCode::OK, "ok"),
        "/readyz" if api.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ok"),
        "/readyz" => text(StatusCode::INTERNAL_SERVER_ERROR, "not ready: controllers are starting"),
        "/version" | "/version/" => Some(body::json(&discovery::version())?),
        _ => None,
    })
}

async fn authenticate(api: &Api, certificate: Option<Arc<User>>, request: &Request<Incoming>) -> Result<Arc<User>, ApiError> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return certificate.ok_or_else(ApiError::unauthorized);
    };
    let token = value.to_str().ok().and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else { return certificate.ok_or_else(ApiError::unauthorized) };
    api.authn.bearer(token.trim()).await.map(Arc::new).ok_or_else(ApiError::unauthorized)
}

/// Discovery and OpenAPI.
fn other(api: &Api, path: &str, request: &Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let missing = || ApiError::new(crate::status::Reason::NotFound, "the server could not find the requested resource");
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed("", path, request.method().as_str()));
    }
    let accept = request.headers().get(header::ACCEPT).and_then(|h| h.to_str().ok());
    let aggregated = || negotiate::answer(accept, &[View::Discovery]).is_ok_and(|a| a.view == View::Discovery);
    let shared = |bytes: Arc<Vec<u8>>| body::respond(StatusCode::OK, "application/json", body::full(bytes.to_vec()));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api" | "apis"] if aggregated() => {
            let bytes = body::encode(negotiate::Encoding::Json, &discovery::aggregated(parts == ["api"]))?;
            return Ok(body::respond(StatusCode::OK, discovery::AGGREGATED, body::full(bytes)));
        }
        ["api"] => Some(discovery::versions(&api.address)),
        ["apis"] => Some(discovery::group_list()),
        ["apis", group] => discovery::group(group),
        ["api", version] => discovery::resources("", version),
        ["apis", group, version] => discovery::resources(group, version),
        ["openapi", "v2"] => {
            // Old kubectl asks for protobuf only; told that there is none, it goes on without.
            negotiate::answer(accept, &[])?;
            return Ok(shared(openapi::v2()));
        }
        ["openapi", "v3"] => return Ok(shared(openapi::v3_index())),
        ["openapi", "v3", rest @ ..] => return openapi::v3(&rest.join("/")).map(shared).ok_or_else(missing),
        [".well-known", "openid-configuration"] => Some(serde_json::json!({
            "issuer": crate::tokens::ISSUER, "jwks_uri": format!("https://{}/openid/v1/jwks", api.address),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"]})),
        ["openid", "v1", "jwks"] => Some(api.authn.tokens.jwks()),
        [""] => Some(
            serde_json::json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        ),
        ["healthz" | "livez" | "readyz", ..] => {
            return Ok(body::respond(StatusCode::OK, "text/plain; charset=utf-8", body::full("ok")));
        }
        _ => None,
    };
    body::json(&document.ok_or_else(missing)?)
}
