//! The lab: a small cluster on one machine, in network namespaces without a route out.
//!
//! Owns everything the demo and the end-to-end tests start, and removes all of it again: namespaces, processes, mounts,
//! cgroups and folders, also what an earlier run that was killed left behind. It never touches the host's own network
//! namespace, cgroups that it did not make, or processes that it did not start.

pub mod bench;
pub mod bins;
pub mod churn;
pub mod cluster;
pub mod conformance;
pub mod containerd;
pub mod demo;
pub mod fuzz;
pub mod images;
pub mod leftovers;
pub mod load;
pub mod netns;
pub mod proxy;
pub mod reboot;
pub mod registry;
pub mod setup;
pub mod sys;
pub mod verify;
