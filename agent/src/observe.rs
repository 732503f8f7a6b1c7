//! The runtime's pods as last seen: one snapshot a pod, kept current by events, by looking again after each change of
//! ours, and by a slow full list as the backstop.
//!
//! Owns the snapshot. An event is only a hint to look at that pod. Every look takes a number when it begins; a result
//! never replaces one whose look began later, so an old full list cannot hide what was made since. While the runtime
//! does not answer the last snapshot stays and is marked stale: nothing may be concluded from absence then. It never
//! changes anything in the runtime. Cancelled by its token.

mod build;
mod lag;

use crate::pod::PodId;
use crate::pod::explain::Trouble;
use crate::pod::observed::{Container, Sandbox, State};
use ferrolet_cri::{Client, Error, types as cri};
use futures::StreamExt;
use lag::Said;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// The full list while events flow.
const BACKSTOP: Duration = Duration::from_secs(60);
/// When to look again at a pod of which an event says more than the lists.
const BEHIND: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// The full list of a runtime without events, and how soon to try again after a failure.
const WITHOUT_EVENTS: Duration = Duration::from_secs(1);

/// Events of one pod that are remembered while it is being looked at.
const NEWS_MAX: usize = 64;

/// What the runtime has of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRuntime {
    pub id: PodId,
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
    /// It was made for a static pod.
    pub is_static: bool,
}

impl PodRuntime {
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

#[derive(Debug, Clone, Default)]
pub struct RuntimeSnapshot {
    /// True once a full list has succeeded.
    pub synced: bool,
    /// Why the runtime does not answer, and since when, while it does not.
    pub stale: Option<Trouble>,
    /// By pod uid. The same `Arc` as before means nothing has changed.
    /// Uids are shared: a snapshot is cloned for every change of one pod.
    pub pods: BTreeMap<Arc<str>, Arc<PodRuntime>>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub snapshot: watch::Receiver<Arc<RuntimeSnapshot>>,
    shared: Arc<Shared>,
}

struct Shared {
    cri: Client,
    looks: AtomicU64,
    results: mpsc::Sender<Look>,
}

/// The result of a look, numbered by its beginning.
enum Look {
    Pod { number: u64, uid: String, pod: Arc<PodRuntime>, published: oneshot::Sender<()> },
    Full { number: u64, result: Result<Vec<PodRuntime>, Error> },
}

impl Handle {
    /// Looks at one pod now. All that happened before this call is in the answer, and in the snapshot when it returns.
    pub async fn refresh(&self, id: &PodId) -> Result<Arc<PodRuntime>, Error> {
        refresh(&self.shared, &self.snapshot, id).await
    }
}

async fn refresh(
    shared: &Shared,
    snapshot: &watch::Receiver<Arc<RuntimeSnapshot>>,
    id: &PodId,
) -> Result<Arc<PodRuntime>, Error> {
    let number = shared.looks.fetch_add(1, Ordering::SeqCst);
    let known = snapshot.borrow().pods.get(id.uid.as_str()).cloned();
    let labels: cri::Labels = [(build::UID.to_owned(), id.uid.clone())].into();
    let sandbox_filter = cri::SandboxFilter { labels: labels.clone(), ..Default::default() };
    let container_filter = cri::ContainerFilter { labels, ..Default::default() };
    let (sandboxes, containers) =
        tokio::try_join!(shared.cri.list_pod_sandbox(&sandbox_filter), shared.cri.list_containers(&container_filter))?;
    let pod = build::pod(&shared.cri, id.clone(), sandboxes, containers, known.as_deref()).await?;
    // Equal to what is known: the known one, so that pointers tell changes.
    let pod = known.filter(|k| **k == pod).unwrap_or_else(|| Arc::new(pod));
    let (published, done) = oneshot::channel();
    let _ = shared.results.send(Look::Pod { number, uid: id.uid.clone(), pod: pod.clone(), published }).await;
    let _ = done.await;
    Ok(pod)
}

async fn full(shared: &Shared, known: &RuntimeSnapshot) -> Result<Vec<PodRuntime>, Error> {
    let (sandbox_filter, container_filter) = (cri::SandboxFilter::default(), cri::ContainerFilter::default());
    let (sandboxes, containers) =
        tokio::try_join!(shared.cri.list_pod_sandbox(&sandbox_filter), shared.cri.list_containers(&container_filter))?;
    let mut groups: BTreeMap<String, build::Group> = BTreeMap::new();
    for s in sandboxes {
        build::group_of(&mut groups, &s.labels).sandboxes.push(s);
    }
    for c in containers {
        build::group_of(&mut groups, &c.labels).containers.push(c);
    }
    // Containers that Kubernetes did not make have no uid.
    groups.remove("");
    let looks = groups.into_values().map(|g| {
        let before = known.pods.get(g.id.uid.as_str()).cloned();
        async move { build::pod(&shared.cri, g.id, g.sandboxes, g.containers, before.as_deref()).await }
    });
    futures::stream::iter(looks).buffer_unordered(8).collect::<Vec<_>>().await.into_iter().collect()
}

/// Starts the observer. The handle's snapshot is `synced` after the first full list.
pub fn spawn(cri: Client, cancel: CancellationToken) -> (Handle, JoinHandle<()>) {
    let (results, inbox) = mpsc::channel(64);
    let (publish, snapshot) = watch::channel(Arc::<RuntimeSnapshot>::default());
    let shared = Arc::new(Shared { cri, looks: AtomicU64::new(1), results });
    let handle = Handle { snapshot, shared };
    let task = Task {
        handle: handle.clone(),
        publish,
        numbers: BTreeMap::new(),
        looking: BTreeMap::new(),
        behind: BTreeSet::new(),
        jobs: JoinSet::new(),
    };
    let joined = tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = task.run(inbox) => {}
        }
    });
    (handle, joined)
}

struct Task {
    handle: Handle,
    publish: watch::Sender<Arc<RuntimeSnapshot>>,
    /// The number of the look that each pod's state comes from; kept a while for pods that are gone.
    numbers: BTreeMap<String, u64>,
    /// Pods being looked at because of an event, and what events said meanwhile.
    looking: BTreeMap<String, Vec<Said>>,
    /// Pods whose lists lag behind their events, by uid.
    behind: BTreeSet<String>,
    jobs: JoinSet<Job>,
}

enum Job {
    Pod {
        id: PodId,
        /// What the answer does not show yet.
        missing: Vec<Said>,
    },
    /// The lists show by now what events said, or never will.
    Level(String),
    Full,
    /// The event stream ended or could not be opened; true if this runtime has none.
    Events {
        absent: bool,
    },
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Look>) {
        let (hints_in, mut hints) = mpsc::channel::<(PodId, Said)>(256);
        let mut has_events = true;
        let mut full_running = true;
        self.start_full();
        self.start_events(&hints_in);
        let mut next_full = tokio::time::Instant::now() + BACKSTOP;
        let mut next_events: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                Some(look) = inbox.recv() => {
                    if let Look::Full { result, .. } = &look {
                        let soon = result.is_err() || !has_events;
                        next_full = tokio::time::Instant::now() + if soon { WITHOUT_EVENTS } else { BACKSTOP };
                    }
                    self.apply(look);
                }
                Some((id, said)) = hints.recv() => self.hint(id, said),
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok(Job::Pod { id, missing }) => {
                        if !missing.is_empty() {
                            self.look_again(id.clone(), missing);
                        }
                        let news = self.looking.remove(&id.uid).unwrap_or_default();
                        if !news.is_empty() {
                            self.look(id, news);
                        }
                    }
                    Ok(Job::Level(uid)) => drop(self.behind.remove(&uid)),
                    Ok(Job::Full) => full_running = false,
                    Ok(Job::Events { absent }) => {
                        if has_events && absent {
                            tracing::info!("the container runtime has no events: listing every second");
                        }
                        has_events = !absent;
                        // Events may have been lost: look at everything, and subscribe again.
                        next_full = next_full.min(tokio::time::Instant::now() + if absent { WITHOUT_EVENTS } else { Duration::ZERO });
                        let pause = if absent { BACKSTOP } else { WITHOUT_EVENTS };
                        next_events = Some(tokio::time::Instant::now() + pause);
                    }
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                () = tokio::time::sleep_until(next_full), if !full_running => {
                    full_running = true;
                    self.start_full();
                }
                () = tokio::time::sleep_until(next_events.unwrap_or(next_full)), if next_events.is_some() => {
                    next_events = None;
                    self.start_events(&hints_in);
                }
            }
        }
    }

    fn start_full(&mut self) {
        let handle = self.handle.clone();
        self.jobs.spawn(async move {
            let shared = &handle.shared;
            let number = shared.looks.fetch_add(1, Ordering::SeqCst);
            let known = handle.snapshot.borrow().clone();
            let result = full(shared, &known).await;
            let _ = shared.results.send(Look::Full { number, result }).await;
            Job::Full
        });
    }

    fn start_events(&mut self, hints: &mpsc::Sender<(PodId, Said)>) {
        let (cri, hints) = (self.handle.shared.cri.clone(), hints.clone());
        self.jobs.spawn(async move {
            let mut stream = match cri.get_container_events().await {
                Ok(stream) => stream,
                Err(error) => return Job::Events { absent: matches!(error, Error::Unimplemented { .. }) },
            };
            while let Some(event) = stream.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::debug!(%error, "container events ended");
                        return Job::Events { absent: matches!(error, Error::Unimplemented { .. }) };
                    }
                };
                let labels = event.sandbox_status.as_ref().map(|s| &s.labels);
                let labels = labels.or_else(|| event.container_statuses.first().map(|c| &c.labels));
                if let Some(id) = labels.map(build::id_of).filter(|id| !id.uid.is_empty()) {
                    let said = Said { id: event.container_id, kind: event.kind };
                    let _ = hints.send((id, said)).await;
                }
            }
            Job::Events { absent: false }
        });
    }

    /// Looks at a pod because of an event; events during a look lead to one more.
    fn hint(&mut self, id: PodId, said: Said) {
        match self.looking.get_mut(&id.uid) {
            Some(news) if news.len() < NEWS_MAX => news.push(said),
            Some(_) => {}
            None => self.look(id, vec![said]),
        }
    }

    fn look(&mut self, id: PodId, said: Vec<Said>) {
        self.looking.insert(id.uid.clone(), Vec::new());
        let handle = self.handle.clone();
        self.jobs.spawn(async move {
            let missing = match handle.refresh(&id).await {
                Ok(seen) => lag::missing(said, &seen),
                Err(error) => {
                    tracing::debug!(pod = %id, %error, "cannot look at the pod in the runtime");
                    Vec::new()
                }
            };
            Job::Pod { id, missing }
        });
    }

    /// The lists do not show what an event said. They may lag behind, or the event did: which one is told by looking again.
    fn look_again(&mut self, id: PodId, mut missing: Vec<Said>) {
        if !self.behind.insert(id.uid.clone()) {
            return;
        }
        let handle = self.handle.clone();
        self.jobs.spawn(async move {
            for pause in BEHIND {
                tokio::time::sleep(pause).await;
                missing = match handle.refresh(&id).await {
                    Ok(seen) => lag::missing(missing, &seen),
                    Err(_) => missing,
                };
                if missing.is_empty() {
                    break;
                }
            }
            Job::Level(id.uid)
        });
    }

    fn apply(&mut self, look: Look) {
        let mut next = RuntimeSnapshot::clone(&self.publish.borrow());
        match look {
            Look::Pod { number, uid, pod, published } => {
                if self.newer(&uid, number) && put(&mut next, uid, pod) {
                    self.publish.send_replace(Arc::new(next));
                }
                let _ = published.send(());
                return;
            }
            Look::Full { result: Err(error), .. } => {
                tracing::warn!(%error, "the container runtime does not answer");
                let since = next.stale.map_or_else(crate::clock::now, |before| before.since);
                next.stale = Some(Trouble { since, why: error.to_string() });
            }
            Look::Full { number, result: Ok(pods) } => {
                let seen: BTreeSet<String> = pods.iter().map(|p| p.id.uid.clone()).collect();
                for pod in pods {
                    let uid = pod.id.uid.clone();
                    if self.newer(&uid, number) && next.pods.get(uid.as_str()).is_none_or(|known| **known != pod) {
                        put(&mut next, uid, Arc::new(pod));
                    }
                }
                let gone: Vec<Arc<str>> = next.pods.keys().filter(|uid| !seen.contains(&***uid)).cloned().collect();
                for uid in gone {
                    if self.newer(&uid, number) {
                        next.pods.remove(&uid);
                    }
                }
                let pods = &next.pods;
                self.numbers.retain(|uid, n| pods.contains_key(uid.as_str()) || *n > number);
                next.synced = true;
                next.stale = None;
            }
        }
        self.publish.send_replace(Arc::new(next));
    }

    /// Whether a look with this number may say something about the pod; if so it is noted.
    fn newer(&mut self, uid: &str, number: u64) -> bool {
        match self.numbers.get_mut(uid) {
            Some(n) if *n >= number => false,
            Some(n) => {
                *n = number;
                true
            }
            None => {
                self.numbers.insert(uid.to_owned(), number);
                true
            }
        }
    }
}

/// True if that changed anything.
fn put(next: &mut RuntimeSnapshot, uid: String, pod: Arc<PodRuntime>) -> bool {
    if pod.is_empty() {
        return next.pods.remove(uid.as_str()).is_some();
    }
    let known = next.pods.get(uid.as_str());
    let pod = match known.and_then(|known| ended_stays(known, &pod).map(|kept| (known, kept))) {
        Some((known, kept)) if **known == kept => known.clone(),
        Some((_, kept)) => Arc::new(kept),
        None => pod,
    };
    let before = next.pods.insert(uid.into(), pod.clone());
    before.is_none_or(|b| !Arc::ptr_eq(&b, &pod))
}

/// The new look with the containers as they are known that had ended already; `None` where it says nothing else of those.
///
/// A container never runs again under its id. Looks are numbered by their beginning, and one that began later may still have read
/// earlier: then it brings back to life what has ended.
fn ended_stays(known: &PodRuntime, new: &PodRuntime) -> Option<PodRuntime> {
    let ended = |c: &&Container| matches!(c.state, State::Exited { .. });
    let before = |c: &Container| known.containers.iter().filter(ended).find(|k| k.id == c.id);
    if !new.containers.iter().any(|c| !ended(&c) && before(c).is_some()) {
        return None;
    }
    let containers = new.containers.iter().map(|c| before(c).filter(|_| !ended(&c)).unwrap_or(c).clone()).collect();
    Some(PodRuntime { containers, ..new.clone() })
}

#[cfg(test)]
mod tests;
