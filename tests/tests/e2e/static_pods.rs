//! Pods from a folder of the node: with an API server, which shows their mirrors, and without.

use crate::shared::{LIMIT, Ns, is_ready, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::load::{self, Load};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("static_pods::a_file_runs_and_the_api_shows_it", shown),
        test("static_pods::a_changed_file_is_another_pod", changed),
        test("static_pods::one_that_ends_gets_no_more_connections", drained),
        test("static_pods::they_start_while_the_api_is_away", alone),
    ]
}

/// The folder of manifests, emptied when a test ends however it ends.
pub struct Folder(PathBuf);

impl Folder {
    pub fn of(ns: &Ns) -> Result<Folder> {
        let folder = ns.lab.nodes[0].manifests();
        std::fs::create_dir_all(&folder)?;
        Ok(Folder(folder))
    }

    /// Replaces a file as a whole.
    pub fn put(&self, ns: &Ns, name: &str, manifest: &str) -> Result<()> {
        let placed = manifest.replacen("metadata:", &format!("metadata:\n  namespace: {}", ns.name), 1);
        let begun = self.0.join(format!(".{name}"));
        std::fs::write(&begun, placed)?;
        Ok(std::fs::rename(begun, self.0.join(name))?)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.0.join(name))?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind would be removed with the lab; the tests after this one should not see it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn container(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default().to_owned()
}

fn gone(ns: &Ns, name: &str) -> Result<()> {
    wait_for(&format!("{name} to go"), LIMIT, || match ns.list("pods")?.iter().find(|p| p["metadata"]["name"] == name) {
        Some(pod) => bail!("it is there: {}", pod["status"]),
        None => Ok(()),
    })
}

/// Without any of the fields that an API server fills in.
fn web(args: &str) -> String {
    pod("web", args, "env: [{name: WEB_DRAIN_MS, value: '0'}]", "")
}

fn shown(ns: &mut Ns) -> Result<()> {
    let folder = Folder::of(ns)?;
    let node = ns.lab.nodes[0].name.clone();
    let name = format!("web-{node}");
    folder.put(ns, "broken.yaml", "kind: Pod\nmetadata: 7\n")?;
    folder.put(ns, "web.yaml", &web("serve"))?;
    let first = ns.ready(&name)?;
    let (meta, annotations) = (&first["metadata"], &first["metadata"]["annotations"]);
    let owner = &meta["ownerReferences"][0];
    if owner["kind"] != "Node" || owner["name"] != node.as_str() || annotations["kubernetes.io/config.source"] != "file" {
        bail!("not the mirror that was expected: {meta:#}");
    }
    let hash = annotations["kubernetes.io/config.hash"].as_str().context("no hash")?;
    if annotations["kubernetes.io/config.mirror"] != hash || meta["uid"] == hash {
        bail!("the mirror has its own uid and the pod's hash: {meta:#}");
    }
    ns.kubectl(&["logs", &name])?;
    let said = ns.kubectl(&["exec", &name, "--", "/web", "echo", "hello"])?;
    must_contain(&said, "hello")?;
    // Its events are found by kubectl, which asks for those of the hash.
    wait_for("its events", LIMIT, || must_contain(&ns.kubectl(&["describe", "pod", &name])?, "Container started"))?;

    // The file beside it is seen too.
    wait_for("an event of the broken file", LIMIT, || {
        must_contain(&ns.lab.kubectl(&["describe", "node", &node])?, "InvalidStaticPod")
    })?;

    // Deleting what the API shows does nothing to the pod.
    for how in [&["--wait=false"][..], &["--grace-period=0", "--force", "--wait=false"]] {
        let before = ns.get("pod", &name)?["metadata"]["uid"].clone();
        ns.kubectl(&[&["delete", "pod", &name][..], how].concat())?;
        let again = ns.pod(&name, "made anew and ready", |p| p["metadata"]["uid"] != before && is_ready(p))?;
        if container(&again) != container(&first) {
            bail!("the container was restarted: {} and {}", container(&first), container(&again));
        }
    }
    // Nor does an agent that starts again.
    let before = ns.get("pod", &name)?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    let other = web("serve").replace("name: web", "name: other").replace("app: web", "app: other");
    folder.put(ns, "other.yaml", &other)?;
    ns.ready(&format!("other-{node}"))?;
    let after = ns.get("pod", &name)?;
    if after["status"] != before["status"] || after["metadata"]["uid"] != before["metadata"]["uid"] {
        bail!("a new agent changed it: {:#} and {:#}", before["status"], after["status"]);
    }
    folder.remove("web.yaml")?;
    gone(ns, &name)?;
    folder.remove("other.yaml")?;
    gone(ns, &format!("other-{node}"))
}

fn changed(ns: &mut Ns) -> Result<()> {
    let folder = Folder::of(ns)?;
    let name = format!("web-{}", ns.lab.nodes[0].name);
    // Its port on the node can be had by one at a time only.
    let port = |version: &str| {
        let spec = format!("terminationGracePeriodSeconds: 5\nhostNetwork: true\nhostname: v{version}");
        pod("web", "serve", "ports: [{containerPort: 8080}]\nenv: [{name: WEB_DRAIN_MS, value: '0'}]", &spec)
    };
    folder.put(ns, "web.yaml", &port("1"))?;
    let first = ns.ready(&name)?;
    folder.put(ns, "web.yaml", &port("2"))?;
    let second = ns.pod(&name, "the other one, ready", |p| p["spec"]["hostname"] == "v2" && is_ready(p))?;
    let hash = |p: &Value| p["metadata"]["annotations"]["kubernetes.io/config.hash"].clone();
    if hash(&first) == hash(&second) || container(&first) == container(&second) {
        bail!("it is the same pod: {}", hash(&second));
    }
    if second["status"]["containerStatuses"][0]["restartCount"] != 0 {
        bail!("it had to try more than once: {}", second["status"]);
    }
    // A file that breaks leaves what runs alone.
    folder.put(ns, "web.yaml", "kind: [")?;
    folder.put(ns, "other.yaml", &web("serve").replace("name: web", "name: other"))?;
    ns.ready(&format!("other-{}", ns.lab.nodes[0].name))?;
    let still = ns.get("pod", &name)?;
    if container(&still) != container(&second) || !is_ready(&still) {
        bail!("it did not stay: {}", still["status"]);
    }
    // The whole folder goes.
    drop(folder);
    gone(ns, &name)
}

/// Endpoints name a static pod by its mirror.
fn drained(ns: &mut Ns) -> Result<()> {
    let folder = Folder::of(ns)?;
    let name = format!("web-{}", ns.lab.nodes[0].name);
    let server =
        |name: &str| pod(name, "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", "").replace("{app:", "{pair: a, app:");
    ns.apply("apiVersion: v1\nkind: Service\nmetadata: {name: pair}\nspec: {selector: {pair: a}, ports: [{port: 80, targetPort: 8080}]}\n")?;
    ns.apply(&server("other"))?;
    ns.ready("other")?;
    let address = ns.get("service", "pair")?["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    let address = format!("{address}:80").parse()?;
    let netns = ns.lab.nodes[0].netns.clone();
    // More than once: what is looked for is a race.
    for _ in 0..3 {
        folder.put(ns, "web.yaml", &server("web"))?;
        ns.ready(&name)?;
        wait_for("both to answer", LIMIT, || {
            let seen = load::spread(&netns, address, 20)?;
            if seen.len() == 2 { Ok(()) } else { bail!("{seen:?}") }
        })?;
        let load = Load::start(&netns, address, Duration::from_millis(2));
        folder.remove("web.yaml")?;
        gone(ns, &name)?;
        load.finish_clean().context("while the static pod ended")?;
    }
    Ok(())
}

fn alone(ns: &mut Ns) -> Result<()> {
    let folder = Folder::of(ns)?;
    let name = format!("web-{}", ns.lab.nodes[0].name);
    // The credentials are made while there is somebody to make them.
    ns.lab.nodes[0].stop_agent()?;
    ns.lab.stop_stub()?;
    let before = ns.lab.nodes[0].containerd.tasks()?.len();
    folder.put(ns, "web.yaml", &web("serve"))?;
    ns.lab.start_agent(0)?;
    let tasks = wait_for("the pod to run without an API server", LIMIT, || {
        let tasks = ns.lab.nodes[0].containerd.tasks()?;
        if tasks.len() == before + 2 { Ok(tasks) } else { bail!("{} processes, {before} before", tasks.len()) }
    })?;
    ns.lab.start_stub()?;
    let pod = ns.ready(&name)?;
    let id = container(&pod);
    let id = id.rsplit('/').next().unwrap_or_default();
    if !tasks.iter().any(|(task, _)| task == id) || pod["status"]["containerStatuses"][0]["restartCount"] != 0 {
        bail!("it was restarted: {id} is none of {tasks:?}");
    }
    folder.remove("web.yaml")?;
    gone(ns, &name)
}
