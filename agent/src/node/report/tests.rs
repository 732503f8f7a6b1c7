use super::*;
use crate::api::snapshot::Snapshot;
use crate::api::testing::{Answer, Asked, Server, until};
use ferrolet_cri::types::{Condition, RuntimeStatus};
use serde_json::json;
use std::sync::Mutex;

struct Bench {
    server: Server,
    health: watch::Sender<Arc<Health>>,
    synced: watch::Sender<bool>,
    progress: watch::Receiver<Progress>,
    uid: watch::Receiver<Option<String>>,
    cancel: CancellationToken,
    _images: watch::Sender<Arc<Vec<ListedImage>>>,
    _node: watch::Sender<Arc<Snapshot<Node>>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn healthy() -> Arc<Health> {
    let ok = Condition { ok: true, ..Condition::default() };
    Arc::new(Health {
        status: Some(RuntimeStatus { runtime_ready: ok.clone(), network_ready: ok, ..RuntimeStatus::default() }),
        ..Health::default()
    })
}

/// Holds one Node; patches to conditions replace them, which is enough here.
fn registry(node: Option<Value>) -> impl Fn(&Asked) -> Option<Answer> {
    let held = Mutex::new(node);
    move |asked| {
        let mut held = held.lock().unwrap();
        let missing = || {
            Answer::Json(404, json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""}))
        };
        Some(match (asked.method.as_str(), held.as_mut()) {
            ("POST", _) => {
                let mut node: Value = serde_json::from_str(&asked.body).unwrap();
                node["metadata"]["uid"] = json!("u");
                *held = Some(node.clone());
                Answer::Json(201, node)
            }
            (_, None) => missing(),
            ("GET", Some(node)) => Answer::Json(200, node.clone()),
            (_, Some(node)) => {
                let patch: Value = serde_json::from_str(&asked.body).unwrap();
                if let Some(conditions) = patch["status"].get("conditions") {
                    node["status"]["conditions"] = conditions.clone();
                }
                Answer::Json(200, node.clone())
            }
        })
    }
}

async fn start(node: Option<Value>, health: Arc<Health>) -> Bench {
    let server = Server::start(registry(node)).await;
    let (health, runtime) = watch::channel(health);
    let (_images, images) = watch::channel(Arc::default());
    let (synced, services_synced) = watch::channel(false);
    let (_node, node) = watch::channel(Arc::default());
    let (node_uid, uid) = watch::channel(None);
    let cancel = CancellationToken::new();
    let sources = Sources { runtime, images, services_synced, node };
    let config = Arc::new(Config { node_name: "n".into(), node_ips: vec!["10.0.0.1".parse().unwrap()], ..Config::default() });
    let reporter = Reporter {
        config,
        client: server.client(),
        machine: Arc::default(),
        sources,
        node_uid,
        events: EventRecorder::silent(),
        cgroup_v1: false,
    };
    let (progress, _) = spawn(reporter, cancel.clone());
    Bench { server, health, synced, progress, uid, cancel, _images, _node }
}

impl Bench {
    /// The Ready condition of each status that was written.
    fn ready(&self) -> Vec<String> {
        let asked = self.server.asked.lock().unwrap();
        let bodies = asked
            .iter()
            .filter(|asked| asked.uri.contains("/status"))
            .map(|asked| serde_json::from_str::<Value>(&asked.body).unwrap());
        bodies.filter_map(|body| Some(body["status"]["conditions"].as_array()?.last()?["status"].as_str()?.to_owned())).collect()
    }
}

#[tokio::test]
async fn a_new_node_is_registered_and_becomes_ready_when_all_is() {
    let bench = start(None, Arc::default()).await;
    until("registered", || bench.progress.borrow().registered).await;
    assert_eq!(bench.uid.borrow().as_deref(), Some("u"));
    bench.health.send_replace(healthy());
    bench.synced.send_replace(true);
    until("ready", || bench.progress.borrow().ready).await;
    assert_eq!(bench.ready().last().map(String::as_str), Some("True"));
    bench.health.send_replace(Arc::new(Health { down: Some("gone".into()), ..Health::default() }));
    until("not ready", || !bench.progress.borrow().ready).await;
    assert_eq!(bench.ready().last().map(String::as_str), Some("False"));
}

#[tokio::test]
async fn starting_again_does_not_flip_a_ready_node() {
    let node = json!({"metadata": {"name": "n", "uid": "u"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let bench = start(Some(node), Arc::default()).await;
    until("registered", || bench.progress.borrow().registered).await;
    bench.health.send_replace(healthy());
    bench.synced.send_replace(true);
    until("ready", || bench.progress.borrow().ready).await;
    assert!(bench.ready().iter().all(|ready| ready == "True"), "{:?}", bench.ready());
}
