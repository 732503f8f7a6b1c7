//! Every request to the API server goes through here: one HTTP/2 connection, bounded requests, unbounded watches.
//!
//! Owns the credentials in use and can take new ones while running (`Transport::reload`): requests that are under way
//! finish on the old connection. It never retries: whoever asked decides, by the class of the error. Dropping a
//! request's future cancels the request and nothing else.

use super::kubeconfig::{self, Credentials, Token};
use super::{Error, error};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response};
use kube::client::Body;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use url::Url;

/// A request other than a watch, its answer's body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Lists of the whole cluster may be long in coming.
const LIST_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a token read from a file is good for; those who renew it leave far more than that.
const TOKEN_MAX_AGE: Duration = Duration::from_secs(60);

/// When a server that says nothing counts as dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// A watch's first byte: the server answers with headers before the first event.
    pub watch_start: Duration,
    /// A peer that answers no ping for this long is dead, whatever its kernel acknowledges.
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Bounds { watch_start: Duration::from_secs(30), ping_interval: ten, ping_timeout: ten }
    }
}

/// The way to the API server. Clones share the connection.
#[derive(Clone)]
pub struct Transport {
    kubeconfig: Arc<PathBuf>,
    bounds: Bounds,
    current: Arc<ArcSwap<Current>>,
}

struct Current {
    server: Url,
    http: reqwest::Client,
    token: Token,
    bounds: Bounds,
    cached_token: ArcSwap<Option<(Instant, HeaderValue)>>,
}

impl Transport {
    /// Reads the kubeconfig; connects when first used.
    pub fn new(kubeconfig: &Path) -> Result<Self, Error> {
        Transport::bounded(kubeconfig, Bounds::default())
    }

    pub(crate) fn bounded(kubeconfig: &Path, bounds: Bounds) -> Result<Self, Error> {
        let current = Arc::new(ArcSwap::from_pointee(Current::new(kubeconfig::read(kubeconfig)?, bounds)?));
        Ok(Transport { kubeconfig: Arc::new(kubeconfig.to_owned()), bounds, current })
    }

    /// Reads the kubeconfig and the files it names again; on failure the old credentials stay in use.
    pub fn reload(&self) -> Result<(), Error> {
        let current = Current::new(kubeconfig::read(&self.kubeconfig)?, self.bounds)?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    /// The same way with a connection of its own, made when first used.
    pub fn another(&self) -> Result<Transport, Error> {
        Transport::bounded(&self.kubeconfig, self.bounds)
    }

    /// A `kube::Client` on this transport.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }
}

impl Current {
    fn new(credentials: Credentials, bounds: Bounds) -> Result<Self, Error> {
        let Credentials { server, ca, identity, token } = credentials;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(ca, identity)?)
            .user_agent(concat!("ferrolet/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(90))
            .http2_keep_alive_interval(bounds.ping_interval)
            .http2_keep_alive_timeout(bounds.ping_timeout)
            .http2_keep_alive_while_idle(true)
            // What one stalled watch may hold in memory, and all streams together.
            .http2_initial_stream_window_size(256 << 10)
            .http2_initial_connection_window_size(1 << 20)
            // For servers that speak HTTP/1.1 only, where there are no pings.
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_user_timeout(Duration::from_secs(30))
            .build()
            .map_err(Error::Client)?;
        Ok(Current { server, http, token, bounds, cached_token: ArcSwap::from_pointee(None) })
    }

    fn url(&self, path_and_query: &str) -> Result<Url, url::ParseError> {
        let base = self.server.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path_and_query}"))
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let bad =
            || Error::KubeconfigField { path: PathBuf::new(), field: "token".into(), detail: "holds bytes no header may".into() };
        let header = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok(value)
        };
        match &self.token {
            Token::None => Ok(None),
            Token::Fixed(token) => header(token).map(Some),
            Token::File(path) => {
                if let Some((_, value)) =
                    self.cached_token.load().as_ref().as_ref().filter(|(at, _)| at.elapsed() < TOKEN_MAX_AGE)
                {
                    return Ok(Some(value.clone()));
                }
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|source| Error::File { what: "token file", path: path.clone(), source })?;
                let value = header(text.trim())?;
                self.cached_token.store(Arc::new(Some((Instant::now(), value.clone()))));
                Ok(Some(value))
            }
        }
    }
}

fn tls(
    ca: Vec<rustls::pki_types::CertificateDer<'static>>,
    identity: Option<kubeconfig::Identity>,
) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    // A preconfigured setup is taken as it is: without this the connection would be HTTP/1.1.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What bounds a request, told from its path and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Whole(Duration),
    UntilHeaders(Duration),
}

fn bound(method: &http::Method, query: &str, bounds: &Bounds) -> Bound {
    let asked =
        |name: &str| query.split('&').any(|pair| pair.strip_prefix(name).is_some_and(|value| matches!(value, "=true" | "=1")));
    if method == http::Method::GET && (asked("watch") || asked("follow")) {
        Bound::UntilHeaders(bounds.watch_start)
    } else if method == http::Method::GET && query.contains("limit=") {
        Bound::Whole(LIST_TIMEOUT)
    } else {
        Bound::Whole(REQUEST_TIMEOUT)
    }
}

impl tower_service::Service<Request<Body>> for Transport {
    type Response = Response<reqwest::Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let current = self.current.load_full();
        Box::pin(async move { send(&current, request).await })
    }
}

async fn send(current: &Current, request: Request<Body>) -> Result<Response<reqwest::Body>, Error> {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let form =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::Form { method: method.clone(), path: path.clone(), source };
    let path_and_query = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let url = current.url(path_and_query).map_err(|source| form(source.into()))?;
    let body = body.collect_bytes().await.map_err(|source| form(source.into()))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    request.headers_mut().remove(USER_AGENT);
    if let Some(value) = current.authorization()? {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    *request.body_mut() = Some(body.into());
    let bound = bound(&method, parts.uri.query().unwrap_or_default(), &current.bounds);
    if let Bound::Whole(timeout) = bound {
        *request.timeout_mut() = Some(timeout);
    }
    let wait = match bound {
        Bound::Whole(timeout) | Bound::UntilHeaders(timeout) => timeout,
    };
    let late = || Error::Timeout { method: method.clone(), path: path.clone(), seconds: wait.as_secs() };
    let answer = match tokio::time::timeout(wait, current.http.execute(request)).await {
        Err(_) => return Err(late()),
        Ok(Err(source)) if source.is_timeout() && !source.is_connect() => return Err(late()),
        // The URL is in the error already named; reqwest's own text would repeat it.
        Ok(Err(source)) => {
            return Err(error::Error::Request { method: method.clone(), path: path.clone(), source: source.without_url() });
        }
        Ok(Ok(answer)) => answer,
    };
    Ok(answer.into())
}

#[cfg(test)]
mod tests;
