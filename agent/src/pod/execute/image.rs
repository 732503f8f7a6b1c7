//! Making sure of a container's image, by its pull policy.

use super::{Failed, Job, Outcome};
use crate::images::auth::{Credential, Own};
use crate::images::keyring::Keyring;
use crate::images::providers::{For, Given};
use crate::images::records::{self, Access};
use crate::images::{Known, PullError, Pulled, Wanted, reference};
use crate::pod::container::ImageFacts;
use crate::pod::desired::{PullPolicy, image_volumes};
use crate::pod::stage::Stage;
use ferrolet_cri::types::{Image, ImageSpec};
use ferrolet_cri::{Code, Error};
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// The reasons of a pull that failed, which is tried again after a growing pause. All others are looked at again soon.
const PULL: &str = "ErrImagePull";
const UNAVAILABLE: &str = "RegistryUnavailable";
const SIGNATURE: &str = "SignatureValidationFailed";

/// An image that is needed.
struct Asked<'a> {
    /// The container that runs it; `None`: it is mounted, and events are about the pod.
    about: Option<&'a str>,
    image: &'a str,
    pull: PullPolicy,
}

/// What came of it.
enum Ensured {
    There(Image),
    /// Nothing has changed that would let a pull succeed.
    Held,
    Not {
        failed: Failed,
        credentials: u64,
    },
}

impl Ensured {
    fn outcome(self, container: &str, image: &str) -> Outcome {
        let (container, image) = (container.to_owned(), image.to_owned());
        match self {
            Ensured::Not { failed, credentials } => Outcome::NotPulled { container, image, failed, credentials },
            Ensured::There(_) | Ensured::Held => Outcome::StillHeld { container },
        }
    }
}

impl Job {
    /// Makes sure of the image. While an earlier failure is to be waited for it only looks whether its cause has ended.
    pub(super) async fn pull_image(&self, container: &str, attempt: u32) -> Result<Outcome, Failed> {
        let ensured = self.ensure_image(container, attempt).await;
        let said = match &ensured {
            Ok(Outcome::NotPulled { failed, .. }) => Some(failed.reason),
            // One that changes nothing was told when it came.
            Err(failed) if self.held.as_ref().is_none_or(|h| h.message != failed.message) => Some(failed.reason),
            Ok(_) | Err(_) => None,
        };
        if let Some(reason) = said {
            self.warn(Some(container), "Failed", format!("Error: {reason}"));
        }
        ensured
    }

    /// The images that the container mounts, then its own, as kubelet does it.
    async fn ensure_image(&self, container: &str, attempt: u32) -> Result<Outcome, Failed> {
        let (Some(wanted), Some(spec)) = (self.desired.container(container), self.desired.spec_of(container)) else {
            return Err(Failed::new(PULL, format!("container {container:?} is not in the pod")));
        };
        let mut volumes = BTreeMap::new();
        for (volume, source) in image_volumes(&self.desired.pod) {
            if !spec.volume_mounts.iter().flatten().any(|m| m.name == volume) {
                continue;
            }
            let image = source.reference.as_deref().unwrap_or_default();
            let asked = Asked { about: None, image, pull: PullPolicy::of(source.pull_policy.as_deref(), image) };
            match self.ensure(&asked).await? {
                Ensured::There(found) => drop(volumes.insert(volume.to_owned(), found.id)),
                other => return Ok(other.outcome(container, image)),
            }
        }
        let asked = Asked { about: Some(container), image: &wanted.image, pull: wanted.pull };
        match self.ensure(&asked).await? {
            Ensured::There(found) => {
                let facts = ImageFacts { image_ref: found.id, uid: found.uid, username: found.username, volumes };
                Ok(Outcome::Image { container: container.to_owned(), attempt, facts })
            }
            other => Ok(other.outcome(container, &wanted.image)),
        }
    }

    async fn ensure(&self, what: &Asked<'_>) -> Result<Ensured, Failed> {
        let asked = what.image;
        let image = reference::with_default_tag(asked).map_err(|e| {
            let message = format!("Failed to apply default image tag {asked:?}: {e}");
            self.warn_new(what.about, "InspectFailed", &message);
            Failed { reason: "InvalidImageName", message }
        })?;
        let present = self.shared.cri.image_status(&ImageSpec::new(&image)).await.map_err(|e| {
            let message = format!("Failed to inspect image {asked:?}: {}", e.rpc_text());
            self.warn_new(what.about, "InspectFailed", &message);
            Failed { reason: "ImageInspectError", message }
        })?;
        // Asked for at most once, and only where something depends on them.
        let own = OnceCell::new();
        let usable = match (what.pull, &present) {
            (PullPolicy::Always, _) | (_, None) => false,
            (_, Some(found)) => self.may_use(asked, &image, found, &own).await,
        };
        match (what.pull, present) {
            (_, Some(found)) if usable => {
                // Of an image that is mounted it was told when the pull that is waited for was first tried.
                if what.about.is_some() || self.held.is_none() {
                    let message = format!("Container image {asked:?} already present on machine and can be accessed by the pod");
                    self.normal(what.about, "Pulled", message);
                }
                Ok(Ensured::There(found))
            }
            // Also where it is there and the pod may not use it: that it is there is nothing to tell.
            (PullPolicy::Never, _) => {
                let message = format!("Container image {asked:?} is not present with pull policy of Never");
                self.warn_new(what.about, "ErrImageNeverPull", &message);
                Err(Failed { reason: "ErrImageNeverPull", message })
            }
            _ => {
                let PullCredentials { own, missing, unknown } = own.get_or_init(|| self.own_credentials()).await;
                let credentials = own.mark();
                let tried = self.held.as_ref().and_then(|h| h.credentials);
                if tried.is_some_and(|tried| tried == credentials || *unknown) {
                    return Ok(Ensured::Held);
                }
                for name in missing {
                    let message =
                        format!("Unable to retrieve image pull secret {name:?}; attempting to pull the image may not succeed.");
                    self.warn(None, "FailedToRetrieveImagePullSecret", message);
                }
                Ok(match self.fetch(what.about, asked, &image, own).await {
                    Ok(found) => Ensured::There(found),
                    Err(failed) => Ensured::Not { failed, credentials },
                })
            }
        }
    }

    /// Unless it was told last time.
    fn warn_new(&self, about: Option<&str>, reason: &str, message: &str) {
        if self.held.as_ref().is_none_or(|h| h.message != message) {
            self.warn(about, reason, message);
        }
    }

    /// Whether the pod may use the image that is there, without asking its registry.
    async fn may_use(&self, asked: &str, image: &str, found: &Image, own: &OnceCell<PullCredentials>) -> bool {
        let record = match self.shared.images.known(asked, &found.id).await {
            Known::Free => return true,
            Known::Unproven => return false,
            Known::Asks(record) => record,
        };
        let own = &own.get_or_init(|| self.own_credentials()).await.own;
        // Of what providers give only for whom they give it counts here.
        let given =
            if records::asks_for_account(&record, asked) { self.provided(image).await.keyring } else { Keyring::default() };
        match records::access(&record, asked, &own.find(image, &given)) {
            Access::Granted => true,
            Access::GrantedBy(secret) => {
                self.shared.images.grant(asked, &found.id, secret);
                true
            }
            Access::Denied => false,
        }
    }

    async fn fetch(&self, about: Option<&str>, asked: &str, image: &str, own: &Own) -> Result<Image, Failed> {
        self.normal(about, "Pulling", format!("Pulling image {asked:?}"));
        let begun = Instant::now();
        match self.pull_with_any(asked, image, own).await {
            Ok(pulled) => {
                let message = format!(
                    "Successfully pulled image {asked:?} in {} ({} including waiting). Image size: {} bytes.",
                    millis(pulled.took),
                    millis(begun.elapsed()),
                    pulled.image.size_bytes
                );
                self.normal(about, "Pulled", message);
                Ok(pulled.image)
            }
            Err(error) => self.pull_failed(about, asked, error),
        }
    }

    fn pull_failed(&self, about: Option<&str>, asked: &str, error: String) -> Result<Image, Failed> {
        self.warn(about, "Failed", format!("Failed to pull image {asked:?}: {error}"));
        Err(judge(asked, error))
    }

    /// With each of the fitting credentials in turn, or with none.
    async fn pull_with_any(&self, asked: &str, image: &str, own: &Own) -> Result<Pulled, String> {
        let sandbox = self.sandbox_config(0).await.map_err(|e| e.to_string())?;
        let given = self.provided(image).await;
        let mut credentials: Vec<Option<Credential>> = own.find(image, &given.keyring).into_iter().map(Some).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut errors: Vec<String> = Vec::new();
        for credential in credentials {
            self.at(Stage::Queued);
            let wanted = Wanted { asked: asked.to_owned(), image: image.to_owned(), credential };
            match self.shared.images.pull(wanted, &sandbox, || self.at(Stage::Pulling)).await {
                Ok(pulled) => return Ok(pulled),
                Err(error) => {
                    let text = match &error {
                        PullError::Runtime(error) => words(error),
                        PullError::Gone | PullError::Record { .. } | PullError::Stopping => error.to_string(),
                    };
                    if !errors.contains(&text) {
                        errors.push(text);
                    }
                }
            }
        }
        let error = if errors.len() == 1 { errors.remove(0) } else { format!("[{}]", errors.join(", ")) };
        let problems: Vec<&str> = own.problems.iter().chain(&given.problems).map(String::as_str).collect();
        Err(if problems.is_empty() { error } else { format!("{error} ({})", problems.join("; ")) })
    }

    async fn provided(&self, image: &str) -> Given {
        let id = &self.desired.id;
        let account = self.desired.pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
        let who = For { namespace: &id.namespace, pod: &id.name, uid: &id.uid, account };
        self.shared.providers.credentials(image, who).await
    }

    /// A secret that is missing is passed over: the image may be public.
    async fn own_credentials(&self) -> PullCredentials {
        let names = self.desired.pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_ref());
        let (mut found, mut missing, mut unknown) = (Vec::new(), Vec::new(), false);
        for name in names.into_iter().flatten().map(|r| &r.name).filter(|n| !n.is_empty()) {
            match self.shared.objects.get::<Secret>(&self.desired.id.namespace, name).await {
                Ok(Some(secret)) => found.push(Secret::clone(&secret)),
                Ok(None) => missing.push(name.clone()),
                Err(error) => {
                    tracing::debug!(pod = %self.desired.id, secret = name, %error, "cannot read the image pull secret");
                    unknown = true;
                    missing.push(name.clone());
                }
            }
        }
        let places = self.shared.config.docker_config.clone();
        let (node, mut problems) = tokio::task::spawn_blocking(move || places.read()).await.unwrap_or_default();
        let mut own = Own::of(&found, node);
        own.problems.append(&mut problems);
        PullCredentials { own, missing, unknown }
    }
}

/// What the pod and its node have to show, credential providers aside.
struct PullCredentials {
    own: Own,
    /// Secrets that the pod names and that could not be read.
    missing: Vec<String>,
    /// Some may be there: the API did not say.
    unknown: bool,
}

/// As kubelet passes on what the runtime said of a pull: a code that says nothing is left out.
fn words(error: &Error) -> String {
    if error.code() == Code::Unknown { error.message() } else { error.rpc_text() }
}

/// Two causes have names that runtimes begin their message with.
fn judge(asked: &str, error: String) -> Failed {
    for (reason, cause) in [(UNAVAILABLE, "the registry is unavailable"), (SIGNATURE, "the signature validation failed")] {
        if let Some(rest) = error.strip_prefix(reason) {
            return Failed { reason, message: format!("image pull failed for {asked} because {cause}{rest}") };
        }
    }
    Failed { reason: PULL, message: error }
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
    fn causes_that_have_names() {
        let of = |text: &str| judge("a:1", text.to_owned());
        let away = of("RegistryUnavailable: 503 of reg.example");
        assert_eq!(away.reason, "RegistryUnavailable");
        assert_eq!(away.message, "image pull failed for a:1 because the registry is unavailable: 503 of reg.example");
        let signed = of("SignatureValidationFailed");
        assert_eq!(signed.reason, "SignatureValidationFailed");
        assert_eq!(signed.message, "image pull failed for a:1 because the signature validation failed");
        assert_eq!(of("no such host"), Failed { reason: "ErrImagePull", message: "no such host".into() });
    }

    #[test]
    fn a_code_that_says_nothing_is_left_out() {
        let call = |code| Error::Call { method: "PullImage", object: "a:1".into(), code, message: "no".into() };
        assert_eq!(words(&call(Code::Unknown)), "no");
        assert_eq!(words(&call(Code::NotFound)), "rpc error: code = NotFound desc = no");
    }

    #[test]
    fn durations_as_in_kubelet_events() {
        for (ms, text) in [(0, "0ms"), (250, "250ms"), (1500, "1.5s"), (2000, "2s"), (62_250, "1m2.25s")] {
            assert_eq!(millis(Duration::from_millis(ms)), text);
        }
    }
}
