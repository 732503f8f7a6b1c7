//! How the container runtime is: asked for every few seconds by a task of its own.
//!
//! A runtime that hangs is one that is down: no answer in time counts as the answer. Nothing else on this node waits for
//! this task.

use ferrolet_cri::types::{Condition, Image, RuntimeStatus, Version};
use ferrolet_cri::{Client, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const WHEN_WELL: Duration = Duration::from_secs(5);
const WHEN_DOWN: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(10);
const IMAGES_EVERY: Duration = Duration::from_secs(60);
/// Kept per image in a Node's status.
const MAX_NAMES: usize = 5;

/// The runtime as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Kept from when it last answered.
    pub version: Option<Version>,
    pub status: Option<RuntimeStatus>,
    /// Why there is no status now.
    pub down: Option<String>,
}

impl Health {
    /// What keeps the node from being ready, in kubelet's words where it has some.
    pub fn problems(&self) -> Vec<String> {
        let Some(status) = &self.status else {
            let why = self.down.as_deref().unwrap_or("its status is not known yet");
            return vec![format!("container runtime is down: {why}")];
        };
        let runtime = problem("container runtime", "RuntimeReady", &status.runtime_ready);
        runtime.into_iter().chain(network_problem(status)).collect()
    }
}

/// What keeps pods from having a network, in kubelet's words.
pub fn network_problem(status: &RuntimeStatus) -> Option<String> {
    problem("container runtime network", "NetworkReady", &status.network_ready)
}

fn problem(what: &str, name: &str, condition: &Condition) -> Option<String> {
    let (reason, message) = (&condition.reason, &condition.message);
    (!condition.ok).then(|| format!("{what} not ready: {name}=false reason:{reason} message:{message}"))
}

/// An image as the Node's status lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    pub names: Vec<String>,
    pub size_bytes: u64,
}

pub struct Handle {
    pub health: watch::Receiver<Arc<Health>>,
    pub images: watch::Receiver<Arc<Vec<ListedImage>>>,
    pub task: JoinHandle<()>,
}

/// Starts asking. `max_images` as in `nodeStatusMaxImages`; `None` lists all.
pub fn spawn(cri: Client, max_images: Option<usize>, cancel: CancellationToken) -> Handle {
    let (health_out, health) = watch::channel(Arc::new(Health::default()));
    let (images_out, images) = watch::channel(Arc::new(Vec::new()));
    let work = async move {
        let mut images_due = Instant::now();
        loop {
            let before = health_out.borrow().clone();
            let now = look(&cri, &before).await;
            let well = now.problems().is_empty();
            log_change(&before, &now);
            if *before != now {
                health_out.send_replace(Arc::new(now));
            }
            if well && Instant::now() >= images_due && max_images != Some(0) {
                images_due = Instant::now() + IMAGES_EVERY;
                if let Ok(Ok(list)) = timeout(ANSWER, cri.list_images()).await {
                    let list = largest(list, max_images);
                    images_out.send_if_modified(|old| {
                        let changed = **old != list;
                        if changed {
                            *old = Arc::new(list);
                        }
                        changed
                    });
                }
            }
            tokio::time::sleep(if well { WHEN_WELL } else { WHEN_DOWN }).await;
        }
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    });
    Handle { health, images, task }
}

async fn look(cri: &Client, before: &Health) -> Health {
    let answer = match timeout(ANSWER, cri.status(false)).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) => Err(brief(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    };
    match answer {
        Ok(status) => {
            // Asked again after every outage: another version may have been started.
            let version = match &before.version {
                Some(version) if before.down.is_none() => Some(version.clone()),
                known => timeout(ANSWER, cri.version()).await.ok().and_then(Result::ok).or_else(|| known.clone()),
            };
            Health { version, status: Some(status), down: None }
        }
        Err(why) => Health { version: before.version.clone(), status: None, down: Some(why) },
    }
}

fn brief(error: &Error) -> String {
    error.to_string()
}

fn log_change(before: &Health, now: &Health) {
    let (was, is) = (before.problems(), now.problems());
    if was == is {
        return;
    }
    match is.is_empty() {
        true => {
            let version = now.version.as_ref().map(|v| format!("{} {}", v.runtime_name, v.runtime_version));
            info!(runtime = version.unwrap_or_default(), "container runtime is ready");
        }
        false => warn!(problems = is.join("; "), "container runtime is not ready"),
    }
}

/// The largest images first, digests before tags, as kubelet lists them. Pure.
fn largest(mut images: Vec<Image>, max: Option<usize>) -> Vec<ListedImage> {
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    images.truncate(max.unwrap_or(usize::MAX));
    let listed = |image: Image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect();
        ListedImage { names, size_bytes: image.size_bytes }
    };
    images.into_iter().map(listed).collect()
}

#[cfg(test)]
mod tests;
