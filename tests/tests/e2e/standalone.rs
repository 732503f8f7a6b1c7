//! A node without an API server: static pods, and the node's own API.

use crate::shared::{LIMIT, Ns, contains, is_ready, must_contain, pod, test};
use crate::static_pods::{Folder, container};
use anyhow::{Context, Result, bail};
use ferrolet_tests::load;
use ferrolet_tests::sys::{run, sh, tail, wait_for};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("standalone::static_pods_run_and_the_node_shows_them", |ns| alone(ns, shown)),
        test("standalone::files_come_change_and_go", |ns| alone(ns, files)),
        test("standalone::containers_outlive_the_agent_and_their_crashes_are_counted", |ns| alone(ns, crashes)),
        test("standalone::what_needs_an_api_server_is_refused", |ns| alone(ns, refused)),
    ]
}

/// Runs a test on a node that is alone: the API server is away, and the agent has never heard of one.
fn alone(ns: &mut Ns, body: fn(&mut Ns, &Folder) -> Result<()>) -> Result<()> {
    ns.lab.nodes[0].stop_agent()?;
    ns.lab.stop_stub()?;
    let folder = Folder::of(ns)?;
    let rules = rules(ns)?;
    ns.lab.start_agent_alone(0)?;
    let result = body(ns, &folder).with_context(|| tail(&ns.lab.nodes[0].agent_log(), 40));
    let untouched = rules_are(ns, &rules);
    // The agent of the next test is one with an API server again.
    ns.lab.nodes[0].stop_agent()?;
    result.and(untouched)
}

/// All rules of the node, without their counters.
fn rules(ns: &Ns) -> Result<String> {
    let net = format!("--net=/run/netns/{}", ns.lab.nodes[0].netns);
    sh("nsenter", &[&net, "nft", "--stateless", "list", "ruleset"])
}

fn rules_are(ns: &Ns, before: &str) -> Result<()> {
    let now = rules(ns)?;
    if now == before { Ok(()) } else { bail!("the rules were {before}\nand are {now}") }
}

/// Asks the node's own API with the administrator's certificate.
fn ask(ns: &Ns, path: &str) -> Result<String> {
    let server = format!("--server=https://{}:10250", ns.lab.nodes[0].ip);
    ns.lab.kubectl(&["get", "--raw", path, &server, "--insecure-skip-tls-verify"])
}

fn pods(ns: &Ns) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_str(&ask(ns, "/pods")?)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn name(ns: &Ns, name: &str) -> String {
    format!("{name}-{}", ns.lab.nodes[0].name)
}

/// Waits until the node says of a pod what the check wants.
pub fn until(ns: &Ns, name: &str, what: &str, held: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(&format!("pod {name}: {what}"), LIMIT, || {
        let pods = pods(ns)?;
        let pod = pods.iter().find(|p| p["metadata"]["name"] == name).with_context(|| format!("not among {}", pods.len()))?;
        if held(pod) { Ok(pod.clone()) } else { bail!("status is {}", pod["status"]) }
    })
}

fn ready(ns: &Ns, name: &str) -> Result<Value> {
    until(ns, name, "ready", is_ready)
}

/// Nothing is left of a pod: not in the runtime, not on the disk, not among the cgroups.
fn without_trace(ns: &Ns, pod: &Value) -> Result<()> {
    let node = &ns.lab.nodes[0];
    let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
    wait_for(&format!("everything of {uid} to go"), LIMIT, || {
        let shown = pods(ns)?.iter().any(|p| p["metadata"]["uid"] == uid);
        let folder = node.root_dir().join("pods").join(uid).exists();
        let logs = std::fs::read_dir(node.dir.join("pod-logs"))?.flatten().any(|e| e.file_name().to_string_lossy().contains(uid));
        let cgroups = sh("find", &["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{uid}*")])?;
        let containers = node.containerd.ctr(&["containers", "list", &format!("labels.\"io.kubernetes.pod.uid\"=={uid}")])?;
        if shown || folder || logs || !cgroups.is_empty() || containers.contains("pause") {
            bail!("shown {shown}, folder {folder}, logs {logs}, cgroups {cgroups:?}, containers {containers}");
        }
        Ok(())
    })
}

fn shown(ns: &mut Ns, folder: &Folder) -> Result<()> {
    let extra = "env:\n\
        - {name: WEB_DRAIN_MS, value: '0'}\n\
        - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}\n\
        - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n\
        volumeMounts: [{name: scratch, mountPath: /scratch}]\n\
        lifecycle: {postStart: {exec: {command: [/web, write, /scratch/begun, by-the-hook]}}}\n\
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}";
    folder.put(ns, "web.yaml", &pod("web", "serve", extra, "volumes: [{name: scratch, emptyDir: {}}]"))?;
    let (name, path) = (name(ns, "web"), ns.name.clone());
    let shown = ready(ns, &name)?;
    let status = &shown["status"];
    let (host, ip) = (status["hostIP"].as_str().unwrap_or_default(), status["podIP"].as_str().context("no podIP")?);
    if host != ns.lab.nodes[0].ip || status["phase"] != "Running" || status["containerStatuses"][0]["restartCount"] != 0 {
        bail!("not the status that was expected: {status:#}");
    }
    load::get(&ns.lab.nodes[0].netns, format!("{ip}:8080").parse()?, "/")?;
    must_contain(&ask(ns, &format!("/containerLogs/{path}/{name}/main"))?, "listening on 8080")?;
    must_contain(&exec(ns, &name, &["cat", "/scratch/begun"], "by-the-hook")?, "by-the-hook")?;
    let environment = exec(ns, &name, &["env"], "WEB_DRAIN_MS")?;
    must_contain(&environment, &format!("HOST={host}"))?;
    must_contain(&environment, "CPUS=")?;
    if environment.contains("KUBERNETES_SERVICE_HOST") {
        bail!("there is no API server to tell of: {environment}");
    }
    must_contain(&ask(ns, "/healthz")?, "ok")?;
    must_contain(&ask(ns, "/metrics")?, "kubelet_running_pods 1")?;
    let healthz = load::get(&ns.lab.nodes[0].netns, "127.0.0.1:10248".parse()?, "/healthz")?;
    must_contain(&healthz, "ok")?;
    // Who shows no certificate is nobody.
    let url = format!("https://{}:10250/pods", ns.lab.nodes[0].ip);
    let net = format!("--net=/run/netns/{}", ns.lab.fabric);
    let ca = ns.lab.nodes[0].root_dir().join("pki/kubelet.crt").display().to_string();
    let quiet = ["--noproxy", "*", "-s", "-o", "/dev/null", "-w", "%{http_code}"];
    let code = sh("nsenter", &[&[&*net, "curl", "--cacert", &ca, &url], &quiet[..]].concat())?;
    if code != "401" {
        bail!("without a certificate the answer was {code}");
    }
    let log = std::fs::read_to_string(ns.lab.nodes[0].agent_log())?;
    if !log.lines().any(|l| l.contains("reason=\"Started\"") && l.contains(&name)) {
        bail!("its events are not in the log");
    }
    folder.remove("web.yaml")?;
    without_trace(ns, &shown)
}

/// Runs a command in a container by the node's own API: a WebSocket by hand, whose frames from the server are plain.
fn exec(ns: &Ns, pod: &str, command: &[&str], wanted: &str) -> Result<String> {
    let (lab, node) = (&*ns.lab, &ns.lab.nodes[0]);
    for (field, file) in [("client-certificate-data", "admin.crt"), ("client-key-data", "admin.key")] {
        let text = lab.kubectl(&["config", "view", "--raw", "-o", &format!("jsonpath={{.users[0].user.{field}}}")])?;
        let encoded = lab.dir.join("admin.b64");
        std::fs::write(&encoded, text)?;
        let decoded = run(Command::new("base64").arg("-d").arg(&encoded))?;
        std::fs::write(lab.dir.join(file), decoded)?;
    }
    let words: String = ["/web"].iter().chain(command).map(|word| format!("&command={word}")).collect();
    let request = format!(
        "GET /exec/{}/{pod}/main?output=1&error=1{words} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n",
        ns.name
    );
    let mut client = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", lab.fabric))
        .args(["openssl", "s_client", "-quiet", "-alpn", "http/1.1", "-connect", &format!("{}:10250", node.ip)])
        .arg("-cert")
        .arg(lab.dir.join("admin.crt"))
        .arg("-key")
        .arg(lab.dir.join("admin.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let answer = converse(&mut client, &request, wanted);
    client.kill()?;
    client.wait()?;
    answer
}

/// Reads until the text has come, or the connection ends.
fn converse(client: &mut Child, request: &str, wanted: &str) -> Result<String> {
    client.stdin.as_mut().context("no stdin")?.write_all(request.as_bytes())?;
    let mut out = client.stdout.take().context("no stdout")?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = out.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut all = String::new();
    while !all.contains(wanted) {
        let part = receive.recv_timeout(Duration::from_secs(20)).with_context(|| format!("after {all:?}"))?;
        all.push_str(&String::from_utf8_lossy(&part));
    }
    Ok(all)
}

fn web(more: &str) -> String {
    pod("web", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", more)
}

fn files(ns: &mut Ns, folder: &Folder) -> Result<()> {
    let name = name(ns, "web");
    folder.put(ns, "broken.yaml", "kind: Pod\nmetadata: 7\n")?;
    folder.put(ns, "web.yaml", &web("hostname: one"))?;
    let first = ready(ns, &name)?;
    // Another file in its place: the pod before goes first.
    folder.put(ns, "web.yaml", &web("hostname: two"))?;
    let second = until(ns, &name, "the other one, ready", |p| p["spec"]["hostname"] == "two" && is_ready(p))?;
    if container(&first) == container(&second) || first["metadata"]["uid"] == second["metadata"]["uid"] {
        bail!("it is the same pod: {}", second["metadata"]);
    }
    without_trace(ns, &first)?;
    // A file that breaks leaves what runs alone, and the others.
    folder.put(ns, "web.yaml", "kind: [")?;
    folder.put(ns, "other.yaml", &web("").replace("name: web", "name: other"))?;
    ready(ns, &self::name(ns, "other"))?;
    let still = ready(ns, &name)?;
    if container(&still) != container(&second) {
        bail!("it did not stay: {}", still["status"]);
    }
    folder.remove("web.yaml")?;
    without_trace(ns, &second)?;
    let other = ready(ns, &self::name(ns, "other"))?;
    folder.remove("other.yaml")?;
    without_trace(ns, &other)
}

fn crashes(ns: &mut Ns, folder: &Folder) -> Result<()> {
    let name = name(ns, "web");
    folder.put(ns, "web.yaml", &web(""))?;
    let first = ready(ns, &name)?;
    // An agent that is killed and comes again changes nothing.
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent_alone(0)?;
    let after = ready(ns, &name)?;
    if container(&after) != container(&first) || after["status"]["containerStatuses"][0]["restartCount"] != 0 {
        bail!("a new agent changed it: {} and {}", first["status"], after["status"]);
    }
    let count = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default();
    crash(ns, &after)?;
    let again = until(ns, &name, "restarted", |p| count(p) == 1 && is_ready(p))?;
    let last = &again["status"]["containerStatuses"][0]["lastState"]["terminated"];
    if container(&again) == container(&first) || last["exitCode"] != 137 {
        bail!("not a restart: {}", again["status"]);
    }
    crash(ns, &again)?;
    let waits = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let waiting = until(ns, &name, "in backoff", waits)?;
    let message = &waiting["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    if !contains(message, "back-off 10s restarting failed container") {
        bail!("the message is {message}");
    }
    // Nor does a new agent forget that.
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent_alone(0)?;
    let third = until(ns, &name, "restarted again", |p| count(p) == 2 && is_ready(p))?;
    let at = |t: &Value| t.as_str().unwrap_or_default().to_owned();
    let state = &third["status"]["containerStatuses"][0];
    let (ended, began) = (at(&state["lastState"]["terminated"]["finishedAt"]), at(&state["state"]["running"]["startedAt"]));
    let seconds = |t: &str| run(Command::new("date").args(["+%s", "-d", t])).and_then(|s| Ok(s.trim().parse::<i64>()?));
    let waited = seconds(&began)? - seconds(&ended)?;
    if waited < 9 {
        bail!("it was restarted after {waited} s");
    }
    folder.remove("web.yaml")?;
    without_trace(ns, &third)
}

fn crash(ns: &Ns, pod: &Value) -> Result<()> {
    let id = container(pod);
    let id = id.rsplit('/').next().unwrap_or_default();
    let tasks = ns.lab.nodes[0].containerd.tasks()?;
    let (_, pid) = tasks.iter().find(|(task, _)| task == id).with_context(|| format!("no process of {id}"))?;
    Ok(kill(Pid::from_raw(*pid), Signal::SIGKILL)?)
}

fn refused(ns: &mut Ns, folder: &Folder) -> Result<()> {
    let secret = "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]";
    folder.put(ns, "secret.yaml", &pod("secret", "serve", secret, ""))?;
    folder.put(ns, "map.yaml", &pod("map", "serve", "envFrom: [{configMapRef: {name: m}}]", ""))?;
    folder.put(ns, "account.yaml", &pod("account", "serve", "", "serviceAccountName: a"))?;
    folder.put(ns, "claim.yaml", &pod("claim", "serve", "", "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]"))?;
    folder.put(ns, "class.yaml", &pod("class", "serve", "", "runtimeClassName: other"))?;
    folder.put(ns, "web.yaml", &web(""))?;
    let web = ready(ns, &name(ns, "web"))?;
    let log = ns.lab.nodes[0].agent_log();
    for what in ["secrets", "configmaps", "serviceaccounts", "persistentvolumeclaims"] {
        wait_for(&format!("a word on {what}"), LIMIT, || {
            must_contain(&std::fs::read_to_string(&log)?, &format!("static pods may not reference {what}"))
        })?;
    }
    // It would not be what was asked for with the default class.
    wait_for("a word on the class", LIMIT, || {
        let said = std::fs::read_to_string(&log)?;
        let line = said.lines().find(|line| line.contains("failed to lookup RuntimeClass other")).context("not yet")?;
        must_contain(line, "there is no api server in standalone mode")
    })?;
    let names: Vec<Value> = pods(ns)?.iter().map(|p| p["metadata"]["name"].clone()).collect();
    if names.len() != 2 || !names.contains(&json!(name(ns, "class"))) {
        bail!("these were taken: {names:?}");
    }
    for file in ["class.yaml", "web.yaml"] {
        folder.remove(file)?;
    }
    without_trace(ns, &web)
}
