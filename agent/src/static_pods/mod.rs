//! Static pods: those that the node has from a file or a URL, whether there is an API server or not.
//!
//! `read` (pure) turns bytes into pods as kubelet does: checked, with the defaults that an API server would have filled in, with
//! an identity made of what they say. `folder` and `url` are the two sources; each owns its part of what is published here and
//! nothing else. `tell` makes events of what cannot be read. What becomes of a pod is the dispatcher's. A source ends by its token only: what cannot be read is said in the
//! log and changes nothing that runs.

mod check;
mod defaults;
mod folder;
pub mod read;
pub mod tell;
mod url;

use crate::config::StaticPods as Settings;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where a static pod is from; in the order in which they win a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Http,
}

impl Kind {
    /// As the annotation has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Http => "http",
        }
    }
}

/// What one source has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Something is there that cannot be read: whose pod it is cannot be told.
    pub(crate) broken: bool,
    /// What is wrong, by file or URL.
    pub(crate) problems: BTreeMap<String, String>,
}

/// All static pods of this node.
#[derive(Debug, Clone, Default)]
pub struct StaticPods {
    /// `None` for a source that has not been read yet.
    sources: BTreeMap<Kind, Option<Found>>,
    /// Sources that cannot be read now, and why: what they had stays.
    failures: BTreeMap<Kind, (String, String)>,
    /// True once each source has been read: nothing may be concluded from a pod's absence before.
    pub synced: bool,
    /// By uid.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Something is there that cannot be read.
    pub broken: bool,
    /// What is wrong, by file, URL or pod.
    pub problems: BTreeMap<String, String>,
}

/// The reading end.
pub type Watched = watch::Receiver<Arc<StaticPods>>;

impl StaticPods {
    fn of(kinds: impl IntoIterator<Item = Kind>) -> StaticPods {
        let sources: BTreeMap<_, _> = kinds.into_iter().map(|kind| (kind, None)).collect();
        StaticPods { synced: sources.is_empty(), sources, ..StaticPods::default() }
    }

    /// With what a source has now. A pod that is still the same stays the same object. Pure.
    fn with(&self, kind: Kind, found: Found) -> StaticPods {
        let (mut sources, mut failures) = (self.sources.clone(), self.failures.clone());
        sources.insert(kind, Some(found));
        failures.remove(&kind);
        StaticPods::all_of(sources, failures)
    }

    /// A source cannot be read, or can be again and has what it had. Pure.
    fn failing(&self, kind: Kind, failure: Option<(String, String)>) -> StaticPods {
        let mut failures = self.failures.clone();
        match failure {
            Some(failure) => drop(failures.insert(kind, failure)),
            None => drop(failures.remove(&kind)),
        }
        StaticPods::all_of(self.sources.clone(), failures)
    }

    fn all_of(sources: BTreeMap<Kind, Option<Found>>, failures: BTreeMap<Kind, (String, String)>) -> StaticPods {
        let (mut pods, mut names, mut problems) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        problems.extend(failures.values().cloned());
        for (kind, found) in sources.iter().filter_map(|(kind, found)| Some((kind, found.as_ref()?))) {
            problems.extend(found.problems.clone());
            for pod in &found.pods {
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                let name = format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name));
                let uid = part(&pod.metadata.uid);
                if names.contains(&name) || pods.contains_key(&uid) {
                    let why = format!("two static pods have this name or uid: one of the {} source is ignored", kind.name());
                    problems.insert(name, why);
                    continue;
                }
                names.insert(name);
                pods.insert(uid, pod.clone());
            }
        }
        StaticPods {
            synced: sources.values().all(Option::is_some),
            broken: sources.values().flatten().any(|found| found.broken),
            sources,
            failures,
            pods,
            problems,
        }
    }

    /// The pod of that name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        let is = |p: &&Arc<Pod>| p.metadata.namespace.as_deref() == Some(namespace) && p.metadata.name.as_deref() == Some(name);
        self.pods.values().find(is)
    }
}

/// How the static pods are, by uid, as their actors last said: what the node itself shows of them, whatever the API has.
#[derive(Clone, Default)]
pub struct Statuses(Arc<watch::Sender<BTreeMap<String, Arc<PodStatus>>>>);

impl Statuses {
    pub fn of(&self, uid: &str) -> Option<Arc<PodStatus>> {
        self.0.borrow().get(uid).cloned()
    }

    /// `None`: the pod is gone.
    pub fn say(&self, uid: &str, status: Option<&Arc<PodStatus>>) {
        self.0.send_if_modified(|all| match status {
            Some(status) => all.insert(uid.to_owned(), status.clone()).as_ref() != Some(status),
            None => all.remove(uid).is_some(),
        });
    }
}

/// Where a source puts what it has.
#[derive(Clone)]
struct Publisher {
    kind: Kind,
    all: Arc<watch::Sender<Arc<StaticPods>>>,
}

impl Publisher {
    fn publish(&self, found: Found) {
        self.all.send_modify(|all| *all = Arc::new(all.with(self.kind, found)));
    }

    /// Nothing new can be read from that place, or again.
    fn fail(&self, failure: Option<(&str, String)>) {
        let failure = failure.map(|(place, why)| (place.to_owned(), why));
        self.all.send_if_modified(|all| {
            let changed = all.failures.get(&self.kind) != failure.as_ref();
            if changed {
                *all = Arc::new(all.failing(self.kind, failure));
            }
            changed
        });
    }
}

/// Starts the sources that are configured. The tasks end by the token only.
pub fn spawn(settings: &Settings, node: &str, cancel: &CancellationToken) -> (Watched, Vec<(&'static str, JoinHandle<()>)>) {
    let file = settings.path.is_some().then_some(Kind::File);
    let http = settings.url.is_some().then_some(Kind::Http);
    let (sender, receiver) = watch::channel(Arc::new(StaticPods::of(file.into_iter().chain(http))));
    let all = Arc::new(sender);
    let publisher = |kind| Publisher { kind, all: all.clone() };
    let mut tasks = Vec::new();
    if let Some(path) = &settings.path {
        let folder = folder::Folder::new(path.clone(), node.to_owned(), settings.file_check, publisher(Kind::File));
        tasks.push(("static pods of files", tokio::spawn(cancel.clone().run_until_cancelled_owned(folder.run()))));
    }
    if let Some(url) = &settings.url {
        let poller = url::Poller::new(url, &settings.headers, node.to_owned(), settings.http_check, publisher(Kind::Http));
        tasks.push(("static pods of a url", tokio::spawn(cancel.clone().run_until_cancelled_owned(poller.run()))));
    }
    let ended = |task: JoinHandle<Option<()>>| {
        tokio::spawn(async move {
            // A panic is the supervisor's to tell of.
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        })
    };
    (receiver, tasks.into_iter().map(|(name, task)| (name, ended(task))).collect())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A source that a test speaks for.
    pub(crate) struct Source(watch::Sender<Arc<StaticPods>>);

    impl Source {
        pub(crate) fn new() -> (Source, Watched) {
            let (sender, receiver) = watch::channel(Arc::new(StaticPods::of([Kind::File])));
            (Source(sender), receiver)
        }

        pub(crate) fn say(&self, pods: Vec<Arc<Pod>>, broken: bool) {
            self.0.send_modify(|all| *all = Arc::new(all.with(Kind::File, Found { pods, broken, ..Found::default() })));
        }

        pub(crate) fn say_broken(&self, problems: &[(&str, &str)]) {
            let problems = problems.iter().map(|(place, why)| ((*place).to_owned(), (*why).to_owned())).collect();
            let found = Found { broken: true, problems, ..Found::default() };
            self.0.send_modify(|all| *all = Arc::new(all.with(Kind::File, found)));
        }
    }
}

#[cfg(test)]
mod tests;
