//! Which runtime the fake imitates.

use crate::error::Code;
use std::collections::BTreeSet;

/// A runtime's name, its version, and what it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    pub version: String,
    pub missing: BTreeSet<&'static str>,
    /// Whether stopping what is not there is answered NotFound, against the interface.
    pub stop_gone_is_error: bool,
    /// The code for a name that is taken.
    pub name_taken: Code,
    /// Whether the status tells of handlers and their features.
    pub handlers: bool,
    /// Whether a container's status has the image's id apart from its reference.
    pub image_id: bool,
}

const STREAMS: &[&str] = &[
    "StreamPodSandboxes",
    "StreamContainers",
    "StreamContainerStats",
    "StreamPodSandboxStats",
    "StreamPodSandboxMetrics",
    "StreamImages",
];
const METRICS: &[&str] = &["ListMetricDescriptors", "ListPodSandboxMetrics"];

impl Profile {
    fn new(name: &str, version: &str, missing: &[&[&'static str]]) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            missing: missing.iter().flat_map(|m| m.iter().copied()).collect(),
            stop_gone_is_error: false,
            name_taken: Code::Unknown,
            handlers: false,
            image_id: false,
        }
    }

    /// Debian 12's: no events, no RuntimeConfig.
    pub fn containerd_1_6() -> Self {
        let newer = ["GetContainerEvents", "RuntimeConfig", "CheckpointContainer", "UpdatePodSandboxResources"];
        Self { stop_gone_is_error: true, ..Self::new("containerd", "1.6.20", &[&newer, STREAMS, METRICS]) }
    }

    pub fn containerd_1_7() -> Self {
        let newer = ["CheckpointContainer", "UpdatePodSandboxResources"];
        Self { stop_gone_is_error: true, ..Self::new("containerd", "1.7.24", &[&newer, STREAMS, METRICS]) }
    }

    pub fn containerd_2() -> Self {
        let newer = ["UpdatePodSandboxResources"];
        Self {
            name_taken: Code::FailedPrecondition,
            handlers: true,
            ..Self::new("containerd", "2.1.9", &[&newer, STREAMS, METRICS])
        }
    }

    pub fn crio() -> Self {
        Self { image_id: true, handlers: true, ..Self::new("cri-o", "1.32.0", &[STREAMS]) }
    }

    /// One that has all there is.
    pub fn newest() -> Self {
        Self { image_id: true, handlers: true, ..Self::new("newest", "9.0.0", &[]) }
    }

    /// Every one of the above.
    pub fn all() -> Vec<Profile> {
        vec![Self::containerd_1_6(), Self::containerd_1_7(), Self::containerd_2(), Self::crio(), Self::newest()]
    }
}
