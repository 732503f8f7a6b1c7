//! Pulling images: bounded, and one pull for all who want the same image at once.
//!
//! Owns the pulls under way. Who asks waits in its own task; when it goes away the pull goes on, for others and for next
//! time. Delays after failures belong to each pod (`pod::backoff`). Cancelled by its token.

pub mod auth;
pub mod reference;

use ferrolet_cri::types::{AuthConfig, ImageSpec, SandboxConfig};
use ferrolet_cri::{Client, Error};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the runtime calls it now.
    pub image_ref: String,
    /// Of the pull itself, without waiting for its turn.
    pub took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Runtime(#[from] Error),
    #[error("the agent is stopping")]
    Stopping,
}

type Answer = Result<Pulled, PullError>;

struct Request {
    image: String,
    auth: Option<AuthConfig>,
    sandbox: SandboxConfig,
    reply: oneshot::Sender<Answer>,
}

/// Pulls of the same image with other credentials are other pulls.
type Key = (String, Option<[String; 4]>);

/// Cheap to clone.
#[derive(Clone)]
pub struct Images {
    requests: mpsc::Sender<Request>,
}

impl Images {
    /// `parallel`: `maxParallelImagePulls`, at least 1.
    pub fn spawn(cri: Client, parallel: usize, cancel: CancellationToken) -> (Images, JoinHandle<()>) {
        let (requests, inbox) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = run(cri, parallel, inbox) => {}
            }
        });
        (Images { requests }, task)
    }

    pub async fn pull(&self, image: &str, auth: Option<AuthConfig>, sandbox: &SandboxConfig) -> Answer {
        let (reply, answer) = oneshot::channel();
        let request = Request { image: image.to_owned(), auth, sandbox: sandbox.clone(), reply };
        self.requests.send(request).await.map_err(|_| PullError::Stopping)?;
        answer.await.unwrap_or(Err(PullError::Stopping))
    }
}

async fn run(cri: Client, parallel: usize, mut inbox: mpsc::Receiver<Request>) {
    let slots = Arc::new(Semaphore::new(parallel.max(1)));
    let mut waiting: HashMap<Key, Vec<oneshot::Sender<Answer>>> = HashMap::new();
    let mut pulls: JoinSet<(Key, Answer)> = JoinSet::new();
    loop {
        tokio::select! {
            Some(request) = inbox.recv() => {
                let secrets = request.auth.as_ref().map(|a| {
                    [a.username.clone(), a.password.clone(), a.identity_token.clone(), a.registry_token.clone()]
                });
                let key: Key = (request.image, secrets);
                if let Some(others) = waiting.get_mut(&key) {
                    others.push(request.reply);
                    continue;
                }
                waiting.insert(key.clone(), vec![request.reply]);
                let (cri, slots) = (cri.clone(), slots.clone());
                pulls.spawn(async move {
                    let answer = pull(&cri, &slots, &key.0, request.auth, &request.sandbox).await;
                    (key, answer)
                });
            }
            Some(done) = pulls.join_next(), if !pulls.is_empty() => match done {
                Ok((key, answer)) => {
                    for reply in waiting.remove(&key).into_iter().flatten() {
                        let _ = reply.send(answer.clone());
                    }
                }
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            else => std::future::pending().await,
        }
    }
}

async fn pull(cri: &Client, slots: &Semaphore, image: &str, auth: Option<AuthConfig>, sandbox: &SandboxConfig) -> Answer {
    let _slot = slots.acquire().await.map_err(|_| PullError::Stopping)?;
    let begun = Instant::now();
    let image_ref = cri.pull_image(&ImageSpec::new(image), auth.as_ref(), sandbox).await?;
    Ok(Pulled { image_ref, took: begun.elapsed() })
}

#[cfg(test)]
mod tests;
