//! The agent's word on its pods, from the board to the rules.

use super::*;
use crate::overlay::{PodWord, READY_FOR};

/// Pods 1 and 2 of this node behind service s1, ready or not.
fn managed(ready: bool) -> wire::EndpointSlice {
    let endpoint = |n: u8| {
        json!({"addresses": [format!("10.244.0.{n}")], "nodeName": "here", "conditions": {"ready": ready, "serving": ready},
            "targetRef": {"kind": "Pod", "uid": format!("uid-{n}")}})
    };
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "s1", "labels": {"kubernetes.io/service-name": "s1",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 80}], "endpoints": [endpoint(1), endpoint(2)]
    }))
    .unwrap()
}

async fn world(ready: bool) -> Setup {
    let (inputs, rx) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let fake = Fake::default();
    let config = Config { node_name: "here".into(), ..Config::default() };
    let (handle, task) = Proxy::spawn_on(config, Box::new(fake.clone()), rx, cancel.clone());
    let mut s = Setup { fake, inputs, handle, cancel, task };
    s.inputs.send(Input::Services(vec![service(1)])).await.unwrap();
    s.inputs.send(Input::Slices(vec![managed(ready)])).await.unwrap();
    s.handle.synced.wait_for(|s| *s).await.unwrap();
    s
}

impl Setup {
    /// Which of the two pods get traffic.
    async fn served(&self) -> Vec<u8> {
        let text = self.handle.describe().await.unwrap();
        [1, 2].into_iter().filter(|n| text.contains(&format!("10.244.0.{n}:80"))).collect()
    }
}

fn word(n: u8) -> PodWord {
    PodWord { ips: vec![[10, 244, 0, n].into()], ..PodWord::default() }
}

#[tokio::test]
async fn once_installed_the_kernel_has_it() {
    let s = world(true).await;
    assert_eq!(s.served().await, [1, 2]);
    // The first answer of the kernel is lost, too.
    s.fake.0.lock().unwrap().fail_next = true;
    s.handle.own_pods.say("uid-1", PodWord { terminating: true, ..word(1) }).wait().await;
    assert_eq!(s.served().await, [2]);
    // What the API shows late changes nothing, whole or one by one.
    s.inputs.send(Input::Slice(Key::new("ns", "s1"), Some(managed(true)))).await.unwrap();
    s.handle.own_pods.say("other", word(9)).wait().await;
    assert_eq!(s.served().await, [2]);
    s.inputs.send(Input::Slices(vec![managed(true)])).await.unwrap();
    s.handle.own_pods.say("other", PodWord { terminating: true, ..word(9) }).wait().await;
    assert_eq!(s.served().await, [2]);
    // The last resort.
    s.handle.own_pods.say("uid-2", PodWord { terminating: true, ..word(2) }).wait().await;
    assert_eq!(s.served().await, [1, 2]);
    s.handle.own_pods.say("uid-1", PodWord { terminating: true, ready: Some(false), ..word(1) }).wait().await;
    assert_eq!(s.served().await, [2]);
}

#[tokio::test]
async fn only_pods_that_the_endpointslice_controller_lists() {
    let s = world(true).await;
    let mut by_hand = managed(true);
    by_hand.metadata.labels.remove("endpointslice.kubernetes.io/managed-by");
    s.inputs.send(Input::Slices(vec![by_hand])).await.unwrap();
    s.handle.own_pods.say("uid-1", PodWord { terminating: true, ..word(1) }).wait().await;
    assert_eq!(s.served().await, [1, 2]);
    let mut elsewhere = managed(true);
    elsewhere.endpoints[0].node_name = Some("there".into());
    s.inputs.send(Input::Slices(vec![elsewhere])).await.unwrap();
    s.handle.own_pods.say("uid-1", PodWord { terminating: true, told: true, ..word(1) }).wait().await;
    assert_eq!(s.served().await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn readiness_that_the_api_does_not_confirm_ends_by_itself() {
    let mut s = world(false).await;
    assert_eq!(s.served().await, Vec::<u8>::new());
    let begun = Instant::now();
    s.handle.own_pods.say("uid-1", PodWord { ready: Some(true), ..word(1) }).wait().await;
    assert_eq!(s.served().await, [1]);
    while s.served().await == [1] {
        assert!(s.handle.stats_changed().await);
    }
    assert_eq!(s.served().await, Vec::<u8>::new());
    assert!(begun.elapsed() >= READY_FOR);
}
