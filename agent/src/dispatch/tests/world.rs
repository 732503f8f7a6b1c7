//! An agent's pods, a fake runtime, and an API in memory behind `kube::Client`.

use crate::admission::{Amounts, NodeView};
use crate::api::snapshot::{ObjectKey, Snapshot};
use crate::config::Config;
use crate::events::EventRecorder;
use crate::objects::{Store, Strategy};
use crate::pod::{Deps, PodId};
use crate::static_pods::testing::Source;
use crate::static_pods::{Kind, Statuses, read};
use crate::{cgroup, dispatch, observe, volume};
use bytes::Bytes;
use ferrolet_cri::fake::{Fake, ImageConfig, Profile};
use ferrolet_netproxy::board::Reader;
use ferrolet_netproxy::overlay::Words;
use ferrolet_probes::{Driver, Exec, ExecError, ExecOutcome, Limits};
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Objects {
    pods: BTreeMap<String, Value>,
    others: BTreeMap<(String, String), Value>,
    events: Vec<Value>,
    /// Every status a pod ever had.
    statuses: Vec<(String, Value)>,
    synced: bool,
    /// Pods whose objects cannot be read.
    malformed: BTreeSet<String>,
    /// Statuses and new pods are answered with 503; the first are counted.
    away: bool,
    /// Mirror pods that were ever made.
    mirrors: usize,
    refused: usize,
}

/// The API: only what pods need of it.
#[derive(Clone)]
pub struct Api {
    objects: Arc<Mutex<Objects>>,
    pods: Arc<watch::Sender<Arc<Snapshot<Pod>>>>,
    node: Arc<watch::Sender<Arc<Snapshot<Node>>>>,
}

impl Api {
    pub fn node_unknown(&self) {
        self.node.send_replace(Arc::default());
    }

    /// This node's object, or that there is none (null).
    pub fn node(&self, object: Value) {
        let items = (!object.is_null()).then(|| {
            let key = ObjectKey { namespace: String::new(), name: "n".into() };
            (key, Arc::new(serde_json::from_value(object).unwrap()))
        });
        let snapshot = Snapshot { synced: true, items: items.into_iter().collect(), malformed: BTreeSet::new() };
        self.node.send_replace(Arc::new(snapshot));
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap()
    }

    fn publish(&self) {
        let o = self.lock();
        let old = self.pods.borrow().clone();
        let mut items = BTreeMap::new();
        let key = |name: &String| ObjectKey { namespace: "ns".into(), name: name.clone() };
        for (name, value) in &o.pods {
            let key = key(name);
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

    /// Takes no statuses from now on, or takes them again.
    pub fn away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Statuses that were not taken.
    pub fn refused(&self) -> usize {
        self.lock().refused
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

    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let (code, answer) = api.answer(parts.method.as_str(), parts.uri.path(), &body);
                let response = http::Response::builder().status(code).header("content-type", "application/json");
                Ok::<_, kube::Error>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        kube::Client::new(service, "ns")
    }

    fn answer(&self, method: &str, path: &str, body: &Bytes) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_start_matches("/api/v1/namespaces/").split('/').collect();
        let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
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
            ("GET", [kind, name] | ["apis", "node.k8s.io", "v1", kind, name]) => {
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

struct CriExec(ferrolet_cri::Client);

impl Exec for CriExec {
    fn exec(&self, id: &str, command: &[String], timeout: Duration) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        let (id, command) = (id.to_owned(), command.to_vec());
        Box::pin(async move {
            let out = self.0.exec_sync(&id, &command, timeout).await;
            let out = out.unwrap_or_else(|error| panic!("exec in {id}: {error}"));
            Ok(ExecOutcome { exit_code: out.exit_code, stdout: out.stdout, stderr: out.stderr })
        })
    }
}

/// A data plane that installs at once, or never.
#[derive(Default)]
pub struct Rules {
    pub stuck: AtomicBool,
    /// Everything the agent said, one entry a change.
    pub said: Mutex<Vec<Words>>,
}

async fn data_plane(mut rules: Reader, seen: Arc<Rules>, cancel: CancellationToken) {
    let work = async {
        loop {
            rules.changed().await;
            let board = rules.read();
            seen.said.lock().unwrap().push(board.words.clone());
            if !seen.stuck.load(Ordering::SeqCst) {
                rules.installed(board.change);
            }
        }
    };
    cancel.run_until_cancelled(work).await;
}

pub struct World {
    pub fake: Fake,
    pub api: Api,
    dir: tempfile::TempDir,
    gate: watch::Sender<bool>,
    pub rules: Arc<Rules>,
    /// Static pods, and whether something of them cannot be read.
    statics: (Vec<Arc<Pod>>, bool),
    source: Option<Source>,
    asker: Option<dispatch::ask::Asker>,
    pub statuses: Statuses,
    pub user_counts: crate::userns::Counts,
    agent: Option<(CancellationToken, JoinHandle<()>, observe::Handle)>,
    life: Life,
}

/// Threads of an agent that can be killed.
#[derive(Default)]
struct Life(Option<tokio::runtime::Runtime>);

impl Life {
    /// Every task ends where it waits.
    fn end(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

impl World {
    pub async fn start(profile: Profile) -> World {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["logs", "root", "cgroup/memory"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        // Enough of a hierarchy for pods without limits.
        std::fs::write(dir.path().join("cgroup/memory/cgroup.procs"), "").unwrap();
        let fake = Fake::start(profile).unwrap();
        fake.add_image("docker.io/library/web:1", ImageConfig::default());
        fake.add_image("web:1", ImageConfig::default());
        let objects = Arc::new(Mutex::new(Objects { synced: true, ..Default::default() }));
        let (pods, node) = (Arc::new(watch::channel(Arc::default()).0), Arc::new(watch::channel(Arc::default()).0));
        let api = Api { objects, pods, node };
        api.node(Value::Null);
        api.publish();
        let mut w = World {
            fake,
            api,
            dir,
            gate: watch::channel(true).0,
            rules: Arc::default(),
            statics: Default::default(),
            source: None,
            asker: None,
            statuses: Statuses::default(),
            user_counts: crate::userns::Counts::new(&crate::metrics::Metrics::new("n", Vec::new()).unwrap()).unwrap(),
            agent: None,
            life: Life::default(),
        };
        w.start_agent();
        w
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn cgroups(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub fn start_agent(&mut self) {
        let cancel = CancellationToken::new();
        let config = Arc::new(Config {
            node_name: "n".into(),
            node_ips: vec!["192.0.2.1".parse().unwrap()],
            root_dir: self.root(),
            pod_logs_dir: self.logs(),
            resolv_conf: None,
            max_parallel_image_pulls: 4,
            ..Config::default()
        });
        let cri = self.fake.client().unwrap();
        let kube = self.api.client();
        let (events, _) = EventRecorder::spawn(kube.clone(), "n", cancel.clone());
        let (runtime, _) = observe::spawn(cri.clone(), cancel.clone());
        let exec = Arc::new(CriExec(cri.clone()));
        let (probes, probe_events, _) = Driver::spawn(exec, Limits::default(), cancel.clone());
        let allocatable = [("cpu", "2"), ("memory", "1Gi"), ("pods", "4")];
        let allocatable: Amounts = allocatable.map(|(name, amount)| (name.to_owned(), amount.parse().unwrap())).into();
        let (own_pods, rules) = ferrolet_netproxy::board::channel();
        let (asker, asks) = dispatch::ask::channel();
        self.asker = Some(asker);
        let (source, statics) = Source::new();
        source.say(self.statics.0.clone(), self.statics.1);
        self.source = Some(source);
        let another = kube.clone();
        // The API here has no watches.
        let objects = Store::new(kube.clone(), Strategy::Poll(Duration::from_millis(100)), move || another.clone());
        let deps = Deps {
            config,
            cri,
            volumes: volume::Manager::new(self.root(), kube.clone(), objects.clone()),
            objects,
            user_ids: crate::userns::Range::whole(crate::userns::UNIT, 110).unwrap(),
            user_counts: self.user_counts.clone(),
            cgroups: cgroup::Manager::at(&self.dir.path().join("cgroup"), cgroup::NodeCgroups::default()).unwrap(),
            kube,
            probes,
            probe_events,
            pods: self.api.pods.subscribe(),
            node: self.api.node.subscribe(),
            registered: NodeView { name: "n".into(), allocatable: allocatable.clone(), ..NodeView::default() },
            statics,
            statuses: self.statuses.clone(),
            gate: self.gate.subscribe(),
            own_pods,
            events,
            runtime: runtime.clone(),
            services: None,
            allocatable,
            asks,
        };
        tokio::spawn(data_plane(rules, self.rules.clone(), cancel.clone()));
        let task = dispatch::spawn(deps, cancel.clone());
        self.agent = Some((cancel, task, runtime));
    }

    /// An agent that can be killed.
    pub fn start_mortal_agent(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        self.start_agent();
        drop(inside);
        self.life = Life(Some(runtime));
    }

    /// As SIGKILL does it.
    pub fn kill_agent(&mut self) {
        self.life.end();
        self.agent = None;
    }

    /// How the pod of this name stands, by what `ferrolet pod` is told; `None` if the agent knows no such pod.
    pub async fn standing(&self, name: &str) -> Option<dispatch::ask::Told> {
        let which = dispatch::ask::Which { namespace: None, name: Some(name.to_owned()) };
        self.asker.as_ref().unwrap().ask(which).await.unwrap().pop()
    }

    pub async fn standings(&self) -> Vec<dispatch::ask::Told> {
        self.asker.as_ref().unwrap().ask(dispatch::ask::Which::default()).await.unwrap()
    }

    pub async fn stop_agent(&mut self) {
        if let Some((cancel, task, _)) = self.agent.take() {
            cancel.cancel();
            task.await.unwrap();
        }
    }

    /// As the daemon does at a signal: the task ends once all statuses are brought.
    pub fn signal(&mut self) -> JoinHandle<()> {
        let (cancel, task, _) = self.agent.take().unwrap();
        cancel.cancel();
        task
    }

    /// The agent has listed the runtime.
    pub fn observed(&self) -> bool {
        self.agent.as_ref().is_some_and(|(_, _, h)| h.snapshot.borrow().synced)
    }

    /// What the agent last saw of a pod in the runtime.
    pub fn seen(&self, name: &str) -> Option<Arc<observe::PodRuntime>> {
        let (_, _, handle) = self.agent.as_ref()?;
        handle.snapshot.borrow().pods.get(&format!("uid-{name}")).cloned()
    }

    /// Makes the agent look at a pod now, as an event would.
    pub async fn look(&self, name: &str) {
        if let Some((_, _, handle)) = &self.agent {
            let id = PodId { uid: format!("uid-{name}"), namespace: "ns".into(), name: name.into() };
            handle.refresh(&id).await.unwrap();
        }
    }

    pub fn gate(&self, open: bool) {
        self.gate.send_replace(open);
    }

    pub fn set_synced(&self, synced: bool) {
        self.api.lock().synced = synced;
        self.api.publish();
    }

    pub fn create(&self, name: &str, spec: Value) {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1},
            "spec": spec, "status": {"phase": "Pending"}});
        self.api.lock().pods.insert(name.into(), pod);
        self.api.publish();
    }

    /// What the agent's folder has, by file name.
    pub fn manifests(&mut self, files: &[(&str, &Value)]) {
        let pods = files.iter().map(|(file, manifest)| {
            let source = read::Source { kind: Kind::File, place: file };
            let pod = read::read(manifest.to_string().as_bytes(), "n", source).unwrap();
            self.statics.0.iter().find(|known| ***known == pod).cloned().unwrap_or_else(|| Arc::new(pod))
        });
        self.statics = (pods.collect(), false);
        self.say();
    }

    /// Something in the folder cannot be read from now on.
    pub fn broken_manifest(&mut self) {
        self.statics.1 = true;
        self.say();
    }

    fn say(&self) {
        if let Some(source) = &self.source {
            source.say(self.statics.0.clone(), self.statics.1);
        }
    }

    /// The uid of a static pod.
    pub fn static_uid(&self, name: &str) -> String {
        let found = self.statics.0.iter().find(|p| p.metadata.name.as_deref() == Some(name));
        found.and_then(|p| p.metadata.uid.clone()).unwrap()
    }

    /// The object that an agent makes in the API for a pod which it has from a file.
    pub fn create_mirror(&self, name: &str, spec: Value) {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1,
            "annotations": {"kubernetes.io/config.mirror": "hash"}}, "spec": spec, "status": {"phase": "Pending"}});
        self.api.lock().pods.insert(name.into(), pod);
        self.api.publish();
    }

    /// Other resources for the first container, as the subresource `resize` does it.
    pub fn resize(&self, name: &str, resources: Value) {
        self.resize_all(name, &[resources]);
    }

    /// The same for the first ones.
    pub fn resize_all(&self, name: &str, resources: &[Value]) {
        if let Some(pod) = self.api.lock().pods.get_mut(name) {
            for (at, resources) in resources.iter().enumerate() {
                pod["spec"]["containers"][at]["resources"] = resources.clone();
            }
            pod["metadata"]["generation"] = json!(pod["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        self.api.publish();
    }

    /// Another image for the first container.
    pub fn image(&self, name: &str, image: &str) {
        if let Some(pod) = self.api.lock().pods.get_mut(name) {
            pod["spec"]["containers"][0]["image"] = json!(image);
            pod["metadata"]["generation"] = json!(pod["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        self.api.publish();
    }

    /// One more ephemeral container, as the subresource adds it.
    pub fn debug(&self, name: &str, container: Value) {
        if let Some(pod) = self.api.lock().pods.get_mut(name) {
            let mut all = pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
            all.push(container);
            pod["spec"]["ephemeralContainers"] = json!(all);
            pod["metadata"]["generation"] = json!(pod["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        self.api.publish();
    }

    pub fn delete(&self, name: &str, grace: u64) {
        if let Some(pod) = self.api.lock().pods.get_mut(name) {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        self.api.publish();
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        self.api.lock().pods.get(name).cloned()
    }

    /// Waits for a condition; panics with the state of the world at the deadline.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&World) -> Option<T>) -> T {
        let mut changes = self.api.pods.subscribe();
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(found) = look(self) {
                    return found;
                }
                // The runtime may change without the API.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => {
                let o = self.api.lock();
                let pods: Vec<String> = o.pods.values().map(|p| format!("{:#}", p["status"])).collect();
                let calls: Vec<&str> = self.fake.calls().iter().map(|c| c.method).collect();
                let events: Vec<&Value> = o.events.iter().map(|e| &e["message"]).collect();
                panic!("never {what}; pods {}; calls {calls:?}; events {events:?}", pods.join("\n"));
            }
        }
    }
}
