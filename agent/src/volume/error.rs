//! What can go wrong while volumes are prepared or removed. The texts end up in events, so they name the volume and object; a
//! cause is in `source`, not in the text: whoever reports prints the whole chain.

use super::fields::FieldError;
pub use crate::cgroup::Class;
use std::io;
use std::path::PathBuf;

/// A volume that could not be prepared or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A ConfigMap or Secret that is not there and not optional.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {kind} {name:?} not found")]
    NotFound { volume: String, kind: &'static str, name: String },
    /// A key that `items` names and the object lacks.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {kind} {name:?} references non-existent config key: {key}")]
    Key { volume: String, kind: &'static str, name: String, key: String },
    /// The API server did not answer, or refused.
    #[error("MountVolume.SetUp failed for volume {volume:?} : reading {kind} {name:?}")]
    Api { volume: String, kind: &'static str, name: String, source: crate::objects::Error },
    #[error("MountVolume.SetUp failed for volume {volume:?} : token for service account {account:?}")]
    Token { volume: String, account: String, source: Box<kube::Error> },
    /// The server answered, but not with a usable token.
    #[error(
        "MountVolume.SetUp failed for volume {volume:?} : token for service account {account:?}: the answer has no {missing}"
    )]
    TokenAnswer { volume: String, account: String, missing: &'static str },
    /// Of `certificates.k8s.io`.
    #[error("MountVolume.SetUp failed for volume {volume:?}")]
    Certificates {
        volume: String,
        #[source]
        why: Box<super::kinds::certificates::Problem>,
    },
    #[error("MountVolume.SetUp failed for volume {volume:?}")]
    Field { volume: String, source: Box<FieldError> },
    /// A key or path that would leave the volume.
    #[error("MountVolume.SetUp failed for volume {volume:?} : path {path:?} must be relative and must not contain `..`")]
    Path { volume: String, path: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : hostPath type check failed: {path} is not {expected}")]
    HostPath { volume: String, path: String, expected: &'static str },
    #[error("MountVolume.SetUp failed for volume {volume:?} : local volume {path}")]
    Local { volume: String, path: String, source: io::Error },
    #[error("MapVolume.SetUpDevice failed for volume {volume:?} : {path} is not a block device")]
    Device { volume: String, path: String },
    /// A claim without a volume that the pod may have.
    #[error("volume {volume:?}: error processing PVC {claim}")]
    Claim {
        volume: String,
        claim: String,
        #[source]
        why: Box<super::kinds::ClaimError>,
    },
    #[error("{}Volume.NodeAffinity check failed for volume {volume:?} : {why}", if *.block { "Map" } else { "Mount" })]
    Affinity { block: bool, volume: String, why: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {IN_USE}")]
    Taken { volume: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : the program {program} is not installed on this node")]
    Program { volume: String, program: &'static str },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {program}: {why}")]
    Mount { volume: String, program: &'static str, why: String },
    #[error("volume {volume:?}: {field} is not supported")]
    Unsupported { volume: String, field: String },
    #[error("volume {volume:?}: {field} {value:?} is invalid: {why}")]
    Invalid { volume: String, field: &'static str, value: String, why: &'static str },
    #[error("pod uid {0:?} cannot name a folder")]
    Uid(String),
    #[error("user namespace of pod {uid}")]
    UserNamespace { uid: String, source: crate::userns::Error },
    #[error("{op} {path}")]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("volume work was interrupted")]
    Interrupted,
}

/// Said of a volume that is for one pod alone and has one.
pub const IN_USE: &str = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";

impl Error {
    /// The reason of the event that tells of it.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Device { .. } | Error::Affinity { block: true, .. } => "FailedMapVolume",
            _ => "FailedMount",
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Error::Field { .. } | Error::Path { .. } | Error::Unsupported { .. } | Error::Invalid { .. } | Error::Uid(_) => {
                Class::Permanent
            }
            // Objects and host paths may yet appear: kubelet retries these for ever, with backoff.
            Error::NotFound { .. }
            | Error::Key { .. }
            | Error::Api { .. }
            | Error::Token { .. }
            | Error::TokenAnswer { .. }
            | Error::HostPath { .. }
            | Error::Local { .. }
            | Error::Device { .. }
            | Error::Claim { .. }
            | Error::Affinity { .. }
            | Error::Taken { .. }
            | Error::Program { .. }
            | Error::Certificates { .. }
            | Error::Mount { .. }
            | Error::UserNamespace { .. }
            | Error::Io { .. }
            | Error::Interrupted => Class::Transient,
        }
    }
}
