//! What can go wrong with a cgroup. A cause is in `source`, not in the text: whoever reports prints the whole chain.

use std::io;
use std::path::PathBuf;

/// What a caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later.
    Transient,
    /// Trying again will not help until something is changed.
    Permanent,
    /// The thing asked for is not there any more.
    Gone,
}

/// A failed operation on the cgroup hierarchy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no cgroup hierarchy found in {0}: neither a v2 mount nor a v1 controller")]
    NoHierarchy(PathBuf),
    #[error("cgroup root {0:?} is not an absolute path without `..`")]
    Root(String),
    #[error("pod uid {0:?} cannot name a cgroup")]
    Uid(String),
    #[error("reserved cgroup {0:?} does not name a cgroup below the root")]
    Reserved(String),
    #[error("reserved cgroup {path} is not there: it is made by who starts the services in it")]
    Missing { path: PathBuf },
    #[error("reserved cgroup {path} has no controller {controller}: whoever makes it must enable it there")]
    NoController { path: PathBuf, controller: &'static str },
    #[error("cgroup {path} uses {used} bytes of memory, more than the {limit} it may have")]
    InUse { path: PathBuf, used: u64, limit: u64 },
    #[error("cgroup driver systemd: slices cannot be made (cgroupDriver: cgroupfs, in the runtime too, needs none)")]
    NoSystemd(#[source] Box<ferrolet_systemd::Error>),
    #[error("{op} {slice}")]
    Slice { op: &'static str, slice: String, source: Box<ferrolet_systemd::Error> },
    #[error("{op} {path}")]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("cgroup {path} still holds processes {pids:?} after {tries} tries to remove it")]
    Busy { path: PathBuf, pids: Vec<i32>, tries: u32 },
    #[error("cgroup work was interrupted")]
    Interrupted,
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::NoHierarchy(_)
            | Error::Root(_)
            | Error::Uid(_)
            | Error::Reserved(_)
            | Error::Missing { .. }
            | Error::NoController { .. } => Class::Permanent,
            Error::NoSystemd(_) | Error::Slice { .. } => Class::Transient,
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Class::Gone,
            Error::Io { .. } | Error::Busy { .. } | Error::InUse { .. } | Error::Interrupted => Class::Transient,
        }
    }
}
