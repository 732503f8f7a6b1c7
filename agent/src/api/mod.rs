//! The Kubernetes API as the agent sees it: client transport, list+watch, snapshots.
//!
//! - `kubeconfig` reads who we are and where the API server is; `transport` carries every request of `kube::Client`.
//! - `wire` (pure) knows the paths of the watched kinds and takes lists and watch events apart, object by object.
//! - `watch` keeps one kind up to date through every failure and hands changes to a `Sink`.
//! - `snapshot` publishes the whole of a kind; `feed` sends Services and EndpointSlices to the data plane.
//! - `absent` stands in the place of the client on a node without an API server.

pub mod absent;
pub mod error;
pub mod feed;
pub mod kubeconfig;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
pub mod transport;
pub mod watch;
pub mod wire;

pub use error::{Class, Error, class_of};
