//! Making sure of a container's image, by its pull policy.

use super::{Failed, Job, Outcome};
use crate::images::{auth, reference};
use crate::pod::container::ImageFacts;
use crate::pod::desired::PullPolicy;
use crate::pod::stage::Stage;
use ferrolet_cri::types::{Image, ImageSpec};
use k8s_openapi::api::core::v1::Secret;
use std::time::{Duration, Instant};

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
        let found = match (wanted.pull, present) {
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(found)) => {
                let message = format!("Container image {asked:?} already present on machine");
                self.normal(Some(container), "Pulled", message);
                found
            }
            (PullPolicy::Never, None) => {
                let message = format!("Container image {asked:?} is not present with pull policy of Never");
                self.warn(Some(container), "ErrImageNeverPull", message.clone());
                return Err(Failed { reason: "ErrImageNeverPull", message });
            }
            _ => self.fetch(container, asked, &image).await?,
        };
        let facts = ImageFacts { image_ref: found.id, uid: found.uid, username: found.username };
        Ok(Outcome::Image { container: container.to_owned(), attempt, facts })
    }

    async fn fetch(&self, container: &str, asked: &str, image: &str) -> Result<Image, Failed> {
        self.normal(Some(container), "Pulling", format!("Pulling image {asked:?}"));
        let begun = Instant::now();
        let pulled = self.pull_with_any(image).await;
        let status = match pulled {
            Ok(took) => self.shared.cri.image_status(&ImageSpec::new(image)).await.map(|s| (took, s)).map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        match status {
            Ok((took, Some(found))) => {
                let message = format!(
                    "Successfully pulled image {asked:?} in {} ({} including waiting). Image size: {} bytes.",
                    millis(took),
                    millis(begun.elapsed()),
                    found.size_bytes
                );
                self.normal(Some(container), "Pulled", message);
                Ok(found)
            }
            Ok((_, None)) => self.pull_failed(container, asked, "the image is not there after the pull".to_owned()),
            Err(error) => self.pull_failed(container, asked, error),
        }
    }

    fn pull_failed(&self, container: &str, asked: &str, error: String) -> Result<Image, Failed> {
        self.warn(Some(container), "Failed", format!("Failed to pull image {asked:?}: {error}"));
        self.warn(Some(container), "Failed", "Error: ErrImagePull");
        Err(Failed { reason: "ErrImagePull", message: error })
    }

    /// With each of the fitting credentials in turn, or with none.
    async fn pull_with_any(&self, image: &str) -> Result<Duration, String> {
        let sandbox = self.sandbox_config(0).await.map_err(|e| e.to_string())?;
        let secrets = self.pull_secrets().await;
        let mut credentials: Vec<_> = auth::find(image, &secrets).into_iter().map(Some).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut last = String::new();
        for auth in credentials {
            self.at(Stage::Queued);
            match self.shared.images.pull(image, auth, &sandbox, || self.at(Stage::Pulling)).await {
                Ok(pulled) => return Ok(pulled.took),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
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
