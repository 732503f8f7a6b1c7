//! One lazily made, self-repairing connection to a unix socket.
//!
//! Owns: the channel, and the count of connections made so far, which tells that another process may be listening now.

use crate::error::Error;
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

#[derive(Debug, Clone)]
pub(super) struct Connection {
    channel: Channel,
    path: Arc<str>,
    made: Arc<AtomicU64>,
}

impl Connection {
    pub(super) fn new(endpoint: &str) -> Result<Self, Error> {
        let path: Arc<str> = socket_path(endpoint)?.into();
        let made = Arc::new(AtomicU64::new(0));
        let (to, count) = (path.clone(), made.clone());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (to, count) = (to.clone(), count.clone());
            async move {
                let stream = UnixStream::connect(Path::new(&*to)).await?;
                let number = count.fetch_add(1, Ordering::AcqRel) + 1;
                tracing::debug!(socket = %to, number, "connected to the container runtime");
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // The name stands in the :authority header only; grpc-go servers want one that parses.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Self { channel, path, made })
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// How many connections have been made so far.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }
}

/// Takes `unix:///path`, `unix:/path` and `/path`.
fn socket_path(endpoint: &str) -> Result<&str, Error> {
    let bad = |problem| Error::Endpoint { endpoint: endpoint.to_owned(), problem };
    let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    if path.is_empty() {
        Err(bad("no path given"))
    } else if path.contains("://") {
        Err(bad("only unix sockets are supported (unix:///path)"))
    } else if !path.starts_with('/') {
        Err(bad("the path must be absolute"))
    } else if path.len() > 107 {
        Err(bad("the path is longer than the 107 bytes that a unix socket's may have"))
    } else if path.contains('\0') {
        Err(bad("the path holds a zero byte"))
    } else {
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_urls_and_bare_paths() {
        for given in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            assert_eq!(socket_path(given).unwrap(), "/run/a.sock");
        }
    }

    #[test]
    fn refuses_what_cannot_be_a_socket_and_says_why() {
        let long = format!("/{}", "x".repeat(120));
        for (given, why) in [
            ("", "no path"),
            ("unix://", "no path"),
            ("tcp://1.2.3.4:5", "only unix"),
            ("run/a.sock", "absolute"),
            ("unix://run/a.sock", "absolute"),
            (&long, "107"),
            ("/a\0b", "zero byte"),
        ] {
            let error = socket_path(given).unwrap_err().to_string();
            assert!(error.contains(why), "{given}: {error}");
        }
    }
}
