//! The core group: one file for each kind or family of kinds.

pub mod config;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod service;
pub mod volume;
