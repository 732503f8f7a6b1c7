//! Pods that are too big for the runtime.

use super::*;
use ferrolet_cri::Code;

/// One whose variables come from so many ConfigMaps.
fn with_maps(w: &World, maps: usize, each: usize, size: usize) -> Value {
    let value = "x".repeat(size);
    for map in 0..maps {
        let data: serde_json::Map<String, Value> = (0..each).map(|n| (format!("V{map}_{n}"), json!(value))).collect();
        w.api.put("configmaps", &format!("m{map}"), json!({"data": data}));
    }
    let mut spec = plain();
    let from: Vec<Value> = (0..maps).map(|map| json!({"configMapRef": {"name": format!("m{map}")}})).collect();
    spec["containers"][0]["envFrom"] = json!(from);
    spec
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_variables_are_refused_by_name_and_hurt_nobody() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("other", plain());
    w.until("ready", |w| w.pod("other").filter(ready)).await;
    // As runc says what the kernel says.
    let long = "failed to create shim task: runc create failed: exec: \"/pause\": argument list too long";
    w.fake.inject("StartContainer", Fault::error(Code::Unknown, long));
    let spec = with_maps(&w, 10, 10_000, 20);
    w.create("p", spec);
    let refused = |w: &World| w.pod("p").filter(|p| waiting(p) == "RunContainerError");
    let pod = eventually(&w, seconds(30), "refused", refused).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], long);
    assert!(pod.to_string().len() < 20_000, "a status of {} bytes", pod.to_string().len());
    w.fake.clear_faults();
    w.create("third", plain());
    eventually(&w, seconds(5), "another", |w| w.pod("third").filter(ready)).await;
    eventually(&w, seconds(15), "healed", |w| w.pod("p").filter(ready)).await;
    let made = w.fake.containers().into_iter().find(|c| c.config.labels["io.kubernetes.pod.uid"] == "uid-p").unwrap();
    assert!(made.config.env.len() >= 100_000, "{}", made.config.env.len());
    w.delete("p", 5);
    eventually(&w, seconds(10), "gone", |w| w.pod("p").is_none().then_some(())).await;
    untouched(&w, "other");
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_the_runtime_takes_is_told_as_such() {
    let w = World::start(Profile::containerd_2()).await;
    w.create("other", plain());
    w.until("ready", |w| w.pod("other").filter(ready)).await;
    let spec = with_maps(&w, 18, 100, 10_000);
    w.create("p", spec);
    let refused = |w: &World| w.pod("p").filter(|p| waiting(p) == "CreateContainerError");
    let pod = eventually(&w, seconds(30), "refused", refused).await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("too large") && message.len() < 500, "{message}");
    w.create("third", plain());
    eventually(&w, seconds(5), "another", |w| w.pod("third").filter(ready)).await;
    w.delete("p", 5);
    eventually(&w, seconds(10), "gone", |w| w.pod("p").is_none().then_some(())).await;
    untouched(&w, "other");
}
