//! What is asked of a pod's status, in the words of the table, and what holds for every pod whatever the scenario.

use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::condition;
use serde_json::Value;

pub fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    lists.into_iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
}

pub fn all(pod: &Value, checks: &[&str]) -> Result<()> {
    checks.iter().try_for_each(|check| holds(pod, check))
}

fn same(value: &Value, text: &str) -> bool {
    match value {
        Value::String(s) => s == text,
        other => text == format!("{other}"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `phase P`, `reason R`, `Condition Status [Reason]`, or of a container: see `of_container`.
pub fn holds(pod: &Value, check: &str) -> Result<()> {
    let status = &pod["status"];
    let (subject, rest) = check.split_once(' ').unwrap_or((check, ""));
    let held = match subject {
        "phase" | "reason" => same(&status[subject], rest),
        _ if subject.starts_with(char::is_uppercase) => {
            let c = condition(pod, subject);
            let (wanted, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            same(&c["status"], wanted) && (reason.is_empty() || same(&c["reason"], reason))
        }
        _ => {
            let status = statuses(pod).find(|s| s["name"] == subject);
            of_container(status.with_context(|| format!("{subject} has no status"))?, rest)?
        }
    };
    if held { Ok(()) } else { bail!("not {check:?}") }
}

/// `running`, `ended CODE [REASON]`, `waits REASON`, `waits-with TEXT` (in its message), `restarts N`, `ready BOOL`,
/// `last CODE [REASON]`, `last-says TEXT`, and of the last words of one that has ended `says TEXT`, `says-end TEXT`, `says-bytes N`.
fn of_container(c: &Value, check: &str) -> Result<bool> {
    let (what, argument) = check.split_once(' ').unwrap_or((check, ""));
    let (ended, last, waiting) = (&c["state"]["terminated"], &c["lastState"]["terminated"], &c["state"]["waiting"]);
    let end = |ended: &Value| {
        let (code, reason) = argument.split_once(' ').unwrap_or((argument, ""));
        same(&ended["exitCode"], code) && (reason.is_empty() || same(&ended["reason"], reason))
    };
    let words = text(&ended["message"]);
    Ok(match what {
        "running" => c["state"]["running"].is_object(),
        "ended" => end(ended),
        "waits" => same(&waiting["reason"], argument),
        "waits-with" => text(&waiting["message"]).contains(argument),
        "restarts" => same(&c["restartCount"], argument),
        "ready" => same(&c["ready"], argument),
        "last" => end(last),
        "last-says" => text(&last["message"]).contains(argument),
        "says" => ended.is_object() && words == argument,
        "says-end" => words.ends_with(argument),
        "says-bytes" => words.len().to_string() == argument,
        _ => bail!("there is no check {check:?}"),
    })
}

/// What holds of every status.
pub fn sound(pod: &Value) -> Result<()> {
    let mains = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    if condition(pod, "Ready")["status"] == "True" && mains.clone().any(|s| s["ready"] != true) {
        bail!("ready without its containers");
    }
    for status in mains {
        let ended = &status["state"]["terminated"];
        if !ended.is_object() {
            continue;
        }
        if status["ready"] != false || status["started"] != false {
            bail!("ready or started after its end: {status}");
        }
        let ran = ended["reason"] != "ContainerStatusUnknown";
        let told = ["startedAt", "finishedAt", "containerID"].iter().all(|f| ended[f].is_string());
        if ran && !(told && text(&status["imageID"]).contains("sha256:")) {
            bail!("not all of its end is told: {status}");
        }
    }
    Ok(())
}

/// What holds from each status to the next.
pub fn follows(before: &Value, after: &Value) -> Result<()> {
    let phase = &before["status"]["phase"];
    if (phase == "Succeeded" || phase == "Failed") && after["status"]["phase"] != *phase {
        bail!("the phase {phase} was left");
    }
    for old in statuses(before) {
        let Some(new) = statuses(after).find(|s| s["name"] == old["name"]) else {
            bail!("{} has no status any more", old["name"])
        };
        if new["restartCount"].as_u64() < old["restartCount"].as_u64() {
            bail!("the restart count of {} fell: {old} {new}", old["name"]);
        }
        let ended = |s: &Value| s["state"]["terminated"].is_object();
        let same = !old["containerID"].is_null() && new["containerID"] == old["containerID"];
        if same && ended(old) && new["state"]["running"].is_object() {
            bail!("{} came back from its end: {old} {new}", old["name"]);
        }
    }
    let told = |pod: &Value| statuses(pod).map(|s| (s["containerID"].clone(), s["state"].clone())).collect::<Vec<_>>();
    let changed = told(before) != told(after);
    for name in ["Ready", "ContainersReady", "Initialized", "PodReadyToStartContainers"] {
        let (a, b) = (condition(before, name), condition(after, name));
        let [then, now] = [a, b].map(|c| text(&c["lastTransitionTime"]));
        if now < then {
            bail!("the transition time of {name} went back: {a} {b}");
        }
        // Of several changes in a moment only the last is told: it may be back where it was, if something happened meanwhile.
        if a["status"] == b["status"] && now != then && !changed {
            bail!("the transition time of {name} moved, and nothing else: {a} {b}");
        }
    }
    Ok(())
}

/// The status without ids, addresses, times, and what depends on the runtime's own texts.
pub fn outcome(pod: &Value) -> Value {
    const OWN: [&str; 14] = [
        "containerID",
        "imageID",
        "image",
        "podIP",
        "podIPs",
        "hostIP",
        "hostIPs",
        "startTime",
        "startedAt",
        "finishedAt",
        "lastTransitionTime",
        "lastProbeTime",
        "user",
        "message",
    ];
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !OWN.contains(&name.as_str()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut status = pod["status"].clone();
    strip(&mut status);
    status
}
