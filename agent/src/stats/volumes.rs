//! The sizes of volumes, measured behind the back of whoever asks: answers have what was measured last.
//!
//! One worker at a time, so that many volumes are a long walk and never a broad one. What is older than `FRESH` is measured anew at
//! the next question; without questions nothing is.

use super::sample::Layer;
use crate::node::facts;
use crate::volume::sizes::{self, Size};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// As kubelet's `volumeStatsAggPeriod` by default.
const FRESH: Duration = Duration::from_secs(60);

/// A pod's uid and a volume's name.
pub type Key = (String, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    pub layer: Layer,
    /// Part of the pod's ephemeral storage.
    pub ephemeral: bool,
}

pub struct Volumes {
    root_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<Key, (Instant, Measured)>,
    busy: bool,
}

struct Wanted {
    key: Key,
    kind: &'static str,
    /// An emptyDir's contents are the pod's own; those of the other kinds the API's.
    own: bool,
}

impl Volumes {
    pub fn new(root_dir: PathBuf) -> Arc<Volumes> {
        Arc::new(Volumes { root_dir, state: Mutex::default() })
    }

    /// What is known of the volumes of these pods. Needs a tokio runtime.
    pub fn of(self: &Arc<Self>, pods: &[Arc<Pod>]) -> BTreeMap<Key, Measured> {
        let wanted: Vec<Wanted> = pods.iter().flat_map(|pod| wanted(pod)).collect();
        let mut state = self.lock();
        let there: BTreeSet<&Key> = wanted.iter().map(|w| &w.key).collect();
        state.known.retain(|key, _| there.contains(key));
        let known = state.known.iter().map(|(key, (_, measured))| (key.clone(), *measured)).collect();
        let old = |w: &Wanted| state.known.get(&w.key).is_none_or(|(at, _)| at.elapsed() >= FRESH);
        let due: Vec<Wanted> = wanted.into_iter().filter(old).collect();
        if !due.is_empty() && !std::mem::replace(&mut state.busy, true) {
            let own = self.clone();
            tokio::task::spawn_blocking(move || own.measure(due));
        }
        known
    }

    fn measure(&self, due: Vec<Wanted>) {
        let on = facts::file_system(&self.root_dir);
        for Wanted { key, kind, own } in due {
            let Some(Size { bytes, inodes, on_disk }) = sizes::measure(&self.root_dir, &key.0, kind, &key.1) else { continue };
            let layer = Layer { bytes: Some(bytes), inodes: Some(inodes), on: on.filter(|_| on_disk) };
            self.lock().known.insert(key, (Instant::now(), Measured { layer, ephemeral: own && on_disk }));
        }
        self.lock().busy = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Whoever panicked left whole entries.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wanted(pod: &Pod) -> impl Iterator<Item = Wanted> + '_ {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| {
        let key = (uid.clone(), volume.name.clone());
        Some(Wanted { key, kind: sizes::kind(volume)?, own: volume.empty_dir.is_some() })
    })
}
