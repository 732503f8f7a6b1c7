//! An API in memory behind `kube::Client`: only what pods need of it.

use super::*;

#[derive(Default)]
pub(super) struct Objects {
    pub(super) pods: BTreeMap<String, Value>,
    others: BTreeMap<(String, String), Value>,
    pub(super) events: Vec<Value>,
    /// Every status a pod ever had.
    statuses: Vec<(String, Value)>,
    pub(super) synced: bool,
    /// Pods whose objects cannot be read.
    malformed: BTreeSet<String>,
    /// Statuses and new pods are answered with 503; the first are counted.
    away: bool,
    /// All requests are answered so.
    gone_whole: bool,
    /// How many requests are answered before one is not, and whether that one still works.
    fuse: Option<(usize, bool)>,
    /// Clients that were told to go.
    gone: usize,
    clients: usize,
    /// Mirror pods that were ever made.
    mirrors: usize,
    refused: usize,
}

/// The API: only what pods need of it.
#[derive(Clone)]
pub struct Api {
    objects: Arc<Mutex<Objects>>,
    pub(super) pods: Arc<watch::Sender<Arc<Snapshot<Pod>>>>,
    pub(super) node: Arc<watch::Sender<Arc<Snapshot<Node>>>>,
    blown: Arc<watch::Sender<bool>>,
}

impl Api {
    /// Without pods, and without this node's object.
    pub(super) fn new() -> Api {
        let objects = Arc::new(Mutex::new(Objects { synced: true, ..Default::default() }));
        let (pods, node) = (Arc::new(watch::channel(Arc::default()).0), Arc::new(watch::channel(Arc::default()).0));
        let api = Api { objects, pods, node, blown: Arc::new(watch::channel(false).0) };
        api.node(Value::Null);
        api.publish();
        api
    }

    pub fn node_unknown(&self) {
        self.node.send_replace(Arc::default());
    }

    /// This node's object, or that there is none (null).
    pub fn node(&self, object: Value) {
        let items = (!object.is_null()).then(|| {
            let key = ObjectKey { namespace: String::new(), name: "n".into() };
            (Arc::new(key), Arc::new(serde_json::from_value(object).unwrap()))
        });
        let snapshot = Snapshot { synced: true, items: items.into_iter().collect(), malformed: BTreeSet::new() };
        self.node.send_replace(Arc::new(snapshot));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap()
    }

    pub(super) fn publish(&self) {
        let o = self.lock();
        let old = self.pods.borrow().clone();
        let mut items = BTreeMap::new();
        let key = |name: &String| ObjectKey { namespace: "ns".into(), name: name.clone() };
        for (name, value) in &o.pods {
            let key = Arc::new(key(name));
            if o.malformed.contains(name) {
                // As the watcher does: what was known stays.
                items.extend(old.items.get(&key).map(|known| (key, known.clone())));
                continue;
            }
            let pod: Pod = serde_json::from_value(value.clone()).unwrap();
            let same = old.items.get(&key).filter(|p| ***p == pod).cloned();
            items.insert(key, same.unwrap_or_else(|| Arc::new(pod)));
        }
        self.pods.send_replace(Arc::new(Snapshot { synced: o.synced, items, malformed: o.malformed.iter().map(key).collect() }));
    }

    /// Pods whose objects cannot be read from now on. Nothing is known of them if the list was never complete.
    pub fn malformed(&self, names: &[&str]) {
        self.lock().malformed = names.iter().map(|n| (*n).to_owned()).collect();
        self.publish();
    }

    /// As at the start of an agent: nothing is known.
    pub fn forget(&self) {
        self.pods.send_replace(Arc::default());
    }

    pub fn put(&self, kind: &str, name: &str, object: Value) {
        self.lock().others.insert((kind.into(), name.into()), object);
    }

    pub fn remove(&self, name: &str) {
        self.lock().pods.remove(name);
        self.publish();
    }

    /// Takes neither statuses nor new pods from now on, or takes them again.
    pub fn away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Answers no request from now on but with 503, or as it should again.
    pub fn gone(&self, gone: bool) {
        let mut o = self.lock();
        (o.away, o.gone_whole) = (gone, gone);
    }

    /// Statuses that were not taken.
    pub fn refused(&self) -> usize {
        self.lock().refused
    }

    /// What there is.
    pub fn pods(&self) -> Vec<Value> {
        self.lock().pods.values().cloned().collect()
    }

    pub fn reasons(&self) -> Vec<String> {
        self.lock().events.iter().map(|e| e["reason"].as_str().unwrap().to_owned()).collect()
    }

    pub fn messages(&self) -> Vec<String> {
        self.lock().events.iter().map(|e| e["message"].as_str().unwrap().to_owned()).collect()
    }

    pub fn events(&self) -> Vec<Value> {
        self.lock().events.clone()
    }

    pub fn statuses(&self, name: &str) -> Vec<Value> {
        self.lock().statuses.iter().filter(|(n, _)| n == name).map(|(_, s)| json!({ "status": s })).collect()
    }

    pub(super) fn client(&self) -> kube::Client {
        let api = self.clone();
        let number = {
            let mut o = api.lock();
            o.clients += 1;
            o.clients
        };
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let held = api.held();
                if held == Some(false) || number <= api.lock().gone {
                    std::future::pending::<()>().await;
                }
                let (code, answer) = api.answer(parts.method.as_str(), parts.uri.path(), &body);
                if held.is_some() {
                    std::future::pending::<()>().await;
                }
                let response = http::Response::builder().status(code).header("content-type", "application/json");
                Ok::<_, kube::Error>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        kube::Client::new(service, "ns")
    }

    /// The request after the next `after` ones gets no answer; it takes effect all the same, if `works` says so.
    pub fn hold(&self, after: usize, works: bool) {
        self.lock().fuse = Some((after, works));
        self.blown.send_replace(false);
    }

    pub fn let_go(&self) {
        self.lock().fuse = None;
    }

    /// Until that request has come.
    pub async fn holds(&self) {
        let _ = self.blown.subscribe().wait_for(|blown| *blown).await;
    }

    /// No client of now gets any answer any more.
    pub fn hang_up(&self) {
        let mut o = self.lock();
        o.gone = o.clients;
    }

    fn held(&self) -> Option<bool> {
        let mut o = self.lock();
        let (left, works) = o.fuse.as_mut().map(|(left, works)| (left, *works))?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        o.fuse = None;
        drop(o);
        self.blown.send_replace(true);
        Some(works)
    }

    fn answer(&self, method: &str, path: &str, body: &Bytes) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_start_matches("/api/v1/namespaces/").split('/').collect();
        let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let status = matches!((method, &parts[1..]), ("PATCH", ["pods", _, "status"]));
        if self.lock().gone_whole && !status {
            return failure(503, "away");
        }
        match (method, &parts[1..]) {
            ("POST", ["events"]) => {
                self.lock().events.push(sent.clone());
                (201, sent)
            }
            ("POST", ["pods"]) => self.create(sent),
            ("PATCH", ["events", name]) => {
                let o = self.lock();
                let found = o.events.iter().find(|e| e["metadata"]["name"] == **name).cloned();
                found.map_or_else(|| missing(name), |e| (200, e))
            }
            ("PATCH", ["pods", name, "status"]) => self.patch(name, &sent),
            ("DELETE", ["pods", name]) if self.finalized(name) => (200, self.lock().pods[*name].clone()),
            ("DELETE", ["pods", name]) => {
                let removed = self.lock().pods.remove(*name);
                self.publish();
                removed.map_or_else(|| missing(name), |p| (200, p))
            }
            ("GET", [kind, name] | ["apis", "node.k8s.io", "v1", kind, name] | ["api", "v1", kind, name]) => {
                let found = self.lock().others.get(&((*kind).to_owned(), (*name).to_owned())).cloned();
                found.map_or_else(|| missing(name), |o| (200, o))
            }
            other => panic!("unexpected request {other:?}"),
        }
    }

    fn finalized(&self, name: &str) -> bool {
        self.lock().pods.get(name).is_some_and(|p| p["metadata"]["finalizers"][0].is_string())
    }

    /// Keeps an object that is deleted.
    pub fn finalize(&self, name: &str, with: &[&str]) {
        if let Some(pod) = self.lock().pods.get_mut(name) {
            pod["metadata"]["finalizers"] = json!(with);
        }
        self.publish();
    }

    fn create(&self, mut sent: Value) -> (u16, Value) {
        let mut o = self.lock();
        if o.away {
            return failure(503, "away");
        }
        let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
        if o.pods.contains_key(&name) {
            return failure(409, "there is one already");
        }
        o.mirrors += 1;
        assert!(sent["metadata"].get("uid").is_none(), "the uid is the api's to give");
        sent["metadata"]["uid"] = json!(format!("mirror-{}", o.mirrors));
        sent["metadata"]["resourceVersion"] = json!("1");
        sent["status"] = json!({"phase": "Pending"});
        o.pods.insert(name, sent.clone());
        drop(o);
        self.publish();
        (201, sent)
    }

    /// Mirror pods that were ever made.
    pub fn mirrors(&self) -> usize {
        self.lock().mirrors
    }

    fn patch(&self, name: &str, sent: &Value) -> (u16, Value) {
        let mut o = self.lock();
        if o.away {
            o.refused += 1;
            return failure(503, "away");
        }
        let Some(pod) = o.pods.get_mut(name) else { return missing(name) };
        if pod["metadata"]["uid"] != sent["metadata"]["uid"] {
            return failure(409, "the uid in the precondition does not match");
        }
        if !pod["status"].is_object() {
            pod["status"] = json!({});
        }
        for (field, value) in sent["status"].as_object().unwrap() {
            let key = match field.as_str() {
                "conditions" => "type",
                "podIPs" | "hostIPs" => "ip",
                _ => "",
            };
            let target = &mut pod["status"][field];
            if key.is_empty() || !target.is_array() {
                *target = value.clone();
            } else {
                merge(target.as_array_mut().unwrap(), value.as_array().unwrap(), key);
            }
            if value.is_null() {
                pod["status"].as_object_mut().unwrap().remove(field);
            }
        }
        let answer = pod.clone();
        o.statuses.push((name.to_owned(), answer["status"].clone()));
        drop(o);
        self.publish();
        (200, answer)
    }
}

fn merge(list: &mut Vec<Value>, changes: &[Value], key: &str) {
    for change in changes {
        if change["$patch"] == "delete" {
            list.retain(|e| e[key] != change[key]);
            continue;
        }
        match list.iter_mut().find(|e| e[key] == change[key]) {
            Some(old) => {
                for (k, v) in change.as_object().unwrap() {
                    old[k] = v.clone();
                    if v.is_null() {
                        old.as_object_mut().unwrap().remove(k);
                    }
                }
            }
            None => list.push(change.clone()),
        }
    }
}

fn missing(name: &str) -> (u16, Value) {
    failure(404, &format!("{name:?} not found"))
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code}))
}
