//! exec, attach and port-forward: the runtime is asked for a streaming URL, and the client's upgrade is passed through
//! to it as it is. What flows afterwards is bytes; neither SPDY nor WebSocket is looked into.
//!
//! Cancelled by either side closing, or by the server ending. Holds two sockets and two copy buffers for its life.

use super::find::{self, Refusal};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ferrolet_cri::Client;
use ferrolet_cri::types::StreamOptions;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use url::Url;

const CONNECT: Duration = Duration::from_secs(10);
/// From the request to the runtime's answer; starting the command may take a while.
const ANSWER: Duration = Duration::from_secs(60);
const MAX_COMMAND: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Exec,
    Attach,
}

/// What the query asks for. Pure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    pub command: Vec<String>,
    pub streams: Streams,
    pub ports: Vec<u16>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Reads a query in either of the two spellings that clients use.
pub fn asked(query: &str) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let on = matches!(value.as_ref(), "1" | "true");
        match name.as_ref() {
            "command" if asked.command.len() >= MAX_COMMAND => {
                return Err(format!("more than {MAX_COMMAND} words in the command"));
            }
            "command" => asked.command.push(value.into_owned()),
            "input" | "stdin" => asked.streams.stdin |= on,
            "output" | "stdout" => asked.streams.stdout |= on,
            "error" | "stderr" => asked.streams.stderr |= on,
            "tty" => asked.streams.tty |= on,
            "port" | "ports" => {
                for port in value.split(',') {
                    match port.parse::<u16>() {
                        Ok(port) if port > 0 => asked.ports.push(port),
                        _ => return Err(format!("port {port:?} is not between 1 and 65535")),
                    }
                }
            }
            _ => {}
        }
    }
    // A terminal has one output.
    if asked.streams.tty {
        asked.streams.stderr = false;
    }
    Ok(asked)
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, text)
}

pub async fn container(cri: &Client, kind: Kind, pod: &Pod, container: &str, request: Request) -> Result<Response, Refusal> {
    let asked = asked(request.uri().query().unwrap_or_default()).map_err(bad)?;
    let Streams { stdin, stdout, stderr, tty } = asked.streams;
    if !(stdin || stdout || stderr) {
        return Err(bad("you must specify at least 1 of stdin, stdout, stderr"));
    }
    if kind == Kind::Exec && asked.command.is_empty() {
        return Err(bad("you must specify at least 1 command for the container"));
    }
    if !is_upgrade(request.headers()) {
        return Err(bad("this path wants a connection upgrade"));
    }
    let id = find::running(cri, pod, container).await?;
    let options = StreamOptions { stdin, stdout, stderr, tty };
    let url = match kind {
        Kind::Exec => cri.exec(&id, &asked.command, options).await?,
        Kind::Attach => cri.attach(&id, options).await?,
    };
    pass_through(&url, request).await
}

pub async fn port_forward(cri: &Client, pod: &Pod, request: Request) -> Result<Response, Refusal> {
    let asked = asked(request.uri().query().unwrap_or_default()).map_err(bad)?;
    if !is_upgrade(request.headers()) {
        return Err(bad("this path wants a connection upgrade"));
    }
    let sandbox = find::sandbox(cri, pod).await?;
    let url = cri.port_forward(&sandbox, &asked.ports).await?;
    pass_through(&url, request).await
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = connection.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asks && headers.contains_key(header::UPGRADE)
}

/// Repeats the request at the runtime's URL; on 101 the two connections become one.
pub async fn pass_through(url: &str, mut request: Request) -> Result<Response, Refusal> {
    let runtime = |text: String| Refusal::new(StatusCode::BAD_GATEWAY, format!("container runtime's streaming server: {text}"));
    let url = Url::parse(url).map_err(|error| runtime(format!("{url:?} is not a URL: {error}")))?;
    if url.scheme() != "http" {
        return Err(runtime(format!("{} is not supported, expected http", url.scheme())));
    }
    let address = url.socket_addrs(|| None).ok().and_then(|all| all.into_iter().next());
    let address = address.ok_or_else(|| runtime(format!("{url} has no address")))?;
    let stream = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(runtime(format!("cannot connect to {address}: {error}"))),
        Err(_) => return Err(runtime(format!("cannot connect to {address} in time"))),
    };
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| runtime(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "streaming connection ended");
        }
    });
    let onward = onward(&url, &request).map_err(|error| runtime(error.to_string()))?;
    let mut answer = match timeout(ANSWER, sender.send_request(onward)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(runtime(error.to_string())),
        Err(_) => return Err(runtime("no answer in time".into())),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        // It says why in its own words.
        let (parts, body) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::new(body)).into_response());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    let (theirs, ours) = (hyper::upgrade::on(&mut answer), hyper::upgrade::on(&mut request));
    tokio::spawn(async move {
        match tokio::try_join!(theirs, ours) {
            Ok((theirs, ours)) => {
                let (mut theirs, mut ours) = (TokioIo::new(theirs), TokioIo::new(ours));
                if let Err(error) = tokio::io::copy_bidirectional(&mut theirs, &mut ours).await {
                    debug!(%error, "stream ended");
                }
            }
            Err(error) => debug!(%error, "upgrade failed"),
        }
    });
    Ok(response)
}

/// The same request for the runtime, without what proves the client's identity to us.
fn onward(url: &Url, request: &Request) -> Result<hyper::Request<Empty<bytes::Bytes>>, http::Error> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut onward = hyper::Request::builder().method(request.method().clone()).uri(target).body(Empty::new())?;
    for (name, value) in request.headers() {
        if ![header::HOST, header::AUTHORIZATION, header::COOKIE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
            .contains(name)
        {
            onward.headers_mut().append(name.clone(), value.clone());
        }
    }
    onward.headers_mut().insert(header::HOST, host.parse().map_err(http::Error::from)?);
    Ok(onward)
}

#[cfg(test)]
mod tests;
