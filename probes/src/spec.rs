//! What is probed, how, and how often. Plain values.

use std::time::{Duration, SystemTime};

/// What a probe's verdict is for. Ordered so that startup comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As events and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// One way of asking a container. Ports are numbers and hosts are filled in: names of ports and the pod's address are the
/// caller's to resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Exec {
        command: Vec<String>,
    },
    Http {
        host: String,
        port: u16,
        path: String,
        scheme: Scheme,
        headers: Vec<(String, String)>,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Grpc {
        host: String,
        port: u16,
        service: String,
    },
    /// Cannot be made as it was written: every try is an error, and nothing is ever known of the container.
    Impossible {
        why: String,
    },
}

/// A probe's settings, with the API's defaults already applied. Thresholds below 1 count as 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub check: Check,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// One probe of one running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The container's name in the pod.
    pub container: String,
    /// The runtime's id: another id is another container, whose predecessor's results count for nothing.
    pub container_id: String,
    pub kind: Kind,
    pub spec: Spec,
    /// When the container started, by the runtime.
    pub started_at: SystemTime,
}
