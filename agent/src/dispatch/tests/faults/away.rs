//! The API server is gone for ten minutes, while pods and manifests change.

use super::*;

fn manifest(name: &str, image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": image, "command": ["/pause"]}]}})
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_the_api_cost_nothing() {
    let mut w = World::start(Profile::containerd_2()).await;
    w.stop_agent().await;
    w.room = 20;
    w.has_services();
    w.start_agent();
    w.fake.add_image("docker.io/library/web:2", Default::default());
    w.fake.add_image("web:2", Default::default());
    w.api.node(json!({"metadata": {"name": "n", "uid": "node-uid"}}));
    let (stays, goes) = (manifest("stays", "web:1"), manifest("goes", "web:1"));
    w.manifests(&[("/stays", &stays), ("/goes", &goes), ("/changes", &manifest("changes", "web:1"))]);
    let mut once = plain();
    once["restartPolicy"] = json!("Never");
    for (name, spec) in [("steady", plain()), ("crashes", plain()), ("ends", once), ("doomed", plain())] {
        w.create(name, spec);
    }
    for name in ["steady", "crashes", "ends", "doomed", "stays-n", "goes-n", "changes-n"] {
        w.until("ready", |w| w.pod(name).filter(ready)).await;
    }
    let (stays_uid, goes_uid, before) = (w.static_uid("stays-n"), w.static_uid("goes-n"), w.static_uid("changes-n"));
    // What had been deleted ends all the same.
    w.delete("doomed", 5);
    w.api.gone(true);
    for minute in 0..10 {
        tokio::time::sleep(seconds(60)).await;
        match minute {
            1 | 3 | 6 => crash(&w, "crashes", 3).await,
            2 => crash(&w, "ends", 0).await,
            4 => w.manifests(&[
                ("/stays", &stays),
                ("/changes", &manifest("changes", "web:2")),
                ("/new", &manifest("new", "web:1")),
            ]),
            _ => {}
        }
    }
    let runs = |uid: &str| w.fake.runs().into_iter().filter(|r| r.pod_uid == uid).collect::<Vec<_>>();
    assert_eq!(runs("uid-crashes").len(), 4, "it goes on by itself");
    assert_eq!(restarts(&w.pod("crashes").unwrap()), 0, "nobody could tell");
    assert!(runs("uid-doomed").iter().all(|r| r.ended.is_some()) && w.pod("doomed").is_some());
    assert!(runs(&goes_uid).iter().all(|r| r.ended.is_some()), "ended with its manifest");
    assert_eq!(runs(&w.static_uid("new-n")).len(), 1, "started with its manifest");
    w.api.gone(false);
    let limit = seconds(40);
    eventually(&w, limit, "counts", |w| w.pod("crashes").filter(|p| ready(p) && restarts(p) == 3)).await;
    eventually(&w, limit, "the end", |w| w.pod("ends").filter(|p| p["status"]["phase"] == "Succeeded")).await;
    eventually(&w, limit, "the deletion", |w| w.pod("doomed").is_none().then_some(())).await;
    eventually(&w, limit, "the mirror's end", |w| w.pod("goes-n").is_none().then_some(())).await;
    let after = w.static_uid("changes-n");
    assert_ne!(before, after);
    for (name, uid) in [("stays-n", stays_uid), ("changes-n", after), ("new-n", w.static_uid("new-n"))] {
        let mirrors = |w: &World| {
            let of = |p: &Value| p["metadata"]["annotations"]["kubernetes.io/config.mirror"] == json!(uid);
            w.pod(name).filter(|p| of(p) && ready(p))
        };
        eventually(&w, limit, name, mirrors).await;
    }
    untouched(&w, "steady");
    let told = w.fake.runs().into_iter().filter(|r| r.told).map(|r| r.pod_uid);
    let mut told: Vec<String> = told.collect();
    told.sort();
    let mut ended = vec!["uid-doomed".to_owned(), goes_uid, before];
    ended.sort();
    assert_eq!(told, ended, "who was told to end");
}
