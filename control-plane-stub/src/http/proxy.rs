//! logs, exec, attach, port-forward and node proxy: requests passed on to the node's kubelet, upgrades as raw bytes.
//! What the kubelet and the runtime speak over an upgraded connection (SPDY, WebSocket) is not looked at.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Api;
use super::body::{self, Body};
use super::route::{Query, ResourceTarget};
use crate::kinds::{self, Kind, Sub};
use crate::status::{ApiError, Reason};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const ERROR_TEXT_LIMIT: usize = 64 << 10;
const KUBELET_PORT: u16 = 10250;

pub async fn handle(
    api: &Api,
    kind: &'static Kind,
    sub: Sub,
    target: &ResourceTarget,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let (node, path) = match (kind.kind, sub) {
        ("Node", Sub::Proxy) => {
            let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
            (target.name.clone(), format!("/{}{query}", target.rest))
        }
        ("Pod", Sub::Log | Sub::Exec | Sub::Attach | Sub::PortForward) => {
            let pod = api.registry.get(kind, &target.namespace, &target.name).await?;
            let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
            if node.is_empty() {
                let message = format!("pod {} does not have a host assigned", target.name);
                return Err(ApiError::bad_request(message));
            }
            (node, kubelet_path(sub, target, query, &pod)?)
        }
        _ => {
            let message = format!("the server does not proxy {}/{}", kind.plural, sub.name());
            return Err(ApiError::new(Reason::MethodNotAllowed, message));
        }
    };
    let node_object = api.registry.get(&kinds::NODE, "", &node).await?;
    let (host, port) = endpoint(&node_object)
        .ok_or_else(|| ApiError::internal(format!("node {node} has no InternalIP to reach its kubelet")))?;
    let unreachable = |error: String| ApiError::internal(format!("error dialing backend: {error}"));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect(api, host, port))
        .await
        .map_err(|_| unreachable(format!("dial tcp {host}:{port}: i/o timeout")))?
        .map_err(|error| unreachable(format!("dial tcp {host}:{port}: {error}")))?;
    forward(stream, host, port, path, sub == Sub::Log, request).await
}

/// Where a node's kubelet listens.
fn endpoint(node: &Value) -> Option<(IpAddr, u16)> {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array)?;
    let of = |kind: &str| {
        let found = addresses.iter().find(|a| a.get("type").and_then(Value::as_str) == Some(kind))?;
        found.get("address").and_then(Value::as_str)?.parse().ok()
    };
    let host = of("InternalIP").or_else(|| of("ExternalIP"))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    Some((host, port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(KUBELET_PORT)))
}

/// The container a request means: the one it names, the only one, or the pod's own default.
fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let names = |field: &str| -> Vec<String> {
        let list = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(|c| c.get("name").and_then(Value::as_str)).map(str::to_owned).collect()
    };
    let (plain, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !asked.is_empty() {
        let known = plain.iter().chain(&init).chain(&ephemeral).any(|c| c == asked);
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    let preferred = pod.pointer("/metadata/annotations/kubectl.kubernetes.io~1default-container").and_then(Value::as_str);
    match (plain.as_slice(), preferred) {
        ([only], _) => Ok(only.clone()),
        (_, Some(preferred)) if plain.iter().any(|c| c == preferred) => Ok(preferred.to_owned()),
        _ => {
            let mut message = format!("a container name must be specified for pod {name}, choose one of: [{}]", plain.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn kubelet_path(sub: Sub, target: &ResourceTarget, query: &Query, pod: &Value) -> Result<String, ApiError> {
    let mut out = form_urlencoded::Serializer::new(String::new());
    let (namespace, name) = (&target.namespace, &target.name);
    let path = match sub {
        Sub::PortForward => {
            for ports in query.all("ports") {
                out.append_pair("port", ports);
            }
            format!("/portForward/{namespace}/{name}")
        }
        Sub::Log => {
            let container = container(pod, query.get("container"))?;
            for option in ["follow", "previous", "timestamps"] {
                if query.flag(option) {
                    out.append_pair(option, "true");
                }
            }
            for option in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
                let value = query.get(option);
                if !value.is_empty() {
                    out.append_pair(option, value);
                }
            }
            format!("/containerLogs/{namespace}/{name}/{container}")
        }
        _ => {
            let container = container(pod, query.get("container"))?;
            for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
                if query.flag(ours) {
                    out.append_pair(theirs, "1");
                }
            }
            for word in query.all("command") {
                out.append_pair("command", word);
            }
            let verb = if sub == Sub::Exec { "exec" } else { "attach" };
            format!("/{verb}/{namespace}/{name}/{container}")
        }
    };
    let query = out.finish();
    Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
}

async fn connect(api: &Api, host: IpAddr, port: u16) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    tokio_rustls::TlsConnector::from(Arc::clone(&api.kubelet)).connect(ServerName::IpAddress(host.into()), stream).await
}

/// Headers of one connection only; an upgrade's are added back.
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"];

fn end_to_end(from: &HeaderMap, to: &mut HeaderMap, skip: &[header::HeaderName]) {
    for (name, value) in from {
        if !HOP_BY_HOP.contains(&name.as_str()) && !skip.contains(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

fn upgrade_of(headers: &HeaderMap) -> Option<http::HeaderValue> {
    let connection = headers.get(header::CONNECTION)?.to_str().ok()?;
    let asks = connection.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

async fn forward(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    host: IpAddr,
    port: u16,
    path: String,
    is_log: bool,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let broken = |error: hyper::Error| ApiError::internal(format!("error dialing backend: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a kubelet ended");
        }
    });
    let upgrade = upgrade_of(request.headers());
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, incoming) = request.into_parts();
    let body: Body = if upgrade.is_some() || is_log {
        Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
    } else {
        Limited::new(incoming, body::BODY_LIMIT).boxed_unsync()
    };
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = path.parse().map_err(|_| ApiError::bad_request("the path cannot be passed on"))?;
    // The client's credentials are for this server; the kubelet gets this server's own.
    let drop = [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::ACCEPT_ENCODING];
    end_to_end(&parts.headers, onward.headers_mut(), &drop);
    let authority = if host.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let headers = onward.headers_mut();
    headers.insert(header::HOST, authority.parse().map_err(ApiError::internal)?);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(onward)).await;
    let mut response =
        answered.map_err(|_| ApiError::new(Reason::Timeout, "the kubelet did not answer in time"))?.map_err(broken)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let kubelet_side = hyper::upgrade::on(&mut response);
        if let Some(client_side) = client_side {
            tokio::spawn(splice(client_side, kubelet_side));
        }
        let mut answer = Response::new(body::full(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = response.headers().clone();
        return Ok(answer);
    }
    if is_log && response.status().as_u16() >= 400 {
        return Err(log_error(response).await);
    }
    let (parts, incoming) = response.into_parts();
    let mut answer = Response::new(incoming.map_err(Into::into).boxed_unsync());
    *answer.status_mut() = parts.status;
    end_to_end(&parts.headers, answer.headers_mut(), &[header::CONTENT_LENGTH]);
    Ok(answer)
}

/// A kubelet's refusal is plain text; users get it as the message of a Status.
async fn log_error(response: Response<Incoming>) -> ApiError {
    let reason = match response.status().as_u16() {
        400 => Reason::BadRequest,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    let text = Limited::new(response.into_body(), ERROR_TEXT_LIMIT).collect().await;
    let text = text.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
    ApiError::new(reason, if text.is_empty() { "the kubelet refused the request".to_owned() } else { text })
}

/// Bytes both ways until both sides are done.
async fn splice(client: hyper::upgrade::OnUpgrade, kubelet: hyper::upgrade::OnUpgrade) {
    let (client, kubelet) = match tokio::try_join!(client, kubelet) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade failed");
            return;
        }
    };
    let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut kubelet).await {
        tracing::debug!(%error, "stream ended");
    }
}
