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
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
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
    /// Gets what tells whether the pull has begun.
    turn: oneshot::Sender<watch::Receiver<bool>>,
}

/// A pull for all who want it.
struct Pull {
    replies: Vec<oneshot::Sender<Answer>>,
    begun: watch::Receiver<bool>,
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

    /// `begins` is called when the pull's turn has come.
    pub async fn pull(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox: &SandboxConfig,
        begins: impl FnOnce() + Send,
    ) -> Answer {
        let ((reply, mut answer), (turn, turns)) = (oneshot::channel(), oneshot::channel());
        let request = Request { image: image.to_owned(), auth, sandbox: sandbox.clone(), reply, turn };
        self.requests.send(request).await.map_err(|_| PullError::Stopping)?;
        let begun = async {
            if let Ok(mut turn) = turns.await {
                let _ = turn.wait_for(|begun| *begun).await;
            }
        };
        tokio::select! {
            biased;
            answer = &mut answer => return answer.unwrap_or(Err(PullError::Stopping)),
            () = begun => begins(),
        }
        answer.await.unwrap_or(Err(PullError::Stopping))
    }
}

async fn run(cri: Client, parallel: usize, mut inbox: mpsc::Receiver<Request>) {
    let slots = Arc::new(Semaphore::new(parallel.max(1)));
    let mut waiting: HashMap<Key, Pull> = HashMap::new();
    let mut pulls: JoinSet<(Key, Answer)> = JoinSet::new();
    loop {
        tokio::select! {
            Some(request) = inbox.recv() => {
                let secrets = request.auth.as_ref().map(|a| {
                    [a.username.clone(), a.password.clone(), a.identity_token.clone(), a.registry_token.clone()]
                });
                let key: Key = (request.image, secrets);
                // Nobody may care any more.
                if let Some(pull) = waiting.get_mut(&key) {
                    let _ = request.turn.send(pull.begun.clone());
                    pull.replies.push(request.reply);
                    continue;
                }
                let (begins, begun) = watch::channel(false);
                let _ = request.turn.send(begun.clone());
                waiting.insert(key.clone(), Pull { replies: vec![request.reply], begun });
                let (cri, slots) = (cri.clone(), slots.clone());
                pulls.spawn(async move {
                    let answer = pull(&cri, &slots, &begins, &key.0, request.auth, &request.sandbox).await;
                    (key, answer)
                });
            }
            Some(done) = pulls.join_next(), if !pulls.is_empty() => match done {
                Ok((key, answer)) => {
                    for reply in waiting.remove(&key).into_iter().flat_map(|pull| pull.replies) {
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

async fn pull(
    cri: &Client,
    slots: &Semaphore,
    begins: &watch::Sender<bool>,
    image: &str,
    auth: Option<AuthConfig>,
    sandbox: &SandboxConfig,
) -> Answer {
    let _slot = slots.acquire().await.map_err(|_| PullError::Stopping)?;
    begins.send_replace(true);
    let begun = Instant::now();
    let image_ref = cri.pull_image(&ImageSpec::new(image), auth.as_ref(), sandbox).await?;
    Ok(Pulled { image_ref, took: begun.elapsed() })
}

#[cfg(test)]
mod tests;
