//! The node agent: kubelet and kube-proxy in one process. See ARCHITECTURE.md for the picture.
pub mod api;
pub mod cgroup;
pub mod config;
pub mod pod;
pub mod volume;
