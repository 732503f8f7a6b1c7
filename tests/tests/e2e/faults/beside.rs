//! What a fault must not touch: another pod of the node, and the node's heartbeat.

use crate::shared::{LIMIT, Ns, pod};
use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::sys::wait_for;
use serde_json::Value;

const NAME: &str = "beside";

pub struct Beside {
    pod: String,
    /// Since when the node is Ready.
    ready: Value,
}

impl Beside {
    /// A pod that is probed each second, and the node as it is.
    pub fn start(ns: &Ns) -> Result<Beside> {
        let probes = "readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}\n\
            livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}\nenv: [{name: WEB_DRAIN_MS, value: '0'}]";
        ns.apply(&pod(NAME, "serve", probes, ""))?;
        let pod = super::identity(&ns.ready(NAME)?);
        Ok(Beside { pod, ready: node_ready(ns)? })
    }

    /// It was neither restarted nor unready for a moment, the node neither; and the node's lease is renewed still.
    pub fn untouched(&self, ns: &Ns) -> Result<()> {
        let first = lease(ns)?;
        wait_for("the lease to be renewed", LIMIT, || {
            let now = lease(ns)?;
            if now > first { Ok(()) } else { bail!("still {now}") }
        })?;
        let now = super::identity(&ns.get("pod", NAME)?);
        if now != self.pod {
            bail!("the pod beside was touched: {} became {now}", self.pod);
        }
        let ready = node_ready(ns)?;
        if ready["status"] != "True" || ready["lastTransitionTime"] != self.ready["lastTransitionTime"] {
            bail!("the node was {} and is {ready}", self.ready);
        }
        Ok(())
    }
}

fn node_ready(ns: &Ns) -> Result<Value> {
    Ok(condition(&ns.lab.object("node", &ns.lab.nodes[0].name)?, "Ready").clone())
}

pub fn lease(ns: &Ns) -> Result<String> {
    let text = ns.lab.kubectl(&["get", "lease", &ns.lab.nodes[0].name, "-n", "kube-node-lease", "-o", "json"])?;
    let value: Value = serde_json::from_str(&text)?;
    Ok(value["spec"]["renewTime"].as_str().context("no renewTime")?.to_owned())
}
