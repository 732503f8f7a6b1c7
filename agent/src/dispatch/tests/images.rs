//! What keeps an image from being had, and what the user is told of it.

use super::world::World;
use super::{ready, waiting};
use ferrolet_cri::Code;
use ferrolet_cri::fake::{Fault, ImageConfig, Profile};
use serde_json::{Value, json};

fn of(image: &str) -> Value {
    json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}]})
}

fn message(p: &Value) -> &str {
    p["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn causes_with_a_name_are_reasons_and_the_delay_shows_them() {
    let w = World::start(Profile::containerd_2()).await;
    let text = "SignatureValidationFailed: no signature".to_owned();
    w.fake.inject("PullImage", Fault::Error(Code::Unknown, text));
    w.create("p", of("signed:1"));
    let told = "image pull failed for signed:1 because the signature validation failed: no signature";
    let p = w.until("named", |w| w.pod("p").filter(|p| waiting(p) == "SignatureValidationFailed")).await;
    assert_eq!(message(&p), told);
    let p = w.until("back-off", |w| w.pod("p").filter(|p| waiting(p) == "ImagePullBackOff")).await;
    assert_eq!(message(&p), format!("Back-off pulling image \"signed:1\": SignatureValidationFailed: {told}"));
    w.until("told", |w| w.api.messages().contains(&"Error: ImagePullBackOff".to_owned()).then_some(())).await;
    let said = w.api.messages();
    for line in [
        "Pulling image \"signed:1\"",
        "Failed to pull image \"signed:1\": SignatureValidationFailed: no signature",
        "Error: SignatureValidationFailed",
        "Back-off pulling image \"signed:1\"",
    ] {
        assert!(said.iter().any(|m| m == line), "{line:?} in {said:?}");
    }
}

#[tokio::test]
async fn another_image_in_the_pod_has_no_delay_of_the_old_one() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.add_to_registry("good:1", ImageConfig::default());
    w.create("p", of("nowhere:1"));
    w.until("failed", |w| w.pod("p").filter(|p| waiting(p) == "ErrImagePull")).await;
    let pulls = w.fake.count("PullImage");
    w.image("p", "good:1");
    let begun = std::time::Instant::now();
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    assert!(begun.elapsed().as_secs() < 8, "the delay of the old image is ten seconds");
    assert_eq!(w.fake.count("PullImage"), pulls + 1);
    assert_eq!(w.fake.containers().pop().unwrap().config.image.user_specified_image, "good:1");
}

#[tokio::test]
async fn a_network_that_is_not_ready_is_told_in_place_of_its_effect() {
    let w = World::start(Profile::containerd_2()).await;
    w.fake.set_conditions(true, false);
    w.fake.inject("RunPodSandbox", Fault::Error(Code::Unknown, "cni plugin not initialized".into()));
    w.create("p", of("web:1"));
    w.until("told", |w| w.api.reasons().contains(&"NetworkNotReady".to_owned()).then_some(())).await;
    assert!(!w.api.reasons().contains(&"FailedCreatePodSandBox".to_owned()));
    let text = "network is not ready: container runtime network not ready: NetworkReady=false reason:";
    assert!(w.api.messages().iter().any(|m| m.starts_with(text)), "{:?}", w.api.messages());
    w.fake.set_conditions(true, true);
    w.until("told", |w| w.api.reasons().contains(&"FailedCreatePodSandBox".to_owned()).then_some(())).await;
    let text = "Failed to create pod sandbox: rpc error: code = Unknown desc = cni plugin not initialized";
    assert!(w.api.messages().iter().any(|m| m == text), "{:?}", w.api.messages());
    w.fake.clear_faults();
    w.until("ready", |w| w.pod("p").filter(ready)).await;
}
