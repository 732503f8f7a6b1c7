//! An agent's pods, a fake runtime, and an API in memory behind `kube::Client`.

mod api;

use crate::admission::{Amounts, NodeView};
use crate::api::snapshot::{ObjectKey, Snapshot};
use crate::config::Config;
use crate::daemon::exec::CriExec;
use crate::events::EventRecorder;
use crate::objects::{Store, Strategy};
use crate::pod::{Deps, PodId};
use crate::static_pods::testing::Source;
use crate::static_pods::{Kind, Statuses, read};
use crate::{cgroup, dispatch, observe, volume};
use api::Api;
use bytes::Bytes;
use ferrolet_cri::fake::{Fake, ImageConfig, Profile};
use ferrolet_netproxy::board::Reader;
use ferrolet_netproxy::overlay::Words;
use ferrolet_probes::{Driver, Limits};
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
    /// How many pods the node takes, and its longest crash loop delay. For the next agent.
    pub room: usize,
    pub crash_max: Option<Duration>,
    services: Option<crate::api::snapshot::Watched<ferrolet_netproxy::wire::Service>>,
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
        let api = Api::new();
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
            room: 4,
            crash_max: None,
            services: None,
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

    /// The next agent watches Services, as the daemon's does; there are none.
    pub fn has_services(&mut self) {
        let none = Snapshot { synced: true, ..Snapshot::default() };
        self.services = Some(watch::channel(Arc::new(none)).1);
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
            max_container_restart_period: self.crash_max.unwrap_or_default(),
            ..Config::default()
        });
        let cri = self.fake.client().unwrap();
        let kube = self.api.client();
        let (events, _) = EventRecorder::spawn(kube.clone(), "n", cancel.clone());
        let (runtime, _) = observe::spawn(cri.clone(), cancel.clone());
        let exec = Arc::new(CriExec { cri: cri.clone() });
        let (probes, probe_events, _) = Driver::spawn(exec, Limits::default(), cancel.clone());
        let allocatable = [("cpu", "2"), ("memory", "1Gi"), ("pods", &self.room.to_string())];
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
            resize_counts: crate::metrics::resizes::Resizes::new(&crate::metrics::Metrics::new("n", Vec::new()).unwrap())
                .unwrap(),
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
            services: self.services.clone(),
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

    /// The agent that was started has come to its end by itself.
    pub fn agent_ended(&self) -> bool {
        self.agent.as_ref().is_some_and(|(_, task, _)| task.is_finished())
    }

    /// The same, and nothing of it goes on: also what it was writing to the disk has come to its end.
    pub async fn kill_agent_whole(&mut self) {
        self.agent = None;
        self.api.hang_up();
        if let Some(runtime) = self.life.0.take() {
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LIMIT)).await.unwrap();
        }
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
        handle.snapshot.borrow().pods.get(format!("uid-{name}").as_str()).cloned()
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

    /// One with these annotations.
    pub fn create_with(&self, name: &str, spec: Value, annotations: Value) {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1,
            "annotations": annotations}, "spec": spec, "status": {"phase": "Pending"}});
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
