//! Security contexts on a real kernel: what processes are given, what is refused, and user namespaces on a runtime that has them.

use crate::shared::{LIMIT, Ns, USERS, contains, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::images::{self, Image};
use ferrolet_tests::setup::Runtime;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::{Completion, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    vec![
        test("security::what_containers_are_given", given),
        test("security::what_is_refused", refused),
        test("security::what_the_node_adds", node_settings),
        with_user_namespaces("security::users_of_their_own", own_users),
    ]
}

/// Ignored where no runtime that has them can be had.
pub fn with_user_namespaces(name: &'static str, body: fn(&mut Ns) -> Result<()>) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Err(error) = Runtime::with_user_namespaces() {
            return Ok(Completion::ignored_with(format!("no runtime with user namespaces: {error:#}")));
        }
        USERS.run(name, body).map_err(|error| format!("{error:#}"))?;
        Ok(Completion::Completed)
    })
}

/// A pod that runs once; `own` and `whole` are the security contexts of its container and of itself.
fn once(name: &str, args: &str, own: &str, whole: &str) -> String {
    let container = format!("securityContext: {{{own}}}");
    pod(name, args, &container, &format!("restartPolicy: Never\nsecurityContext: {{{whole}}}"))
}

fn phase(ns: &Ns, name: &str, phase: &str) -> Result<Value> {
    ns.pod(name, phase, |p| p["status"]["phase"] == phase)
}

/// What a pod said that ran once.
fn output(ns: &Ns, name: &str) -> Result<String> {
    phase(ns, name, "Succeeded")?;
    ns.kubectl(&["logs", name])
}

/// A line of /proc/PID/status.
fn line(status: &str, field: &str) -> String {
    let found = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    found.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn capabilities(status: &str) -> Result<u64> {
    u64::from_str_radix(&line(status, "CapEff"), 16).context("CapEff")
}

fn are(name: &str, status: &str, wanted: &[(&str, &str)]) -> Result<()> {
    for (field, value) in wanted {
        if line(status, field) != *value {
            bail!("{name}: {field} is {:?}, expected {value:?}", line(status, field));
        }
    }
    Ok(())
}

/// The web image with another user.
fn image(ns: &Ns, name: &str, user: &str) -> Result<String> {
    let name = format!("ferrolet.dev/{name}:1");
    let archive = ns.lab.dir.join(format!("{}.tar", name.replace(['/', ':'], "_")));
    let files: &[(&str, &Path)] = &[("/web", &ns.lab.bins.web)];
    images::write_archive(&Image { name: &name, files, entrypoint: &["/web"], arguments: &[], user }, &archive)?;
    ns.lab.nodes[0].containerd.import(&archive)?;
    Ok(name)
}

const NO_LISTS: &str =
    r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getdents64"], "action": "SCMP_ACT_ERRNO"}]}"#;

fn given(ns: &mut Ns) -> Result<()> {
    let status = "cat, /proc/self/status";
    let profiles = ns.lab.nodes[0].root_dir().join("seccomp/lists");
    std::fs::create_dir_all(&profiles)?;
    std::fs::write(profiles.join("none.json"), NO_LISTS)?;
    let named = image(ns, "named", "web")?;
    let numeric = image(ns, "numeric", "1234")?;
    let narrow =
        "runAsUser: 65534, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}";
    let groups = "runAsUser: 7, runAsGroup: 3000, supplementalGroups: [4000], fsGroup: 5000";
    let local = |file: &str| format!("seccompProfile: {{type: Localhost, localhostProfile: {file}}}");
    let all = [
        once("plain", status, "", ""),
        once("narrow", status, narrow, groups),
        once("caps", status, "capabilities: {add: [NET_ADMIN], drop: [CHOWN]}", ""),
        once("all", status, "privileged: true, seccompProfile: {type: RuntimeDefault}", ""),
        once("named", status, "", "runAsGroup: 77").replace(images::WEB, &named),
        once("numeric", status, "runAsNonRoot: true", "").replace(images::WEB, &numeric),
        once("listing", "ls, /", "", ""),
        once("blind", "ls, /", "", &local("lists/none.json")),
        once("seeing", "ls, /", "seccompProfile: {type: Unconfined}", &local("lists/none.json")),
        once("profileless", "ls, /", &local("lists/missing.json"), ""),
        once("writes", "write, /file, x", "readOnlyRootFilesystem: false", ""),
        once("reads", "write, /file, x", "readOnlyRootFilesystem: true", ""),
    ];
    ns.apply(&all.join("---\n"))?;
    let plain = output(ns, "plain")?;
    are("plain", &plain, &[("Uid", "0 0 0 0"), ("NoNewPrivs", "0"), ("Seccomp", "0"), ("CapEff", "00000000a80425fb")])?;
    let user = [("Uid", "65534 65534 65534 65534"), ("Gid", "3000 3000 3000 3000"), ("Groups", "3000 4000 5000")];
    are("narrow", &output(ns, "narrow")?, &user)?;
    are("narrow", &output(ns, "narrow")?, &[("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapBnd", "0000000000000000")])?;
    const CHOWN: u64 = 1;
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let (before, after) = (capabilities(&plain)?, capabilities(&output(ns, "caps")?)?);
    if after != (before | NET_ADMIN) & !CHOWN {
        bail!("capabilities are {after:x} instead of {before:x} with and without one");
    }
    let all = output(ns, "all")?;
    if capabilities(&all)? & SYS_ADMIN == 0 || line(&all, "Seccomp") != "0" {
        bail!("not privileged: {all}");
    }
    are("named", &output(ns, "named")?, &[("Uid", "1000 1000 1000 1000"), ("Gid", "77 77 77 77")])?;
    are("numeric", &output(ns, "numeric")?, &[("Uid", "1234 1234 1234 1234")])?;
    must_contain(&output(ns, "listing")?, "etc")?;
    must_contain(&output(ns, "seeing")?, "etc")?;
    phase(ns, "blind", "Failed")?;
    output(ns, "writes")?;
    phase(ns, "reads", "Failed")?;
    let missing = ns.pod("profileless", "waits for its profile", |p| reason(p) == "CreateContainerError")?;
    must_contain(&message(&missing), "lists/missing.json")
}

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

fn reason(pod: &Value) -> &str {
    waiting(pod)["reason"].as_str().unwrap_or_default()
}

fn message(pod: &Value) -> String {
    waiting(pod)["message"].as_str().unwrap_or_default().to_owned()
}

fn rejected(ns: &Ns, name: &str, why: &str, message: &str) -> Result<()> {
    let pod = phase(ns, name, "Failed")?;
    if pod["status"]["reason"] != why || pod["status"]["message"] != format!("Pod was rejected: {message}") {
        bail!("{name}: {}", pod["status"]);
    }
    ns.event(name, why, message).map(drop)
}

fn refused(ns: &mut Ns) -> Result<()> {
    let named = image(ns, "named", "web")?;
    let sysctl = |name: &str| format!("sysctls: [{{name: {name}, value: '1'}}]");
    let setting = "cat, /proc/sys/kernel/shm_rmid_forced";
    let all = [
        once("root", "env", "runAsNonRoot: true", ""),
        once("asked", "env", "runAsUser: 0", "runAsNonRoot: true"),
        once("named", "env", "runAsNonRoot: true", "").replace(images::WEB, &named),
        once("dots", setting, "", &sysctl("kernel.shm_rmid_forced")),
        once("slashes", setting, "", &sysctl("kernel/shm_rmid_forced")),
        once("unsafe", "env", "", &sysctl("kernel.msgmax")),
        once("profiled", "env", "", "appArmorProfile: {type: RuntimeDefault}"),
        once("annotated", "env", "", "").replace(
            "  labels:",
            "  annotations: {container.apparmor.security.beta.kubernetes.io/main: localhost/some}\n  labels:",
        ),
        once("free", "env", "appArmorProfile: {type: Unconfined}", ""),
        pod("users", "serve", "", "hostUsers: false"),
    ];
    ns.apply(&all.join("---\n"))?;
    for (name, why) in [
        ("root", "container has runAsNonRoot and image will run as root"),
        ("asked", "container's runAsUser breaks non-root policy"),
        ("named", "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root"),
    ] {
        let pod = ns.pod(name, "is not started", |p| reason(p) == "CreateContainerConfigError")?;
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let text = format!("{why} (pod: \"{name}_{}({uid})\", container: main)", ns.name);
        if message(&pod) != text {
            bail!("{name}: {}", message(&pod));
        }
        ns.event(name, "Failed", &format!("Error: {text}"))?;
    }
    for name in ["dots", "slashes"] {
        must_contain(&output(ns, name)?, "1")?;
    }
    rejected(ns, "unsafe", "SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")?;
    output(ns, "free")?;
    if Path::new("/sys/kernel/security/apparmor").exists() {
        println!("pods with AppArmor profiles: SKIPPED, this host has it and its runtime does not use it");
    } else {
        for name in ["profiled", "annotated"] {
            rejected(ns, name, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")?;
        }
    }
    let why = "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    ns.event("users", "FailedCreatePodSandBox", why)?;
    let pod = ns.get("pod", "users")?;
    if pod["status"]["phase"] == "Pending" { Ok(()) } else { bail!("users: {}", pod["status"]) }
}

fn node_settings(ns: &mut Ns) -> Result<()> {
    let fields = json!({"seccompDefault": true, "allowedUnsafeSysctls": ["kernel.msg*"]});
    ns.restart_with(fields.as_object().cloned().unwrap_or_default())?;
    let result = with_settings(ns);
    ns.restart_with(Default::default())?;
    result
}

fn with_settings(ns: &Ns) -> Result<()> {
    let sysctls = "sysctls: [{name: kernel.msgmax, value: '10000'}, {name: kernel/msgmnb, value: '20000'}]";
    let all = [
        once("default", "cat, /proc/self/status", "", ""),
        once("free", "cat, /proc/self/status", "seccompProfile: {type: Unconfined}", ""),
        once("set", "cat, /proc/sys/kernel/msgmax, /proc/sys/kernel/msgmnb", "", sysctls),
        // The API server lets it through, as it knows nothing of the node's list.
        once("shared", "env", "", "sysctls: [{name: kernel.sem, value: '1'}]"),
    ];
    ns.apply(&all.join("---\n"))?;
    are("default", &output(ns, "default")?, &[("Seccomp", "2")])?;
    are("free", &output(ns, "free")?, &[("Seccomp", "0")])?;
    if output(ns, "set")? != "10000\n20000\n" {
        bail!("set: {}", output(ns, "set")?);
    }
    rejected(ns, "shared", "SysctlForbidden", "forbidden sysctl: \"kernel.sem\" not allowlisted")
}

const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\ndata: {one: '1', two: '2'}\n---\n\
    apiVersion: v1\nkind: Secret\nmetadata: {name: words}\nstringData: {three: '3'}\n---\n";
const NAME_FILE: &str = "items: [{path: name, fieldRef: {fieldPath: metadata.name}}]";

/// A pod with a user namespace and all kinds of volumes that it can have.
fn with_volumes(name: &str, own: &str, whole: &str) -> String {
    let mounts = ["words", "secret", "downward", "projected", "empty", "memory"];
    let mounts = mounts.map(|v| format!("{{name: {v}, mountPath: /vol/{v}}}")).join(", ");
    let volumes = [
        "{name: words, configMap: {name: words}}".to_owned(),
        "{name: secret, secret: {secretName: words}}".to_owned(),
        format!("{{name: downward, downwardAPI: {{{NAME_FILE}}}}}"),
        format!("{{name: projected, projected: {{sources: [{{secret: {{name: words}}}}, {{downwardAPI: {{{NAME_FILE}}}}}]}}}}"),
        "{name: empty, emptyDir: {}}".to_owned(),
        "{name: memory, emptyDir: {medium: Memory}}".to_owned(),
    ];
    let container = format!("volumeMounts: [{mounts}]\nsecurityContext: {{{own}}}\nenv: [{{name: WEB_DRAIN_MS, value: '0'}}]");
    let spec = format!("hostUsers: false\nvolumes: [{}]\nsecurityContext: {{{whole}}}", volumes.join(", "));
    pod(name, "serve", &container, &spec)
}

const FILES: [&str; 6] = ["words/one", "words/two", "secret/three", "downward/name", "projected/three", "projected/name"];

fn exec(ns: &Ns, pod: &str, args: &[&str]) -> Result<String> {
    ns.kubectl(&[&["exec", pod, "--", "/web"], args].concat())
}

/// The first id of the host that stands for the pod's, and how many there are.
fn block(ns: &Ns, pod: &str) -> Result<(u32, u32)> {
    let (users, groups) = (exec(ns, pod, &["cat", "/proc/self/uid_map"])?, exec(ns, pod, &["cat", "/proc/self/gid_map"])?);
    let numbers: Vec<u32> = users.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers.as_slice() {
        [0, first, length] if users == groups => Ok((*first, *length)),
        _ => bail!("{pod}: uid_map {users:?}, gid_map {groups:?}"),
    }
}

fn record(ns: &Ns, pod: &str) -> Result<PathBuf> {
    let pod = ns.get("pod", pod)?;
    Ok(ns.lab.nodes[0].root_dir().join("pods").join(pod["metadata"]["uid"].as_str().context("uid")?).join("userns"))
}

/// The process of a pod's container, on the host.
fn process(ns: &Ns, name: &str) -> Result<i32> {
    let tasks = ns.lab.nodes[0].containerd.tasks_of_pods()?;
    let found = tasks.iter().find(|t| t.pod.as_deref() == Some(name) && t.container.is_some());
    found.map(|t| t.pid).with_context(|| format!("no process of {name}: {tasks:?}"))
}

fn own_users(ns: &mut Ns) -> Result<()> {
    let (unmasked, groups) = ("procMount: Unmasked", "fsGroup: 200, runAsUser: 1000, runAsGroup: 3000");
    let says = "restartPolicy: Never\nhostUsers: false";
    let all = [
        with_volumes("first", "", ""),
        with_volumes("second", unmasked, groups),
        pod("host", "serve", "", "hostUsers: true"),
        pod("words", "write, /dev/termination-log, bye", "", says),
    ];
    ns.apply(&(OBJECTS.to_owned() + &all.join("---\n")))?;
    for name in ["first", "second", "host"] {
        ns.ready(name)?;
    }
    let (first, second) = (block(ns, "first")?, block(ns, "second")?);
    if first.1 != 65_536 || second.1 != 65_536 || first.0 == second.0 || first.0 < 65_536 {
        bail!("the blocks are {first:?} and {second:?}");
    }
    must_contain(&exec(ns, "host", &["cat", "/proc/self/uid_map"])?, "4294967295")?;
    seen_from_outside(ns, first.0)?;
    files(ns)?;
    let ended = phase(ns, "words", "Succeeded")?;
    let said = &ended["status"]["containerStatuses"][0]["state"]["terminated"]["message"];
    if said != "bye" {
        bail!("words: {}", ended["status"]);
    }
    let user = &ns.get("pod", "second")?["status"]["containerStatuses"][0]["user"]["linux"];
    if user["uid"] != 1000
        || user["gid"] != 3000
        || !user["supplementalGroups"].as_array().is_some_and(|g| g.contains(&json!(200)))
    {
        bail!("the user of second is shown as {user}");
    }
    let masked = |name: &str| Ok::<_, anyhow::Error>(exec(ns, name, &["cat", "/proc/self/mountinfo"])?.contains(" /proc/sys "));
    if !masked("first")? || masked("second")? {
        bail!("/proc/sys is mounted anew: {} and {}", masked("first")?, masked("second")?);
    }
    kept(ns, first)?;
    let record = record(ns, "first")?;
    ns.kubectl(&["delete", "pod", "first", "second"])?;
    wait_for("the record to be gone", LIMIT, || if record.exists() { bail!("{} is there", record.display()) } else { Ok(()) })
}

/// The record, and the ids that the host sees.
fn seen_from_outside(ns: &Ns, first: u32) -> Result<()> {
    let text = std::fs::read_to_string(record(ns, "first")?)?;
    let mapping = json!([{"hostId": first, "containerId": 0, "length": 65_536}]);
    let recorded: Value = serde_json::from_str(&text)?;
    if recorded != json!({"uidMappings": mapping, "gidMappings": mapping}) {
        bail!("recorded is {text}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", process(ns, "first")?))?;
    are("first", &status, &[("Uid", &[first.to_string().as_str(); 4].join(" "))])
}

/// Files are owned by whom the pod means, though they belong to others on the host.
fn files(ns: &Ns) -> Result<()> {
    for (pod, owner) in [("first", "0 0"), ("second", "0 200")] {
        let paths = FILES.map(|f| format!("/vol/{f}"));
        let args: Vec<&str> = std::iter::once("stat").chain(paths.iter().map(String::as_str)).collect();
        let seen = exec(ns, pod, &args)?;
        if seen.lines().count() != FILES.len() || !seen.lines().all(|l| l.starts_with(&format!("{owner} "))) {
            bail!("{pod} sees {seen}");
        }
        for volume in ["empty", "memory"] {
            let file = format!("/vol/{volume}/file");
            exec(ns, pod, &["write", &file, "x"])?;
            let wanted = if pod == "first" { "0 0 " } else { "1000 200 " };
            let seen = exec(ns, pod, &["stat", &file])?;
            if !seen.starts_with(wanted) {
                bail!("{pod} made {seen}");
            }
        }
    }
    let hosts = exec(ns, "first", &["stat", "/etc/hosts"])?;
    if hosts.starts_with("0 0 644 ") { Ok(()) } else { bail!("/etc/hosts: {hosts}") }
}

/// Another agent, another container: the same ids.
fn kept(ns: &mut Ns, before: (u32, u32)) -> Result<()> {
    ns.lab.nodes[0].kill_agent()?;
    let pid = process(ns, "first")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    let again = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"] == 1 && crate::shared::is_ready(p);
    ns.pod("first", "runs again", again)?;
    let after = block(ns, "first")?;
    if after != before {
        bail!("the ids were {before:?} and are {after:?}");
    }
    let other = ns.get("pod", "second")?;
    let untouched = other["status"]["containerStatuses"][0]["restartCount"] == 0;
    if untouched && !contains(&other["status"]["phase"], "Failed") { Ok(()) } else { bail!("second: {}", other["status"]) }
}
