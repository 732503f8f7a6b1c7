//! `cargo lab bench`: what a pod and a watched object cost through the agent, how fast and small the service data plane is, and what probes cost.

pub mod configs;
pub mod fake_pods;
pub mod pods;
pub mod probes;
pub mod services;

use crate::cluster::{Lab, run_dir};
use crate::{bins, images, setup};
use anyhow::Result;
use clap::ValueEnum;
use ferrolet_cri::fake::{Fake, ImageConfig, Profile};

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

/// A lab for one measurement, removed after it; the ends of its logs are part of a failure.
fn in_lab(name: &str, nodes: u8, measure: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::create(name, nodes, bins::build(true)?, setup::prepare()?)?;
    let result = measure(&mut lab);
    if result.is_err() {
        println!("{}", lab.log_tails(30));
    }
    lab.destroy()?;
    result
}

/// One with a node that is ready, on the fake runtime behind a real socket.
fn on_fake(name: &str, max_pods: u32, measure: impl FnOnce(&mut Lab, &Fake) -> Result<()>) -> Result<()> {
    in_lab(name, 0, |lab| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let _inside = runtime.enter();
        let node = lab.add_node(None)?;
        let fake = Fake::start_at(Profile::containerd_2(), &run_dir(&lab.name).join("fake.sock"))?;
        for image in [images::WEB, images::PAUSE] {
            fake.add_image(image, ImageConfig::default());
        }
        lab.nodes[node].endpoint = fake.endpoint();
        lab.nodes[node].kubelet.insert("maxPods".into(), max_pods.into());
        lab.start_stub()?;
        lab.start_agent(node)?;
        lab.wait_ready()?;
        measure(lab, &fake)
    })
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
