//! Static pods of a URL, asked for again and again.
//!
//! Owns the answer last taken. An answer that is no list of pods, or none at all, changes nothing; an empty one means that there are
//! none. Cancelled at any await.

use super::folder::seen;
use super::read::{self, Source};
use super::{Found, Kind, Publisher};
use crate::api::watch::chain;
use k8s_openapi::api::core::v1::Pod;
use reqwest::header::HeaderMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::info;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the url cannot be read")]
    Request(#[source] reqwest::Error),
    #[error("the url answered {0}")]
    Status(reqwest::StatusCode),
    #[error("the answer is larger than 10 MiB")]
    TooLarge,
    #[error("zero-length data received")]
    Empty,
    #[error(transparent)]
    Refused(#[from] read::Refusal),
}

pub(super) struct Poller {
    url: String,
    /// Without what may be a secret.
    shown: String,
    headers: HeaderMap,
    node: String,
    period: Duration,
    publisher: Publisher,
    last: Vec<u8>,
    /// That was no list of pods.
    refused: bool,
    pods: BTreeMap<String, Arc<Pod>>,
}

impl Poller {
    pub(super) fn new(url: &str, headers: &HeaderMap, node: String, period: Duration, publisher: Publisher) -> Poller {
        let (url, headers, shown) = (url.to_owned(), headers.clone(), shown(url));
        Poller { url, shown, headers, node, period, publisher, last: Vec::new(), refused: false, pods: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) {
        info!(url = self.shown, "watching for static pods");
        loop {
            if let Err(error) = self.ask().await {
                self.refused = matches!(error, Error::Refused(_));
                self.publisher.fail(Some((&self.shown, chain(&error))));
            }
            tokio::time::sleep(self.period).await;
        }
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let data = self.get().await?;
        if data.is_empty() {
            self.take(Vec::new());
            self.last.clear();
            return Err(Error::Empty);
        }
        if data == self.last {
            if !self.refused {
                self.publisher.fail(None);
            }
            return Ok(());
        }
        let pods = read::read_all(&data, &self.node, Source { kind: Kind::Http, place: &self.url });
        self.last = data;
        self.refused = false;
        self.take(pods?);
        Ok(())
    }

    fn take(&mut self, pods: Vec<Pod>) {
        let known = |pod: &Pod| self.pods.get(pod.metadata.uid.as_deref().unwrap_or_default());
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(|pod| seen(pod.clone(), known(&pod))).collect();
        self.pods = pods.iter().map(|p| (p.metadata.uid.clone().unwrap_or_default(), p.clone())).collect();
        self.publisher.publish(Found { pods, ..Found::default() });
    }

    async fn get(&self) -> Result<Vec<u8>, Error> {
        let failed = |source: reqwest::Error| Error::Request(source.without_url());
        // The roots of trust are read anew, as nothing else tells of their change.
        let client = reqwest::Client::builder().timeout(LIMIT).build().map_err(failed)?;
        let mut answer = client.get(&self.url).headers(self.headers.clone()).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(Error::Status(answer.status()));
        }
        let mut data = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            data.extend_from_slice(&chunk);
            if data.len() as u64 > read::MAX {
                return Err(Error::TooLarge);
            }
        }
        Ok(data)
    }
}

/// Pure.
fn shown(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => url[..url::Position::BeforeUsername].to_owned() + &url[url::Position::BeforeHost..url::Position::AfterPath],
        Err(_) => "the url".to_owned(),
    }
}

#[cfg(test)]
mod tests;
