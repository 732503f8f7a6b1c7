//! What containers note about themselves in a folder of the host: what happened, in which order, and when.

use crate::shared::{LIMIT, Ns};
use anyhow::{Context, Result, bail};
use ferrolet_tests::images::WEB;
use ferrolet_tests::sys::wait_for;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The notes of one pod.
pub struct Record {
    pub pod: String,
    folder: PathBuf,
}

/// A container that runs for so many seconds, or (`-`) until it is told to end, which takes so many more.
pub fn life(name: &str, run: &str, end: &str, code: i32) -> Value {
    json!({"name": name, "image": WEB, "args": ["life", "/log/all", name, run, end, code.to_string()],
        "volumeMounts": [{"name": "log", "mountPath": "/log"}]})
}

/// A hook that takes so many seconds (`-`: for ever).
pub fn hook(name: &str, seconds: &str) -> Value {
    json!({"exec": {"command": ["/web", "life", "/log/all", name, seconds, "0", "0"]}})
}

/// `what` with the fields of `more`.
pub fn with(mut what: Value, more: Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        what[field] = value.clone();
    }
    what
}

pub fn sidecar(what: Value) -> Value {
    with(what, json!({"restartPolicy": "Always"}))
}

impl Record {
    /// Creates the pod.
    pub fn of(ns: &Ns, pod: &str, spec: Value) -> Result<Record> {
        Record::held(ns, pod, spec, false)
    }

    /// Creates a pod; a `kept` one stays in the API after its end until [`Record::release`].
    pub fn held(ns: &Ns, pod: &str, spec: Value, kept: bool) -> Result<Record> {
        let folder = ns.lab.dir.join("records").join(&ns.name).join(pod);
        std::fs::create_dir_all(&folder)?;
        let log = json!([{"name": "log", "hostPath": {"path": folder, "type": "Directory"}}]);
        let finalizers = if kept { json!(["ferrolet.dev/test"]) } else { json!([]) };
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "finalizers": finalizers},
            "spec": with(spec, json!({"volumes": log}))});
        ns.apply(&object.to_string())?;
        Ok(Record { pod: pod.to_owned(), folder })
    }

    /// Lets a kept pod go.
    pub fn release(&self, ns: &Ns) -> Result<()> {
        ns.kubectl(&["patch", "pod", &self.pod, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).map(drop)
    }

    /// What the host says to the containers: a file in their folder.
    pub fn say(&self, file: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.join(file), "")?)
    }

    /// Each time that something happened, in milliseconds.
    pub fn all(&self, what: &str) -> Result<Vec<u64>> {
        Ok(self.lines()?.into_iter().filter(|(_, w)| w == what).map(|(at, _)| at).collect())
    }

    fn lines(&self) -> Result<Vec<(u64, String)>> {
        let text = std::fs::read_to_string(self.folder.join("all")).unwrap_or_default();
        let parse = |line: &str| {
            let (at, what) = line.split_once(' ').context("a note without a time")?;
            Ok((at.parse()?, what.to_owned()))
        };
        text.lines().map(parse).collect()
    }

    /// When something happened for the first time, in milliseconds: `main started`.
    pub fn at(&self, what: &str) -> Result<u64> {
        let lines = self.lines()?;
        let found = lines.iter().find(|(_, w)| w == what).map(|(at, _)| *at);
        found.with_context(|| format!("{}: no {what:?} in {lines:#?}", self.pod))
    }

    pub fn times(&self, what: &str) -> Result<usize> {
        Ok(self.lines()?.iter().filter(|(_, w)| w == what).count())
    }

    pub fn wait(&self, what: &str) -> Result<u64> {
        wait_for(&format!("{}: {what}", self.pod), LIMIT, || self.at(what))
    }

    /// All of this happened, one after the other.
    pub fn in_order(&self, what: &[&str]) -> Result<()> {
        let times = what.iter().map(|w| self.at(w)).collect::<Result<Vec<_>>>()?;
        if times.is_sorted() { Ok(()) } else { bail!("{}: not in this order: {what:?}, but {:#?}", self.pod, self.lines()?) }
    }

    pub fn never(&self, what: &str) -> Result<()> {
        if self.times(what)? == 0 { Ok(()) } else { bail!("{}: {what:?} in {:#?}", self.pod, self.lines()?) }
    }
}

/// The status of a container in any of the lists.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["initContainerStatuses", "containerStatuses"].into_iter().filter_map(|l| pod["status"][l].as_array());
    lists.flatten().find(|s| s["name"] == name).unwrap_or(&Value::Null)
}

/// Its end: reason and exit code.
pub fn end<'a>(pod: &'a Value, name: &str) -> (&'a str, i64) {
    let ended = &container(pod, name)["state"]["terminated"];
    (ended["reason"].as_str().unwrap_or_default(), ended["exitCode"].as_i64().unwrap_or(-1))
}

pub fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

pub fn over(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}
