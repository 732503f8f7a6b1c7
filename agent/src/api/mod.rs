//! The Kubernetes API as the agent sees it: client transport, list+watch, snapshots.
pub mod snapshot;
