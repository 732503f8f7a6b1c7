//! The one wiring file: builds store, registry, keys, server and controllers, and supervises them.
//!
//! Owns start and stop order. A controller or the store's thread ending unexpectedly ends the process; the service manager
//! starts it again, and everything that was answered is on disk.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::authn::Authenticator;
use crate::http::{Api, tls};
use crate::kinds;
use crate::pki::{Pki, PkiError};
use crate::ranges::Ranges;
use crate::registry::{Registry, WriteOptions};
use crate::status::{ApiError, Class};
use crate::store::{Keep, Store, StoreError};
use crate::tokens::{TokenError, Tokens};

#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// What clients and pods use to reach this server, if it is not the listening address.
    pub advertise: Option<IpAddr>,
    pub service_cidr: Ranges,
    pub cluster_cidr: Option<Ranges>,
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// More names and addresses for the serving certificate.
    pub tls_sans: Vec<String>,
    /// Nodes that get a kubeconfig at start.
    pub nodes: Vec<String>,
    pub keep: Keep,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("store")]
    Store(#[from] StoreError),
    #[error("keys and certificates")]
    Pki(#[from] PkiError),
    #[error("service account tokens")]
    Tokens(#[from] TokenError),
    #[error("tls")]
    Tls(#[from] tls::TlsError),
    #[error("first objects")]
    Api(#[from] ApiError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("bootstrap token file {path}")]
    BootstrapToken {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{task} ended unexpectedly")]
    Ended { task: &'static str },
}

impl AppError {
    pub fn class(&self) -> Class {
        match self {
            AppError::Store(e) => e.class(),
            AppError::Pki(e) => e.class(),
            AppError::Api(e) => e.class(),
            AppError::Ended { .. } => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

const COMPACT_EVERY: Duration = Duration::from_secs(60);

/// A running control plane.
pub struct Running {
    pub registry: Registry,
    pub pki: Arc<Pki>,
    pub address: SocketAddr,
    pub server: String,
    tasks: tokio::task::JoinSet<&'static str>,
}

impl Running {
    /// Until cancelled, or until a task that should never end has ended.
    pub async fn wait(mut self, cancel: CancellationToken) -> Result<(), AppError> {
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            ended = self.tasks.join_next() => match ended {
                _ if cancel.is_cancelled() => Ok(()),
                Some(Ok(task)) => Err(AppError::Ended { task }),
                Some(Err(error)) => {
                    tracing::error!(%error, "task panicked");
                    Err(AppError::Ended { task: "a task" })
                }
                None => Ok(()),
            },
        }
    }
}

fn reachable(options: &Options, port: u16) -> (IpAddr, String) {
    let ip = options.advertise.unwrap_or(match options.listen.ip() {
        ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    });
    (ip, format!("https://{}", SocketAddr::new(ip, port)))
}

fn serving_names(options: &Options, ip: IpAddr) -> (Vec<String>, Vec<IpAddr>) {
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push("kubernetes.default.svc.cluster.local".to_owned());
    let first = crate::controllers::allocate::IpAllocator::new(options.service_cidr.primary()).first();
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), first, ip];
    for san in &options.tls_sans {
        match san.parse() {
            Ok(ip) => addresses.push(ip),
            Err(_) => names.push(san.clone()),
        }
    }
    if !options.listen.ip().is_unspecified() {
        addresses.push(options.listen.ip());
    }
    addresses.sort_unstable();
    addresses.dedup();
    (names, addresses)
}

/// Starts everything; answers once requests are served and the kubeconfigs are written.
pub async fn start(options: &Options, cancel: &CancellationToken) -> Result<Running, AppError> {
    let listener =
        TcpListener::bind(options.listen).await.map_err(|source| AppError::Listen { address: options.listen, source })?;
    let address = listener.local_addr().map_err(|source| AppError::Listen { address: options.listen, source })?;
    let (ip, server) = reachable(options, address.port());

    let pki = Arc::new(Pki::open(&options.data_dir)?);
    let store = Store::open(&options.data_dir.join("store.redb"), options.keep)?;
    let config = crate::registry::Config {
        service_cidr: options.service_cidr,
        node_ports: options.node_ports.clone(),
        advertise: Some((ip, address.port())),
    };
    let registry = Registry::open(store.clone(), config).await?;
    let tokens = Arc::new(Tokens::new(pki.service_account_key())?);
    let (names, addresses) = serving_names(options, ip);
    let serving = tls::server(&pki, &pki.server(&names, &addresses)?)?;
    let kubelet = tls::kubelet(&pki.client("kube-apiserver-kubelet-client", &["system:masters"])?)?;

    let api = Arc::new(Api {
        registry: registry.clone(),
        authn: Authenticator { registry: registry.clone(), tokens },
        kubelet: Arc::new(kubelet),
        address: SocketAddr::new(ip, address.port()).to_string(),
        ready: AtomicBool::new(false),
    });
    write_kubeconfigs(options, &pki, &server)?;
    bootstrap_token(options, &pki, &server, &registry).await?;

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(compactor(store, cancel.clone()));
    let serve = crate::http::serve(Arc::clone(&api), listener, serving, cancel.clone());
    tasks.spawn(async move {
        serve.await;
        "http server"
    });
    let params = crate::controllers::Params { ca_pem: pki.ca_pem().to_owned(), cluster_cidr: options.cluster_cidr };
    let mut controllers = crate::controllers::spawn_all(&registry, params, cancel);
    controllers.extend(crate::controllers::spawn_csr(&registry, signer(Arc::clone(&pki)), cancel));
    controllers.extend(crate::scheduler::spawn(&registry, cancel));
    for task in controllers {
        tasks.spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "controller panicked");
            }
            "a controller"
        });
    }
    api.ready.store(true, Ordering::Release);
    Ok(Running { registry, pki, address, server, tasks })
}

/// What the controller of certificate requests signs with, once it has decided.
fn signer(pki: Arc<Pki>) -> crate::controllers::shell::csr::Sign {
    use crate::controllers::csr::Usage as Asked;
    Arc::new(move |pem, usage, valid| {
        let usage = match usage {
            Asked::Client => crate::pki::Usage::Client,
            Asked::Server => crate::pki::Usage::Server,
        };
        pki.sign_request(pem, usage, valid).map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    })
}

async fn compactor(store: Store, cancel: CancellationToken) -> &'static str {
    let mut tick = tokio::time::interval(COMPACT_EVERY);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return "compaction",
            _ = tick.tick() => {}
        }
        match store.compact().await {
            Ok(oldest) => tracing::debug!(oldest, "compacted"),
            Err(error) => tracing::warn!(%error, "compaction failed"),
        }
    }
}

fn write_kubeconfigs(options: &Options, pki: &Pki, server: &str) -> Result<(), AppError> {
    let admin = pki.client("kubernetes-admin", &["system:masters"])?;
    pki.write_kubeconfig(&options.data_dir.join("admin.kubeconfig"), server, "kubernetes-admin", &admin)?;
    for (i, node) in options.nodes.iter().enumerate() {
        let path = pki.write_node_kubeconfig(&options.data_dir, server, node)?;
        if i == 0 {
            let text = std::fs::read(&path).map_err(|source| PkiError::File { path: path.clone(), source })?;
            crate::pki::write_private(&options.data_dir.join("node.kubeconfig"), &text)?;
        }
    }
    Ok(())
}

/// A token new nodes can ask for their certificate with: made once, kept in `bootstrap.token`, good until its Secret is deleted.
async fn bootstrap_token(options: &Options, pki: &Pki, server: &str, registry: &Registry) -> Result<(), AppError> {
    let path = options.data_dir.join("bootstrap.token");
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map(|t| t.trim().to_owned())
            .map_err(|source| AppError::BootstrapToken { path: path.to_owned(), source })
    };
    let fresh = !path.exists();
    if fresh {
        let word = |len: usize| -> String {
            const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
            (0..len).map(|_| ALPHABET[rand::random_range(0..ALPHABET.len())] as char).collect()
        };
        crate::pki::write_private(&path, format!("{}.{}\n", word(6), word(16)).as_bytes())?;
    }
    let token = read(&path)?;
    let (id, secret) = token.split_once('.').unwrap_or_default();
    if fresh {
        let data = |text: &str| Value::String(STANDARD.encode(text));
        let object = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token", "data": {
            "token-id": data(id), "token-secret": data(secret), "usage-bootstrap-authentication": data("true"),
            "usage-bootstrap-signing": data("true"), "auth-extra-groups": data("system:bootstrappers:ferrolet")}});
        registry.create(&kinds::SECRET, "kube-system", object, &WriteOptions::default()).await?;
    }
    pki.write_token_kubeconfig(&options.data_dir.join("bootstrap.kubeconfig"), server, "bootstrap", &token)?;
    Ok(())
}
