//! Volumes that depend on more than the pod: images that are mounted, claims, what the runtime's handler can do.

use super::world::World;
use super::{ready, waiting};
use ferrolet_cri::fake::{ImageConfig, Profile};
use serde_json::{Value, json};

fn with(volume: Value, mount: Value) -> Value {
    let (mut volume, mut mount) = (volume, mount);
    (volume["name"], mount["name"], mount["mountPath"]) = (json!("v"), json!("v"), json!("/v"));
    json!({"volumes": [volume], "containers": [{"name": "main", "image": "web:1", "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [mount]}]})
}

fn message(p: &Value) -> &str {
    p["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_image_that_is_mounted_is_pulled_first() {
    let w = World::start(Profile::newest()).await;
    w.create("p", with(json!({"image": {"reference": "data:1"}}), json!({"subPath": "deep/er"})));
    let p = w.until("failed", |w| w.pod("p").filter(|p| waiting(p) == "ErrImagePull")).await;
    assert!(message(&p).contains("data:1"), "{p}");
    let p = w.until("back-off", |w| w.pod("p").filter(|p| waiting(p) == "ImagePullBackOff")).await;
    assert!(message(&p).starts_with("Back-off pulling image \"data:1\": ErrImagePull: "), "{p}");
    let told = |text: &str| w.api.events().iter().find(|e| e["message"].as_str().unwrap().starts_with(text)).cloned();
    assert!(told("Back-off pulling image \"data:1\"").is_some());
    let about = |e: Value| e["involvedObject"]["fieldPath"].as_str().map(str::to_owned);
    assert_eq!(about(told("Pulling image \"data:1\"").unwrap()), None);
    assert!(told("Container image \"web:1\"").is_none(), "its own image comes after");
    w.fake.add_to_registry("data:1", ImageConfig::default());
    w.image("p", "web:1");
    w.fake.add_image("data:1", ImageConfig::default());
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    let made = w.fake.containers().pop().unwrap().config;
    let mount = made.mounts.iter().find(|m| m.container_path == "/v").unwrap();
    assert_eq!(mount.image.as_ref().unwrap().user_specified_image, "data:1");
    assert_eq!((mount.image_sub_path.as_str(), mount.host_path.as_str(), mount.readonly), ("deep/er", "", true));
}

#[tokio::test]
async fn a_runtime_without_image_volumes_is_named() {
    let w = World::start(Profile::containerd_1_6()).await;
    w.create("p", with(json!({"image": {"reference": "web:1"}}), json!({})));
    let p = w.until("refused", |w| w.pod("p").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
    assert_eq!(message(&p), "volume \"v\": image volumes need containerd 2.1, and this node runs 1.6.20");
    assert_eq!(w.fake.count("CreateContainer"), 0);
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", with(json!({"image": {"reference": "web:1"}}), json!({"subPath": "deep"})));
    let p = w.until("refused", |w| w.pod("p").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
    assert_eq!(message(&p), "volume \"v\": mounts of a part of an image need containerd 2.2, and this node runs 2.1.9");
}

#[tokio::test]
async fn recursive_read_only_is_what_the_handler_can_do() {
    let shown = |p: &Value| p["status"]["containerStatuses"][0]["volumeMounts"][0]["recursiveReadOnly"].clone();
    let asks = |mode: &str| with(json!({"emptyDir": {}}), json!({"readOnly": true, "recursiveReadOnly": mode}));
    for (profile, whole) in [(Profile::containerd_2(), true), (Profile::containerd_1_6(), false)] {
        let w = World::start(profile).await;
        w.create("p", asks("IfPossible"));
        let p = w.until("ready", |w| w.pod("p").filter(ready)).await;
        let mounts = w.fake.containers().pop().unwrap().config.mounts;
        assert_eq!(mounts.iter().any(|m| m.recursive_read_only), whole);
        assert_eq!(shown(&p), if whole { "Enabled" } else { "Disabled" });
        w.create("q", asks("Enabled"));
        if whole {
            w.until("ready", |w| w.pod("q").filter(ready)).await;
        } else {
            let p = w.until("refused", |w| w.pod("q").filter(|p| waiting(p) == "CreateContainerConfigError")).await;
            assert!(message(&p).ends_with("requested recursive read-only mode, but it is not supported by the runtime"), "{p}");
        }
    }
}

#[tokio::test]
async fn a_volume_for_one_pod_alone_passes_on_at_once() {
    let w = World::start(Profile::containerd_2()).await;
    w.api.put(
        "persistentvolumes",
        "pv",
        json!({"metadata": {"name": "pv", "uid": "v"}, "spec": {"hostPath": {"path": "/tmp"},
        "accessModes": ["ReadWriteOncePod"], "claimRef": {"namespace": "ns", "name": "c", "uid": "u"}}}),
    );
    w.api.put(
        "persistentvolumeclaims",
        "c",
        json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
    );
    let spec = with(json!({"persistentVolumeClaim": {"claimName": "c"}}), json!({}));
    w.create("first", spec.clone());
    w.until("ready", |w| w.pod("first").filter(ready)).await;
    w.create("second", spec);
    // So often that the next try by itself is seconds away.
    let told =
        |w: &World| w.api.events().iter().any(|e| e["message"].as_str().unwrap().ends_with(crate::volume::IN_USE)).then_some(());
    w.until("in use", told).await;
    w.until("waits", |w| w.pod("second").filter(|p| waiting(p) == "ContainerCreating")).await;
    w.delete("first", 1);
    w.until("gone", |w| w.pod("first").is_none().then_some(())).await;
    let begun = std::time::Instant::now();
    w.until("ready", |w| w.pod("second").filter(ready)).await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_pod_starts_soon_after_its_claim_is_bound() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("p", with(json!({"persistentVolumeClaim": {"claimName": "c"}}), json!({})));
    let claim = |phase: &str| {
        json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": phase},
        "spec": {"volumeName": "pv"}, "status": {"phase": phase}})
    };
    let fails = |text: &'static str| move |w: &World| w.api.messages().iter().any(|m| m.ends_with(text)).then_some(());
    w.until("missing", fails("PVC ns/c: failed to fetch PVC from API server: persistentvolumeclaims \"c\" not found")).await;
    w.api.put("persistentvolumeclaims", "c", claim("Pending"));
    w.until("unbound", fails("error processing PVC ns/c: PVC is not bound")).await;
    let tried = w.api.messages().len();
    w.api.put(
        "persistentvolumes",
        "pv",
        json!({"metadata": {"name": "pv", "uid": "v"},
        "spec": {"hostPath": {"path": "/tmp"}, "claimRef": {"namespace": "ns", "name": "c", "uid": "u"}}}),
    );
    w.api.put("persistentvolumeclaims", "c", claim("Bound"));
    let begun = std::time::Instant::now();
    w.until("ready", |w| w.pod("p").filter(ready)).await;
    assert!(begun.elapsed().as_secs() < 5, "{:?} after {tried} events", begun.elapsed());
}
