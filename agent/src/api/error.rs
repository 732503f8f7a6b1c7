//! What can go wrong between this node and the API server.

use std::path::PathBuf;

/// What a failure means for whoever wanted something: the only input to a decision about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later, unchanged.
    Transient,
    /// The same request will fail again; look at the facts anew first.
    Permanent,
    /// What was asked for is not there any more.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kubeconfig {}: {field}: {detail}", path.display())]
    KubeconfigField { path: PathBuf, field: String, detail: String },
    #[error("cannot read {what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot set up TLS towards the api server")]
    Tls(#[from] rustls::Error),
    #[error("cannot build the api client")]
    Client(#[source] reqwest::Error),
    #[error("{method} {path} failed")]
    Request { method: http::Method, path: String, source: reqwest::Error },
    #[error("{method} {path} was not answered within {seconds} s")]
    Timeout { method: http::Method, path: String, seconds: u64 },
    #[error("{method} {path}: there is no api server in standalone mode")]
    Standalone { method: http::Method, path: String },
    #[error("{method} {path}: cannot form the request")]
    Form { method: http::Method, path: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Request { .. } | Error::Timeout { .. } => Class::Transient,
            // Files may be rotated under us.
            Error::File { .. } => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

/// The class of anything `kube::Client` returns.
pub fn class_of(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 410 => Class::Gone,
            408 | 429 | 500.. => Class::Transient,
            // Rights may be granted, and tokens renewed, a moment later.
            401 | 403 => Class::Transient,
            _ => Class::Permanent,
        },
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Class::Permanent,
        _ => Class::Transient,
    }
}
