//! What this node's data plane is told of the pod before the API shows it, and when the pod's end may go on.
//!
//! Owns the word last said. It says nothing of readiness until that differs from what the API had when the actor began, so a new
//! agent changes no endpoint. Endpoints name a static pod by the uid of its mirror, which comes and goes; without one nothing leads to
//! the pod. It never waits itself; who stops a container waits, and not longer than `LIMIT`.

use ferrolet_netproxy::{Installed, OwnPods, PodWord};
use k8s_openapi::api::core::v1 as api;
use std::time::Duration;
use tokio::time::Instant;

/// How long the rules may hold up a pod's end.
const LIMIT: Duration = Duration::from_millis(500);

pub struct Traffic {
    own_pods: OwnPods,
    /// By which endpoints name the pod. `None`: the API has no object of it.
    uid: Option<String>,
    /// Ready as the API had it, or as it was last said.
    ready: bool,
    said: PodWord,
    leaving: Option<Leaving>,
}

impl Traffic {
    pub fn new(own_pods: OwnPods, uid: Option<String>, known: &api::PodStatus) -> Traffic {
        Traffic { own_pods, uid, ready: ready(known), said: PodWord::default(), leaving: None }
    }

    /// Another object stands for the pod from now on, or none.
    pub fn known_as(&mut self, uid: Option<String>) {
        if uid == self.uid {
            return;
        }
        if let Some(old) = std::mem::replace(&mut self.uid, uid) {
            self.own_pods.gone(&old);
        }
        // A new object does not have what the one before was told.
        let word = PodWord { told: false, ..std::mem::take(&mut self.said) };
        self.say(word);
    }

    /// After each new status.
    pub fn update(&mut self, terminating: bool, status: &api::PodStatus) {
        let ips: Vec<_> = status.pod_ips.iter().flatten().filter_map(|p| p.ip.parse().ok()).collect();
        if ips.is_empty() {
            // It is nobody's endpoint.
            return;
        }
        let now = ready(status);
        let mut word = PodWord { terminating: terminating || self.said.terminating, ips, ..self.said.clone() };
        if now != self.ready {
            self.ready = now;
            (word.ready, word.told) = (Some(now), false);
        }
        self.say(word);
    }

    /// The API has taken this status.
    pub fn taken(&mut self, status: &api::PodStatus) {
        if self.said.ready == Some(ready(status)) {
            self.say(PodWord { told: true, ..self.said.clone() });
        }
    }

    fn say(&mut self, word: PodWord) {
        if word == self.said || !(word.terminating || word.ready.is_some()) {
            return;
        }
        self.said = word.clone();
        let Some(uid) = &self.uid else { return };
        let terminating = word.terminating;
        let installed = self.own_pods.say(uid, word);
        if terminating && self.leaving.is_none() {
            self.leaving = Some(Leaving { installed, limit: Instant::now() + LIMIT });
        }
    }

    /// What is to be waited for before the pod's containers are told to end. `None`: nothing leads to them.
    pub fn leaving(&self) -> Option<Leaving> {
        self.leaving.clone()
    }

    /// Nothing is left of the pod, here and in the API.
    pub fn gone(&self) {
        if let Some(uid) = &self.uid {
            self.own_pods.gone(uid);
        }
    }
}

/// The pod on its way out of this node's rules.
#[derive(Clone)]
pub struct Leaving {
    installed: Installed,
    limit: Instant,
}

impl Leaving {
    /// Returns when no new connection of this node is led to the pod, or when that takes too long. False: too long.
    pub async fn wait(self) -> bool {
        tokio::time::timeout_at(self.limit, self.installed.wait()).await.is_ok()
    }
}

fn ready(status: &api::PodStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests;
