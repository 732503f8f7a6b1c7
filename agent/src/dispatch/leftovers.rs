//! What pods of an earlier life left on this host: folders, logs and cgroups whose pod neither the API nor the runtime knows.
//!
//! Looked for after both lists were complete, cgroups from time to time after that. The host is listed first and judged
//! afterwards, so that what a pod makes meanwhile is never taken for a leftover. A failure is a warning, and the next look, or the
//! next start, tries again.

use crate::api::watch::chain;
use crate::{cgroup, volume};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// What is on the host, by uid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    pub folders: Vec<String>,
    pub cgroups: Vec<cgroup::PodCgroup>,
    /// Folders of logs; a uid can have several, under names that its pod once had.
    pub logs: Vec<(String, PathBuf)>,
}

impl Leftovers {
    /// Everything, owned or not, that an agent may have left.
    pub async fn list(volumes: volume::Manager, cgroups: cgroup::Manager, logs: PathBuf) -> Leftovers {
        let folders = volumes.list_pod_dirs().await.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "cannot look for folders of pods that are gone");
            Vec::new()
        });
        let looked = tokio::task::spawn_blocking(move || log_folders(&logs)).await;
        let logs = looked.unwrap_or_else(|error| Err(std::io::Error::other(error))).unwrap_or_else(|error| {
            warn!(%error, "cannot look for logs of pods that are gone");
            Vec::new()
        });
        Leftovers { folders, logs, ..Leftovers::list_cgroups(cgroups).await }
    }

    /// Only what others than the agent may leave.
    pub async fn list_cgroups(cgroups: cgroup::Manager) -> Leftovers {
        let cgroups = cgroups.list().await.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "cannot look for cgroups of pods that are gone");
            Vec::new()
        });
        Leftovers { cgroups, ..Leftovers::default() }
    }

    /// Only what belongs to nobody. Pure.
    pub fn without(mut self, known: impl Fn(&str) -> bool) -> Leftovers {
        self.folders.retain(|uid| !known(uid));
        self.cgroups.retain(|cgroup| !known(&cgroup.uid));
        self.logs.retain(|(uid, _)| !known(uid));
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
        for (uid, path) in self.logs {
            match tokio::fs::remove_dir_all(&path).await {
                Ok(()) => info!(uid, path = %path.display(), "removed the logs of a pod that is gone"),
                Err(error) => warn!(uid, path = %path.display(), %error, "cannot remove a gone pod's logs"),
            }
        }
    }
}

/// Folders of the form NAMESPACE_NAME_UID. Others, and links, belong to somebody else.
fn log_folders(logs: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(logs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let parts: Vec<&str> = name.to_str().unwrap_or_default().split('_').collect();
        if let [namespace, pod, uid] = parts[..]
            && [namespace, pod, uid].iter().all(|part| !part.is_empty())
            && entry.file_type()?.is_dir()
        {
            found.push((uid.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
