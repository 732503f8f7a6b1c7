//! Pulling images: bounded, and one pull for all who want the same image at once; and who may use what has been pulled.
//!
//! Owns the pulls under way and the records of what credentials pulled which image (`records`). Who asks waits in its own task;
//! when it goes away the pull goes on, for others and for next time. Delays after failures belong to each pod (`pod::backoff`).
//! Cancelled by its token; a pull cut off then leaves a record that it had begun, which the next agent finds.

pub mod auth;
pub mod keyring;
pub mod node_config;
pub mod policy;
pub mod providers;
mod puller;
pub mod records;
pub mod reference;

use auth::Credential;
use ferrolet_cri::types::{Image, SandboxConfig};
use ferrolet_cri::{Client, Error};
use policy::Policy;
use records::disk::{DiskError, Folder};
use records::{Access, Intent, PullSecret, Record};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// As the runtime has it now.
    pub image: Image,
    /// Of the pull itself, without waiting for its turn.
    pub took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Runtime(#[from] Error),
    #[error("the image is not there after the pull")]
    Gone,
    /// Without a record nobody could be kept from using the image later.
    #[error("Failed to record image pull intent for container image {image:?}: {why}")]
    Record { image: String, why: String },
    #[error("the agent is stopping")]
    Stopping,
}

type Answer = Result<Pulled, PullError>;

/// What is to be pulled.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// As the pod has it.
    pub asked: String,
    /// With a tag or digest.
    pub image: String,
    /// `None`: without any.
    pub credential: Option<Credential>,
}

enum Request {
    Pull {
        wanted: Wanted,
        sandbox: Box<SandboxConfig>,
        reply: oneshot::Sender<Answer>,
        /// Gets what tells whether the pull has begun.
        turn: oneshot::Sender<watch::Receiver<bool>>,
    },
    /// A pod may use the image by this credential, which is to be remembered.
    Grant { asked: String, image_ref: String, secret: PullSecret },
}

pub struct Settings {
    /// `maxParallelImagePulls`, at least 1.
    pub parallel: usize,
    pub policy: Policy,
    /// The agent's.
    pub root_dir: PathBuf,
}

/// What the records say of an image that is there.
pub enum Known {
    /// All may use it.
    Free,
    /// It depends on the pod's credentials.
    Asks(Box<Record>),
    /// Only who pulls it may use it.
    Unproven,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Images {
    requests: mpsc::Sender<Request>,
    folder: Folder,
    policy: Arc<Policy>,
}

impl Images {
    pub fn spawn(cri: Client, settings: Settings, cancel: CancellationToken) -> (Images, JoinHandle<()>) {
        let (requests, inbox) = mpsc::channel(64);
        let folder = Folder::new(&settings.root_dir);
        let puller = puller::Puller::new(cri, settings.parallel, folder.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = puller.run(inbox) => {}
            }
        });
        (Images { requests, folder, policy: Arc::new(settings.policy) }, task)
    }

    /// `begins` is called when the pull's turn has come.
    pub async fn pull(&self, wanted: Wanted, sandbox: &SandboxConfig, begins: impl FnOnce() + Send) -> Answer {
        let ((reply, mut answer), (turn, turns)) = (oneshot::channel(), oneshot::channel());
        let request = Request::Pull { wanted, sandbox: Box::new(sandbox.clone()), reply, turn };
        self.requests.send(request).await.map_err(|_| PullError::Stopping)?;
        let begun = async {
            if let Ok(mut turn) = turns.await {
                let turn: &mut watch::Receiver<bool> = &mut turn;
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

    /// Whether an image that is there may be used under the name that the pod has for it.
    pub async fn known(&self, asked: &str, image_ref: &str) -> Known {
        if *self.policy == Policy::Never {
            return Known::Free;
        }
        let (folder, image, id) = (self.folder.clone(), asked.to_owned(), image_ref.to_owned());
        let looked = blocking(move || {
            let record = folder.read::<Record>(&id)?;
            let begun = record.is_none() && folder.read::<Intent>(&image)?.is_some();
            Ok((record, begun))
        });
        let (record, begun) = match looked.await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(image = asked, %error, "cannot read the records of image pulls");
                return Known::Unproven;
            }
        };
        if !self.policy.verifies(asked, record.is_some() || begun) {
            return Known::Free;
        }
        let Some(record) = record else { return Known::Unproven };
        match records::without_credentials(&record, asked) {
            Some(Access::Granted) => Known::Free,
            None => Known::Asks(Box::new(record)),
            Some(_) => Known::Unproven,
        }
    }

    /// Remembers it, in time; nobody waits for that.
    pub fn grant(&self, asked: &str, image_ref: &str, secret: PullSecret) {
        let request = Request::Grant { asked: asked.to_owned(), image_ref: image_ref.to_owned(), secret };
        if self.requests.try_send(request).is_err() {
            tracing::debug!(
                image = asked,
                "too many pulls at once to remember a credential now; the next pod will have it remembered"
            );
        }
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, DiskError> + Send + 'static) -> Result<T, DiskError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(DiskError::Interrupted))
}

#[cfg(test)]
mod tests;
