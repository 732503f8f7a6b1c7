//! `cargo lab bench`: what a pod costs through the agent, and how fast and small the service data plane is.

pub mod pods;
pub mod services;

use anyhow::Result;
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    Pods,
    Services,
}

/// Both without a choice.
pub fn run(what: Option<What>) -> Result<()> {
    if what != Some(What::Services) {
        pods::run()?;
    }
    if what != Some(What::Pods) {
        services::run()?;
    }
    Ok(())
}
