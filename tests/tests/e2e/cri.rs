//! The CRI client's scenarios, which its fake runtime passes too, on each real containerd.

use crate::trial;
use anyhow::{Context, Result, bail};
use ferrolet_cri::scenario::{self, Params};
use ferrolet_cri::{Client, Options};
use ferrolet_tests::cluster::{Lab, cgroup_root};
use ferrolet_tests::setup::{self, Runtime, Tools};
use ferrolet_tests::{bins, images, leftovers};
use libtest_mimic::Trial;

const LAB: &str = "e2e-cri";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("cri::scenarios_on_the_hosts_containerd", || scenarios(setup::prepare()?)),
        trial("cri::scenarios_on_the_newest_containerd", || {
            scenarios(Tools { runtime: Runtime::newest()?, ..setup::prepare()? })
        }),
    ]
}

fn scenarios(tools: Tools) -> Result<()> {
    let version = tools.runtime.version.clone();
    let lab = Lab::create(LAB, 1, bins::build(false)?, tools)?;
    let result = run(&lab);
    lab.destroy()?;
    let failed = result?;
    let left = leftovers::find(LAB);
    if !left.is_empty() {
        bail!("left: {}", left.join(", "));
    }
    if failed.is_empty() { Ok(()) } else { bail!("on containerd {version}:\n{}", failed.join("\n")) }
}

fn run(lab: &Lab) -> Result<Vec<String>> {
    let folder = |name: &str| -> Result<String> {
        let dir = lab.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir.to_str().context("the lab's folder is not UTF-8")?.to_owned())
    };
    let params = Params {
        image: images::WEB.into(),
        program: "/web".into(),
        absent_image: "ferrolet.dev/absent:1".into(),
        log_dir: folder("scenario-logs")?.into(),
        scratch_dir: folder("scenario-scratch")?.into(),
        host_network: false,
        cgroup_parent: format!("{}/scenarios", cgroup_root(LAB)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(&lab.nodes[0].containerd.endpoint(), Options::default())?;
        let mut failed = vec![];
        for (name, scenario) in scenario::all() {
            if let Err(why) = scenario(&client, &params).await {
                failed.push(format!("{name}: {why}"));
            }
        }
        Ok(failed)
    })
}
