use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::json;

use super::delete::{Step, is_finished, plan};
use super::*;
use crate::kinds::{self, Sub};
use crate::store::Keep;

async fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), Keep::default()).unwrap();
    let registry = Registry::open(store, Config::default()).await.unwrap();
    let account = json!({"metadata": {"name": "default"}});
    registry.create(&kinds::SERVICE_ACCOUNT, "default", account, &WriteOptions::default()).await.unwrap();
    (dir, registry)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn marked(step: Step) -> Value {
    match step {
        Step::Mark(object) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grace_period_only_shortens() {
    let running =
        json!({"metadata": {"name": "a", "generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 20}});
    let ask = |seconds: Option<i64>| DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
    let first = marked(plan(&kinds::POD, &running, &ask(None), at(0)));
    assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 20);
    assert_eq!(first["metadata"]["deletionTimestamp"], meta::timestamp(at(20)));
    assert_eq!(first["metadata"]["generation"], 2);
    assert!(!is_finished(&kinds::POD, &first));
    assert_eq!(plan(&kinds::POD, &first, &ask(Some(60)), at(1)), Step::Leave);
    assert_eq!(plan(&kinds::POD, &first, &ask(None), at(1)), Step::Leave);
    let shorter = marked(plan(&kinds::POD, &first, &ask(Some(5)), at(1)));
    assert_eq!(shorter["metadata"]["deletionTimestamp"], meta::timestamp(at(5)));
    assert_eq!(plan(&kinds::POD, &shorter, &ask(Some(0)), at(2)), Step::Remove);
    // What never ran, or has ended, goes at once.
    for object in [
        json!({"metadata": {"name": "a"}, "spec": {}}),
        json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}),
    ] {
        assert_eq!(plan(&kinds::POD, &object, &ask(None), at(0)), Step::Remove);
    }
}

#[test]
fn finalizers_and_propagation_hold_an_object() {
    let set = json!({"metadata": {"name": "a"}});
    let how = |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    assert_eq!(plan(&kinds::REPLICA_SET, &set, &how(Propagation::Background), at(0)), Step::Remove);
    let waiting = marked(plan(&kinds::REPLICA_SET, &set, &how(Propagation::Foreground), at(0)));
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(plan(&kinds::REPLICA_SET, &waiting, &how(Propagation::Foreground), at(1)), Step::Leave);
    let orphaning = marked(plan(&kinds::REPLICA_SET, &waiting, &how(Propagation::Orphan), at(1)));
    assert_eq!(orphaning["metadata"]["finalizers"], json!(["orphan"]));
    assert_eq!(plan(&kinds::REPLICA_SET, &orphaning, &how(Propagation::Background), at(2)), Step::Remove);
    let namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let going = marked(plan(&kinds::NAMESPACE, &namespace, &DeleteOptions::default(), at(0)));
    assert_eq!(going["status"]["phase"], "Terminating");
}

#[tokio::test]
async fn a_pod_is_admitted_bound_and_deleted() {
    let (_dir, registry) = registry().await;
    let options = WriteOptions::default();
    let made = registry.create(&kinds::POD, "default", pod("a"), &options).await.unwrap();
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(made["spec"]["volumes"][0]["name"], mount["name"]);
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(made["spec"]["priority"], 0);
    let binding = |node: &str| json!({"target": {"kind": "Node", "name": node}});
    registry.bind("default", "a", &binding("n"), &options).await.unwrap();
    assert!(registry.bind("default", "a", &binding("m"), &options).await.unwrap_err().is_conflict());
    let bound = registry.get(&kinds::POD, "default", "a").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["status"]["conditions"].as_array().unwrap().iter().filter(|c| c["type"] == "PodScheduled").count(), 1);
    let deleted = registry.delete(&kinds::POD, "default", "a", &DeleteOptions::default()).await.unwrap();
    assert!(!deleted.gone);
    let wrong = DeleteOptions { grace_period_seconds: Some(0), uid: Some("other".into()), ..DeleteOptions::default() };
    assert!(registry.delete(&kinds::POD, "default", "a", &wrong).await.unwrap_err().is_conflict());
    let last = DeleteOptions { uid: Some(meta::uid(&bound).to_owned()), ..wrong };
    assert!(registry.delete(&kinds::POD, "default", "a", &last).await.unwrap().gone);
}

#[tokio::test]
async fn a_node_writes_only_what_is_its_own() {
    let (_dir, registry) = registry().await;
    registry.create(&kinds::POD, "default", pod("a"), &WriteOptions::default()).await.unwrap();
    registry.bind("default", "a", &json!({"target": {"name": "n"}}), &WriteOptions::default()).await.unwrap();
    let node = |name: &str| {
        let groups = vec!["system:nodes".to_owned(), "system:authenticated".to_owned()];
        let user = User { name: format!("system:node:{name}"), uid: String::new(), groups, extra: vec![] };
        WriteOptions { user: Arc::new(user), ..WriteOptions::default() }
    };
    let mut seen = (*registry.get(&kinds::POD, "default", "a").await.unwrap()).clone();
    seen["status"]["phase"] = json!("Running");
    let status = Some(Sub::Status);
    let denied = registry.update(&kinds::POD, "default", "a", status, seen.clone(), &node("m")).await.unwrap_err();
    assert_eq!(denied.code(), 403);
    registry.update(&kinds::POD, "default", "a", status, seen.clone(), &node("n")).await.unwrap();
    seen["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(registry.update(&kinds::POD, "default", "a", None, seen, &node("n")).await.unwrap_err().code(), 403);
    let create = registry.create(&kinds::POD, "default", pod("b"), &node("n")).await.unwrap_err();
    assert!(create.message.contains("mirror"), "{create}");
}

#[tokio::test]
async fn namespaces_must_exist_and_live() {
    let (_dir, registry) = registry().await;
    let options = WriteOptions::default();
    let map = || json!({"metadata": {"name": "m"}});
    assert!(registry.create(&kinds::CONFIG_MAP, "nowhere", map(), &options).await.unwrap_err().is_not_found());
    registry.create(&kinds::NAMESPACE, "", json!({"metadata": {"name": "x"}}), &options).await.unwrap();
    assert!(!registry.delete(&kinds::NAMESPACE, "", "x", &DeleteOptions::default()).await.unwrap().gone);
    let refused = registry.create(&kinds::CONFIG_MAP, "x", map(), &options).await.unwrap_err();
    assert_eq!((refused.code(), refused.causes[0].reason.as_str()), (403, "NamespaceTerminating"));
    let finalized = json!({"metadata": {"name": "x"}, "spec": {"finalizers": []}});
    registry.update(&kinds::NAMESPACE, "", "x", Some(Sub::Finalize), finalized, &options).await.unwrap();
    assert!(registry.get(&kinds::NAMESPACE, "", "x").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn modify_retries_and_watches_see_selections() {
    let (_dir, registry) = registry().await;
    let map = json!({"metadata": {"name": "m", "labels": {"a": "1"}}, "data": {"n": "0"}});
    let made = registry.create(&kinds::CONFIG_MAP, "default", map, &WriteOptions::default()).await.unwrap();
    let from = meta::resource_version(&made).unwrap();
    let labels = kinds::selector::LabelSelector::parse("a=1").unwrap();
    let watch = WatchOptions { labels, from, ..WatchOptions::default() };
    let mut events = registry.watch_with(&kinds::CONFIG_MAP, Some("default"), watch);
    let bump = |registry: Registry| async move {
        let change = |m: &mut Value| {
            let n: u32 = m["data"]["n"].as_str().unwrap().parse().unwrap();
            m["data"]["n"] = json!((n + 1).to_string());
            true
        };
        registry.modify(&kinds::CONFIG_MAP, "default", "m", None, change).await
    };
    let all = futures::future::join_all((0..10).map(|_| bump(registry.clone()))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(registry.get(&kinds::CONFIG_MAP, "default", "m").await.unwrap()["data"]["n"], "10");
    let leave = |m: &mut Value| {
        m["metadata"]["labels"] = json!({"a": "2"});
        true
    };
    registry.modify(&kinds::CONFIG_MAP, "default", "m", None, leave).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&WatchKind::Deleted) {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap();
        seen.push(event.kind);
    }
    assert_eq!(seen.len(), 11);
}
