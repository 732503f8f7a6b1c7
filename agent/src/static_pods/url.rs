//! Static pods of a URL, asked for again and again.
//!
//! Owns the answer last taken. An answer that is no list of pods, or none at all, changes nothing; an empty one means that there are
//! none. Cancelled at any await.

use super::folder::seen;
use super::read::{self, Source};
use super::{Found, Kind, Publisher};
use k8s_openapi::api::core::v1::Pod;
use reqwest::header::HeaderMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

const LIMIT: Duration = Duration::from_secs(10);
/// Failures in a row that are told of.
const TOLD: u32 = 3;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot get {url}")]
    Request { url: String, source: reqwest::Error },
    #[error("{url}: {status}")]
    Status { url: String, status: reqwest::StatusCode },
    #[error("the answer of {0} is larger than 10 MiB")]
    TooLarge(String),
    #[error("zero-length data received from {0}")]
    Empty(String),
    #[error("{url}: {source}")]
    Refused { url: String, source: read::Refusal },
}

pub(super) struct Poller {
    url: String,
    headers: HeaderMap,
    node: String,
    period: Duration,
    publisher: Publisher,
    last: Vec<u8>,
    pods: BTreeMap<String, Arc<Pod>>,
}

impl Poller {
    pub(super) fn new(url: &str, headers: &HeaderMap, node: String, period: Duration, publisher: Publisher) -> Poller {
        let (url, headers) = (url.to_owned(), headers.clone());
        Poller { url, headers, node, period, publisher, last: Vec::new(), pods: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) {
        info!(url = self.url, "watching for static pods");
        let mut failures = 0;
        loop {
            match self.ask().await {
                Ok(()) if failures > 0 => {
                    info!(url = self.url, "the static pods can be read again");
                    failures = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    failures += 1;
                    let error: &dyn std::error::Error = &error;
                    match failures {
                        ..=TOLD => warn!(error, "cannot read static pods from the url"),
                        _ => debug!(error, "cannot read static pods from the url"),
                    }
                }
            }
            tokio::time::sleep(self.period).await;
        }
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let data = self.get().await?;
        if data.is_empty() {
            self.take(Vec::new());
            self.last.clear();
            return Err(Error::Empty(self.url.clone()));
        }
        if data == self.last {
            return Ok(());
        }
        let pods = read::read_all(&data, &self.node, Source { kind: Kind::Http, place: &self.url });
        // Said once for each answer, whatever it is.
        self.last = data;
        let pods = pods.map_err(|source| Error::Refused { url: self.url.clone(), source })?;
        self.take(pods);
        Ok(())
    }

    fn take(&mut self, pods: Vec<Pod>) {
        let known = |pod: &Pod| self.pods.get(pod.metadata.uid.as_deref().unwrap_or_default());
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(|pod| seen(pod.clone(), known(&pod))).collect();
        self.pods = pods.iter().map(|p| (p.metadata.uid.clone().unwrap_or_default(), p.clone())).collect();
        self.publisher.publish(Found { pods, broken: false });
    }

    async fn get(&self) -> Result<Vec<u8>, Error> {
        let failed = |source: reqwest::Error| Error::Request { url: self.url.clone(), source: source.without_url() };
        // The roots of trust are read anew, as nothing else tells of their change.
        let client = reqwest::Client::builder().timeout(LIMIT).build().map_err(failed)?;
        let mut answer = client.get(&self.url).headers(self.headers.clone()).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(Error::Status { url: self.url.clone(), status: answer.status() });
        }
        let mut data = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            data.extend_from_slice(&chunk);
            if data.len() as u64 > read::MAX {
                return Err(Error::TooLarge(self.url.clone()));
            }
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests;
