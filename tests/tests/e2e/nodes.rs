//! Labs of their own: the demo's whole flow on each containerd, and a node that is lost.

use crate::trial;
use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::{Lab, condition};
use ferrolet_tests::demo::{self, Mode, Show};
use ferrolet_tests::setup::{self, Runtime, Tools};
use ferrolet_tests::sys::wait_for;
use ferrolet_tests::{bins, leftovers, load};
use libtest_mimic::Trial;
use std::net::SocketAddr;
use std::time::Duration;

const LAB: &str = "e2e-own";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("nodes::hello_on_the_hosts_containerd", || hello(setup::prepare()?)),
        trial("nodes::hello_on_the_newest_containerd", || hello(Tools { runtime: Runtime::newest()?, ..setup::prepare()? })),
        trial("nodes::two_nodes_and_one_is_lost", || with(2, setup::prepare()?, lost)),
    ]
}

/// A lab for one test, removed after it; its logs are part of a failure.
fn with(nodes: u8, tools: Tools, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::create(LAB, nodes, bins::build(false)?, tools)?;
    let result = test(&mut lab).map_err(|error| {
        let tails = lab.log_tails(30);
        error.context(tails)
    });
    let destroyed = lab.destroy();
    result?;
    destroyed?;
    let left = leftovers::find(LAB);
    if left.is_empty() { Ok(()) } else { bail!("left: {}", left.join(", ")) }
}

fn hello(tools: Tools) -> Result<()> {
    let before = leftovers::list_namespaces();
    with(1, tools, |lab| demo::flow(&Show::default(), lab, Mode::Full, &before))
}

fn lost(lab: &mut Lab) -> Result<()> {
    lab.start_stub()?;
    lab.start_agent(0)?;
    lab.start_agent(1)?;
    lab.wait_ready()?;
    lab.apply(include_str!("../../../examples/hello.yaml"))?;
    lab.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    let nodes: std::collections::BTreeSet<String> =
        lab.list("pods", "app=hello")?.iter().map(|p| p["spec"]["nodeName"].to_string()).collect();
    if nodes.len() != 2 {
        bail!("the pods were not spread over both nodes: {nodes:?}");
    }
    // Each node reaches the pods of both.
    let ip = lab.object("service", "hello")?["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    let address: SocketAddr = format!("{ip}:80").parse()?;
    for node in &lab.nodes {
        let counts = load::spread(&node.netns, address, 60)?;
        if counts.len() != 3 {
            bail!("from {}: {counts:?}", node.name);
        }
    }
    lab.nodes[1].kill_agent()?;
    wait_for("node-2 to be NotReady and tainted", Duration::from_secs(75), || {
        let node = lab.object("node", "node-2")?;
        let tainted = node["spec"]["taints"].to_string().contains("node.kubernetes.io/unreachable");
        if condition(&node, "Ready")["status"] == "Unknown" && tainted {
            Ok(())
        } else {
            bail!("{}", node["status"]["conditions"])
        }
    })?;
    // Its pods are no longer Ready, so no Service sends to them.
    wait_for("only pods of node-1 in the Service", Duration::from_secs(20), || {
        let counts = load::spread(&lab.nodes[0].netns, address, 30)?;
        let here = lab.list("pods", "app=hello")?.iter().filter(|p| p["spec"]["nodeName"] == "node-1").count();
        if counts.len() == here { Ok(()) } else { bail!("{counts:?}") }
    })?;
    lab.start_agent(1)?;
    lab.wait_ready()?;
    wait_for("the taint to go and all pods to answer", Duration::from_secs(30), || {
        let node = lab.object("node", "node-2")?;
        let counts = load::spread(&lab.nodes[0].netns, address, 60)?;
        let taints = node["spec"]["taints"].as_array().map_or(0, Vec::len);
        if taints == 0 && counts.len() == 3 { Ok(()) } else { bail!("{} {counts:?}", node["spec"]) }
    })
}
