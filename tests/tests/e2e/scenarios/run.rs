//! Plays one scenario on one runtime and checks it against its row of the table, and against what holds for every pod.

use super::api::{Api, Seen};
use super::runtimes::Under;
use super::table::{Scenario, Step};
use anyhow::{Context, Result, anyhow, bail};
use ferrolet_tests::cluster::{Lab, condition};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For what should take a second or two: all scenarios run at once on a small machine.
const LIMIT: Duration = Duration::from_secs(45);

/// A pod after its scenario.
pub struct Played {
    pub name: String,
    pub uid: String,
    /// Without what differs from pod to pod.
    pub outcome: Value,
    pub took: Duration,
}

pub fn play(s: &Scenario, under: &Under, api: &Api, lab: &Lab) -> Result<Played> {
    let begin = Instant::now();
    let name = format!("{}-{}", s.name, under.node + 1);
    let mut spec = s.spec.clone();
    spec["nodeName"] = json!(lab.nodes[under.node].name);
    spec["automountServiceAccountToken"] = json!(false);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    let made = api.create(&pod)?;
    let uid = made["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let mut player = Player { under, api, lab, name: &name, uid: &uid, deleted: None, address: Value::Null, ends: vec![begin] };
    let played = s.steps.iter().enumerate().try_for_each(|(n, step)| {
        let done = player.step(step).with_context(|| format!("step {}", n + 1));
        player.ends.push(Instant::now());
        done
    });
    let seen = api.history.of(&uid);
    let checked = played.and_then(|()| check(s, &seen, under, &uid));
    checked.with_context(|| {
        let calls: Vec<String> = under.tap.calls(&uid).iter().map(line).collect();
        let last = seen.versions.last().map(|p| p["status"].to_string()).unwrap_or_default();
        format!("{} on {}: calls {calls:?}, last status {last}", s.name, under.name)
    })?;
    Ok(Played { outcome: seen.versions.last().map(outcome).unwrap_or_default(), name, uid, took: begin.elapsed() })
}

struct Player<'a> {
    under: &'a Under,
    api: &'a Api,
    lab: &'a Lab,
    name: &'a str,
    uid: &'a str,
    deleted: Option<Instant>,
    address: Value,
    /// When the scenario began and each step ended.
    ends: Vec<Instant>,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Until(checks) => {
                let hold = |seen: &Seen| all(seen.versions.last().unwrap_or(&Value::Null), checks);
                self.api.history.wait(self.uid, LIMIT, hold).with_context(|| format!("never {checks:?}"))
            }
            Step::Saw(checks) => {
                let seen = self.api.history.of(self.uid);
                let held = seen.versions.iter().any(|pod| all(pod, checks).is_ok());
                if held { Ok(()) } else { bail!("{checks:?} was never seen") }
            }
            Step::Took(least) => {
                let [.., begin, end] = self.ends[..] else { bail!("nothing to measure") };
                let took = end - begin;
                if took >= Duration::from_millis(*least) { Ok(()) } else { bail!("took only {took:?}") }
            }
            Step::Patch(subresource, patch) => self.api.patch(self.name, subresource, patch),
            Step::Delete(grace) => {
                self.deleted.get_or_insert_with(Instant::now);
                self.api.delete(self.name, *grace)
            }
            Step::Gone(least, most) => {
                let begin = self.deleted.context("not deleted")?;
                let gone = |seen: &Seen| seen.gone.ok_or_else(|| anyhow!("still there"));
                let took = self.api.history.wait(self.uid, Duration::from_secs(*most), gone)? - begin;
                if took >= Duration::from_secs(*least) { Ok(()) } else { bail!("gone after {took:?}") }
            }
            Step::KillSandbox => {
                self.address = self.latest()["status"]["podIP"].clone();
                self.under.kill_sandbox(self.lab, self.uid)
            }
            Step::NewAddress => {
                let now = &self.latest()["status"]["podIP"];
                if *now != self.address && now.is_string() { Ok(()) } else { bail!("the address is {now} as before") }
            }
        }
    }

    fn latest(&self) -> Value {
        self.api.history.of(self.uid).versions.pop().unwrap_or_default()
    }
}

/// A call as the table writes it.
pub fn line(call: &ferrolet_cri::tap::Tapped) -> String {
    let words = [call.method.as_str(), &call.container, if call.method == "ExecSync" { &call.detail } else { "" }];
    words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

fn check(s: &Scenario, seen: &Seen, under: &Under, uid: &str) -> Result<()> {
    let calls: Vec<String> = under.tap.calls(uid).iter().map(line).collect();
    let is = |call: &String, wanted: &str| call == wanted || call.starts_with(&format!("{wanted} "));
    let mut from = 0;
    for wanted in s.calls {
        let found = calls[from..].iter().position(|c| is(c, wanted));
        from += found.with_context(|| format!("no call {wanted:?} after {:?}", &calls[..from]))? + 1;
    }
    if let Some(call) = s.never_called.iter().find(|w| calls.iter().any(|c| is(c, w))) {
        bail!("there is a call {call:?}");
    }
    let mut phases: Vec<&str> = seen.versions.iter().filter_map(|p| p["status"]["phase"].as_str()).collect();
    phases.dedup();
    let mut expected = s.phases.iter();
    // A deletion may end a pod that never ran.
    let deleted = s.steps.iter().any(|step| matches!(step, Step::Delete(_)));
    let in_order = phases.iter().all(|p| expected.any(|e| e == p) || (deleted && matches!(*p, "Succeeded" | "Failed")));
    if !in_order || (!deleted && phases.last() != s.phases.last()) {
        bail!("the phases were {phases:?}");
    }
    seen.versions.windows(2).try_for_each(|pair| always(&pair[0], &pair[1]))
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    lists.into_iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
}

/// What holds from each status to the next, whatever the pod.
fn always(before: &Value, after: &Value) -> Result<()> {
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
    let ready = condition(after, "Ready")["status"] == "True";
    if ready && after["status"]["containerStatuses"].as_array().into_iter().flatten().any(|s| s["ready"] != true) {
        bail!("ready without its containers: {}", after["status"]);
    }
    let moved = |name: &str| {
        let (a, b) = (condition(before, name), condition(after, name));
        a["status"] == b["status"] && a["lastTransitionTime"] != b["lastTransitionTime"] && !a.is_null()
    };
    match ["Ready", "ContainersReady", "Initialized", "PodReadyToStartContainers"].into_iter().find(|name| moved(name)) {
        Some(name) => bail!("the transition time of {name} moved without its status"),
        None => Ok(()),
    }
}

fn all(pod: &Value, checks: &[&str]) -> Result<()> {
    checks.iter().try_for_each(|check| holds(pod, check).with_context(|| format!("not {check:?}")))
}

/// `phase P`, `reason R`, `Condition Status [Reason]`, and of a container `C running`, `C ended CODE [REASON]`,
/// `C waits REASON`, `C restarts N`, `C last CODE`, `C says TEXT`, `C says-bytes N`, `C ready BOOL`.
pub fn holds(pod: &Value, check: &str) -> Result<()> {
    let status = &pod["status"];
    let (subject, rest) = check.split_once(' ').unwrap_or((check, ""));
    let (what, argument) = rest.split_once(' ').unwrap_or((rest, ""));
    let same = |value: &Value, text: &str| match value {
        Value::String(s) => s == text,
        other => text == format!("{other}"),
    };
    let held = match subject {
        "phase" | "reason" => same(&status[subject], rest),
        _ if subject.starts_with(char::is_uppercase) => {
            let c = condition(pod, subject);
            same(&c["status"], what) && (argument.is_empty() || same(&c["reason"], argument))
        }
        _ => {
            let Some(c) = statuses(pod).find(|s| s["name"] == subject) else { bail!("{subject} has no status") };
            let ended = &c["state"]["terminated"];
            match what {
                "running" => c["state"]["running"].is_object(),
                "ended" => {
                    let (code, reason) = argument.split_once(' ').unwrap_or((argument, ""));
                    same(&ended["exitCode"], code) && (reason.is_empty() || same(&ended["reason"], reason))
                }
                "waits" => same(&c["state"]["waiting"]["reason"], argument),
                "restarts" => same(&c["restartCount"], argument),
                "last" => same(&c["lastState"]["terminated"]["exitCode"], argument),
                "ready" => same(&c["ready"], argument),
                "says" => same(&ended["message"], argument),
                "says-bytes" => ended["message"].as_str().is_some_and(|m| m.len().to_string() == argument),
                _ => bail!("there is no check {check:?}"),
            }
        }
    };
    if held { Ok(()) } else { bail!("status {status}") }
}

/// The status without ids, addresses, times, and what depends on the runtime's own texts.
fn outcome(pod: &Value) -> Value {
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
