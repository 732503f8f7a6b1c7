//! The node agent: kubelet and kube-proxy in one process. See ARCHITECTURE.md for the picture.
pub mod admission;
pub mod api;
pub mod cgroup;
pub mod config;
pub mod daemon;
pub mod dispatch;
pub mod events;
pub mod images;
pub mod metrics;
pub mod node;
pub mod observe;
pub mod pod;
pub mod report;
pub mod server;
pub mod services;
pub mod volume;
