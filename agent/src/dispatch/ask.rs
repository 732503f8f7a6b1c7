//! How all pods of the node stand, for whoever asks: each actor speaks for its own; here are the words for pods that have none.
//!
//! Owns nothing but the question and the way of an answer. The dispatcher never waits for one: a task of its own gathers what the
//! actors say, and goes without those that say nothing.

use super::Dispatcher;
use super::entry::{Entry, Origin};
use super::mirror;
use crate::api::snapshot::{ObjectKey, Snapshot, Watched};
use crate::observe::RuntimeSnapshot;
use crate::pod::desired::id_of;
use crate::pod::explain::{Standing, Wait, tidy};
use crate::pod::{PodId, Time};
use crate::static_pods::StaticPods;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// For the actors' words; they never wait for anything long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that wait at once, of all who ask and for each actor.
pub const WAITING: usize = 8;

/// Which pods are asked about. `None`: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Which {
    fn is(&self, id: &PodId) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        same(&self.namespace, &id.namespace) && same(&self.name, &id.name)
    }
}

pub struct Ask {
    pub which: Which,
    pub reply: oneshot::Sender<Vec<Told>>,
}

/// How one pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub id: PodId,
    pub source: Source,
    pub standing: Standing,
}

/// Who wants the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    Api,
    Static,
    /// The API server has it no longer.
    Gone,
    /// Only the container runtime knows it.
    Runtime,
}

/// The asking end; cheap to clone.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Ask>);

pub fn channel() -> (Asker, mpsc::Receiver<Ask>) {
    let (asker, asks) = mpsc::channel(WAITING);
    (Asker(asker), asks)
}

impl Asker {
    /// `None`: nobody is there to answer any more.
    pub async fn ask(&self, which: Which) -> Option<Vec<Told>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Ask { which, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// What is said of a pod that has no actor, in the order of what counts.
fn unstarted(pod: &Pod, source: Source, what: &str, since: Time) -> Told {
    let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_else(|| "Pending".to_owned());
    let state = if pod.metadata.deletion_timestamp.is_some() { "Terminating".to_owned() } else { phase };
    Told { id: id_of(pod), source, standing: Standing { state, waits: vec![Wait { what: tidy(what), since }] } }
}

/// Why nothing is known of the pod's finished end but its object.
fn lingering(pod: &Pod) -> String {
    match pod.metadata.finalizers.as_deref().unwrap_or_default() {
        [] => "terminating: nothing is left of it on this node; the API server still shows its object".to_owned(),
        all => format!("terminating: nothing is left of it on this node; finalizers keep its object: {}", all.join(", ")),
    }
}

impl Entry {
    fn source_of_pod(&self) -> Source {
        match &self.origin {
            Origin::Static(_) => Source::Static,
            Origin::Runtime => Source::Runtime,
            Origin::Api if self.pod.borrow().is_none() => Source::Gone,
            Origin::Api => Source::Api,
        }
    }
}

impl Dispatcher {
    /// Notes since when pods have no actor. Called whenever something may have changed.
    pub(super) fn note_unstarted(&mut self, api: &Snapshot<Pod>, statics: &StaticPods) {
        let (actors, finished) = (&self.actors, &self.finished);
        let without = |uid: &str| !uid.is_empty() && !actors.contains_key(uid) && !finished.contains_key(uid);
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        let of_api = api.items.values().filter(|p| !mirror::is(p) && without(p.metadata.uid.as_deref().unwrap_or_default()));
        let of_files = statics.pods.values().filter(|p| without(p.metadata.uid.as_deref().unwrap_or_default()));
        let unread = api.malformed.iter().filter(|key| !api.items.contains_key(*key));
        let now = crate::clock::now();
        let mut next = BTreeMap::new();
        for key in of_api.chain(of_files).map(uid).chain(unread.map(|key| format!("{}/{}", key.namespace, key.name))) {
            let since = self.unstarted.get(&key).copied().unwrap_or(now);
            next.insert(key, since);
        }
        self.unstarted = next;
    }

    pub(super) fn tell(&self, ask: Ask, api: &Snapshot<Pod>, statics: &StaticPods, runtime: &RuntimeSnapshot) {
        let Ask { which, reply } = ask;
        let mut asked = Vec::new();
        for entry in self.actors.values().filter(|entry| which.is(&entry.id)) {
            let (tell, told) = oneshot::channel();
            // One that has too many questions already says nothing.
            let _ = entry.asks.try_send(tell);
            asked.push((entry.id.clone(), entry.source_of_pod(), told));
        }
        let others = self.without_actor(&which, api, statics, runtime);
        tokio::spawn(async move {
            let all = futures::future::join_all(asked.into_iter().map(|(id, source, told)| async move {
                let standing = timeout(PATIENCE, told).await.ok().and_then(Result::ok);
                let silent = || {
                    let what = "the agent does not say: it has too much in hand with this pod".to_owned();
                    Standing { state: "Unknown".to_owned(), waits: vec![Wait { what, since: crate::clock::now() }] }
                };
                Told { id, source, standing: standing.unwrap_or_else(silent) }
            }));
            let mut all = all.await;
            all.extend(others);
            let _ = reply.send(all);
        });
    }

    fn without_actor(&self, which: &Which, api: &Snapshot<Pod>, statics: &StaticPods, runtime: &RuntimeSnapshot) -> Vec<Told> {
        let mut out = Vec::new();
        let of_api = api.items.values().filter(|p| !mirror::is(p)).map(|p| (p, Source::Api));
        let of_files = statics.pods.values().map(|p| (p, Source::Static));
        for (pod, source) in of_api.chain(of_files).filter(|(p, _)| which.is(&id_of(p))) {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            if self.actors.contains_key(uid) {
                continue;
            }
            if let Some(since) = self.finished.get(uid) {
                out.push(unstarted(pod, source, &lingering(pod), *since));
                continue;
            }
            let since = self.unstarted.get(uid).copied().unwrap_or_else(crate::clock::now);
            out.push(unstarted(pod, source, &self.why_unstarted(pod, source, runtime), since));
        }
        for key in api.malformed.iter().filter(|key| !api.items.contains_key(*key)) {
            let id = PodId { uid: String::new(), namespace: key.namespace.clone(), name: key.name.clone() };
            if which.is(&id) && !self.actors.values().any(|e| same_name(&e.id, key)) {
                let since =
                    self.unstarted.get(&format!("{}/{}", key.namespace, key.name)).copied().unwrap_or_else(crate::clock::now);
                let what = "its object in the API cannot be read; the log of the agent says which field".to_owned();
                let standing = Standing { state: "Unknown".to_owned(), waits: vec![Wait { what, since }] };
                out.push(Told { id, source: Source::Api, standing });
            }
        }
        out
    }

    fn why_unstarted(&self, pod: &Pod, source: Source, runtime: &RuntimeSnapshot) -> String {
        let id = id_of(pod);
        if !runtime.synced {
            return not_listed(runtime.stale.as_ref().map(|t| t.why.as_str()));
        }
        if let Some((_, victims)) = self.awaiting.get(&id.uid) {
            let live = victims.iter().filter_map(|uid| self.actors.get(uid)).filter(|entry| entry.is_live());
            let names: Vec<String> = live.map(|entry| format!("{}/{}", entry.id.namespace, entry.id.name)).collect();
            return format!("it starts when others have made room for it: {}", names.join(", "));
        }
        if source == Source::Static {
            if self.name_taken(&id, runtime) {
                return "another pod of its name has to end first".to_owned();
            }
            return "it runs already: the API server's status of it is waited for before it is taken over".to_owned();
        }
        "whether this node takes it is decided when the node's own object has come from the API server".to_owned()
    }
}

fn same_name(id: &PodId, key: &ObjectKey) -> bool {
    id.namespace == key.namespace && id.name == key.name
}

fn not_listed(why: Option<&str>) -> String {
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("nothing starts before the container runtime has said what runs already{why}")
}

/// The name of the runtime, the scheme of container ids. Waits for the runtime, and says so meanwhile to whoever asks.
pub(super) async fn runtime_name(
    cri: &ferrolet_cri::Client,
    asks: &mut mpsc::Receiver<Ask>,
    pods: &Watched<Pod>,
    statics: &crate::static_pods::Watched,
) -> String {
    let (told, trouble) = watch::channel(None::<String>);
    let begun = crate::clock::now();
    let name = async {
        loop {
            match cri.version().await {
                Ok(version) => return version.runtime_name,
                Err(error) => {
                    tracing::warn!(%error, "the container runtime does not answer yet");
                    told.send_replace(Some(error.to_string()));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    let mut name = std::pin::pin!(name);
    loop {
        let Ask { which, reply } = tokio::select! {
            name = &mut name => return name,
            Some(ask) = asks.recv() => ask,
        };
        let (api, statics, trouble) = (pods.borrow().clone(), statics.borrow().clone(), trouble.borrow().clone());
        let of_api = api.items.values().filter(|p| !mirror::is(p)).map(|p| (p, Source::Api));
        let all = of_api.chain(statics.pods.values().map(|p| (p, Source::Static))).filter(|(p, _)| which.is(&id_of(p)));
        let what = not_listed(trouble.as_deref());
        let _ = reply.send(all.map(|(pod, source)| unstarted(pod, source, &what, begun)).collect());
    }
}
