//! What runs again, and when.

use super::record::{Record, container, end, life, over, phase, sidecar, with};
use crate::shared::{Ns, is_ready, test};
use anyhow::{Context, Result, ensure};
use ferrolet_cri::types::SandboxFilter;
use ferrolet_cri::{Client, Options};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::images::WEB;
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// The same image by another name.
const OTHER: &str = "ferrolet.dev/web:2";

pub fn trials() -> Vec<Trial> {
    vec![
        test("lifecycle::restarts::policies_and_rules", policies),
        test("lifecycle::restarts::another_image", another_image),
        test("lifecycle::restarts::a_lost_sandbox_and_a_new_agent", sandbox),
    ]
}

fn count(pod: &Value, name: &str) -> i64 {
    container(pod, name)["restartCount"].as_i64().unwrap_or(-1)
}

fn policies(ns: &mut Ns) -> Result<()> {
    // It fails, then ends well, then stays.
    let steps = json!({"args": ["steps", "/log/count", "1", "0"]});
    let mut all = Vec::new();
    for (name, expected) in [("Always", ("Running", 2)), ("OnFailure", ("Succeeded", 1)), ("Never", ("Failed", 0))] {
        let spec = json!({"restartPolicy": name, "containers": [with(life("main", "-", "0", 0), steps.clone())]});
        let name = name.to_lowercase();
        Record::of(ns, &name, spec)?;
        all.push((name, expected));
    }
    let rule =
        |operator: &str, codes: &[i32]| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": codes}}]);
    let own = |pod_policy: &str, policy: &str, rules: Value, codes: &[&str]| {
        let args: Vec<&str> = ["steps", "/log/count"].iter().chain(codes).copied().collect();
        let mut main = with(life("main", "-", "0", 0), json!({"args": args, "restartPolicy": policy}));
        if rules.is_array() {
            main["restartPolicyRules"] = rules;
        }
        json!({"restartPolicy": pod_policy, "containers": [main]})
    };
    for (name, spec, expected) in [
        ("rule-in", own("Never", "Never", rule("In", &[42]), &["42"]), ("Running", 1)),
        ("rule-not-in", own("Never", "Never", rule("NotIn", &[42]), &["1"]), ("Running", 1)),
        ("rule-else", own("Always", "Never", rule("In", &[42]), &["7"]), ("Failed", 0)),
        ("own-never", own("Always", "Never", Value::Null, &["0"]), ("Succeeded", 0)),
        ("own-always", own("Never", "Always", Value::Null, &["0"]), ("Running", 1)),
    ] {
        Record::of(ns, name, spec)?;
        all.push((name.to_owned(), expected));
    }
    for (name, (wanted, restarts)) in all {
        let there = |p: &Value| phase(p) == wanted && count(p, "main") == restarts && (wanted != "Running" || is_ready(p));
        let pod = ns.pod(&name, &format!("{wanted} after {restarts} restarts"), there)?;
        if restarts > 0 {
            let last = &container(&pod, "main")["lastState"]["terminated"];
            ensure!(last["exitCode"].is_i64() && last["containerID"].is_string(), "{name}: {last}");
        }
    }
    Ok(())
}

fn another_image(ns: &mut Ns) -> Result<()> {
    ns.lab.nodes[0].containerd.ctr(&["images", "tag", "--force", WEB, OTHER])?;
    let first = Record::of(
        ns,
        "never",
        json!({"restartPolicy": "Never", "initContainers": [life("i", "0", "0", 0)],
            "containers": [life("a", "-", "0", 0), life("b", "-", "0", 0), life("c", "0", "0", 0)]}),
    )?;
    let begins =
        Record::of(ns, "begins", json!({"initContainers": [life("i", "4", "0", 0)], "containers": [life("a", "-", "0", 0)]}))?;
    Record::of(ns, "crashing", json!({"containers": [with(life("a", "-", "0", 0), json!({"args": ["exit", "1"]}))]}))?;
    begins.wait("i started")?;
    let image = |pod: &str, path: &str, image: &str| {
        let patch = json!([{"op": "replace", "path": format!("/spec/{path}/image"), "value": image}]);
        ns.kubectl(&["patch", "pod", pod, "--type=json", "-p", &patch.to_string()]).map(drop)
    };
    // While it initializes: what runs goes on, what comes later takes the other image at once.
    image("begins", "containers/0", OTHER)?;
    image("begins", "initContainers/0", "ferrolet.dev/none:1")?;
    first.wait("b started")?;
    ns.pod("never", "c has ended", |p| end(p, "c") == ("Completed", 0))?;
    image("never", "initContainers/0", OTHER)?;
    image("never", "containers/2", OTHER)?;
    image("never", "containers/0", OTHER)?;
    let changed = ns.pod("never", "a runs again", |p| count(p, "a") == 1 && container(p, "a")["state"]["running"].is_object())?;
    // The runtime calls an image by one of its names: which one was asked for is in the event.
    ns.event("never", "Pulled", OTHER)?;
    ensure!(["b", "c", "i"].map(|c| count(&changed, c)) == [0, 0, 0], "{}", changed["status"]);
    ensure!(first.times("i started")? == 1 && first.times("c started")? == 1, "what had ended ran again");
    ns.event("never", "Killing", "Container a definition changed, will be restarted")?;
    // A crash loop begins anew with another image: at once.
    let waits = |p: &Value| container(p, "a")["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    ns.pod("crashing", "backs off", |p| waits(p) && count(p, "a") >= 1)?;
    let before = count(&ns.get("pod", "crashing")?, "a");
    image("crashing", "containers/0", OTHER)?;
    let begun = std::time::Instant::now();
    ns.pod("crashing", "tried again", |p| count(p, "a") > before)?;
    ns.event("crashing", "Pulled", OTHER)?;
    ensure!(begun.elapsed() < std::time::Duration::from_secs(6), "it waited {:?}", begun.elapsed());
    let done = ns.ready("begins")?;
    ensure!(["i", "a"].map(|c| count(&done, c)) == [0, 0], "{}", done["status"]);
    ns.event("begins", "Pulled", OTHER)?;
    ensure!(begins.times("i started")? == 1, "the init container ran again");
    Ok(())
}

/// What somebody else does to the runtime.
fn runtime<T>(ns: &Ns, work: impl AsyncFnOnce(Client) -> Result<T, ferrolet_cri::Error>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoint = ns.lab.nodes[0].containerd.endpoint();
    Ok(runtime.block_on(async { work(Client::connect(&endpoint, Options::default())?).await })?)
}

/// As a reboot does it.
fn stop_sandbox(ns: &Ns, pod: &str) -> Result<()> {
    let name = ("io.kubernetes.pod.name".to_owned(), pod.to_owned());
    let filter = SandboxFilter { labels: [name].into(), ..Default::default() };
    runtime(ns, async |client| {
        for sandbox in client.list_pod_sandbox(&filter).await? {
            client.stop_pod_sandbox(&sandbox.id).await?;
        }
        Ok(())
    })
}

fn sandbox(ns: &mut Ns) -> Result<()> {
    let spec = json!({
        "initContainers": [life("i", "0.5", "0", 0), sidecar(life("s", "-", "0", 0)), life("j", "2", "0", 0)],
        "containers": [life("main", "-", "0", 0)],
    });
    let r = Record::of(ns, "lost", spec.clone())?;
    let never = json!({"restartPolicy": "Never", "containers": [life("main", "-", "0", 0)]});
    Record::of(ns, "never", never)?;
    let kept = Record::of(ns, "kept", spec)?;
    for pod in ["lost", "never", "kept"] {
        ns.ready(pod)?;
    }
    let before = ns.get("pod", "lost")?;
    // The agent is away meanwhile, as at a reboot; what init containers left in the runtime goes too.
    ns.lab.nodes[0].stop_agent()?;
    stop_sandbox(ns, "lost")?;
    stop_sandbox(ns, "never")?;
    let known = ns.get("pod", "kept")?;
    for init in ["i", "j"] {
        let id = end_id(&known, init).context("no id")?;
        runtime(ns, async |client| client.remove_container(id).await)?;
    }
    ns.lab.start_agent(0)?;
    ns.event("lost", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")?;
    // Until it is initialized again it is pending, and never anything else between.
    let mut flapped = None;
    let pod = ns.pod("lost", "initialized again", |p| {
        if count(p, "i") == 1 && container(p, "main")["state"]["running"].is_null() && phase(p) != "Pending" {
            flapped = Some(p["status"].clone());
        }
        count(p, "main") == 1 && is_ready(p)
    })?;
    // Between the last init container's end and the main container's start it is as before.
    let between = flapped.filter(|s| s["initContainerStatuses"][2]["state"]["terminated"].is_null());
    ensure!(between.is_none(), "not pending: {between:?}");
    ensure!(["i", "s", "j", "main"].map(|c| count(&pod, c)) == [1, 1, 1, 1], "{}", pod["status"]);
    ensure!(["i", "s", "j", "main"].iter().all(|c| r.times(&format!("{c} started")).is_ok_and(|n| n == 2)), "{}", pod["status"]);
    let address = |p: &Value| p["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    ensure!(!address(&pod).is_empty() && pod["status"]["podIPs"][0]["ip"] == address(&pod).as_str(), "{}", pod["status"]);
    ensure!(pod["status"]["startTime"] == before["status"]["startTime"], "the start time moved");
    let since = |p: &Value| condition(p, "Initialized")["lastTransitionTime"].clone();
    ensure!(since(&pod) == since(&before), "initialized once, initialized for good");
    let over = ns.pod("never", "over", over)?;
    ensure!(phase(&over) == "Failed" && end(&over, "main").1 == 137 && count(&over, "main") == 0, "{}", over["status"]);
    // The others are as they were, to the byte.
    let now = ns.get("pod", "kept")?;
    ensure!(now["status"] == known["status"], "{}\nwas\n{}", now["status"], known["status"]);
    ensure!(kept.times("i started")? == 1 && kept.times("j started")? == 1, "an init container ran again");
    Ok(())
}

fn end_id<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    container(pod, name)["state"]["terminated"]["containerID"].as_str()?.split_once("://").map(|(_, id)| id)
}
