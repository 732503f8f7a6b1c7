//! What a container is given: variables, names, folders, streams, namespaces.

use crate::shared::{LIMIT, Ns, is_ready, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::load;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

pub fn trials() -> Vec<Trial> {
    vec![
        test("given::variables_of_every_kind", variables),
        test("given::a_missing_source_is_named_until_it_comes", missing_source),
        test("given::sub_path_expressions", sub_paths),
        test("given::names_and_hosts_files", names),
        test("given::stdin_once_tty_and_run", streams),
        test("given::folders_and_namespaces", namespaces),
        test("given::host_ports_by_address_and_protocol", host_ports),
    ]
}

/// Fails unless each of the lines is there as it is.
fn must_have_lines(text: &str, lines: &[&str]) -> Result<()> {
    match lines.iter().find(|line| !text.lines().any(|l| l == **line)) {
        Some(line) => bail!("expected the line {line:?} in:\n{text}"),
        None => Ok(()),
    }
}

fn succeeded(ns: &Ns, name: &str) -> Result<String> {
    ns.pod(name, "Succeeded", |p| p["status"]["phase"] == "Succeeded")?;
    ns.kubectl(&["logs", name])
}

fn variables(ns: &mut Ns) -> Result<()> {
    ns.apply("apiVersion: v1\nkind: Service\nmetadata: {name: db-1}\nspec: {ports: [{name: sql, port: 5432}, {name: dns, port: 53, protocol: UDP}]}")?;
    let ip = ns.get("service", "db-1")?["spec"]["clusterIP"].as_str().context("no address")?.to_owned();
    ns.kubectl(&[
        "create",
        "configmap",
        "c",
        "--from-literal=dotted.key=d",
        "--from-literal=1st-key=f",
        "--from-literal=TWICE=map",
    ])?;
    let node: Value = serde_json::from_str(&ns.lab.kubectl(&["get", "node", "node-1", "-o", "json"])?)?;
    let allocatable = &node["status"]["allocatable"];
    let kibibytes = allocatable["memory"].as_str().and_then(|m| m.strip_suffix("Ki")).context("memory is not in Ki")?;
    let memory = kibibytes.parse::<u64>()? * 1024;
    let resource = |name: &str, of: &str, divisor: &str| {
        format!("- {{name: {name}, valueFrom: {{resourceFieldRef: {{resource: {of}, divisor: '{divisor}'}}}}}}\n")
    };
    let field = |name: &str, path: &str| format!("- {{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {path}}}}}}}\n");
    let extra = [
        "envFrom: [{prefix: 'p-', configMapRef: {name: c}}, {configMapRef: {name: c}}, {configMapRef: {name: none, optional: true}}]\n\
         resources: {requests: {cpu: 150m, memory: 10Mi}, limits: {cpu: 1200m}}\n\
         env:\n\
         - {name: A, value: first}\n\
         - {name: TWICE, value: \"own-$(TWICE)\"}\n\
         - {name: ESCAPED, value: \"$$(A) $(A) $(NOPE) $$$(A) $( $A $\"}\n\
         - {name: EMPTY, value: \"\"}\n\
         - {name: FROM_SERVICE, value: \"$(DB_1_SERVICE_HOST):$(DB_1_SERVICE_PORT_SQL)\"}\n\
         - {name: \"odd name: 1%\", value: fine}\n"
            .to_owned(),
        resource("CPU_LIMIT", "limits.cpu", "0"),
        resource("CPU_MILLI", "limits.cpu", "1m"),
        resource("CPU_REQUEST", "requests.cpu", "1"),
        resource("MEMORY_REQUEST", "requests.memory", "1Ki"),
        resource("MEMORY_LIMIT", "limits.memory", "1"),
        resource("MEMORY_GI", "limits.memory", "1Gi"),
        resource("STORAGE_REQUEST", "requests.ephemeral-storage", "1"),
        field("UID_OF_POD", "metadata.uid"),
        field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        field("HOST_IPS", "status.hostIPs"),
        field("POD_IPS", "status.podIPs"),
    ]
    .concat();
    ns.apply(&pod("vars", "serve", &extra, ""))?;
    ns.apply(&pod("unlinked", "env", "", "restartPolicy: Never\nenableServiceLinks: false"))?;
    ns.apply(&pod(
        "args",
        "\"$(B)\", \"$$(B)\", \"$(C)\"",
        "command: [/web, echo]\nenv: [{name: B, value: b}]",
        "restartPolicy: Never",
    ))?;
    let ready = ns.ready("vars")?;
    let seen = ns.kubectl(&["exec", "vars", "--", "/web", "env"])?;
    let said = |at: &str| ready["status"][at].as_str().unwrap_or_default().to_owned();
    let node_ip = ns.lab.nodes[0].ip.clone();
    must_have_lines(
        &seen,
        &[
            "p-dotted.key=d",
            "p-1st-key=f",
            "dotted.key=d",
            "TWICE=own-map",
            "ESCAPED=$(A) first $(NOPE) $first $( $A $",
            "EMPTY=",
            &format!("FROM_SERVICE={ip}:5432"),
            "odd name: 1%=fine",
            "CPU_LIMIT=2",
            "CPU_MILLI=1200",
            "CPU_REQUEST=1",
            "MEMORY_REQUEST=10240",
            &format!("MEMORY_LIMIT={memory}"),
            &format!("MEMORY_GI={}", memory.div_ceil(1 << 30)),
            "STORAGE_REQUEST=0",
            &format!("UID_OF_POD={}", ready["metadata"]["uid"].as_str().unwrap_or_default()),
            "ACCOUNT=default",
            &format!("HOST_IP={node_ip}"),
            &format!("HOST_IPS={node_ip}"),
            &format!("POD_IPS={}", said("podIP")),
            &format!("DB_1_PORT=tcp://{ip}:5432"),
            &format!("DB_1_PORT_53_UDP=udp://{ip}:53"),
            "DB_1_SERVICE_PORT_DNS=53",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
        ],
    )?;
    let unlinked = succeeded(ns, "unlinked")?;
    must_have_lines(&unlinked, &["KUBERNETES_SERVICE_HOST=10.96.0.1"])?;
    if unlinked.contains("DB_1_") {
        bail!("a pod without service links has them:\n{unlinked}");
    }
    must_contain(&succeeded(ns, "args")?, "b $(B) $(C)\n")
}

fn missing_source(ns: &mut Ns) -> Result<()> {
    let of = |key: &str| format!("env: [{{name: X, valueFrom: {{configMapKeyRef: {{name: later, key: {key}}}}}}}]");
    ns.apply(&pod("map", "serve", &of("k"), ""))?;
    let waiting = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let held = |p: &Value, text: &str| waiting(p)["reason"] == "CreateContainerConfigError" && waiting(p)["message"] == text;
    ns.pod("map", "waiting for the object", |p| held(p, "configmap \"later\" not found"))?;
    let event = ns.event("map", "Failed", "Error: configmap \"later\" not found")?;
    if event["type"] != "Warning" || event["involvedObject"]["fieldPath"] != "spec.containers{main}" {
        bail!("event: {event}");
    }
    ns.kubectl(&["create", "configmap", "later", "--from-literal=other=x"])?;
    let missing = format!("couldn't find key k in ConfigMap {}/later", ns.name);
    ns.pod("map", "waiting for the key", |p| held(p, &missing))?;
    ns.kubectl(&["patch", "configmap", "later", "-p", "{\"data\":{\"k\":\"v\"}}"])?;
    ns.ready("map").map(drop)
}

fn sub_paths(ns: &mut Ns) -> Result<()> {
    let mount = |expr: &str| {
        format!("volumeMounts: [{{name: v, mountPath: /data}}, {{name: v, mountPath: /sub, subPathExpr: \"{expr}\"}}]\n")
    };
    let env = "env:\n- {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n- {name: UP, value: ../..}\n- {name: ROOT, value: /tmp}\n\
               - {name: EMPTY, value: ''}\n- {name: NOTE, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['where']\"}}}\n";
    let volume = "volumes: [{name: v, emptyDir: {}}]";
    for (name, expr) in
        [("good", "$(POD)/$$(POD)"), ("up", "$(UP)"), ("root", "$(ROOT)"), ("empty", "x/$(EMPTY)"), ("note", "$(NOTE)")]
    {
        ns.apply(&pod(name, "serve", &(mount(expr) + env), volume))?;
    }
    ns.ready("good")?;
    ns.kubectl(&["exec", "good", "--", "/web", "write", "/sub/file", "here"])?;
    must_contain(&ns.kubectl(&["exec", "good", "--", "/web", "cat", "/data/good/$(POD)/file"])?, "here")?;
    let refused = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    for name in ["up", "root", "empty", "note"] {
        ns.pod(name, "refused", refused)?;
    }
    ns.event("empty", "Failed", "missing value for EMPTY")?;
    // What was wrong can be put right while it waits.
    ns.kubectl(&["annotate", "pod", "note", "where=there"])?;
    ns.ready("note")?;
    must_contain(&ns.kubectl(&["exec", "note", "--", "/web", "ls", "/data"])?, "there")
}

fn names(ns: &mut Ns) -> Result<()> {
    let aliases = "hostAliases: [{ip: 192.0.2.7, hostnames: [alias-1, alias-2]}]\n";
    ns.apply(&pod("named", "serve", "", &format!("hostname: h\nsubdomain: s\n{aliases}")))?;
    ns.apply(&pod("whole", "serve", "", "subdomain: s\nsetHostnameAsFQDN: true"))?;
    ns.apply(&pod("alone", "serve", "", "setHostnameAsFQDN: true"))?;
    let long = "a-name-that-is-too-long-for-the-kernel-with-its-domain";
    ns.apply(&pod(long, "serve", "", "subdomain: s\nsetHostnameAsFQDN: true"))?;
    ns.apply(&pod("on-host", "serve, --port, '18090'", "", &format!("hostNetwork: true\nhostname: ignored\n{aliases}")))?;
    let own = "volumeMounts: [{name: hosts, mountPath: /etc/hosts}]";
    let hosts = "volumes: [{name: hosts, hostPath: {path: /etc/hosts, type: File}}]";
    ns.apply(&pod("own-file", "serve", own, hosts))?;
    let cat = |name: &str, path: &str| ns.kubectl(&["exec", name, "--", "/web", "cat", path]);
    let kernel = |name: &str| Ok::<_, anyhow::Error>(cat(name, "/proc/sys/kernel/hostname")?.trim().to_owned());

    let ready = ns.ready("named")?;
    let ip = ready["status"]["podIP"].as_str().context("no address")?;
    let domain = format!("s.{}.svc.cluster.local", ns.name);
    let file = cat("named", "/etc/hosts")?;
    must_contain(&file, "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")?;
    must_have_lines(&file, &[&format!("{ip}\th.{domain}\th"), "# Entries added by HostAliases.", "192.0.2.7\talias-1\talias-2"])?;
    ns.ready("whole")?;
    ns.ready("alone")?;
    ns.ready("on-host")?;
    let whole = format!("whole.{domain}");
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    for (name, wanted) in [("named", "h"), ("whole", whole.as_str()), ("alone", "alone"), ("on-host", node.as_str())] {
        if kernel(name)? != wanted {
            bail!("the kernel calls {name} {:?}, expected {wanted:?}", kernel(name)?);
        }
    }
    let of_host = std::fs::read_to_string("/etc/hosts")?;
    let file = cat("on-host", "/etc/hosts")?;
    must_contain(&file, "# Kubernetes-managed hosts file (host network).\n")?;
    must_contain(&file, &of_host)?;
    must_have_lines(&file, &["192.0.2.7\talias-1\talias-2"])?;
    ns.ready("own-file")?;
    if cat("own-file", "/etc/hosts")? != of_host {
        bail!("a file that the container mounts itself was replaced");
    }
    let text = "Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN ";
    ns.event(long, "FailedCreatePodSandBox", text)?;
    if ns.get("pod", long)?["status"]["phase"] != "Pending" {
        bail!("a pod whose name does not fit is not Pending");
    }
    Ok(())
}

/// kubectl with this on its standard input, which then ends.
fn fed(ns: &Ns, args: &[&str], input: &str) -> Result<String> {
    let mut command = ns.lab.kubectl_command(&["--namespace", &ns.name]);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn streams(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("once", "stdin", "stdin: true\nstdinOnce: true", "restartPolicy: Never"))?;
    ns.apply(&pod("open", "stdin", "stdin: true", "restartPolicy: Never\nterminationGracePeriodSeconds: 1"))?;
    ns.apply(&pod("closed", "stdin", "", "restartPolicy: Never"))?;
    ns.apply(&pod("terminal", "ls, /dev", "tty: true", "restartPolicy: Never"))?;
    ns.apply(&pod("plain", "ls, /dev", "", "restartPolicy: Never"))?;
    let image = format!("--image={}", ferrolet_tests::images::WEB);
    let run = ["run", "fed", &image, "--restart=Never", "-i", "--rm", "--quiet", "--", "stdin"];
    must_contain(&fed(ns, &run, "through run\n")?, "through run")?;
    if ns.list("pods")?.iter().any(|p| p["metadata"]["name"] == "fed" && p["metadata"]["deletionTimestamp"].is_null()) {
        bail!("kubectl run --rm left its pod");
    }
    for name in ["once", "open"] {
        ns.pod(name, "running", |p| p["status"]["phase"] == "Running")?;
        fed(ns, &["attach", "-i", name], "first\n")?;
    }
    must_contain(&succeeded(ns, "once")?, "first")?;
    // Without stdinOnce its input outlives the client.
    fed(ns, &["attach", "-i", "open"], "second\n")?;
    wait_for("both clients' words", LIMIT, || must_contain(&ns.kubectl(&["logs", "open"])?, "first\nsecond"))?;
    if ns.get("pod", "open")?["status"]["phase"] != "Running" {
        bail!("the input of a container without stdinOnce ended with its client");
    }
    succeeded(ns, "closed")?;
    // A terminal is what makes the difference.
    must_have_lines(&succeeded(ns, "terminal")?.replace('\r', ""), &["console"])?;
    if succeeded(ns, "plain")?.contains("console") {
        bail!("a container without tty has a console");
    }
    Ok(())
}

fn namespaces(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("there", "cat, passwd", "workingDir: /etc", "restartPolicy: Never"))?;
    ns.apply(&pod("hosts-own", "serve", "", "hostPID: true\nhostIPC: true"))?;
    ns.apply(&pod("together", "serve", "", "shareProcessNamespace: true"))?;
    ns.apply(&pod("apart", "serve", "", ""))?;
    must_contain(&succeeded(ns, "there")?, "web:x:1000")?;
    let here = |kind: &str| Ok::<_, anyhow::Error>(std::fs::read_link(format!("/proc/self/ns/{kind}"))?);
    for (name, shares) in [("hosts-own", true), ("apart", false)] {
        let ready = ns.ready(name)?;
        let id = ready["status"]["containerStatuses"][0]["containerID"].as_str().and_then(|id| id.split("//").nth(1));
        let id = id.context("no container ID")?;
        let tasks = ns.lab.nodes[0].containerd.tasks()?;
        let (_, process) = tasks.iter().find(|(task, _)| task == id).with_context(|| format!("no task {id}"))?;
        for kind in ["pid", "ipc"] {
            let its = std::fs::read_link(format!("/proc/{process}/ns/{kind}"))?;
            if (its == here(kind)?) != shares {
                bail!("{kind} namespace of {name}: {its:?}, the host's is {:?}", here(kind)?);
            }
        }
    }
    ns.ready("together")?;
    for (name, first) in [("together", "pause"), ("apart", "web")] {
        let comm = ns.kubectl(&["exec", name, "--", "/web", "cat", "/proc/1/comm"])?;
        if comm.trim() != first {
            bail!("the first process of {name} is {comm:?}, expected {first:?}");
        }
    }
    Ok(())
}

fn host_ports(ns: &mut Ns) -> Result<()> {
    let node = ns.lab.nodes[0].ip.clone();
    let port = |ip: &str, protocol: &str| {
        format!("ports: [{{containerPort: 8080, hostPort: 18323, hostIP: {ip}, protocol: {protocol}}}]")
    };
    ns.apply(&pod("local", "serve", &port("127.0.0.1", "TCP"), ""))?;
    ns.apply(&pod("outer", "serve", &port(&node, "TCP"), ""))?;
    ns.apply(&pod("datagrams", "serve, --udp, '8080'", &port(&node, "UDP"), ""))?;
    for name in ["local", "outer", "datagrams"] {
        ns.pod(name, "ready", is_ready)?;
    }
    let netns = ns.lab.nodes[0].netns.clone();
    let ask = |at: &str, wanted: &str| -> Result<()> {
        let address = format!("{at}:18323").parse()?;
        wait_for(&format!("{wanted} behind {at}"), LIMIT, || must_contain(&load::get(&netns, address, "/")?, wanted))
    };
    ask("127.0.0.1", "local")?;
    ask(&node, "outer")?;
    let fabric = ns.lab.fabric.clone();
    let address = format!("{node}:18323").parse()?;
    wait_for("an answer to a datagram", LIMIT, || {
        must_contain(&load::ask_udp(&fabric, 40_323, address, "name", std::time::Duration::from_secs(1))?, "datagrams")
    })
}
