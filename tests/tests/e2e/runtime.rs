//! The lab itself on each containerd, and what a killed lab leaves to the next one.

use crate::trial;
use anyhow::{Result, bail};
use ferrolet_cri::types::{SandboxConfig, SandboxMetadata};
use ferrolet_cri::{Client, Options};
use ferrolet_tests::bins::{self, Bins};
use ferrolet_tests::cluster::Lab;
use ferrolet_tests::leftovers;
use ferrolet_tests::setup::{self, Runtime, Tools};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("lab::comes_up_and_leaves_nothing", || up_and_down(Ok)),
        trial("lab::comes_up_with_the_newest_containerd", || {
            up_and_down(|tools| Ok(Tools { runtime: Runtime::newest()?, ..tools }))
        }),
        trial("lab::a_killed_lab_is_removed_by_the_next", killed),
    ]
}

fn bins() -> Result<Bins> {
    bins::build(false)
}

fn up_and_down(choose: impl FnOnce(Tools) -> Result<Tools>) -> Result<()> {
    let tools = choose(setup::prepare()?)?;
    let lab = Lab::create("e2e-lab", 2, bins()?, tools)?;
    let images = lab.nodes[1].containerd.ctr(&["images", "list", "-q"])?;
    if !images.contains(ferrolet_tests::images::WEB) {
        bail!("the web image is not there: {images}");
    }
    lab.destroy()?;
    nothing_left("e2e-lab")
}

fn killed() -> Result<()> {
    let lab = Lab::create("e2e-lab", 1, bins()?, setup::prepare()?)?;
    sandbox(&lab)?;
    // As after kill -9: nothing of the lab's own clean-up runs.
    drop(lab);
    leftovers::remove("e2e-lab")?;
    nothing_left("e2e-lab")
}

/// A pod's sandbox, with its namespace, mounts and process.
fn sandbox(lab: &Lab) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(&lab.nodes[0].containerd.endpoint(), Options::default())?;
        let metadata = SandboxMetadata { name: "left".into(), namespace: "lab".into(), uid: "left".into(), attempt: 0 };
        let cgroup_parent = format!("{}/left", ferrolet_tests::cluster::cgroup_root(&lab.name));
        let config = SandboxConfig { metadata, cgroup_parent, ..SandboxConfig::default() };
        client.run_pod_sandbox(&config, "").await?;
        Ok(())
    })
}

fn nothing_left(lab: &str) -> Result<()> {
    let left = leftovers::find(lab);
    if left.is_empty() { Ok(()) } else { bail!("left: {}", left.join(", ")) }
}
