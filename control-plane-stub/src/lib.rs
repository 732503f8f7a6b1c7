//! A minimal Kubernetes control plane. See ARCHITECTURE.md for the picture.
pub mod app;
pub mod controllers;
pub mod http;
pub mod kinds;
pub mod pki;
pub mod ranges;
pub mod registry;
pub mod scheduler;
pub mod status;
pub mod store;
pub mod tokens;
