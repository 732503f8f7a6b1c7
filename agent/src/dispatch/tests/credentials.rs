//! An image that one pod has pulled with its credentials is not there for the next pod without them.

use super::ready;
use super::world::World;
use base64::Engine;
use ferrolet_cri::fake::{ImageConfig, Profile};
use serde_json::{Value, json};

const IMAGE: &str = "reg.local/private/web:1";

fn secret(name: &str, password: &str) -> Value {
    let auths = json!({"auths": {"reg.local": {"username": "u", "password": password}}});
    let data = base64::engine::general_purpose::STANDARD.encode(auths.to_string());
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
        "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}})
}

fn pod(policy: &str, secret: Option<&str>) -> Value {
    let secrets: Vec<Value> = secret.iter().map(|s| json!({ "name": s })).collect();
    json!({"containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": policy}], "imagePullSecrets": secrets})
}

fn waits(pod: &Value) -> Option<(String, String)> {
    let w = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    Some((w["reason"].as_str()?.to_owned(), w["message"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn a_pod_shows_credentials_of_its_own() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.fake.add_to_registry(IMAGE, ImageConfig { credentials: Some(("u".into(), "right".into())), ..Default::default() });
    for (name, password) in [("mine", "right"), ("copied", "right"), ("wrong", "wrong")] {
        w.api.put("secrets", name, secret(name, password));
    }
    w.create("first", pod("IfNotPresent", Some("mine")));
    w.until("pulled and ready", |w| w.pod("first").filter(ready)).await;
    assert_eq!(w.fake.count("PullImage"), 1);

    w.stop_agent().await;
    w.start_agent();
    // Another secret with the same credential: nothing is pulled.
    w.create("copied", pod("Never", Some("copied")));
    w.until("copied", |w| w.pod("copied").filter(ready)).await;
    assert_eq!(w.fake.count("PullImage"), 1);
    let may = format!("Container image {IMAGE:?} already present on machine and can be accessed by the pod");
    assert!(w.api.messages().contains(&may), "{:?}", w.api.messages());

    w.create("wrong", pod("IfNotPresent", Some("wrong")));
    let seen = w.until("wrong", |w| waits(&w.pod("wrong")?).filter(|(r, _)| r == "ErrImagePull")).await;
    assert!(seen.1.contains("failed to resolve reference") && !seen.1.contains("right"), "{seen:?}");
    w.create("never", pod("Never", None));
    let seen = w.until("never", |w| waits(&w.pod("never")?).filter(|(r, _)| r == "ErrImageNeverPull")).await;
    assert_eq!(seen.1, format!("Container image {IMAGE:?} is not present with pull policy of Never"));
    assert_eq!(w.fake.count("CreateContainer"), 2, "none of them started");
}
