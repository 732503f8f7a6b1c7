//! Who is let in on the node, and hooks over HTTP: on a real runtime, seen with kubectl.

use crate::shared::{Ns, pod, test};
use anyhow::{Result, bail};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        test("admission::what_does_not_fit_fails_with_a_reason", refused),
        test("admission::a_host_port_is_given_once", host_port),
        test("admission::http_hooks", hooks),
    ]
}

/// Bound by hand, past the scheduler.
fn bound(name: &str, container: &str, spec: &str) -> String {
    pod(name, "serve", container, &format!("nodeName: node-1\n{spec}"))
}

fn fails(ns: &Ns, name: &str, reason: &str, message: &str) -> Result<()> {
    let pod = ns.pod(name, "Failed", |p| p["status"]["phase"] == "Failed")?;
    let said = pod["status"]["message"].as_str().unwrap_or_default();
    if pod["status"]["reason"] != reason || !said.starts_with("Pod was rejected: ") || !said.contains(message) {
        bail!("{name}: {}", pod["status"]);
    }
    ns.event(name, reason, message).map(drop)
}

fn refused(ns: &mut Ns) -> Result<()> {
    ns.apply(&bound("large", "resources: {requests: {cpu: '1000'}}", ""))?;
    ns.apply(&bound("choosy", "", "nodeSelector: {no-such-label: x}"))?;
    ns.apply(&bound("foreign", "", "os: {name: windows}"))?;
    fails(ns, "large", "OutOfcpu", "Node didn't have enough resource: cpu, requested: 1000000")?;
    fails(ns, "choosy", "NodeAffinity", "node(s) didn't match Pod's node affinity/selector")?;
    fails(ns, "foreign", "PodOSNotSupported", "the OS field doesn't match node OS")?;
    // Nothing of them was made, and nobody else is disturbed.
    ns.apply(&bound("plain", "", ""))?;
    ns.ready("plain").map(drop)
}

fn host_port(ns: &mut Ns) -> Result<()> {
    let port = "ports: [{containerPort: 8080, hostPort: 18080}]";
    ns.apply(&bound("first", port, ""))?;
    ns.ready("first")?;
    ns.apply(&bound("second", port, ""))?;
    fails(ns, "second", "NodePorts", "didn't have free ports for the requested pod ports")
}

fn hooks(ns: &mut Ns) -> Result<()> {
    // The second container's hook asks the first one, which counts and is up by then.
    let second = "- {name: second, image: ferrolet.dev/web:1, args: [serve, --port, '8081'], lifecycle: {postStart: {httpGet: {port: 8080, path: /}}}}";
    ns.apply(&format!("{}  {second}\n", pod("asked", "serve", "", "")))?;
    ns.ready("asked")?;
    let answer = ns.kubectl(&["exec", "asked", "-c", "main", "--", "/web", "get", "127.0.0.1:8080", "/requests"])?;
    if answer.trim().parse::<u32>().unwrap_or(0) < 1 {
        bail!("the hook's request did not come: {answer}");
    }
    // Nothing listens there: the container is killed for it.
    ns.apply(&pod("deaf", "serve", "lifecycle: {postStart: {httpGet: {port: 9, path: /}}}", ""))?;
    ns.event("deaf", "FailedPostStartHook", "").map(drop)
}
