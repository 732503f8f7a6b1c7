//! Making sure of a container's image, by its pull policy.

use super::{Failed, Job, Outcome};
use crate::images::auth::{self, Credential};
use crate::images::records::{self, Access};
use crate::images::{Known, Pulled, Wanted, reference};
use crate::pod::container::ImageFacts;
use crate::pod::desired::PullPolicy;
use ferrolet_cri::types::{Image, ImageSpec};
use k8s_openapi::api::core::v1::Secret;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

impl Job {
    pub(super) async fn pull_image(&self, container: &str, attempt: u32) -> Result<Outcome, Failed> {
        let Some(wanted) = self.desired.container(container) else {
            return Err(Failed::new("ErrImagePull", format!("container {container:?} is not in the pod")));
        };
        let asked = &wanted.image;
        let image = reference::with_default_tag(asked).map_err(|e| {
            let message = format!("Failed to apply default image tag {asked:?}: {e}");
            self.warn(Some(container), "InspectFailed", message.clone());
            Failed { reason: "InvalidImageName", message }
        })?;
        let present = self.shared.cri.image_status(&ImageSpec::new(&image)).await.map_err(|e| {
            let message = format!("Failed to inspect image {asked:?}: {e}");
            self.warn(Some(container), "InspectFailed", message.clone());
            Failed { reason: "ImageInspectError", message }
        })?;
        // Asked for at most once, and only where something depends on them.
        let credentials = OnceCell::new();
        let usable = match (wanted.pull, &present) {
            (PullPolicy::Always, _) | (_, None) => false,
            (_, Some(found)) => self.may_use(asked, &image, found, &credentials).await,
        };
        let found = match (wanted.pull, present) {
            (_, Some(found)) if usable => {
                let message = format!("Container image {asked:?} already present on machine and can be accessed by the pod");
                self.normal(Some(container), "Pulled", message);
                found
            }
            // Also where it is there and the pod may not use it: that it is there is nothing to tell.
            (PullPolicy::Never, _) => {
                let message = format!("Container image {asked:?} is not present with pull policy of Never");
                self.warn(Some(container), "ErrImageNeverPull", message.clone());
                return Err(Failed { reason: "ErrImageNeverPull", message });
            }
            _ => self.fetch(container, asked, &image, &credentials).await?,
        };
        let facts = ImageFacts { image_ref: found.id, uid: found.uid, username: found.username };
        Ok(Outcome::Image { container: container.to_owned(), attempt, facts })
    }

    /// Whether the pod may use the image that is there, without asking its registry.
    async fn may_use(&self, asked: &str, image: &str, found: &Image, credentials: &OnceCell<Vec<Credential>>) -> bool {
        let record = match self.shared.images.known(asked, &found.id).await {
            Known::Free => return true,
            Known::Unproven => return false,
            Known::Asks(record) => record,
        };
        match records::access(&record, asked, self.credentials(image, credentials).await) {
            Access::Granted => true,
            Access::GrantedBy(secret) => {
                self.shared.images.grant(asked, &found.id, secret);
                true
            }
            Access::Denied => false,
        }
    }

    async fn fetch(
        &self,
        container: &str,
        asked: &str,
        image: &str,
        credentials: &OnceCell<Vec<Credential>>,
    ) -> Result<Image, Failed> {
        self.normal(Some(container), "Pulling", format!("Pulling image {asked:?}"));
        let begun = Instant::now();
        match self.pull_with_any(asked, image, credentials).await {
            Ok(pulled) => {
                let message = format!(
                    "Successfully pulled image {asked:?} in {} ({} including waiting). Image size: {} bytes.",
                    millis(pulled.took),
                    millis(begun.elapsed()),
                    pulled.image.size_bytes
                );
                self.normal(Some(container), "Pulled", message);
                Ok(pulled.image)
            }
            Err(error) => self.pull_failed(container, asked, error),
        }
    }

    fn pull_failed(&self, container: &str, asked: &str, error: String) -> Result<Image, Failed> {
        self.warn(Some(container), "Failed", format!("Failed to pull image {asked:?}: {error}"));
        self.warn(Some(container), "Failed", "Error: ErrImagePull");
        Err(Failed { reason: "ErrImagePull", message: error })
    }

    /// With each of the fitting credentials in turn, or with none.
    async fn pull_with_any(&self, asked: &str, image: &str, credentials: &OnceCell<Vec<Credential>>) -> Result<Pulled, String> {
        let sandbox = self.sandbox_config(0).await.map_err(|e| e.to_string())?;
        let mut all: Vec<_> = self.credentials(image, credentials).await.iter().cloned().map(Some).collect();
        if all.is_empty() {
            all.push(None);
        }
        let mut last = String::new();
        for credential in all {
            let wanted = Wanted { asked: asked.to_owned(), image: image.to_owned(), credential };
            match self.shared.images.pull(wanted, &sandbox).await {
                Ok(pulled) => return Ok(pulled),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn credentials<'a>(&self, image: &str, known: &'a OnceCell<Vec<Credential>>) -> &'a [Credential] {
        known.get_or_init(|| async { auth::find(image, &self.pull_secrets().await) }).await
    }

    /// A secret that is missing is told and passed over: the image may be public.
    async fn pull_secrets(&self) -> Vec<Secret> {
        let names = self.desired.pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_ref());
        let api = kube::Api::<Secret>::namespaced(self.shared.kube.clone(), &self.desired.id.namespace);
        let mut found = Vec::new();
        for name in names.into_iter().flatten().map(|r| &r.name).filter(|n| !n.is_empty()) {
            match api.get(name).await {
                Ok(secret) => found.push(secret),
                Err(error) => {
                    let message =
                        format!("Unable to retrieve image pull secret {name:?}; attempting to pull the image may not succeed.");
                    tracing::debug!(pod = %self.desired.id, secret = name, %error, "cannot read the image pull secret");
                    self.warn(None, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        found
    }
}

/// As Go prints a duration cut to milliseconds: `250ms`, `1.5s`, `1m2.25s`.
fn millis(d: Duration) -> String {
    let ms = d.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (minutes, rest) = (ms / 60_000, ms % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", rest / 1000);
    if minutes > 0 { format!("{minutes}m{seconds}") } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_in_kubelet_events() {
        for (ms, text) in [(0, "0ms"), (250, "250ms"), (1500, "1.5s"), (2000, "2s"), (62_250, "1m2.25s")] {
            assert_eq!(millis(Duration::from_millis(ms)), text);
        }
    }
}
