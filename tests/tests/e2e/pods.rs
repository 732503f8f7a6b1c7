//! Pods on real containerd: order, restarts, ends, status, what a container is given.

mod events;
mod given;
mod images;

use crate::shared::{Ns, contains, is_ready, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    [own(), given::trials(), images::trials(), events::trials()].into_iter().flatten().collect()
}

fn own() -> Vec<Trial> {
    vec![
        test("pods::init_containers_run_in_order", init_order),
        test("pods::a_failing_container_backs_off", backs_off),
        test("pods::exec_and_tcp_and_http_probes", probes),
        test("pods::liveness_failure_restarts", liveness),
        test("pods::a_startup_probe_holds_the_others_back", startup),
        test("pods::environment_from_everywhere", environment),
        test("pods::environment_from_files", environment_files),
        test("pods::volumes_of_every_kind", volumes),
        test("pods::service_account_token", token),
        test("pods::limits_reach_the_cgroup", limits),
        test("pods::logs_follow_and_previous", logs),
        test("pods::host_network_and_pids", host),
        test("pods::node_and_pod_dns", dns),
        test("pods::thirty_at_once", thirty),
        test("pods::status_fields", status),
    ]
}

fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

fn init_order(ns: &mut Ns) -> Result<()> {
    let spec = "initContainers:\n- {name: one, image: ferrolet.dev/web:1, args: [write, /shared/a, first], volumeMounts: [{name: v, mountPath: /shared}]}\n\
                - {name: two, image: ferrolet.dev/web:1, args: [cat, /shared/a], volumeMounts: [{name: v, mountPath: /shared}]}\n\
                volumes: [{name: v, emptyDir: {}}]";
    ns.apply(&pod("init", "serve", "", spec))?;
    let ready = ns.ready("init")?;
    let ended = |i: usize, at: &str| {
        ready["status"]["initContainerStatuses"][i]["state"]["terminated"][at].as_str().unwrap_or("").to_owned()
    };
    if ended(0, "finishedAt").is_empty() || ended(0, "finishedAt") > ended(1, "startedAt") {
        bail!("the second init container started before the first had ended: {}", ready["status"]["initContainerStatuses"]);
    }
    must_contain(&ns.kubectl(&["logs", "init", "-c", "two"])?, "first")?;
    ns.apply(&pod("stuck", "serve", "", "initContainers: [{name: bad, image: ferrolet.dev/web:1, args: [exit, '1']}]"))?;
    ns.pod("stuck", "Init:Error or backing off", |p| {
        p["status"]["initContainerStatuses"][0]["restartCount"].as_u64() >= Some(1) && p["status"]["phase"] == "Pending"
    })
    .map(drop)
}

fn backs_off(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("crash", "exit, '1'", "", ""))?;
    let waiting = ns.pod("crash", "CrashLoopBackOff", |p| state(p)["waiting"]["reason"] == "CrashLoopBackOff")?;
    if waiting["status"]["phase"] != "Running" {
        bail!("phase {}, expected Running", waiting["status"]["phase"]);
    }
    let last = &waiting["status"]["containerStatuses"][0]["lastState"]["terminated"];
    if last["exitCode"] != 1 {
        bail!("last state: {last}");
    }
    ns.event("crash", "BackOff", "").map(drop)
}

fn probes(ns: &mut Ns) -> Result<()> {
    for (name, probe) in [
        ("exec", "exec: {command: [/web, cat, /etc/passwd]}"),
        ("tcp", "tcpSocket: {port: 8080}"),
        ("http", "httpGet: {path: /readyz, port: 8080}"),
    ] {
        ns.apply(&pod(name, "serve", &format!("readinessProbe: {{{probe}, periodSeconds: 1}}"), ""))?;
    }
    ns.apply(&pod("failing", "serve", "readinessProbe: {exec: {command: [/web, exit, '1']}, periodSeconds: 1}", ""))?;
    for name in ["exec", "tcp", "http"] {
        ns.ready(name)?;
    }
    ns.event("failing", "Unhealthy", "Readiness probe failed")?;
    if is_ready(&ns.get("pod", "failing")?) {
        bail!("a pod whose readiness probe fails is ready");
    }
    Ok(())
}

fn liveness(ns: &mut Ns) -> Result<()> {
    let probe = "livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}";
    ns.apply(&pod("live", "serve", probe, "terminationGracePeriodSeconds: 3"))?;
    ns.ready("live")?;
    let address = ns.get("pod", "live")?["status"]["podIP"].as_str().context("no IP")?.to_owned();
    ferrolet_tests::load::get(&ns.lab.nodes[0].netns, format!("{address}:8080").parse()?, "/fail-health")?;
    ns.event("live", "Unhealthy", "Liveness probe failed")?;
    ns.event("live", "Killing", "")?;
    ns.pod("live", "restarted and ready", |p| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 1).map(drop)
}

fn startup(ns: &mut Ns) -> Result<()> {
    let probes = "startupProbe: {exec: {command: [/web, cat, /go/ready]}, periodSeconds: 1, failureThreshold: 60}\n\
                  livenessProbe: {exec: {command: [/web, exit, '1']}, periodSeconds: 1, failureThreshold: 1000}\n\
                  volumeMounts: [{name: go, mountPath: /go}]";
    ns.apply(&pod("slow", "serve", probes, "volumes: [{name: go, emptyDir: {}}]"))?;
    let running = ns.pod("slow", "running", |p| state(p)["running"].is_object())?;
    if running["status"]["containerStatuses"][0]["started"] != false {
        bail!("started before its startup probe succeeded: {}", running["status"]);
    }
    ns.kubectl(&["exec", "slow", "--", "/web", "write", "/go/ready", "yes"])?;
    ns.pod("slow", "started", |p| p["status"]["containerStatuses"][0]["started"] == true && is_ready(p)).map(drop)
}

/// What an init container writes becomes the variables of those after it; what is wrong with the file is said.
fn environment_files(ns: &mut Ns) -> Result<()> {
    let spec = |text: &str| {
        format!(
            "restartPolicy: Never\ninitContainers:\n- name: writes\n  image: ferrolet.dev/web:1\n  args: [write, /out/app.env, {text:?}]\n  \
             volumeMounts: [{{name: v, mountPath: /out}}]\nvolumes: [{{name: v, emptyDir: {{}}}}]"
        )
    };
    let of = |key: &str, more: &str| format!("valueFrom: {{fileKeyRef: {{volumeName: v, path: app.env, key: {key}{more}}}}}");
    let env = format!(
        "env:\n- {{name: GIVEN, {}}}\n- {{name: LINES, {}}}\n- {{name: NONE, {}}}\n",
        of("WORD", ""),
        of("LINES", ""),
        of("NONE", ", optional: true")
    );
    let text = "# written\nWORD='$(A) b # c'\nLINES='one\ntwo' # end\n";
    ns.apply(&pod("reads", "env", &env, &spec(text)))?;
    ns.pod("reads", "Succeeded", |p| p["status"]["phase"] == "Succeeded")?;
    let seen = ns.kubectl(&["logs", "reads"])?;
    must_contain(&seen, "GIVEN=$(A) b # c\n")?;
    must_contain(&seen, "LINES=one\ntwo\n")?;
    if seen.contains("NONE=") {
        bail!("an optional variable that is not there was set:\n{seen}");
    }

    let required = format!("env: [{{name: A, {}}}]", of("NONE", ""));
    ns.apply(&pod("lacks", "env", &required, &spec(text)))?;
    ns.apply(&pod("broken", "env", &required, &spec("WORD=secret\n")))?;
    for (name, message) in [
        ("lacks", "environment variable key \"NONE\" not found in file"),
        ("broken", "couldn't parse env file \"app.env\" of volume \"v\": line 1: value must be enclosed in single quotes"),
    ] {
        let is = |p: &Value| {
            state(p)["waiting"]["reason"] == "CreateContainerConfigError" && contains(&state(p)["waiting"]["message"], message)
        };
        ns.pod(name, message, is)?;
        ns.event(name, "Failed", &format!("Error: {message}"))?;
    }
    if ns.kubectl(&["get", "events", "-o", "yaml"])?.contains("WORD=secret") {
        bail!("an event shows what the file holds");
    }
    Ok(())
}

fn environment(ns: &mut Ns) -> Result<()> {
    ns.kubectl(&["create", "configmap", "c", "--from-literal=color=green", "--from-literal=size=big"])?;
    ns.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=open sesame"])?;
    let env = "env:\n- {name: A, value: one}\n- {name: B, value: '$(A)-$(MISSING)-$$(A)'}\n\
               - {name: COLOR, valueFrom: {configMapKeyRef: {name: c, key: color}}}\n\
               - {name: WORD, valueFrom: {secretKeyRef: {name: s, key: word}}}\n\
               - {name: NONE, valueFrom: {configMapKeyRef: {name: c, key: none, optional: true}}}\n\
               - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n\
               - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}\n\
               - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n\
               - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n\
               - {name: LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}\n\
               - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}\n\
               envFrom: [{prefix: X_, configMapRef: {name: c}}]\n\
               resources: {limits: {memory: 64Mi}}";
    ns.apply(&pod("env", "echo, '$(A)', '$(WORD)'", env, "restartPolicy: Never"))?;
    ns.pod("env", "Succeeded", |p| p["status"]["phase"] == "Succeeded")?;
    must_contain(&ns.kubectl(&["logs", "env"])?, "one open sesame")?;
    ns.apply(&pod("printed", "serve", env, ""))?;
    let ready = ns.ready("printed")?;
    let seen = ns.kubectl(&["exec", "printed", "--", "/web", "env"])?;
    let ip = format!("IP={}", ready["status"]["podIP"].as_str().unwrap_or_default());
    let namespace = format!("NS={}", ns.name);
    for line in [
        "A=one",
        "B=one-$(MISSING)-$(A)",
        "COLOR=green",
        "WORD=open sesame",
        "POD=printed",
        "NODE=node-1",
        "LABEL=printed",
        "MEM=64",
        "X_size=big",
        "HOSTNAME=printed",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        &ip,
        &namespace,
    ] {
        if !seen.lines().any(|l| l == line) {
            bail!("expected {line:?} in:\n{seen}");
        }
    }
    if seen.contains("NONE=") {
        bail!("an optional key that is not there was set:\n{seen}");
    }
    Ok(())
}

fn volumes(ns: &mut Ns) -> Result<()> {
    ns.kubectl(&["create", "configmap", "c", "--from-literal=a=alpha", "--from-literal=b=beta"])?;
    ns.kubectl(&["create", "secret", "generic", "s", "--from-literal=k=hidden"])?;
    let host = ns.lab.dir.join("host-path");
    std::fs::create_dir_all(&host)?;
    std::fs::write(host.join("there"), "from the host")?;
    let mounts = "volumeMounts:\n- {name: c, mountPath: /c}\n- {name: items, mountPath: /items}\n- {name: s, mountPath: /s}\n- {name: d, mountPath: /d}\n\
                  - {name: e, mountPath: /e}\n- {name: m, mountPath: /m}\n- {name: h, mountPath: /h, readOnly: true}\n- {name: p, mountPath: /p}";
    let spec = format!(
        "volumes:\n- {{name: c, configMap: {{name: c}}}}\n- {{name: items, configMap: {{name: c, items: [{{key: a, path: deep/x}}]}}}}\n\
         - {{name: s, secret: {{secretName: s, defaultMode: 0400}}}}\n- {{name: d, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}\n\
         - {{name: e, emptyDir: {{}}}}\n- {{name: m, emptyDir: {{medium: Memory, sizeLimit: 4Mi}}}}\n- {{name: h, hostPath: {{path: {}, type: Directory}}}}\n\
         - name: p\n  projected:\n    sources:\n    - configMap: {{name: c}}\n    - secret: {{name: s}}",
        host.display()
    );
    ns.apply(&pod("vols", "serve", mounts, &spec))?;
    ns.ready("vols")?;
    for (path, content) in [
        ("/c/a", "alpha"),
        ("/items/deep/x", "alpha"),
        ("/s/k", "hidden"),
        ("/d/labels", "app=\"vols\""),
        ("/h/there", "from the host"),
        ("/p/b", "beta"),
        ("/p/k", "hidden"),
    ] {
        must_contain(&ns.kubectl(&["exec", "vols", "--", "/web", "cat", path])?, content)?;
    }
    for path in ["/e/x", "/m/x"] {
        ns.kubectl(&["exec", "vols", "--", "/web", "write", path, "data"])?;
    }
    ns.refused(&["exec", "vols", "--", "/web", "write", "/h/x", "data"])?;
    // The container is replaced, the emptyDir stays.
    ns.kubectl(&["exec", "vols", "--", "/web", "get", "127.0.0.1:8080", "/exit?1"])?;
    ns.pod("vols", "restarted", |p| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 1)?;
    must_contain(&ns.kubectl(&["exec", "vols", "--", "/web", "cat", "/e/x"])?, "data")
}

fn token(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("token", "serve", "", ""))?;
    ns.ready("token")?;
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let files = ns.kubectl(&["exec", "token", "--", "/web", "ls", folder])?;
    for name in ["ca.crt", "namespace", "token"] {
        must_contain(&files, name)?;
    }
    let token = ns.kubectl(&["exec", "token", "--", "/web", "cat", &format!("{folder}/token")])?;
    let review =
        serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()}});
    let file = ns.lab.dir.join("review.json");
    std::fs::write(&file, review.to_string())?;
    let answer =
        ns.kubectl(&["create", "--raw", "/apis/authentication.k8s.io/v1/tokenreviews", "-f", &file.to_string_lossy()])?;
    must_contain(&answer, &format!("system:serviceaccount:{}:default", ns.name))
}

fn limits(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod(
        "limited",
        "serve",
        "resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 200m, memory: 32Mi}}",
        "",
    ))?;
    let ready = ns.ready("limited")?;
    if ready["status"]["qosClass"] != "Burstable" {
        bail!("QoS class {}", ready["status"]["qosClass"]);
    }
    let uid = ready["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let all: Vec<_> =
        ferrolet_tests::leftovers::cgroups(&ns.lab.name).iter().flat_map(|c| ferrolet_tests::leftovers::walk(c)).collect();
    let folders: Vec<_> = all.iter().filter(|d| d.to_string_lossy().contains(&format!("kubepods/burstable/pod{uid}"))).collect();
    let read = |file: &str| -> Vec<String> {
        folders.iter().filter_map(|d| std::fs::read_to_string(d.join(file)).ok()).map(|t| t.trim().to_owned()).collect()
    };
    let memory = [read("memory.limit_in_bytes"), read("memory.max")].concat();
    if !memory.contains(&(32 << 20).to_string()) {
        bail!("no cgroup of the pod has a memory limit of 32Mi: {memory:?} in {folders:?}");
    }
    let cpu = [read("cpu.cfs_quota_us"), read("cpu.max")].concat();
    if !cpu.iter().any(|v| v.starts_with("20000")) {
        bail!("no cgroup of the pod has a quota of 200m: {cpu:?}");
    }
    Ok(())
}

fn logs(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("lines", "lines, '2000'", "", "restartPolicy: Never"))?;
    ns.pod("lines", "Succeeded", |p| p["status"]["phase"] == "Succeeded")?;
    let all = ns.kubectl(&["logs", "lines", "-f"])?;
    if all.lines().count() != 2000 || all.lines().last() != Some("line 1999") {
        bail!("{} lines, the last is {:?}", all.lines().count(), all.lines().last());
    }
    let tail = ns.kubectl(&["logs", "lines", "--tail=3"])?;
    if tail != "line 1997\nline 1998\nline 1999\n" {
        bail!("tail: {tail:?}");
    }
    let stamped = ns.kubectl(&["logs", "lines", "--tail=1", "--timestamps"])?;
    if !stamped.starts_with("20") {
        bail!("timestamp: {stamped:?}");
    }
    ns.apply(&pod("twice", "serve", "", ""))?;
    ns.ready("twice")?;
    ns.kubectl(&["exec", "twice", "--", "/web", "get", "127.0.0.1:8080", "/exit?4"])?;
    ns.pod("twice", "restarted", |p| is_ready(p) && p["status"]["containerStatuses"][0]["restartCount"] == 1)?;
    must_contain(&ns.kubectl(&["logs", "twice", "--previous"])?, "told to exit with 4")?;
    let said = ns.refused(&["logs", "lines", "--previous"])?;
    must_contain(&said, "previous terminated container")
}

fn host(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("hostnet", "serve, --port, '18080'", "", "hostNetwork: true"))?;
    let ready = ns.ready("hostnet")?;
    if ready["status"]["podIP"] != ns.lab.nodes[0].ip.as_str() || ready["status"]["hostIP"] != ns.lab.nodes[0].ip.as_str() {
        bail!("addresses: {}", ready["status"]);
    }
    let address = format!("{}:18080", ns.lab.nodes[0].ip).parse()?;
    ferrolet_tests::load::get(&ns.lab.fabric, address, "/").map(drop)
}

fn dns(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("dns", "serve", "", ""))?;
    ns.ready("dns")?;
    let text = ns.kubectl(&["exec", "dns", "--", "/web", "cat", "/etc/resolv.conf"])?;
    must_contain(&text, "nameserver 10.96.0.10")?;
    must_contain(&text, &format!("search {}.svc.cluster.local svc.cluster.local cluster.local", ns.name))?;
    must_contain(&text, "ndots:5")?;
    must_contain(&ns.kubectl(&["exec", "dns", "--", "/web", "cat", "/etc/hosts"])?, "dns")
}

fn thirty(ns: &mut Ns) -> Result<()> {
    ns.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: many}\nspec:\n  replicas: 30\n  selector: {matchLabels: {app: many}}\n  template:\n    metadata: {labels: {app: many}}\n    spec: {containers: [{name: web, image: ferrolet.dev/web:1, args: [serve], resources: {requests: {cpu: 1m}}}]}",
    )?;
    ns.kubectl(&["rollout", "status", "deployment/many", "--timeout=120s"])?;
    ns.kubectl(&["delete", "deployment", "many", "--timeout=60s"])?;
    wait_for("the pods to go", std::time::Duration::from_secs(90), || {
        let left = ns.list("pods")?;
        if left.is_empty() { Ok(()) } else { bail!("{} pods are left", left.len()) }
    })
}

fn status(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("fields", "serve", "", ""))?;
    let ready = ns.ready("fields")?;
    let status = &ready["status"];
    for condition in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodScheduled"] {
        if ferrolet_tests::cluster::condition(&ready, condition)["status"] != "True" {
            bail!("condition {condition}: {}", status["conditions"]);
        }
    }
    let container = &status["containerStatuses"][0];
    if !contains(&container["containerID"], "containerd://") || !contains(&container["imageID"], "sha256:") {
        bail!("IDs: {container}");
    }
    if container["image"] != ferrolet_tests::images::WEB || container["started"] != true || status["startTime"].is_null() {
        bail!("status: {status}");
    }
    if status["podIPs"][0]["ip"] != status["podIP"] || status["hostIPs"][0]["ip"] != "192.168.77.11" {
        bail!("addresses: {status}");
    }
    if status["qosClass"] != "BestEffort" {
        bail!("QoS class: {status}");
    }
    ns.event("fields", "Pulled", "already present")?;
    ns.event("fields", "Created", "Container created")?;
    ns.event("fields", "Started", "Container started").map(drop)
}
