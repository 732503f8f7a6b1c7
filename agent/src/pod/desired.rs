//! What a pod should be: the part of the API object that decisions are made from, checked once.
//!
//! Owns the way from `Pod` to [`Desired`] and the list of what is refused. It never decides what to do (that is
//! `plan`) and never looks at the runtime. Fields that only pass through to the runtime or to the status stay in
//! `Desired::pod`, the object as it came.

use crate::pod::Time;
use crate::pod::ephemeral::{self, Ephemeral};
use crate::pod::resize;
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;
use std::time::Duration;

/// Identity of a pod; two pods of one name differ in `uid`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for PodId {
    /// The form of kubelet's messages: `name_namespace(uid)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next one.
    Init,
    /// A restartable init container: started in order, kept running, never keeps the pod from ending.
    Sidecar,
    Main,
    /// Started once, beside all others, and counted for nothing.
    Ephemeral,
}

/// `restartPolicyRules`: the first matching rule wins over the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartRule {
    /// True for `In`, false for `NotIn`.
    pub matches: bool,
    pub exit_codes: Vec<i32>,
    /// Action `RestartAllContainers`: not this container alone runs again but all of the pod, from the start.
    pub all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub role: Role,
    /// As written in the spec; may be empty for an orphan.
    pub image: String,
    pub pull: PullPolicy,
    pub restart: RestartPolicy,
    pub rules: Vec<RestartRule>,
    /// The count its first instance gets when the runtime has forgotten earlier ones that the API remembers.
    pub first_attempt: u32,
    /// Identity of what a running container was made from; a change replaces it.
    pub hash: String,
    pub has_startup_probe: bool,
    pub has_readiness_probe: bool,
    pub liveness_grace: Option<Duration>,
    pub startup_grace: Option<Duration>,
    /// Of those with that role, and only of those.
    pub ephemeral: Option<Ephemeral>,
    /// What it is to have of cpu and memory.
    pub resize: resize::Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The API's default: `latest`, said or implied, is always asked for.
    pub fn of(text: Option<&str>, image: &str) -> PullPolicy {
        match text {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if crate::images::reference::tag_is_latest(image) => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        }
    }
}

/// The pod's volumes that are images, by name.
pub fn image_volumes(pod: &api::Pod) -> impl Iterator<Item = (&str, &api::ImageVolumeSource)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| Some((v.name.as_str(), v.image.as_ref()?)))
}

/// The API's wish to delete the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    pub grace: Duration,
}

/// The node will not have the pod, or not any longer: it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub reason: String,
    pub message: String,
    /// Message of the condition `DisruptionTarget`, for a pod that had been taken.
    pub disruption: Option<&'static str>,
}

/// Something in the spec that this agent does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Unsupported {
    pub field: String,
    pub reason: String,
}

#[derive(Debug, Clone)]
pub struct Desired {
    pub id: PodId,
    pub generation: i64,
    /// Init and sidecar containers in order, then the main ones in order, then ephemeral ones.
    pub containers: Vec<Container>,
    pub restart: RestartPolicy,
    pub grace: Duration,
    pub active_deadline: Option<Duration>,
    pub host_network: bool,
    pub deletion: Option<Deletion>,
    /// The API already shows a terminal phase, which is never left.
    pub terminal: bool,
    /// When the node first acknowledged the pod, if it did.
    pub started: Option<Time>,
    /// Empty unless something cannot be done; then nothing is started.
    pub unsupported: Vec<Unsupported>,
    /// What is left out while the rest of the pod goes on.
    pub passed_over: Vec<Unsupported>,
    /// True for a pod that exists only in the runtime.
    pub orphan: bool,
    /// Never taken back.
    pub ended: Option<Ended>,
    /// The ephemeral containers in the form of the others.
    pub looking: Vec<api::Container>,
    pub pod: Arc<api::Pod>,
}

impl Desired {
    /// Reads an API object. Never fails: what cannot be done is listed in `unsupported`.
    pub fn of(pod: &Arc<api::Pod>) -> Desired {
        let empty = api::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let meta = &pod.metadata;
        let mut unsupported = support::check_names(pod);
        unsupported.extend(support::check(spec));
        let restart = match spec.restart_policy.as_deref() {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            None | Some("Always") => RestartPolicy::Always,
            Some(other) => {
                unsupported.push(Unsupported { field: "spec.restartPolicy".into(), reason: format!("unknown value {other:?}") });
                RestartPolicy::Never
            }
        };
        let status = pod.status.as_ref();
        let whole = spec.resources.as_ref();
        let init = spec.init_containers.iter().flatten().map(|c| {
            let role = if c.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
            container(c, role, restart, status, whole)
        });
        let main = spec.containers.iter().map(|c| container(c, Role::Main, restart, status, whole));
        let (looking, passed_over) = support::ephemeral(spec);
        let ephemeral = looking.iter().map(|(spec, own)| {
            let ran = ephemeral::ran(&spec.name, status);
            let own = Some(Ephemeral { ran, ..own.clone() });
            Container { ephemeral: own, first_attempt: 0, ..container(spec, Role::Ephemeral, restart, None, None) }
        });
        let grace = seconds(spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE);
        Desired {
            id: id_of(pod),
            generation: meta.generation.unwrap_or(0),
            containers: init.chain(main).chain(ephemeral).collect(),
            restart,
            grace,
            active_deadline: seconds(spec.active_deadline_seconds),
            host_network: spec.host_network.unwrap_or(false),
            deletion: meta
                .deletion_timestamp
                .as_ref()
                .map(|_| Deletion { grace: seconds(meta.deletion_grace_period_seconds).unwrap_or(grace).max(LEAST_GRACE) }),
            terminal: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
            started: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            unsupported,
            passed_over,
            looking: looking.into_iter().map(|(spec, _)| spec).collect(),
            orphan: false,
            ended: None,
            pod: pod.clone(),
        }
    }

    /// A pod known only from the runtime's labels: it can only be ended.
    pub fn orphan(id: PodId) -> Desired {
        let mut pod = api::Pod::default();
        pod.metadata.name = Some(id.name.clone());
        pod.metadata.namespace = Some(id.namespace.clone());
        pod.metadata.uid = Some(id.uid.clone());
        let mut desired = Desired::of(&Arc::new(pod));
        desired.gone();
        desired
    }

    /// The API object vanished: end the pod with the shortest grace, as kubelet ends what only the runtime still has.
    pub fn gone(&mut self) {
        self.orphan = true;
        self.deletion = Some(Deletion { grace: LEAST_GRACE });
    }

    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn main(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.role == Role::Main)
    }

    pub fn inits(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| matches!(c.role, Role::Init | Role::Sidecar))
    }

    pub fn ephemeral(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.role == Role::Ephemeral)
    }

    /// All containers as the API has them, ephemeral ones among them.
    pub fn all_specs(&self) -> impl Iterator<Item = &api::Container> {
        self.pod.spec.iter().flat_map(super::containers).chain(&self.looking)
    }

    /// The container as the API has it.
    pub fn spec_of(&self, name: &str) -> Option<&api::Container> {
        self.all_specs().find(|c| c.name == name)
    }
}

impl Container {
    /// Whether a container that ended with this code runs again.
    pub fn restarts(&self, exit_code: i32) -> bool {
        if self.rule(exit_code).is_some() {
            return true;
        }
        match self.restart {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// Whether all containers of the pod run again because this one ended with this code.
    pub fn restarts_all(&self, exit_code: i32) -> bool {
        self.rule(exit_code).is_some_and(|r| r.all)
    }

    fn rule(&self, exit_code: i32) -> Option<&RestartRule> {
        self.rules.iter().find(|r| r.exit_codes.contains(&exit_code) == r.matches)
    }
}

/// `terminationGracePeriodSeconds` where the API server filled none in.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// However little a deletion allows, a preStop hook gets a moment.
const LEAST_GRACE: Duration = Duration::from_secs(1);

pub fn id_of(pod: &api::Pod) -> PodId {
    PodId {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

fn seconds(value: Option<i64>) -> Option<Duration> {
    value.map(|s| Duration::from_secs(s.max(0) as u64))
}

fn container(
    c: &api::Container,
    role: Role,
    pod_restart: RestartPolicy,
    status: Option<&api::PodStatus>,
    whole: Option<&api::ResourceRequirements>,
) -> Container {
    let image = c.image.clone().unwrap_or_default();
    let restart = match (role, c.restart_policy.as_deref()) {
        (Role::Ephemeral, _) => RestartPolicy::Never,
        (Role::Sidecar, _) | (_, Some("Always")) => RestartPolicy::Always,
        (_, Some("OnFailure")) => RestartPolicy::OnFailure,
        (_, Some("Never")) => RestartPolicy::Never,
        // An init container that succeeded is done, whatever the pod's policy says.
        (Role::Init, _) if pod_restart == RestartPolicy::Always => RestartPolicy::OnFailure,
        _ => pod_restart,
    };
    // Rules count only beside a policy of the container's own.
    let rules = c.restart_policy_rules.iter().flatten().filter(|_| c.restart_policy.is_some()).filter_map(|r| {
        let codes = r.exit_codes.as_ref()?;
        let all = match r.action.as_str() {
            "Restart" => false,
            "RestartAllContainers" => true,
            _ => return None,
        };
        let matches = match codes.operator.as_str() {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        Some(RestartRule { matches, exit_codes: codes.values.clone().unwrap_or_default(), all })
    });
    let pull = PullPolicy::of(c.image_pull_policy.as_deref(), &image);
    let probe_grace = |p: &Option<api::Probe>| seconds(p.as_ref().and_then(|p| p.termination_grace_period_seconds));
    let known = status.into_iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    let ran_before = known.filter(|s| s.name == c.name && s.container_id.as_deref().is_some_and(|id| !id.is_empty()));
    Container {
        first_attempt: ran_before.map(|s| s.restart_count.max(0) as u32 + 1).max().unwrap_or(0),
        hash: hash(&c.name, &image),
        name: c.name.clone(),
        role,
        image,
        pull,
        restart,
        rules: rules.collect(),
        has_startup_probe: c.startup_probe.is_some(),
        has_readiness_probe: c.readiness_probe.is_some(),
        liveness_grace: probe_grace(&c.liveness_probe),
        startup_grace: probe_grace(&c.startup_probe),
        ephemeral: None,
        resize: resize::Wanted::of(c, whole),
    }
}

/// FNV-1a over what a running container cannot change in place: its name and image.
fn hash(name: &str, image: &str) -> String {
    let mut h: u32 = 0x811c_9dc5;
    for byte in name.bytes().chain([0]).chain(image.bytes()) {
        h = (h ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{h:x}")
}

mod support;
#[cfg(test)]
mod tests;
