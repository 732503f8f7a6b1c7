//! What this node knows of its own pods is in its service rules before the control plane shows it: a pod that ends is out of
//! them before its signal, and readiness counts at once.

use crate::shared::{LIMIT, Ns, pod, test};
use anyhow::{Context, Result, anyhow, bail};
use ferrolet_tests::images::WEB;
use ferrolet_tests::load;
use ferrolet_tests::netns::within;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        test("rules::a_deleted_pod_gets_nothing_after_its_signal", deleted),
        test("rules::a_pod_that_ends_leaves_without_the_control_plane", deadline),
        test("rules::readiness_counts_without_the_control_plane", readiness),
    ]
}

const PROBE: &str = "readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}";

/// A request that took longer than this may have been on its way when the signal came.
const AT_ONCE: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(3);

/// Requests one after another, from this node to a Service. The program behind answers 503 once it has its signal.
struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

#[derive(Default)]
struct Tally {
    requests: usize,
    /// Under way when their pod was told to end: connected while it was still to get requests, answered late.
    overtaken: Vec<String>,
    bad: Vec<String>,
}

fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").context("write")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read")?;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { bail!("answered {answer:?}") }
}

impl Requests {
    fn start(ns: &Ns, address: SocketAddr) -> Requests {
        let (stop, netns) = (Arc::new(AtomicBool::new(false)), ns.lab.nodes[0].netns.clone());
        let stopped = stop.clone();
        let work = move || {
            let (begun, mut tally) = (Instant::now(), Tally::default());
            while !stopped.load(Ordering::SeqCst) && begun.elapsed() < Duration::from_secs(300) {
                let sent = Instant::now();
                if let Err(error) = ask(address) {
                    let took = sent.elapsed();
                    let line = format!("{:.3} s: took {took:?}: {error:#}", sent.duration_since(begun).as_secs_f64());
                    let overtaken = took > AT_ONCE && took < TIMEOUT / 3;
                    if overtaken { &mut tally.overtaken } else { &mut tally.bad }.push(line);
                }
                tally.requests += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            tally
        };
        Requests { stop, thread: std::thread::spawn(move || within(&netns, work)) }
    }

    /// The requests come one after another, so each signal can overtake one at most.
    fn none_failed(self, signals: usize) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let Tally { requests, overtaken, bad } = self.thread.join().map_err(|_| anyhow!("the requests panicked"))??;
        if !bad.is_empty() || overtaken.len() > signals {
            let all = bad.iter().chain(&overtaken).cloned().collect::<Vec<_>>();
            bail!("{} of {requests} requests went wrong:\n  {}", all.len(), all.join("\n  "));
        }
        if !overtaken.is_empty() {
            println!("overtaken by the signal: {}", overtaken.join("; "));
        }
        if requests < 100 { bail!("only {requests} requests were made") } else { Ok(()) }
    }
}

fn service(ns: &Ns, app: &str) -> Result<SocketAddr> {
    ns.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {app}}}\nspec: {{selector: {{app: {app}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    ))?;
    let ip = ns.get("service", app)?["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    Ok(format!("{ip}:80").parse()?)
}

/// Waits until exactly these answer, and returns how long that took.
fn only(ns: &Ns, address: SocketAddr, wanted: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    wait_for(&format!("answers from {wanted:?} only"), LIMIT, || {
        let seen = load::spread(&ns.lab.nodes[0].netns, address, 40)?;
        if seen.keys().map(String::as_str).eq(wanted.iter().copied()) { Ok(begun.elapsed()) } else { bail!("saw {seen:?}") }
    })
}

fn deleted(ns: &mut Ns) -> Result<()> {
    // One goes on answering for a while after its signal and would be found out; one ends at once.
    for (app, drain) in [("drains", 1500), ("sudden", 0)] {
        let address = service(ns, app)?;
        ns.apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {app}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: {app}}}}}\n  template:\n    metadata: {{labels: {{app: {app}}}}}\n    spec:\n      containers:\n      - {{name: main, image: '{WEB}', args: [serve], env: [{{name: WEB_DRAIN_MS, value: '{drain}'}}], {PROBE}}}\n"
        ))?;
        ns.kubectl(&["rollout", "status", "deployment", app, "--timeout=60s"])?;
        let names = |ns: &Ns| -> Result<Vec<String>> {
            let mine = |p: &&Value| p["metadata"]["labels"]["app"] == app && p["metadata"]["deletionTimestamp"].is_null();
            let pods = ns.list("pods")?;
            Ok(pods.iter().filter(mine).filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect())
        };
        let both = names(ns)?;
        only(ns, address, &both.iter().map(String::as_str).collect::<Vec<_>>())?;
        let requests = Requests::start(ns, address);
        for _ in 0..3 {
            let name = names(ns)?.into_iter().next().context("no pod")?;
            ns.kubectl(&["delete", "pod", &name, "--timeout=40s"])?;
            ns.kubectl(&["rollout", "status", "deployment", app, "--timeout=60s"])?;
        }
        requests.none_failed(3).with_context(|| format!("deployment {app}"))?;
    }
    Ok(())
}

/// Runs something while the control plane stands still.
fn frozen<T>(ns: &mut Ns, body: impl FnOnce(&mut Ns) -> Result<T>) -> Result<T> {
    ns.lab.stub.as_mut().context("no control plane")?.signal(Signal::SIGSTOP)?;
    let result = body(ns);
    ns.lab.stub.as_mut().context("no control plane")?.signal(Signal::SIGCONT)?;
    result
}

/// Two pods of one app, ready and in the rules.
fn two(ns: &Ns, extra: &str, first: &str) -> Result<SocketAddr> {
    for (name, spec) in [("one", first), ("two", "")] {
        ns.apply(&pod(name, "serve", extra, spec).replace(&format!("labels: {{app: {name}}}"), "labels: {app: both}"))?;
    }
    let address = service(ns, "both")?;
    ns.ready("one")?;
    ns.ready("two")?;
    only(ns, address, &["one", "two"])?;
    Ok(address)
}

/// The agent ends the pod by itself, so that nothing of it can come from the API.
fn deadline(ns: &mut Ns) -> Result<()> {
    let address = two(ns, PROBE, "activeDeadlineSeconds: 20")?;
    let before = ns.lab.nodes[0].containerd.tasks()?.len();
    frozen(ns, |ns| {
        let requests = Requests::start(ns, address);
        wait_for("the pod to be ended", LIMIT, || {
            let now = ns.lab.nodes[0].containerd.tasks()?.len();
            if now < before { Ok(()) } else { bail!("{now} processes") }
        })?;
        requests.none_failed(1)?;
        only(ns, address, &["two"]).map(drop)
    })?;
    ns.pod("one", "failed by its deadline", |p| p["status"]["reason"] == "DeadlineExceeded")?;
    only(ns, address, &["two"]).map(drop)
}

fn readiness(ns: &mut Ns) -> Result<()> {
    let address = two(ns, PROBE, "")?;
    let netns = ns.lab.nodes[0].netns.clone();
    let one: SocketAddr = format!("{}:8080", ns.get("pod", "one")?["status"]["podIP"].as_str().context("no IP")?).parse()?;
    frozen(ns, |ns| {
        load::get(&netns, one, "/fail-ready")?;
        // A probe's period, and a second.
        let took = only(ns, address, &["two"])?;
        if took > Duration::from_secs(2) {
            bail!("the rules followed after {took:?}");
        }
        load::get(&netns, one, "/recover")?;
        only(ns, address, &["one", "two"])?;
        load::get(&netns, one, "/fail-ready")?;
        only(ns, address, &["two"]).map(drop)
    })?;
    // Now the API has it too.
    ns.pod("one", "not ready", |p| !crate::shared::is_ready(p))?;
    only(ns, address, &["two"])?;
    wait_for("the endpoint slice to agree", LIMIT, || {
        let slices = ns.list("endpointslices")?;
        let ready = |e: &Value| e["targetRef"]["name"] == "one" && e["conditions"]["ready"] == true;
        let listed = slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default()).any(|e| ready(&e));
        if listed { bail!("still ready") } else { Ok(()) }
    })?;
    // Ready again with nobody to tell: for a while that counts, and then what the API last said.
    frozen(ns, |ns| {
        load::get(&netns, one, "/recover")?;
        let begun = Instant::now();
        only(ns, address, &["one", "two"])?;
        only(ns, address, &["two"])?;
        if begun.elapsed() < Duration::from_secs(8) || begun.elapsed() > Duration::from_secs(15) {
            bail!("the API's word counted again after {:?}", begun.elapsed());
        }
        Ok(())
    })?;
    ns.ready("one")?;
    only(ns, address, &["one", "two"]).map(drop)
}
