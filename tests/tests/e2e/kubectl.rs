//! What a current kubectl asks of the control plane, and what of it reaches the node.

use crate::shared::{LIMIT, Ns, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::process::Stdio;

pub fn trials() -> Vec<Trial> {
    vec![
        test("kubectl::apply_edit_patch_label_annotate", change),
        test("kubectl::explain_and_api_resources", explain),
        test("kubectl::rollout_history_undo_restart", rollout),
        test("kubectl::exec_codes_and_stdin", exec),
        test("kubectl::attach", attach),
        test("kubectl::port_forward", port_forward),
        test("kubectl::watch_wait_describe", watch),
        test("kubectl::selectors_and_chunks", selectors),
        test("kubectl::dry_run_and_server_side_apply", dry_run),
        test("kubectl::cascades", cascades),
        test("kubectl::eviction", eviction),
    ]
}

fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: web, image: ferrolet.dev/web:1, args: [serve], env: [{{name: WEB_DRAIN_MS, value: '0'}}]}}]}}\n"
    )
}

fn change(ns: &mut Ns) -> Result<()> {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {a: b}}\ndata: {one: '1', two: '2'}\n";
    must_contain(&ns.apply(manifest)?, "created")?;
    must_contain(&ns.apply(manifest)?, "unchanged")?;
    must_contain(&ns.apply(&manifest.replace("two: '2'", "three: '3'"))?, "configured")?;
    let data = ns.get("configmap", "c")?["data"].clone();
    if data != serde_json::json!({"one": "1", "three": "3"}) {
        bail!("apply did not remove the key that left the manifest: {data}");
    }
    ns.kubectl(&["patch", "configmap", "c", "--type=json", "-p", r#"[{"op":"add","path":"/data/four","value":"4"}]"#])?;
    ns.kubectl(&["patch", "configmap", "c", "--type=merge", "-p", r#"{"data":{"one":null}}"#])?;
    ns.kubectl(&["label", "configmap", "c", "x=y", "a-"])?;
    ns.kubectl(&["annotate", "configmap", "c", "note=kept"])?;
    let object = ns.get("configmap", "c")?;
    if object["data"] != serde_json::json!({"three": "3", "four": "4"})
        || object["metadata"]["labels"] != serde_json::json!({"x": "y"})
    {
        bail!("after patches and labels: {object}");
    }
    let editor = ns.lab.dir.join("editor.sh");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/four: .*/four: edited/' \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut edit = ns.lab.kubectl_command(&["--namespace", &ns.name, "edit", "configmap", "c"]);
    ferrolet_tests::sys::run(edit.env("KUBE_EDITOR", &editor))?;
    if ns.get("configmap", "c")?["data"]["four"] != "edited" {
        bail!("edit changed nothing");
    }
    ns.apply(&deployment("d", 1))?;
    ns.kubectl(&[
        "patch",
        "deployment",
        "d",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"ADDED","value":"1"}]}]}}}}"#,
    ])?;
    let env = ns.get("deployment", "d")?["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    if env.as_array().map(Vec::len) != Some(2) {
        bail!("a strategic merge patch replaced the list: {env}");
    }
    Ok(())
}

fn explain(ns: &mut Ns) -> Result<()> {
    must_contain(&ns.kubectl(&["explain", "pod.spec.containers"])?, "image")?;
    must_contain(&ns.kubectl(&["explain", "deployment.spec.strategy"])?, "rollingUpdate")?;
    let resources = ns.kubectl(&["api-resources"])?;
    for name in ["pods", "deployments", "endpointslices", "leases", "runtimeclasses"] {
        must_contain(&resources, name)?;
    }
    must_contain(&ns.kubectl(&["api-versions"])?, "apps/v1")
}

fn rollout(ns: &mut Ns) -> Result<()> {
    ns.apply(&deployment("d", 2))?;
    ns.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"])?;
    ns.kubectl(&["set", "env", "deployment/d", "V=2"])?;
    ns.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"])?;
    let history = ns.kubectl(&["rollout", "history", "deployment/d"])?;
    for revision in ["\n1 ", "\n2 "] {
        must_contain(&history, revision)?;
    }
    ns.kubectl(&["rollout", "undo", "deployment/d"])?;
    ns.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"])?;
    if ns.get("deployment", "d")?["spec"]["template"]["spec"]["containers"][0]["env"].to_string().contains("\"V\"") {
        bail!("undo kept the new environment");
    }
    ns.kubectl(&["rollout", "restart", "deployment/d"])?;
    ns.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"])?;
    ns.kubectl(&["rollout", "pause", "deployment/d"])?;
    ns.kubectl(&["set", "env", "deployment/d", "V=3"])?;
    ns.kubectl(&["rollout", "resume", "deployment/d"])?;
    ns.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"]).map(drop)
}

fn exec(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("p", "serve", "", ""))?;
    ns.ready("p")?;
    must_contain(&ns.refused(&["exec", "p", "--", "/web", "exit", "42"])?, "exit code 42")?;
    must_contain(&ns.refused(&["exec", "p", "--", "/no/such"])?, "/no/such")?;
    let mut command = ns.lab.kubectl_command(&["--namespace", &ns.name, "exec", "-i", "p", "--", "/web", "stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let data = "0123456789abcdef".repeat(64 << 10);
    let mut input = child.stdin.take().context("no stdin")?;
    let sent = data.clone();
    let writer = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    let mut answer = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut answer)?;
    child.wait()?;
    let _ = writer.join();
    if answer != data {
        bail!("1 MiB through exec came back as {} bytes", answer.len());
    }
    Ok(())
}

fn attach(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("p", "stdin", "stdin: true\nstdinOnce: true", "restartPolicy: Never"))?;
    ns.ready("p")?;
    let mut command = ns.lab.kubectl_command(&["--namespace", &ns.name, "attach", "-i", "p"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(b"through attach\n")?;
    let mut answer = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut answer)?;
    child.wait()?;
    must_contain(&answer, "through attach")
}

fn port_forward(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("p", "serve", "", ""))?;
    ns.ready("p")?;
    let mut command = ns.lab.kubectl_command(&["--namespace", &ns.name, "port-forward", "pod/p", "18081:8080"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let answer = wait_for("the forwarded port to answer", LIMIT, || {
        ferrolet_tests::load::get(&ns.lab.fabric, "127.0.0.1:18081".parse()?, "/")
    });
    child.kill()?;
    child.wait()?;
    if answer?.trim() != "p" {
        bail!("another answered");
    }
    Ok(())
}

fn watch(ns: &mut Ns) -> Result<()> {
    let mut command = ns.lab.kubectl_command(&["--namespace", &ns.name, "get", "pods", "-w", "--no-headers"]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    ns.apply(&pod("p", "serve", "", ""))?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=40s"])?;
    let described = ns.kubectl(&["describe", "pod", "p"])?;
    for text in ["Node:", "node-1/192.168.77.11", "Started", "ferrolet.dev/web:1"] {
        must_contain(&described, text)?;
    }
    must_contain(&ns.kubectl(&["describe", "node", "node-1"])?, "Allocatable:")?;
    ns.kubectl(&["delete", "pod", "p", "--wait=false"])?;
    ns.kubectl(&["wait", "--for=delete", "pod/p", "--timeout=40s"])?;
    child.kill()?;
    let mut seen = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut seen)?;
    child.wait()?;
    for text in ["Pending", "Running", "Terminating"] {
        must_contain(&seen, text)?;
    }
    Ok(())
}

fn selectors(ns: &mut Ns) -> Result<()> {
    for i in 0..12 {
        let parity = if i % 2 == 0 { "even" } else { "odd" };
        ns.kubectl(&["create", "configmap", &format!("c{i}")])?;
        ns.kubectl(&["label", "configmap", &format!("c{i}"), &format!("parity={parity}")])?;
    }
    let count = |args: &[&str]| -> Result<usize> { Ok(ns.kubectl(args)?.lines().count()) };
    let base = ["get", "configmaps", "--no-headers", "-o", "name"];
    let with = |extra: &[&str]| -> Result<usize> { count(&[&base[..], extra].concat()) };
    // One more: kube-root-ca.crt.
    for (extra, expected) in [
        (&["--chunk-size=5"][..], 13),
        (&["-l", "parity=even"], 6),
        (&["-l", "parity in (odd)"], 6),
        (&["-l", "!parity"], 1),
        (&["--field-selector=metadata.name=c3"], 1),
        (&["--field-selector=metadata.name!=c3"], 12),
    ] {
        let seen = with(extra)?;
        if seen != expected {
            bail!("{extra:?} gave {seen} objects, expected {expected}");
        }
    }
    must_contain(&ns.refused(&["get", "configmaps", "--field-selector=data.x=1"])?, "\"data.x\" is not a known field selector")
}

fn dry_run(ns: &mut Ns) -> Result<()> {
    let file = ns.lab.dir.join("dry.yaml");
    std::fs::write(&file, pod("dry", "serve", "", ""))?;
    let file = file.to_string_lossy();
    must_contain(&ns.kubectl(&["apply", "--dry-run=server", "-f", &file])?, "server dry run")?;
    must_contain(&ns.refused(&["get", "pod", "dry"])?, "NotFound")?;
    must_contain(&ns.refused(&["apply", "--server-side", "-f", &file])?, "Server-side apply not available on the server")
}

fn cascades(ns: &mut Ns) -> Result<()> {
    ns.apply(&deployment("d", 1))?;
    ns.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"])?;
    ns.kubectl(&["delete", "deployment", "d", "--cascade=orphan"])?;
    let sets = ns.list("replicasets")?;
    if sets.len() != 1 || !sets[0]["metadata"]["ownerReferences"].is_null() {
        bail!("the orphan was not let go: {sets:#?}");
    }
    let name = sets[0]["metadata"]["name"].as_str().context("no name")?.to_owned();
    ns.kubectl(&["delete", "replicaset", &name, "--cascade=foreground", "--timeout=60s"])?;
    if !ns.list("pods")?.is_empty() {
        bail!("a foreground deletion ended before the pods were gone");
    }
    Ok(())
}

fn eviction(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("p", "serve", "", ""))?;
    ns.ready("p")?;
    let file = ns.lab.dir.join("eviction.json");
    std::fs::write(&file, r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}"#)?;
    let path = format!("/api/v1/namespaces/{}/pods/p/eviction", ns.name);
    ns.kubectl(&["create", "--raw", &path, "-f", &file.to_string_lossy()])?;
    ns.kubectl(&["wait", "--for=delete", "pod/p", "--timeout=40s"]).map(drop)
}
