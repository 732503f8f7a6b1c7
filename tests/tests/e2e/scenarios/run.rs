//! Plays one scenario on one runtime and checks it against its row of the table, and against what holds for every pod.

use super::api::{Api, Seen};
use super::holds;
use super::runtimes::Under;
use super::table::{Scenario, Step};
use anyhow::{Context, Result, anyhow, bail};
use ferrolet_tests::cluster::Lab;
use ferrolet_tests::sys::wait_for;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For what should take seconds: many scenarios run at once, and not every machine is fast. What a pod of the table would
/// wait for in vain takes longer than this.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A pod after its scenario.
pub struct Played {
    pub scenario: &'static str,
    /// With its runtime.
    pub name: String,
    pub uid: String,
    pub deleted: bool,
    pub took: Duration,
}

pub fn play(s: &Scenario, under: &Under, api: &Api, lab: &Lab) -> Result<Played> {
    let begin = Instant::now();
    let title = format!("{} on {}", s.name, under.name);
    let name = format!("{}-{}", s.name, under.node + 1);
    let mut spec = s.spec.clone();
    spec["nodeName"] = json!(lab.nodes[under.node].name);
    spec["automountServiceAccountToken"] = json!(false);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    let made = api.create(&pod).with_context(|| title.clone())?;
    let uid = made["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let mut player = Player { under, api, lab, name: &name, uid: &uid, deleted: None, address: Value::Null };
    let steps = s.steps.iter().enumerate();
    let played =
        steps.map(|(n, step)| (n + 1, step)).try_for_each(|(n, step)| player.step(step).with_context(|| format!("step {n}")));
    let deleted = player.deleted.is_some();
    let seen = api.history.of(&uid);
    let checked = played.and_then(|()| check(s, &seen, under, &uid, deleted));
    checked.with_context(|| {
        let calls: Vec<String> = under.tap.calls(&uid).iter().map(line).collect();
        let last = seen.versions.last().map(|p| p["status"].to_string()).unwrap_or_default();
        format!("{title}: calls {calls:?}\nstatus {last}\n{title}")
    })?;
    Ok(Played { scenario: s.name, name: title, uid, deleted, took: begin.elapsed() })
}

struct Player<'a> {
    under: &'a Under,
    api: &'a Api,
    lab: &'a Lab,
    name: &'a str,
    uid: &'a str,
    deleted: Option<Instant>,
    address: Value,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Until(checks) => {
                let hold = |seen: &Seen| holds::all(seen.versions.last().unwrap_or(&Value::Null), checks);
                self.api.history.wait(self.uid, LIMIT, hold).with_context(|| format!("never {checks:?}"))
            }
            Step::Saw(checks) => {
                let seen = self.api.history.of(self.uid);
                let held = seen.versions.iter().any(|pod| holds::all(pod, checks).is_ok());
                if held { Ok(()) } else { bail!("{checks:?} was never seen") }
            }
            Step::Called(call) => wait_for("the runtime to be called", LIMIT, || {
                let called = self.under.tap.calls(self.uid).iter().any(|c| is(&line(c), call));
                if called { Ok(()) } else { bail!("no call {call:?}") }
            }),
            Step::Apart(call, least) => {
                let calls = self.under.tap.calls(self.uid);
                let times: Vec<Instant> = calls.iter().filter(|c| is(&line(c), call)).map(|c| c.at).collect();
                let [.., before, last] = times[..] else { bail!("there are not two calls {call:?}") };
                let apart = last - before;
                if apart >= *least { Ok(()) } else { bail!("only {apart:?} between the last calls {call:?}") }
            }
            Step::Patch(subresource, patch) => self.api.patch(self.name, subresource, patch),
            Step::Delete(grace) => {
                self.deleted.get_or_insert_with(Instant::now);
                self.api.delete(self.name, *grace)
            }
            Step::Gone(least) => {
                let begin = self.deleted.context("not deleted")?;
                let gone = |seen: &Seen| seen.gone.ok_or_else(|| anyhow!("still there"));
                let took = self.api.history.wait(self.uid, LIMIT, gone)? - begin;
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
fn line(call: &ferrolet_cri::tap::Tapped) -> String {
    let words = [call.method.as_str(), &call.container, if call.method == "ExecSync" { &call.detail } else { "" }];
    words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The table may leave off the end of a line.
fn is(call: &str, wanted: &str) -> bool {
    call.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn check(s: &Scenario, seen: &Seen, under: &Under, uid: &str, deleted: bool) -> Result<()> {
    let calls: Vec<String> = under.tap.calls(uid).iter().map(line).collect();
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
    let in_order = phases.iter().all(|p| expected.any(|e| e == p) || (deleted && matches!(*p, "Succeeded" | "Failed")));
    if !in_order || (!deleted && phases.last() != s.phases.last()) {
        bail!("the phases were {phases:?}");
    }
    seen.versions.iter().try_for_each(holds::sound)?;
    seen.versions.windows(2).try_for_each(|pair| holds::follows(&pair[0], &pair[1]))
}
