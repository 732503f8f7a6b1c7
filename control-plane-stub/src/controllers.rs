//! The controllers of the control plane.
//!
//! Each one is a pure decision (`decide` in the module of its name: objects and the time in, a plan out) and a thin
//! shell that runs it from a work queue. They are level-triggered: an event only puts a key on a queue, and a decision
//! reads whole snapshots. They hold no state that a restart may lose, except when they first saw a lease stand still.

pub mod allocate;
pub mod deployment;
pub mod endpointslice;
pub mod meta;
pub mod queue;
pub mod replicaset;
