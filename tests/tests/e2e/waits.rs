//! `ferrolet pod`: what a pod of the node waits for, in one line, and since when.

use crate::shared::{LIMIT, Ns, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::{sh, wait_for};
use libtest_mimic::Trial;
use serde_json::Value;
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    vec![
        test("waits::missing_config_map", missing_config_map),
        test("waits::image_that_cannot_be_pulled", failing_pull),
        test("waits::crash_loop", crash_loop),
        test("waits::failing_readiness", failing_readiness),
        test("waits::slow_pre_stop", slow_pre_stop),
        test("waits::runtime_down", runtime_down),
        test("waits::names", names),
    ]
}

/// What `ferrolet pod` says on the first node.
pub fn asked(ns: &Ns, args: &[&str]) -> Result<String> {
    let root = ns.lab.nodes[0].root_dir().display().to_string();
    let mut all = vec!["pod", "--root-dir", &root];
    all.extend(args);
    sh(&ns.lab.bins.ferrolet.display().to_string(), &all)
}

fn named(ns: &Ns, name: &str) -> String {
    format!("{}/{name}", ns.name)
}

fn report(ns: &Ns, name: &str) -> Result<Value> {
    let text = asked(ns, &[&named(ns, name), "-o", "json"])?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    Ok(value["pods"][0].clone())
}

/// Waits until what the pod waits for first has all these words; the report.
pub fn says(ns: &Ns, name: &str, words: &[&str]) -> Result<Value> {
    wait_for(&format!("{name} to wait for {words:?}"), LIMIT, || {
        let report = report(ns, name)?;
        let first = report["waits"][0]["for"].as_str().unwrap_or_default();
        if words.iter().all(|word| first.contains(word)) { Ok(report) } else { bail!("it says {report:#}") }
    })
}

fn waits_for_nothing(ns: &Ns, name: &str) -> Result<()> {
    wait_for(&format!("{name} to wait for nothing"), LIMIT, || {
        let report = report(ns, name)?;
        let nothing = report["waits"].as_array().is_some_and(Vec::is_empty) && report["state"] == "Ready";
        if nothing { Ok(()) } else { bail!("it says {report:#}") }
    })
}

/// The wait goes on since the same moment, and takes longer each time it is asked for.
fn since_stays(ns: &Ns, name: &str, words: &[&str]) -> Result<()> {
    let first = says(ns, name, words)?["waits"][0].clone();
    wait_for("the wait to take longer", LIMIT, || {
        let now = says(ns, name, words)?["waits"][0].clone();
        if now["since"] != first["since"] {
            bail!("it began at {} and then at {}", first["since"], now["since"]);
        }
        if now["seconds"].as_u64() > first["seconds"].as_u64() { Ok(()) } else { bail!("still {now}") }
    })
}

fn missing_config_map(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("noconfig", "serve", "env: [{name: A, valueFrom: {configMapKeyRef: {name: absent, key: a}}}]", ""))?;
    since_stays(ns, "noconfig", &["container main: CreateContainerConfigError: ", "absent"])?;
    let volumes = "volumes: [{name: config, configMap: {name: absent, items: [{key: colour, path: colour}]}}]";
    ns.apply(&pod("novolume", "serve", "volumeMounts: [{name: config, mountPath: /c}]", volumes))?;
    since_stays(ns, "novolume", &["its volumes are not ready: ", "volume \"config\"", "absent", "next try in "])?;
    // The status says it too, where kubelet leaves the message empty; the reason is kubelet's.
    ns.pod("novolume", "the reason in its status", |p| {
        let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "ContainerCreating" && crate::shared::contains(&waiting["message"], "absent")
    })?;
    ns.kubectl(&["create", "configmap", "absent", "--from-literal=a=1"])?;
    waits_for_nothing(ns, "noconfig")?;
    says(ns, "novolume", &["volume \"config\"", "non-existent config key: colour"])?;
    ns.kubectl(&["patch", "configmap", "absent", "-p", "{\"data\":{\"colour\":\"red\"}}"])?;
    waits_for_nothing(ns, "novolume")
}

fn failing_pull(ns: &mut Ns) -> Result<()> {
    let absent = "127.0.0.1:1/nobody/nothing:1";
    ns.apply(&pod("nopull", "serve", "", "").replace(ferrolet_tests::images::WEB, absent))?;
    let text = ["container main: image 127.0.0.1:1/nobody/nothing:1 cannot be had: ", "connection refused"];
    since_stays(ns, "nopull", &text)?;
    let all = asked(ns, &[])?;
    let line = all.lines().find(|line| line.starts_with(&named(ns, "nopull"))).context("it is not listed")?;
    must_contain(line, "Pending")?;
    must_contain(line, "cannot be had")
}

fn crash_loop(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("crashes", "exit, '3'", "", ""))?;
    since_stays(ns, "crashes", &["container main: CrashLoopBackOff, next start in ", "it ended with code 3"])
}

fn failing_readiness(ns: &mut Ns) -> Result<()> {
    let probe = "readinessProbe: {httpGet: {path: /nothing-there, port: 8080}, periodSeconds: 1}";
    ns.apply(&pod("unready", "serve", probe, ""))?;
    since_stays(ns, "unready", &["readiness probe of main fails: HTTP probe failed with statuscode: 404"])?;
    let state = report(ns, "unready")?["state"].clone();
    if state != "Running" {
        bail!("its state is {state}");
    }
    ns.apply(&pod("gated", "serve", "", "readinessGates: [{conditionType: example.com/lb}]"))?;
    since_stays(ns, "gated", &["readiness gate example.com/lb is not set"])
}

fn slow_pre_stop(ns: &mut Ns) -> Result<()> {
    let hook = "lifecycle: {preStop: {sleep: {seconds: 6}}}\nenv: [{name: WEB_DRAIN_MS, value: '4000'}]";
    ns.apply(&pod("slow", "serve", hook, "terminationGracePeriodSeconds: 60"))?;
    ns.ready("slow")?;
    waits_for_nothing(ns, "slow")?;
    ns.kubectl(&["delete", "pod", "slow", "--wait=false"])?;
    since_stays(ns, "slow", &["terminating: preStop hook of main runs, ", " of its grace are left"])?;
    let report = says(ns, "slow", &["terminating: container main has ", " of 1 min grace left"])?;
    if report["state"] != "Terminating" {
        bail!("its state is {}", report["state"]);
    }
    ns.kubectl(&["wait", "--for=delete", "pod/slow", "--timeout=40s"])?;
    wait_for("the pod to be unknown", LIMIT, || match asked(ns, &[&named(ns, "slow")]) {
        Ok(text) => bail!("it says {text}"),
        Err(error) => must_contain(&format!("{error:#}"), "there is no pod"),
    })
}

fn runtime_down(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("ends", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    ns.ready("ends")?;
    ns.lab.nodes[0].containerd.kill()?;
    ns.apply(&pod("starts", "serve", "", ""))?;
    ns.kubectl(&["delete", "pod", "ends", "--wait=false"])?;
    let said = since_stays(ns, "starts", &["the container runtime does not answer: "])
        .and_then(|()| since_stays(ns, "ends", &["terminating: the container runtime does not answer: "]));
    // An agent that starts meanwhile says it as well.
    let again = ns.lab.nodes[0].kill_agent().and_then(|()| ns.lab.start_agent(0));
    let again = again.and_then(|()| since_stays(ns, "starts", &["nothing starts before the container runtime has said"]));
    ns.lab.nodes[0].containerd.start()?;
    said?;
    again?;
    waits_for_nothing(ns, "starts")?;
    ns.kubectl(&["wait", "--for=delete", "pod/ends", "--timeout=40s"]).map(drop)
}

fn names(ns: &mut Ns) -> Result<()> {
    let ferrolet = ns.lab.bins.ferrolet.display().to_string();
    let root = ns.lab.nodes[0].root_dir().display().to_string();
    let fails = |args: &[&str], code: i32, words: &str| -> Result<()> {
        let out = Command::new(&ferrolet).arg("pod").args(args).output()?;
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.code() != Some(code) || !out.stdout.is_empty() {
            bail!("{args:?} ended with {:?}: {text}", out.status);
        }
        must_contain(&text, words)
    };
    fails(&["--root-dir", &root, "no-such-pod"], 1, "there is no pod no-such-pod on this node")?;
    fails(&["--root-dir", &root, "a/b/c"], 1, "NAMESPACE/NAME")?;
    fails(&["--root-dir", "/nonexistent", "web"], 1, "no ferrolet answers")?;
    fails(&["--root-dir", &root, "-o", "yaml"], 2, "json")?;
    let other = format!("{}-2", ns.name);
    ns.lab.kubectl(&["create", "namespace", &other])?;
    let twice = || -> Result<()> {
        ns.apply(&pod("twin", "serve", "", ""))?;
        ns.lab.kubectl(&["--namespace", &other, "run", "twin", "--image", ferrolet_tests::images::WEB, "--", "serve"])?;
        let both = format!("say which: {}/twin, {other}/twin", ns.name);
        wait_for("both to be known", LIMIT, || fails(&["--root-dir", &root, "twin"], 1, &both))?;
        waits_for_nothing(ns, "twin")?;
        must_contain(&asked(ns, &[&named(ns, "twin")])?, "(Ready): waits for nothing")
    };
    let result = twice();
    ns.lab.kubectl(&["delete", "namespace", &other, "--timeout=90s"])?;
    result
}
