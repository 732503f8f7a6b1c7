//! What pods of an earlier life left on this host: folders and cgroups whose pod neither the API nor the runtime knows.
//!
//! Looked for once, after both lists were complete. The host is listed first and judged afterwards, so that what a pod
//! makes meanwhile is never taken for a leftover. A failure is a warning, and the next start tries again.

use crate::api::watch::chain;
use crate::{cgroup, volume};
use std::collections::BTreeMap;
use tracing::{info, warn};

/// What is on the host, by uid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    pub folders: Vec<String>,
    pub cgroups: Vec<cgroup::PodCgroup>,
}

impl Leftovers {
    /// Everything, owned or not.
    pub async fn list(volumes: volume::Manager, cgroups: cgroup::Manager) -> Leftovers {
        let folders = volumes.list_pod_dirs().await.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "cannot look for folders of pods that are gone");
            Vec::new()
        });
        let cgroups = cgroups.list().await.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "cannot look for cgroups of pods that are gone");
            Vec::new()
        });
        Leftovers { folders, cgroups }
    }

    /// Only what belongs to nobody. Pure.
    pub fn without(mut self, known: impl Fn(&str) -> bool) -> Leftovers {
        self.folders.retain(|uid| !known(uid));
        self.cgroups.retain(|cgroup| !known(&cgroup.uid));
        self
    }

    /// Pod by pod, side by side: what cannot be removed holds up nothing else.
    pub async fn remove(self, volumes: volume::Manager, cgroups: cgroup::Manager) {
        let mut pods: BTreeMap<String, (Vec<cgroup::PodCgroup>, bool)> = BTreeMap::new();
        for cgroup in self.cgroups {
            pods.entry(cgroup.uid.clone()).or_default().0.push(cgroup);
        }
        for uid in self.folders {
            pods.entry(uid).or_default().1 = true;
        }
        let all = pods.into_iter().map(|(uid, (groups, folder))| {
            let (volumes, cgroups) = (&volumes, &cgroups);
            async move {
                // Before the folder: a process that still runs there could write into it.
                for cgroup in &groups {
                    let path = cgroup.path.display();
                    match cgroups.remove(cgroup).await {
                        Ok(()) => info!(uid, cgroup = %path, "removed the cgroup of a pod that is gone"),
                        Err(error) => warn!(uid, cgroup = %path, error = %chain(&error), "cannot remove a gone pod's cgroup"),
                    }
                }
                if folder {
                    match volumes.teardown(&uid).await {
                        Ok(()) => info!(uid, "removed the folder of a pod that is gone"),
                        Err(error) => warn!(uid, error = %chain(&error), "cannot remove a gone pod's folder"),
                    }
                }
            }
        });
        futures::future::join_all(all).await;
    }
}
