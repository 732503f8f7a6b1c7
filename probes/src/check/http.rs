//! A container is well if a GET answers with a status from 200 to 399.
//!
//! One connection for each request, no proxy, no compression, no certificate checking: the server is the container next
//! door, not a site. Redirects are followed on the same host name only; one that leads elsewhere counts as success with a
//! warning, as does one that leads nowhere. A response whose body breaks off or never ends says nothing: a probe of a
//! streaming endpoint must not kill it.

use super::{MAX_OUTPUT, Outcome, USER_AGENT, dial};
use crate::spec::Scheme;
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, TRAILER};
use http::header::{REFERER, TRANSFER_ENCODING, USER_AGENT as AGENT};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

mod tls;

const MAX_REDIRECTS: usize = 10;
/// How long a check with an answer may take to say goodbye.
const CLOSING: Duration = Duration::from_millis(100);

pub(super) struct Request<'a> {
    pub(super) scheme: Scheme,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(String, String)],
}

/// Where one request of the chain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    scheme: Scheme,
    /// Without brackets.
    host: String,
    port: u16,
    /// Path and query as they go on the wire.
    path: String,
}

impl Target {
    fn authority(&self) -> String {
        dial::authority(&self.host, self.port)
    }
    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority(), self.path)
    }
}

/// What a single exchange gave.
struct Answer {
    status: u16,
    location: Option<String>,
    /// Or why it could not be read.
    body: Result<Vec<u8>, String>,
}

/// Why it gave nothing.
enum Broken {
    /// Counts against the container.
    Failure(String),
    /// Does not: nothing was sent.
    Error(String),
    /// The server does not speak TLS.
    InTheClear(String),
}

impl Target {
    fn of(request: &Request<'_>) -> Target {
        Target {
            scheme: request.scheme,
            host: request.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: request.port,
            path: wire_path(request.path),
        }
    }
}

pub(super) async fn probe(request: &Request<'_>, timeout: Duration) -> Outcome {
    let headers = match Headers::new(request.headers, USER_AGENT) {
        Ok(headers) => headers,
        Err(why) => return Outcome::Failure(about(&Target::of(request), &why)),
    };
    let deadline = tokio::time::Instant::now() + timeout;
    match follow(Target::of(request), &headers, deadline).await {
        Ok(answer) => verdict(&answer),
        Err(Broken::Failure(why) | Broken::InTheClear(why)) => Outcome::Failure(why),
        Err(Broken::Error(why)) => Outcome::Error(why),
    }
}

/// Why a hook's request gave nothing.
pub(super) enum Unheard {
    /// The server does not speak TLS.
    InTheClear(String),
    Other(String),
}

/// Whether the server answers, whatever it says. Also its address.
pub(super) async fn reach(request: &Request<'_>, agent: &'static str, limit: Option<Duration>) -> Result<String, Unheard> {
    /// Where nobody gave a limit: connections have their own ends, this is for a server that never says anything.
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    let headers = Headers::new(request.headers, agent).map_err(Unheard::Other)?;
    let first = Target::of(request);
    let deadline = tokio::time::Instant::now() + limit.unwrap_or(LONGEST);
    match follow(first.clone(), &headers, deadline).await {
        Ok(_) => Ok(first.authority()),
        Err(Broken::InTheClear(why)) => Err(Unheard::InTheClear(why)),
        Err(Broken::Failure(why) | Broken::Error(why)) => Err(Unheard::Other(why)),
    }
}

/// Redirects on the same host only; one that leads elsewhere is the answer.
async fn follow(first: Target, headers: &Headers, deadline: tokio::time::Instant) -> Result<Answer, Broken> {
    let mut target = first.clone();
    let (mut host_header, mut sent) = (headers.host.clone(), headers.others.clone());
    for _ in 0..MAX_REDIRECTS {
        let host = host_header.clone().unwrap_or_else(|| default_host(&target));
        let answer = match exchange(&target, &host, &sent, deadline).await {
            Ok(answer) => answer,
            Err(Broken::Failure(why)) => return Err(Broken::Failure(about(&target, &why))),
            Err(Broken::InTheClear(why)) => return Err(Broken::InTheClear(about(&target, &why))),
            Err(error) => return Err(error),
        };
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(answer);
        }
        let Some(location) = answer.location.as_deref().filter(|l| !l.is_empty()) else { return Ok(answer) };
        match resolve(&target, location) {
            Ok(next) if !same_host(&next.host, &first.host) => return Ok(answer),
            Ok(next) => {
                // An overridden Host stays only while the server speaks of places on itself.
                host_header = host_header.filter(|_| Url::parse(location).is_err());
                refer(&mut sent, &target, &next);
                target = next;
            }
            Err(why) => return Err(Broken::Failure(about(&target, &why))),
        }
    }
    Err(Broken::Failure(about(&target, &format!("stopped after {MAX_REDIRECTS} redirects"))))
}

fn about(target: &Target, why: &str) -> String {
    format!("Get {:?}: {why}", target.url())
}

/// Names are the same in either case, addresses in any spelling.
fn same_host(a: &str, b: &str) -> bool {
    match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a.eq_ignore_ascii_case(b),
    }
}

/// Where the redirect came from, unless the user says it or it would tell a secret place in the clear.
fn refer(sent: &mut HeaderMap, from: &Target, to: &Target) {
    let downgraded = from.scheme == Scheme::Https && to.scheme == Scheme::Http;
    if let Ok(value) = HeaderValue::from_str(&from.url())
        && !downgraded
    {
        sent.entry(REFERER).or_insert(value);
    }
}

fn verdict(answer: &Answer) -> Outcome {
    let body = match &answer.body {
        Ok(body) => body,
        Err(why) => return Outcome::Unread(why.clone()),
    };
    match answer.status {
        200..=299 => Outcome::Success,
        300..=399 => {
            let body = String::from_utf8_lossy(body);
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // The body stays out of the message: events are read by more people than the response was meant for.
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

fn resolve(from: &Target, location: &str) -> Result<Target, String> {
    let bad = |why: String| format!("failed to parse Location header {location:?}: {why}");
    let base = Url::parse(&from.url()).map_err(|e| bad(e.to_string()))?;
    let next = base.join(location).map_err(|e| bad(e.to_string()))?;
    let scheme = match next.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => return Err(format!("unsupported protocol scheme {other:?}")),
    };
    let host = next.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = next.port_or_known_default().unwrap_or(80);
    let path = next.query().map_or_else(|| next.path().to_owned(), |q| format!("{}?{q}", next.path()));
    Ok(Target { scheme, host, port, path })
}

fn default_host(target: &Target) -> HeaderValue {
    HeaderValue::from_str(&target.authority()).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

/// The probe's headers, checked once.
struct Headers {
    host: Option<HeaderValue>,
    others: HeaderMap,
}

impl Headers {
    fn new(pairs: &[(String, String)], agent: &'static str) -> Result<Headers, String> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let key = HeaderName::from_bytes(name.as_bytes());
            let key = key.map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
            let value = HeaderValue::from_bytes(value.as_bytes());
            let value = value.map_err(|_| format!("net/http: invalid header field value for {name:?}"))?;
            // There is one agent; the first is sent.
            if key != AGENT || !map.contains_key(AGENT) {
                map.append(key, value);
            }
        }
        let host = map.get(HOST).filter(|h| !h.is_empty()).cloned();
        map.entry(AGENT).or_insert(HeaderValue::from_static(agent));
        map.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        for name in [AGENT, ACCEPT] {
            if map.get(&name).is_some_and(HeaderValue::is_empty) {
                map.remove(&name);
            }
        }
        // These frame the message: they are not the user's to set.
        for name in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER] {
            map.remove(&name);
        }
        map.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(Headers { host, others: map })
    }
}

async fn exchange(
    target: &Target,
    host: &HeaderValue,
    headers: &HeaderMap,
    deadline: tokio::time::Instant,
) -> Result<Answer, Broken> {
    let late = |_| Broken::Failure("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned());
    let mut request = hyper::Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = target.path.parse().map_err(|e| Broken::Error(format!("httpGet.path {:?}: {e}", target.path)))?;
    request.headers_mut().insert(HOST, host.clone());
    request.headers_mut().extend(headers.clone());
    let connected = tokio::time::timeout_at(deadline, dial::connect(&target.host, target.port)).await.map_err(late)?;
    let stream = connected.map_err(Broken::Failure)?;
    match target.scheme {
        Scheme::Http => talk(stream, request, deadline, Duration::ZERO).await,
        Scheme::Https => {
            let shaken = tokio::time::timeout_at(deadline, tls::connect(&target.host, stream)).await.map_err(late)?;
            talk(shaken.map_err(tls_broken)?, request, deadline, CLOSING).await
        }
    }
}

fn tls_broken(why: tls::Failed) -> Broken {
    match why {
        tls::Failed::NotTls => Broken::InTheClear("http: server gave HTTP response to HTTPS client".to_owned()),
        tls::Failed::Other(why) => Broken::Failure(why),
    }
}

/// `closing` is for an end that has to be said: that of TLS.
async fn talk<S>(
    stream: S,
    request: hyper::Request<Empty<Bytes>>,
    deadline: tokio::time::Instant,
    closing: Duration,
) -> Result<Answer, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let io = TokioIo::new(stream);
    let shaken = hyper::client::conn::http1::Builder::new().title_case_headers(true).handshake(io).await;
    let (mut sender, connection) = shaken.map_err(|e| Broken::Failure(explain(&e)))?;
    let work = async {
        let head = match tokio::time::timeout_at(deadline, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|e| Broken::Failure(explain(&e)))?,
            Err(_) => {
                let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                return Err(Broken::Failure(why.to_owned()));
            }
        };
        let status = head.status().as_u16();
        let location = head.headers().get(LOCATION).map(|l| String::from_utf8_lossy(l.as_bytes()).into_owned());
        let late = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
        let body = match tokio::time::timeout_at(deadline, read(head.into_body())).await {
            Ok(read) => read.map_err(|e| explain(&e)),
            Err(_) => Err(late.to_owned()),
        };
        Ok(Answer { status, location, body })
    };
    // The connection is driven here and not in a task of its own: dropping the check drops it.
    let (mut work, mut connection) = (std::pin::pin!(work), std::pin::pin!(connection));
    let answer = tokio::select! {
        answer = &mut work => answer,
        _ = &mut connection => return work.await,
    };
    let whole = answer.as_ref().is_ok_and(|a| a.body.as_ref().is_ok_and(|b| b.len() < MAX_OUTPUT));
    if whole && !closing.is_zero() {
        let _ = tokio::time::timeout(closing, connection).await;
    }
    answer
}

/// Up to the limit; what comes after it is not waited for.
async fn read(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut out = Vec::new();
    while out.len() < MAX_OUTPUT {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            out.extend_from_slice(&data);
        }
    }
    out.truncate(MAX_OUTPUT);
    Ok(out)
}

/// An HTTP error as a person wants it: the innermost cause says most.
fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let reason = inner.downcast_ref::<std::io::Error>().map_or_else(|| inner.to_string(), dial::reason);
        let _ = write!(text, ": {reason}");
        source = inner.source();
    }
    text
}

/// The API's path as it goes on the wire: any host in it is left out, what may not stand in a URL is escaped, escapes that
/// are there stay, and a path with broken escapes is taken literally.
fn wire_path(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let bytes = path.as_bytes();
    let broken = (0..bytes.len()).any(|i| {
        let hex = |j: usize| bytes.get(j).is_some_and(u8::is_ascii_hexdigit);
        bytes[i] == b'%' && !(hex(i + 1) && hex(i + 2))
    });
    let rest = if broken { path } else { without_host(path) };
    let mut out = String::with_capacity(rest.len() + 1);
    if !rest.starts_with('/') {
        out.push('/');
    }
    let mut query = false;
    for &b in rest.as_bytes() {
        let keep = match b {
            b'?' => {
                let keep = !broken;
                query |= keep;
                keep
            }
            b'%' => !broken,
            b'/' | b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b':' | b';' | b'=' | b'@' | b'!' | b'\'' | b'('
            | b')' | b'*' => true,
            b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'\\' | b'`' => query && matches!(b, b'[' | b']'),
            b => b.is_ascii_alphanumeric(),
        };
        if keep {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

fn without_host(path: &str) -> &str {
    let after_scheme = match path.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => Some(rest),
        _ => path.strip_prefix("//"),
    };
    match after_scheme {
        Some(rest) => rest.find(['/', '?']).map_or("", |i| &rest[i..]),
        None => path,
    }
}

/// Shared by all checks, made on first use.
fn tls_config() -> &'static Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Arc::new(tls::config()))
}

#[cfg(test)]
mod tests;
