//! `cargo lab bench`: what a pod and a watched object cost through the agent, how fast and small the service data plane is, and what probes cost.

pub mod configs;
pub mod fake_pods;
pub mod pods;
pub mod probes;
pub mod services;

use anyhow::Result;
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    Pods,
    /// What a thousand pods cost the agent alone, on the fake runtime.
    FakePods,
    /// How soon a changed ConfigMap is in the volumes of many pods, and what watched objects cost.
    Configs,
    Probes,
    /// What exec probes cost the pods that start meanwhile.
    ExecProbes,
    Services,
}

/// All without a choice.
pub fn run(what: Option<What>) -> Result<()> {
    let wanted = |this| what.is_none_or(|what| what == this);
    if wanted(What::Pods) {
        pods::run()?;
    }
    if wanted(What::FakePods) {
        fake_pods::run()?;
    }
    if wanted(What::Configs) {
        configs::run()?;
    }
    if wanted(What::Probes) {
        probes::run()?;
    }
    if wanted(What::ExecProbes) {
        probes::exec::run()?;
    }
    if wanted(What::Services) {
        services::run()?;
    }
    Ok(())
}
