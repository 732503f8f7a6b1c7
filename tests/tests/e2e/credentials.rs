//! Images from a real registry that asks for a password, on real containerd.

use crate::shared::{Ns, contains, must_contain, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::images::{Image, write_archive};
use ferrolet_tests::sys::{Proc, run, wait_for};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![test("credentials::each_pod_shows_credentials_of_its_own", own_credentials)]
}

const REGISTRY: &str = "docker-registry";
/// Loopback of the node, where containerd speaks HTTP without being told.
const ADDRESS: &str = "127.0.0.1:5000";
const IMAGE: &str = "127.0.0.1:5000/private/web:1";
const USER: &str = "puller";
const PASSWORD: &str = "open-sesame";
/// bcrypt of the password.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO";

fn start_registry(ns: &Ns, dir: &Path) -> Result<Proc> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("htpasswd"), format!("{USER}:{HASH}\n"))?;
    let at = dir.display();
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '{ADDRESS}', secret: s}}\n\
         auth: {{htpasswd: {{realm: lab, path: {at}/htpasswd}}}}\n"
    );
    std::fs::write(dir.join("config.yml"), config)?;
    let argv = [REGISTRY.to_owned(), "serve".into(), dir.join("config.yml").to_string_lossy().into_owned()];
    let netns = &ns.lab.nodes[0].netns;
    let mut registry = Proc::spawn(REGISTRY, &ns.lab.name, Some(netns), &dir.join("log"), &argv, &[])?;
    wait_for("the registry to answer", Duration::from_secs(20), || {
        registry.check_alive()?;
        // Without a password it says only that it wants one.
        let answer = ferrolet_tests::load::get(netns, ADDRESS.parse()?, "/v2/");
        must_contain(&format!("{:#}", answer.err().context("it let everybody in")?), "401")
    })?;
    Ok(registry)
}

/// An image that is nowhere but in the registry, and has nothing in common with the lab's own.
fn push(ns: &Ns, dir: &Path) -> Result<()> {
    let archive = dir.join("image.tar");
    let files: &[(&str, &Path)] = &[("/web", &ns.lab.bins.web), ("/etc/private", &dir.join("config.yml"))];
    write_archive(&Image { name: IMAGE, files, entrypoint: &["/web"], arguments: &[], user: "" }, &archive)?;
    let node = &ns.lab.nodes[0];
    node.containerd.import(&archive)?;
    // Whoever pushes does so from inside the node's network.
    let mut ctr = Command::new("nsenter");
    ctr.arg(format!("--net=/run/netns/{}", node.netns)).arg(&ns.lab.tools.runtime.ctr);
    ctr.arg("--address").arg(&node.containerd.socket).args(["--namespace", "k8s.io", "images", "push", "--plain-http"]);
    run(ctr.args(["--user", &format!("{USER}:{PASSWORD}"), IMAGE]))?;
    node.containerd.ctr(&["images", "rm", "--sync", IMAGE]).map(drop)
}

fn pod(name: &str, policy: &str, secret: &str) -> String {
    let secrets = if secret.is_empty() { String::new() } else { format!("  imagePullSecrets: [{{name: {secret}}}]\n") };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{secrets}  containers:\n  \
         - {{name: main, image: '{IMAGE}', imagePullPolicy: {policy}, args: [serve]}}\n"
    )
}

fn own_credentials(ns: &mut Ns) -> Result<()> {
    if run(Command::new(REGISTRY).arg("--version")).is_err() {
        println!("a registry with a password: SKIPPED, {REGISTRY} is not installed");
        return Ok(());
    }
    let dir = ns.lab.dir.join("registry");
    let mut registry = start_registry(ns, &dir)?;
    let result = push(ns, &dir).and_then(|()| check(ns));
    let ended = registry.end(Duration::from_secs(5));
    let _ = ns.lab.nodes[0].containerd.ctr(&["images", "rm", IMAGE]);
    std::fs::remove_dir_all(&dir)?;
    result.and(ended.map(drop))
}

fn check(ns: &mut Ns) -> Result<()> {
    for (name, password) in [("mine", PASSWORD), ("copied", PASSWORD), ("wrong", "guessed")] {
        let (user, word) = (format!("--docker-username={USER}"), format!("--docker-password={password}"));
        let server = format!("--docker-server={ADDRESS}");
        ns.kubectl(&["create", "secret", "docker-registry", name, &server, &user, &word])?;
    }
    ns.apply(&pod("first", "IfNotPresent", "mine"))?;
    ns.ready("first")?;
    ns.event("first", "Pulled", "Successfully pulled image")?;

    let present = "already present on machine and can be accessed by the pod";
    for restart in [false, true] {
        if restart {
            ns.lab.nodes[0].kill_agent()?;
            ns.lab.start_agent(0)?;
        }
        for (name, policy, secret) in [("again", "IfNotPresent", "mine"), ("copied", "Never", "copied")] {
            let name = format!("{name}-{restart}");
            ns.apply(&pod(&name, policy, secret))?;
            ns.ready(&name)?;
            ns.event(&name, "Pulled", present)?;
        }
        for (name, policy, secret, reason) in [
            ("none", "IfNotPresent", "", "ErrImagePull"),
            ("wrong", "IfNotPresent", "wrong", "ErrImagePull"),
            ("never", "Never", "", "ErrImageNeverPull"),
        ] {
            let name = format!("{name}-{restart}");
            ns.apply(&pod(&name, policy, secret))?;
            let waits = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
            ns.pod(&name, reason, waits)?;
            if contains(&ns.get("pod", &name)?["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "guessed") {
                bail!("a message shows the password");
            }
        }
        let image = format!("Container image {IMAGE:?} is not present with pull policy of Never");
        ns.event(&format!("never-{restart}"), "ErrImageNeverPull", &image)?;
    }
    // What is kept says nothing of the password.
    let kept = ns.lab.nodes[0].dir.join("kubelet/image_manager");
    let pulling = std::fs::read_dir(kept.join("pulling"))?.count();
    let mut seen = false;
    for entry in std::fs::read_dir(kept.join("pulled"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        seen |= text.contains("\"127.0.0.1:5000/private/web\"") && text.contains("\"name\":\"mine\"");
        if text.contains(PASSWORD) {
            bail!("a record shows the password: {text}");
        }
    }
    if !seen || pulling != 0 {
        bail!("record of the pull: {seen}, pulls said to be under way: {pulling}");
    }
    Ok(())
}
