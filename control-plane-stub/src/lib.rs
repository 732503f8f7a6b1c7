//! A minimal Kubernetes control plane. See ARCHITECTURE.md for the picture.
pub mod controllers;
pub mod kinds;
pub mod registry;
pub mod status;
pub mod store;
