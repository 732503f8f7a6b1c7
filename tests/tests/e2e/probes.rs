//! Probes on real containers: every kind, how they fail, what becomes of them when a pod ends or an agent begins anew.

use crate::lifecycle::record::{Record, container, life, sidecar, with};
use crate::shared::{LIMIT, Ns, contains, is_ready, test};
use anyhow::{Context, Result, bail, ensure};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::images::WEB;
use ferrolet_tests::load;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub fn trials() -> Vec<Trial> {
    vec![
        test("probes::redirects_names_grpc_and_variables", kinds),
        test("probes::graces_of_their_own_and_timeouts", graces),
        test("probes::in_a_pod_that_ends", ending),
        test("probes::a_new_agent", new_agent),
        test("probes::periods_below_a_second", periods),
    ]
}

fn apply(ns: &Ns, name: &str, spec: Value) -> Result<()> {
    ns.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()).map(drop)
}

fn web(more: Value) -> Value {
    with(json!({"name": "main", "image": WEB, "args": ["serve", "--grpc", "9000"]}), more)
}

fn ready_by(check: Value) -> Value {
    json!({"readinessProbe": with(check, json!({"periodSeconds": 1}))})
}

fn get(ns: &Ns, pod: &str, path: &str) -> Result<String> {
    let ip = ns.get("pod", pod)?["status"]["podIP"].as_str().context("no address")?.to_owned();
    load::get(&ns.lab.nodes[0].netns, format!("{ip}:8080").parse()?, path)
}

fn kinds(ns: &mut Ns) -> Result<()> {
    let http = |path: &str| ready_by(json!({"httpGet": {"path": path, "port": 8080}}));
    let grpc = |service: &str| ready_by(json!({"grpc": {"port": 9000, "service": service}}));
    let variable = with(
        ready_by(json!({"exec": {"command": ["/web", "cat", "$(FILE)"]}})),
        json!({"env": [{"name": "FILE", "value": "/etc/passwd"}]}),
    );
    for (name, probe) in [
        ("here", http("/redirect?/readyz")),
        ("here-fails", http("/redirect?/nothing")),
        ("away", http("/redirect?http://example.invalid/")),
        ("grpc", grpc("up")),
        ("grpc-down", grpc("down")),
        ("variable", variable),
    ] {
        apply(ns, name, json!({"containers": [web(probe)], "terminationGracePeriodSeconds": 0}))?;
    }
    // The same name for another port in each container.
    let named = |port: u16| {
        with(
            ready_by(json!({"httpGet": {"path": "/readyz", "port": "http"}})),
            json!({"args": ["serve", "--port", port.to_string()], "ports": [{"name": "http", "containerPort": port}]}),
        )
    };
    let side = sidecar(with(web(named(9090)), json!({"name": "side"})));
    let named = json!({"initContainers": [side], "containers": [web(named(8080))], "terminationGracePeriodSeconds": 0});
    apply(ns, "named", named)?;
    for name in ["here", "away", "grpc", "variable", "named"] {
        ns.ready(name)?;
    }
    ns.event("here-fails", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")?;
    ns.event("away", "ProbeWarning", "Readiness probe warning: Probe terminated redirects, Response body: ")?;
    ns.event("grpc-down", "Unhealthy", "service unhealthy (responded with \"NOT_SERVING\")")?;
    for name in ["here-fails", "grpc-down"] {
        ensure!(!is_ready(&ns.get("pod", name)?), "{name} is ready");
    }
    let warned = ns.list("events")?.iter().any(|e| e["involvedObject"]["name"] == "here" && e["reason"] == "ProbeWarning");
    ensure!(!warned, "a redirect on the same host was warned of");
    Ok(())
}

fn graces(ns: &mut Ns) -> Result<()> {
    // They do not end by a signal, and the pod would give them a minute.
    let fails = json!({"exec": {"command": ["/web", "exit", "1"]}, "periodSeconds": 1, "failureThreshold": 1,
        "terminationGracePeriodSeconds": 1});
    let mut stubborn = Vec::new();
    for kind in ["livenessProbe", "startupProbe"] {
        let main = with(life("main", "-", "1000", 0), json!({kind: fails}));
        let name = kind.to_lowercase();
        let spec = json!({"containers": [main], "terminationGracePeriodSeconds": 60});
        stubborn.push((name.clone(), kind.trim_end_matches("Probe"), Record::of(ns, &name, spec)?));
    }
    let timeout =
        |seconds: &str| json!({"exec": {"command": ["/web", "sleep", seconds]}, "periodSeconds": 5, "failureThreshold": 1});
    let live = with(life("main", "-", "0", 0), json!({"livenessProbe": timeout("1000.125")}));
    let unready = with(life("main", "-", "0", 0), json!({"readinessProbe": timeout("1000.25")}));
    let late = Record::of(ns, "late", json!({"containers": [live]}))?;
    Record::of(ns, "unready", json!({"containers": [unready]}))?;
    ns.event("late", "Unhealthy", "Liveness probe failed: command timed out: \"/web sleep 1000.125\" timed out after 1s")?;
    ns.event("unready", "Unhealthy", "Readiness probe failed: command timed out: \"/web sleep 1000.25\" timed out after 1s")?;
    wait_for("the container to be restarted", LIMIT, || {
        ensure!(late.times("main started")? > 1, "not restarted");
        Ok(())
    })?;
    // Nothing restarted this one: the runtime ended its command.
    wait_for("the command to be gone", LIMIT, || {
        let left = commands("1000.25")?;
        if left.is_empty() { Ok(()) } else { bail!("{left:?}") }
    })?;
    let unready = ns.get("pod", "unready")?;
    ensure!(!is_ready(&unready) && container(&unready, "main")["restartCount"] == 0, "{}", unready["status"]);
    for (name, kind, record) in &stubborn {
        let text = format!("Container main failed {kind} probe, will be restarted");
        ns.event(name, "Killing", &text)?;
        record.wait("main signalled")?;
        wait_for("the container to be restarted", LIMIT, || {
            ensure!(record.times("main started")? > 1, "not restarted");
            Ok(())
        })?;
        let started = record.all("main started")?;
        let took = started[1] - record.at("main signalled")?;
        ensure!((900..20_000).contains(&took), "{name}: {took} ms from the signal to the next start");
    }
    for (name, _, _) in stubborn {
        ns.kubectl(&["delete", "pod", &name, "--grace-period=0", "--force"])?;
    }
    Ok(())
}

/// Processes on this host with this argument.
fn commands(argument: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if text.split(|b| *b == 0).any(|word| word == argument.as_bytes()) {
            found.push(String::from_utf8_lossy(&text).replace('\0', " "));
        }
    }
    Ok(found)
}

fn ending(ns: &mut Ns) -> Result<()> {
    let http = |path: &str| json!({"httpGet": {"path": path, "port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    let env = json!([{"name": "WEB_DRAIN_MS", "value": "4000"}]);
    // Between its process's end and the runtime's telling of it nobody answers either.
    let stays = with(http("/file?/etc/passwd"), json!({"failureThreshold": 4}));
    let main =
        web(json!({"readinessProbe": stays, "livenessProbe": http("/healthz"), "startupProbe": http("/healthz"), "env": env}));
    let unready = web(json!({"readinessProbe": http("/readyz"), "env": env}));
    apply(ns, "stays", json!({"containers": [main]}))?;
    apply(ns, "turns", json!({"containers": [unready]}))?;
    ns.ready("stays")?;
    ns.ready("turns")?;
    ns.kubectl(&["delete", "pod", "stays", "turns", "--wait=false"])?;
    // The one's readiness probe goes on and sees that it drains.
    ns.pod("turns", "not ready while it ends", |p| !is_ready(p) && container(p, "main")["state"]["running"].is_object())?;
    // Nobody asks any more whether this one is alive.
    get(ns, "stays", "/fail-health")?;
    let mut seen = 0;
    let gone = wait_for("the pod to be gone", LIMIT, || {
        let Ok(pod) = ns.get("pod", "stays") else { return Ok(Ok(())) };
        let main = container(&pod, "main");
        if main["state"]["running"].is_object() {
            seen += 1;
            if main["started"] != true || main["ready"] != true {
                return Ok(Err(pod["status"].to_string()));
            }
        }
        bail!("{}", pod["status"])
    })?;
    gone.map_err(anyhow::Error::msg)?;
    ensure!(seen > 2, "looked {seen} times only");
    let events = ns.list("events")?;
    let asked =
        events.iter().find(|e| e["involvedObject"]["name"] == "stays" && contains(&e["message"], "Liveness probe failed"));
    ensure!(asked.is_none(), "{asked:?}");
    Ok(())
}

const PODS: usize = 6;

fn new_agent(ns: &mut Ns) -> Result<()> {
    let probe = json!({"readinessProbe": {"exec": {"command": ["/web", "life", "/log/all", "probe", "0", "0", "0"]},
        "periodSeconds": 3, "failureThreshold": 1}, "startupProbe": {"exec": {"command": ["/web", "echo"]}, "periodSeconds": 1}});
    let mut all = Vec::new();
    for i in 0..PODS {
        let spec = json!({"containers": [with(life("main", "-", "0", 0), probe.clone())]});
        all.push(Record::of(ns, &format!("p{i}"), spec)?);
    }
    let mut before = Vec::new();
    for r in &all {
        before.push(ns.ready(&r.pod)?);
    }
    ns.lab.nodes[0].kill_agent()?;
    let down = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    let mut firsts = Vec::new();
    for r in &all {
        firsts.push(wait_for("the first probe of the new agent", LIMIT, || {
            r.all("probe started")?.into_iter().find(|at| *at > down).context("none yet")
        })?);
    }
    for (r, before) in all.iter().zip(&before) {
        let now = ns.get("pod", &r.pod)?;
        for kind in ["Ready", "ContainersReady"] {
            ensure!(condition(&now, kind) == condition(before, kind), "{}: {}", r.pod, now["status"]);
        }
        ensure!(container(&now, "main") == container(before, "main"), "{}: {}", r.pod, now["status"]);
    }
    let (first, last) = (firsts.iter().min().context("none")?, firsts.iter().max().context("none")?);
    ensure!(last - first > 200, "not spread over the period: {firsts:?}");
    Ok(())
}

fn periods(ns: &mut Ns) -> Result<()> {
    let main = web(json!({"readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
        "livenessProbe": {"tcpSocket": {"port": 8080}}}));
    let annotations = json!({"ferrolet.dev/probe-period-ms": "main.readiness=100,main.liveness=1"});
    let metadata = json!({"name": "fast", "annotations": annotations});
    ns.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [main]}}).to_string())?;
    let wrong = "annotation ferrolet.dev/probe-period-ms: \"main.liveness=1\": must be 10 to 3600000 milliseconds";
    ns.event("fast", "InvalidProbePeriod", wrong)?;
    ns.ready("fast")?;
    let asked = |ns: &Ns| -> Result<u64> { Ok(get(ns, "fast", "/requests")?.trim().parse()?) };
    let (begun, first) = (Instant::now(), asked(ns)?);
    wait_for("twenty more checks", LIMIT, || {
        let now = asked(ns)?;
        if now >= first + 20 { Ok(()) } else { bail!("{first} to {now}") }
    })?;
    ensure!(begun.elapsed() < Duration::from_secs(15), "twenty checks took {:?}", begun.elapsed());
    // Taken away, the field's own period counts again, and nothing else changes.
    let before = ns.get("pod", "fast")?;
    ns.kubectl(&["annotate", "pod", "fast", "ferrolet.dev/probe-period-ms-"])?;
    wait_for("the checks to be rare", LIMIT, || {
        let (a, begun) = (asked(ns)?, Instant::now());
        while begun.elapsed() < Duration::from_millis(500) {
            asked(ns)?;
        }
        let b = asked(ns)?;
        if b <= a + 1 { Ok(()) } else { bail!("{a} to {b} within half a second") }
    })?;
    let now = ns.get("pod", "fast")?;
    ensure!(is_ready(&now) && condition(&now, "Ready") == condition(&before, "Ready"), "{}", now["status"]);
    Ok(())
}
