//! Containers that try to lead the agent out of their volumes.

use crate::shared::{LIMIT, Ns, contains, pod, test};
use anyhow::{Result, bail};
use ferrolet_tests::images::WEB;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![test("volumes::nothing_leads_out_of_a_volume", nothing_leads_out)]
}

/// An init container that prepares the volume and another that keeps swapping two names in it.
fn spec(dir: &str) -> String {
    format!(
        "terminationGracePeriodSeconds: 0
volumes: [{{name: v, emptyDir: {{}}}}, {{name: tree, hostPath: {{path: {dir}, type: DirectoryOrCreate}}}}]
initContainers:
- {{name: hostile, image: {WEB}, args: [hostile, /v/h], volumeMounts: [{{name: v, mountPath: /v}}]}}
- {{name: own, image: {WEB}, args: [write, /v/own/hostname, own], volumeMounts: [{{name: v, mountPath: /v/own, subPath: swapped}}]}}
- name: swaps
  image: {WEB}
  restartPolicy: Always
  args: [swap, /v/swapped, /v/h/absolute]
  volumeMounts: [{{name: v, mountPath: /v}}]"
    )
}

fn nothing_leads_out(ns: &mut Ns) -> Result<()> {
    let dir = ns.lab.dir.join("escapes");
    std::fs::create_dir_all(&dir)?;
    // Not the name that is swapped: now and then that is the volume's own folder.
    let subs = ["h/up", "h/magic", "h/loop"];
    let all = "n".repeat(255);
    let mut text =
        pod("tries", "ls, /sub", "volumeMounts: [{name: v, mountPath: /sub, subPath: swapped}]", &spec(&dir.to_string_lossy()));
    // Each finds the volume in another state, as the names in it are never still.
    for i in 0..6 {
        text += &format!(
            "  - {{name: again-{i}, image: {WEB}, args: [ls, /sub], volumeMounts: [{{name: v, mountPath: /sub, subPath: swapped}}]}}\n"
        );
    }
    for (i, sub) in subs.iter().enumerate() {
        text += &format!(
            "  - {{name: fixed-{i}, image: {WEB}, args: [ls, /sub], volumeMounts: [{{name: v, mountPath: /sub, subPath: {sub}}}]}}\n"
        );
    }
    for (name, sub) in [("pipe", "h/pipe"), ("long", &*format!("h/{all}"))] {
        text += &format!(
            "  - {{name: {name}, image: {WEB}, args: [sleep, \"1000\"], volumeMounts: [{{name: v, mountPath: /sub, subPath: {sub}}}]}}\n"
        );
    }
    ns.apply(&text)?;
    let state = |p: &Value, name: &str| {
        let all = p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|s| s["name"] == name).unwrap_or_default()
    };
    let refused = |s: &Value| {
        let waiting = &s["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError" && contains(&waiting["message"], "open inside the volume")
    };
    let names: Vec<String> = (0..6).map(|i| format!("again-{i}")).chain(["main".to_owned()]).collect();
    // What was swapped either started on the volume's own folder or did not start; it may yet at a later try.
    let settled = |p: &Value| {
        let fixed = (0..subs.len()).all(|i| refused(&state(p, &format!("fixed-{i}"))));
        let runs = ["pipe", "long"].iter().all(|name| state(p, name)["state"]["running"].is_object());
        let tried = names.iter().all(|name| {
            let s = state(p, name);
            refused(&s) || s["state"]["terminated"].is_object() || s["lastState"]["terminated"].is_object()
        });
        fixed && runs && tried
    };
    ns.pod("tries", "each container refused or run", settled)?;
    let mut ran = 0;
    for name in &names {
        if let Ok(log) = ns.kubectl(&["logs", "tries", "-c", name]) {
            let seen: Vec<&str> = log.lines().collect();
            if seen.iter().any(|line| *line == "passwd" || *line == "fstab") || seen.iter().any(|line| *line != "hostname") {
                bail!("{name} saw {seen:?}");
            }
            ran += usize::from(!seen.is_empty());
        }
    }
    println!("{ran} of {} containers started on what was swapped under them, none of them elsewhere", names.len());
    // A tree that no path can name is no obstacle to the pod's end.
    let folder = ns.lab.nodes[0].root_dir().join("pods");
    let uid = ns.get("pod", "tries")?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    ns.kubectl(&["delete", "pod", "tries", "--timeout=60s"])?;
    wait_for("the pod's folder to be gone", LIMIT, || if folder.join(&uid).exists() { bail!("it is there") } else { Ok(()) })
}
