use super::*;
use crate::api::testing::{Answer, Asked, Server, Then, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LONG: Duration = Duration::from_secs(20);

/// An API server of ConfigMaps that can change; with `refuses` it forbids everything.
#[derive(Default)]
struct Objects {
    now: Mutex<(u64, BTreeMap<String, Value>)>,
    refuses: AtomicBool,
}

impl Objects {
    fn put(&self, name: &str, rest: Value) {
        let mut now = self.now.lock().unwrap();
        now.0 += 1;
        let mut object = rest;
        object["metadata"] = json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": now.0.to_string(),
            "annotations": {"long": "story"}});
        now.1.insert(name.to_owned(), object);
    }

    fn delete(&self, name: &str) {
        let mut now = self.now.lock().unwrap();
        now.0 += 1;
        now.1.remove(name);
    }

    /// Every watch ends at once and shows the whole state when it is asked for again: a change is seen at the next one.
    fn answer(&self, asked: &Asked) -> Answer {
        if self.refuses.load(Ordering::SeqCst) {
            let status = json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no relationship found"});
            return Answer::Json(403, status);
        }
        let now = self.now.lock().unwrap();
        let (path, query) = asked.uri.split_once('?').unwrap_or((&asked.uri, ""));
        let name = query.split("metadata.name%3D").nth(1).map(|rest| rest.split('&').next().unwrap());
        let Some(name) = name else {
            let name = path.rsplit('/').next().unwrap();
            return match now.1.get(name) {
                Some(object) => Answer::Json(200, object.clone()),
                None => Answer::Json(404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "gone"})),
            };
        };
        if !query.contains("sendInitialEvents") {
            // Too old: all is read anew.
            return Answer::Json(410, json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}));
        }
        let mut lines: Vec<String> =
            now.1.get(name).map(|o| json!({"type": "ADDED", "object": o}).to_string() + "\n").into_iter().collect();
        let meta = json!({"resourceVersion": now.0.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
        lines.push(json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "metadata": meta}}).to_string() + "\n");
        Answer::Stream(lines, Then::Close)
    }
}

struct World {
    objects: Arc<Objects>,
    server: Server,
    store: Store,
}

async fn world(strategy: Strategy) -> World {
    let objects = Arc::new(Objects::default());
    let answers = objects.clone();
    let server = Server::start(move |asked| Some(answers.answer(asked))).await;
    let transport = server.transport();
    let store = Store::new(server.client(), strategy, move || transport.another().unwrap().client());
    World { objects, server, store }
}

fn refs(names: &[&str]) -> BTreeSet<Ref> {
    let key = |name: &&str| ObjectKey { namespace: "ns".into(), name: (*name).to_owned() };
    names.iter().map(|name| Ref { kind: Kind::ConfigMap, key: key(name) }).collect()
}

impl World {
    fn hold(&self, names: &[&str]) -> Held {
        let mut held = Held::default();
        self.store.hold(&mut held, refs(names));
        held
    }

    async fn value(&self, name: &str) -> Result<Option<String>, Error> {
        let found = self.store.get::<ConfigMap>("ns", name).await?;
        Ok(found.map(|o| o.data.as_ref().and_then(|d| d.get("k").cloned()).unwrap_or_default()))
    }

    /// Until it is so; each change must wake the holder.
    async fn woken(&self, held: &Held, name: &str, value: Option<&str>) {
        let work = async {
            loop {
                held.changed().await;
                if self.value(name).await.as_ref().map(Option::as_deref) == Ok(value) {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(LONG, work).await.is_ok(), "never {value:?}");
    }

    fn watches(&self, name: &str) -> usize {
        let named = format!("metadata.name%3D{name}&");
        self.server.uris().iter().filter(|uri| uri.contains(&named) && uri.contains("sendInitialEvents")).count()
    }
}

#[tokio::test]
async fn changes_wake_all_who_hold_the_object() {
    for strategy in [Strategy::Watch, Strategy::Poll(Duration::from_millis(50))] {
        let w = world(strategy).await;
        w.objects.put("a", json!({"data": {"k": "1"}}));
        let (one, two) = (w.hold(&["a"]), w.hold(&["a", "b"]));
        assert_eq!(w.store.len(), 2);
        assert_eq!(w.value("a").await.unwrap().as_deref(), Some("1"));
        assert_eq!(w.value("b").await.unwrap(), None);
        // What is there at first is no change.
        assert!(tokio::time::timeout(Duration::from_millis(200), two.changed()).await.is_err());
        w.objects.put("a", json!({"data": {"k": "2"}}));
        tokio::join!(w.woken(&one, "a", Some("2")), w.woken(&two, "a", Some("2")));
        w.objects.put("b", json!({"data": {"k": "new"}}));
        w.woken(&two, "b", Some("new")).await;
        w.objects.delete("b");
        w.woken(&two, "b", None).await;
        let found = w.store.get::<ConfigMap>("ns", "a").await.unwrap().unwrap();
        assert!(strategy != Strategy::Watch || found.metadata.annotations.is_none());
    }
}

#[tokio::test]
async fn nothing_is_asked_for_what_nobody_holds() {
    let w = world(Strategy::Watch).await;
    w.objects.put("a", json!({"data": {"k": "1"}}));
    let mut held = w.hold(&["a", "b"]);
    assert_eq!(w.value("a").await.unwrap().as_deref(), Some("1"));
    w.store.hold(&mut held, refs(&["b", "c"]));
    let before = w.watches("a");
    until("c is asked for", || w.watches("c") > 0).await;
    // The watches end at once here, so that one that goes on is asked for again and again.
    let others = w.watches("b");
    until("b is asked for again", || w.watches("b") > others + 2).await;
    assert!(w.watches("a") <= before + 1);
    drop(held);
    let last = w.hold(&["d"]);
    assert_eq!(w.store.len(), 1);
    drop(last);
    assert_eq!(w.value("a").await.unwrap().as_deref(), Some("1"), "read without a watch");
}

#[tokio::test]
async fn an_immutable_object_is_read_once() {
    let w = world(Strategy::Watch).await;
    w.objects.put("a", json!({"immutable": true, "data": {"k": "1"}}));
    w.objects.put("b", json!({"data": {"k": "1"}}));
    let _held = w.hold(&["a", "b"]);
    assert_eq!(w.value("a").await.unwrap().as_deref(), Some("1"));
    until("b is asked for again", || w.watches("b") > 3).await;
    assert_eq!(w.watches("a"), 1);
    assert_eq!(w.value("a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn who_was_refused_is_woken_and_what_was_known_stays_known() {
    for strategy in [Strategy::Watch, Strategy::Poll(Duration::from_millis(50))] {
        let w = world(strategy).await;
        w.objects.put("a", json!({"data": {"k": "1"}}));
        w.objects.refuses.store(true, Ordering::SeqCst);
        let held = w.hold(&["a"]);
        let error = w.value("a").await.unwrap_err().to_string();
        assert!(error.contains("no relationship found"), "{error}");
        w.objects.refuses.store(false, Ordering::SeqCst);
        w.woken(&held, "a", Some("1")).await;
        w.objects.refuses.store(true, Ordering::SeqCst);
        if strategy == Strategy::Watch {
            assert_eq!(w.value("a").await.unwrap().as_deref(), Some("1"));
        }
    }
}

#[tokio::test]
async fn watches_are_spread_over_connections() {
    let made = Arc::new(Mutex::new(0));
    let count = made.clone();
    let lanes = Lanes::new(Box::new(move || {
        *count.lock().unwrap() += 1;
        crate::api::absent::client()
    }));
    let mut taken: Vec<Arc<Lane>> = (0..80).map(|_| lanes.take()).collect();
    assert_eq!(*made.lock().unwrap(), 1);
    taken.push(lanes.take());
    assert_eq!(*made.lock().unwrap(), 2);
    // Room that has become free is used again.
    taken.remove(0);
    taken.push(lanes.take());
    assert_eq!(*made.lock().unwrap(), 2);
    taken.clear();
    let _other = lanes.take();
    assert_eq!(*made.lock().unwrap(), 3);
}
