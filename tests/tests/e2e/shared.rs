//! The labs that most tests share, made by the first test that needs one and removed after the last: one node for pods and
//! faults, two nodes in both IP families for Services, one that can give user namespaces, one with little room on its disks.

use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::{Lab, Shape};
use ferrolet_tests::containerd::Containerd;
use ferrolet_tests::netns::Stack;
use ferrolet_tests::setup::{self, Runtime, Tools};
use ferrolet_tests::sys::wait_for;
use ferrolet_tests::{bins, leftovers};
use libtest_mimic::Trial;
use nix::mount::MsFlags;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// For what should take a second; generous, because the machines are small and busy.
pub const LIMIT: Duration = Duration::from_secs(40);

/// One node, for most tests.
static ONE: Shared = Shared::new("e2e", Shape { nodes: 1, stack: Stack::V4 }, setup::prepare);
/// Two nodes with a routed pod network in both IP families, for what Services do.
pub static PAIR: Shared = Shared::new("e2e-svc", Shape { nodes: 2, stack: Stack::Dual }, setup::prepare);
/// One node whose runtime can give pods user namespaces.
pub static USERS: Shared = Shared::new("e2e-users", Shape { nodes: 1, stack: Stack::V4 }, || {
    Ok(Tools { runtime: Runtime::with_user_namespaces()?, ..setup::prepare()? })
});

/// One node with little room: see [`arrange_small`].
pub static SMALL: Shared = Shared::new("e2e-small", Shape { nodes: 1, stack: Stack::V4 }, setup::prepare).arranged(arrange_small);

/// How many processes a pod of it may have.
pub const SMALL_PIDS: usize = 60;

/// What the node with little room has under its pods' logs, the agent's folder and containerd's root.
const ROOM: [(&str, &str); 3] = [("pod-logs", "160m"), ("kubelet", "8m"), ("containerd/root", "96m")];

/// File systems of their own, in memory, that a test can fill; and a node that is heard of more often.
fn arrange_small(lab: &mut Lab) -> Result<()> {
    let node = &mut lab.nodes[0];
    node.containerd.stop()?;
    for (folder, size) in ROOM {
        let at = node.dir.join(folder);
        let options = format!("size={size},nr_inodes=4k,mode=755");
        nix::mount::mount(Some("lab"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("mount a tmpfs on {}", at.display()))?;
    }
    node.containerd.start()?;
    node.kubelet.insert("nodeLeaseDurationSeconds".to_owned(), 8.into());
    node.kubelet.insert("podPidsLimit".to_owned(), SMALL_PIDS.into());
    // What the runtime does not do is told after that.
    node.kubelet.insert("runtimeRequestTimeout".to_owned(), "10s".into());
    lab.archives()?.iter().try_for_each(|archive| lab.nodes[0].containerd.import(archive))
}

/// A test in a fresh Kubernetes namespace of the lab with one node.
pub fn test(name: &'static str, body: fn(&mut Ns) -> Result<()>) -> Trial {
    ONE.test(name, body)
}

/// A lab that is made by the first test that needs it, and removed after the last.
pub struct Shared {
    name: &'static str,
    shape: Shape,
    tools: fn() -> Result<Tools>,
    arrange: fn(&mut Lab) -> Result<()>,
    lab: Mutex<Option<Lab>>,
}

impl Shared {
    const fn new(name: &'static str, shape: Shape, tools: fn() -> Result<Tools>) -> Shared {
        Shared { name, shape, tools, arrange: |_| Ok(()), lab: Mutex::new(None) }
    }

    /// What is done to the lab when it is made, before its agents start.
    const fn arranged(mut self, arrange: fn(&mut Lab) -> Result<()>) -> Shared {
        self.arrange = arrange;
        self
    }

    /// A test in a fresh Kubernetes namespace, which it is given by name and which is deleted after it.
    pub fn test(&'static self, name: &'static str, body: fn(&mut Ns) -> Result<()>) -> Trial {
        crate::trial(name, move || self.run(name, body))
    }

    /// The same for who makes the test itself.
    pub fn run(&'static self, name: &str, body: fn(&mut Ns) -> Result<()>) -> Result<()> {
        let namespace = name.rsplit("::").next().unwrap_or(name).replace('_', "-");
        let result = self.within(&namespace, |ns| {
            ns.lab.kubectl(&["create", "namespace", &ns.name])?;
            body(ns)
        });
        let deleted = self.within(&namespace, |ns| {
            ns.lab.kubectl(&["delete", "namespace", &ns.name, "--timeout=90s"])?;
            ns.lab.nodes.iter().try_for_each(|node| nothing_runs(&node.containerd))
        });
        result.and(deleted)
    }

    /// Runs something on the lab in a Kubernetes namespace, and heals what it may have left broken.
    pub fn within(&'static self, namespace: &str, body: impl FnOnce(&mut Ns) -> Result<()>) -> Result<()> {
        let mut guard = self.lab()?;
        let lab = guard.as_mut().context("the shared lab is not there")?;
        let mut ns = Ns { name: namespace.to_owned(), lab };
        let result = body(&mut ns).with_context(|| state(&ns));
        let healed = heal(ns.lab);
        result.and(healed)
    }

    fn lab(&'static self) -> Result<MutexGuard<'static, Option<Lab>>> {
        let mut guard = self.lab.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if guard.is_none() {
            let mut shape = self.shape;
            if shape.stack.has_v6() && !std::path::Path::new("/proc/sys/net/ipv6").exists() {
                println!("IPv6: SKIPPED, this kernel has none");
                shape.stack = Stack::V4;
            }
            let mut lab = Lab::create(self.name, shape, bins::build(false)?, (self.tools)()?)?;
            if let Err(error) = (self.arrange)(&mut lab).and_then(|()| heal(&mut lab)) {
                let tails = lab.log_tails(30);
                lab.destroy()?;
                return Err(error.context(tails));
            }
            *guard = Some(lab);
        }
        Ok(guard)
    }

    fn remove(&self) -> Result<()> {
        let lab = self.lab.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(lab) = lab else { return Ok(()) };
        if std::env::var_os("FERROLET_LAB_KEEP").is_some() {
            std::mem::forget(lab);
            return Ok(());
        }
        lab.destroy()?;
        let left = leftovers::find(self.name);
        if left.is_empty() { Ok(()) } else { bail!("left: {}", left.join(", ")) }
    }
}

/// Removes the shared labs and checks that nothing of them is left.
pub fn remove() -> Result<()> {
    let results = [ONE.remove(), PAIR.remove(), USERS.remove(), SMALL.remove()];
    results.into_iter().collect()
}

/// Starts what does not run: all at first, later what a test ended and did not start again, so that it alone fails.
fn heal(lab: &mut Lab) -> Result<()> {
    if lab.stub.is_none() {
        lab.start_stub()?;
    }
    for index in 0..lab.nodes.len() {
        if lab.nodes[index].containerd.process().is_err() {
            lab.nodes[index].containerd.start()?;
        }
        if lab.nodes[index].agent.as_mut().is_none_or(|a| a.check_alive().is_err()) {
            lab.start_agent(index)?;
        }
    }
    lab.wait_ready()
}

/// A pod that is gone leaves no process behind; one that was deleted by force may take its time.
fn nothing_runs(containerd: &Containerd) -> Result<()> {
    wait_for("all containers to be gone with their pods", LIMIT, || {
        let left = containerd.tasks_of_pods()?;
        if left.is_empty() { Ok(()) } else { bail!("left: {left:#?}") }
    })
}

/// What an operator would look at first, as part of a failed test's message.
fn state(ns: &Ns) -> String {
    let see = |args: &[&str]| ns.kubectl(args).unwrap_or_else(|e| format!("{e:#}"));
    format!(
        "{}\n{}\n{}\n",
        see(&["get", "pods", "-o", "wide"]),
        see(&["get", "events", "--sort-by=.metadata.creationTimestamp"]),
        ns.lab.log_tails(30)
    )
}

/// One test's namespace in the shared lab.
pub struct Ns<'a> {
    pub name: String,
    pub lab: &'a mut Lab,
}

impl Ns<'_> {
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(args);
        self.lab.kubectl(&all)
    }

    /// kubectl that must fail; its whole message.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        match self.kubectl(args) {
            Ok(text) => bail!("kubectl {} was expected to fail, said: {text}", args.join(" ")),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    fn file(&self, manifest: &str) -> Result<String> {
        let file = self.lab.dir.join(format!("{}.yaml", self.name));
        std::fs::write(&file, manifest)?;
        Ok(file.to_string_lossy().into_owned())
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl(&["apply", "-f", &self.file(manifest)?])
    }

    /// Without the copy of the manifest that `apply` keeps in an annotation.
    pub fn create(&self, manifest: &str) -> Result<String> {
        self.kubectl(&["create", "-f", &self.file(manifest)?])
    }

    pub fn apply_refused(&self, manifest: &str) -> Result<String> {
        self.refused(&["apply", "-f", &self.file(manifest)?])
    }

    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", kind, "-o", "json"])?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a pod is as the check wants it; the pod's last status is part of the error.
    pub fn pod(&self, name: &str, what: &str, mut held: impl FnMut(&Value) -> bool) -> Result<Value> {
        wait_for(&format!("pod {name}: {what}"), LIMIT, || {
            let pod = self.get("pod", name)?;
            if held(&pod) { Ok(pod) } else { bail!("status is {}", pod["status"]) }
        })
    }

    pub fn ready(&self, name: &str) -> Result<Value> {
        self.pod(name, "ready", is_ready)
    }

    /// The agent anew, with other fields of its configuration.
    pub fn restart_with(&mut self, fields: serde_json::Map<String, Value>) -> Result<()> {
        self.lab.nodes[0].kubelet = fields;
        self.lab.nodes[0].stop_agent()?;
        self.lab.start_agent(0)?;
        self.lab.wait_ready()
    }

    /// Waits for an event about an object with this reason, and a message that contains the text.
    pub fn event(&self, object: &str, reason: &str, text: &str) -> Result<Value> {
        wait_for(&format!("event {reason} about {object} with {text:?}"), LIMIT, || {
            let events = self.list("events")?;
            let about = |e: &&Value| e["involvedObject"]["name"] == object;
            let found = events.iter().filter(about).find(|e| e["reason"] == reason && contains(&e["message"], text));
            let seen = || events.iter().filter(about).map(|e| format!("{} {}", e["reason"], e["message"])).collect::<Vec<_>>();
            found.cloned().with_context(|| format!("events seen: {:#?}", seen()))
        })
    }
}

pub fn contains(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|s| s.contains(text))
}

pub fn is_ready(pod: &Value) -> bool {
    ferrolet_tests::cluster::condition(pod, "Ready")["status"] == "True"
}

/// Fails with both texts if `text` does not contain `wanted`.
pub fn must_contain(text: &str, wanted: &str) -> Result<()> {
    if text.contains(wanted) { Ok(()) } else { bail!("expected {wanted:?} in:\n{text}") }
}

/// A pod of the web image; `extra` are further lines of its container, `spec` further lines of its spec.
pub fn pod(name: &str, args: &str, extra: &str, spec: &str) -> String {
    let indent = |text: &str, by: &str| text.lines().map(|l| format!("{by}{l}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n{}  containers:\n  - name: main\n    image: {}\n    args: [{args}]\n{}",
        indent(spec, "  "),
        ferrolet_tests::images::WEB,
        indent(extra, "    "),
    )
}
