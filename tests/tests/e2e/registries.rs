//! A real registry on the fabric, with a password and a certificate of an authority of its own; a registry that dies while it
//! answers; one that lies.

use crate::shared::{LIMIT, Ns, contains, must_contain, test};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferrolet_tests::images::{self, Blobs, Image, write_archive};
use ferrolet_tests::netns::FABRIC_IP;
use ferrolet_tests::proxy::Proxy;
use ferrolet_tests::registry::{Lie, Registry};
use ferrolet_tests::sys::{Proc, run, wait_for};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("registries::whose_credentials_are_shown", whose_credentials),
        test("registries::one_that_dies_while_it_answers", dies),
        test("registries::one_that_lies", lies),
    ]
}

const PROGRAM: &str = "docker-registry";
const USER: &str = "puller";
const PASSWORD: &str = "open-sesame";
const WRONG: &str = "guessed-word";
/// bcrypt of the password.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO";
/// Where the registry itself listens, and where a proxy stands before it.
const PORT: u16 = 5443;
const PROXY_PORT: u16 = 5444;

/// A `docker-registry` on the fabric.
struct Real {
    dir: PathBuf,
    process: Option<Proc>,
}

/// `None`, and said so, where the program is not installed.
fn installed() -> Option<()> {
    if run(Command::new(PROGRAM).arg("--version")).is_err() {
        println!("a real registry: SKIPPED, {PROGRAM} is not installed");
        return None;
    }
    Some(())
}

impl Real {
    fn start(ns: &Ns) -> Result<Real> {
        let dir = ns.lab.dir.join("tls-registry");
        std::fs::create_dir_all(&dir)?;
        certificates(&dir)?;
        std::fs::write(dir.join("htpasswd"), format!("{USER}:{HASH}\n"))?;
        let at = dir.display();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '{FABRIC_IP}:{PORT}', secret: s, \
             tls: {{certificate: {at}/tls.crt, key: {at}/tls.key}}}}\nauth: {{htpasswd: {{realm: lab, path: {at}/htpasswd}}}}\n"
        );
        std::fs::write(dir.join("config.yml"), config)?;
        let known = ns.lab.nodes[0].containerd.registries();
        for port in [PORT, PROXY_PORT] {
            let place = format!("{FABRIC_IP}:{port}");
            let folder = known.join(&place);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(
                folder.join("hosts.toml"),
                format!("server = \"https://{place}\"\n[host.\"https://{place}\"]\nca = \"{at}/ca.crt\"\n"),
            )?;
        }
        let mut real = Real { dir, process: None };
        real.run(ns)?;
        Ok(real)
    }

    fn run(&mut self, ns: &Ns) -> Result<()> {
        let argv = [PROGRAM.to_owned(), "serve".into(), self.dir.join("config.yml").to_string_lossy().into_owned()];
        let mut process = Proc::spawn(PROGRAM, &ns.lab.name, Some(&ns.lab.fabric), &self.dir.join("log"), &argv, &[])?;
        let ready = wait_for("the registry to listen", Duration::from_secs(20), || {
            process.check_alive()?;
            let node = &ns.lab.nodes[0].netns;
            let to = format!("{FABRIC_IP}:{PORT}").parse::<std::net::SocketAddr>()?;
            ferrolet_tests::netns::within(node, move || std::net::TcpStream::connect(to))??;
            Ok(())
        });
        self.process = Some(process);
        ready
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().context("the registry does not run")?.kill()
    }

    /// Puts an image there that is nowhere else; how it is called, at this port.
    fn push(&self, ns: &Ns, repository: &str, more: Option<&Path>, port: u16) -> Result<String> {
        let name = format!("{FABRIC_IP}:{PORT}/{repository}:1");
        let archive = self.dir.join("image.tar");
        let mut files: Vec<(&str, &Path)> = vec![("/web", &ns.lab.bins.web)];
        files.extend(more.map(|file| ("/etc/more", file)));
        let arguments = ["serve"];
        write_archive(&Image { name: &name, files: &files, entrypoint: &["/web"], arguments: &arguments, user: "" }, &archive)?;
        let node = &ns.lab.nodes[0];
        // In a namespace of its own of containerd: the CRI keeps what it sees, and what is there would not be pulled.
        let ctr = |words: &[&str]| {
            let mut ctr = Command::new("nsenter");
            ctr.arg(format!("--net=/run/netns/{}", node.netns)).arg(&ns.lab.tools.runtime.ctr);
            ctr.arg("--address").arg(&node.containerd.socket).args(["--namespace", "push", "images"]).args(words);
            run(&mut ctr)
        };
        let (file, hosts) = (archive.to_string_lossy(), node.containerd.registries());
        ctr(&["import", "--no-unpack", &file]).or_else(|_| ctr(&["import", &file]))?;
        ctr(&["push", "--hosts-dir", &hosts.to_string_lossy(), "--user", &format!("{USER}:{PASSWORD}"), &name])?;
        ctr(&["rm", "--sync", &name])?;
        Ok(format!("{FABRIC_IP}:{port}/{repository}:1"))
    }

    fn end(mut self, ns: &Ns) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.end(Duration::from_secs(5))?;
        }
        for port in [PORT, PROXY_PORT] {
            std::fs::remove_dir_all(ns.lab.nodes[0].containerd.registries().join(format!("{FABRIC_IP}:{port}")))?;
        }
        Ok(std::fs::remove_dir_all(&self.dir)?)
    }
}

/// An authority, and the certificate that it gave the registry.
fn certificates(dir: &Path) -> Result<()> {
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    let mut params = CertificateParams::new(vec![])?;
    params.subject_alt_names.push(SanType::IpAddress(FABRIC_IP.parse()?));
    let key = KeyPair::generate()?;
    let issuer = Issuer::from_ca_cert_pem(&ca.pem(), &ca_key)?;
    let cert = params.signed_by(&key, &issuer)?;
    for (name, text) in [("ca.crt", ca.pem()), ("tls.crt", cert.pem()), ("tls.key", key.serialize_pem())] {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

/// Asks the registry each time, so that what is shown to it counts.
fn pod(name: &str, image: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{extra}  containers:\n  \
         - {{name: main, image: '{image}', imagePullPolicy: Always, args: [serve]}}\n"
    )
}

fn by_secret(name: &str, image: &str, secret: &str) -> String {
    pod(name, image, &format!("  imagePullSecrets: [{{name: {secret}}}]\n"))
}

fn waiting(p: &Value) -> &Value {
    &p["status"]["containerStatuses"][0]["state"]["waiting"]
}

/// The reason is in the container's status and in an event.
fn not_pulled(ns: &Ns, name: &str, text: &str) -> Result<()> {
    ns.pod(name, "not pulled", |p| {
        let why = waiting(p);
        matches!(why["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff")) && contains(&why["message"], text)
    })?;
    ns.event(name, "Failed", text).map(drop)
}

/// Runs since it began: the same container, never restarted.
fn untouched(ns: &Ns, before: &Value) -> Result<()> {
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let now = ns.get("pod", name)?;
    let of = |p: &Value| p["status"]["containerStatuses"][0].clone();
    if of(&now) == of(before) { Ok(()) } else { bail!("{name} was {}, is {}", of(before), of(&now)) }
}

fn bystander(ns: &Ns) -> Result<Value> {
    ns.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: bystander}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: '{}', args: [serve]}}\n",
        images::WEB
    ))?;
    ns.ready("bystander")
}

fn whose_credentials(ns: &mut Ns) -> Result<()> {
    if installed().is_none() {
        return Ok(());
    }
    let real = Real::start(ns)?;
    let config = ns.lab.nodes[0].root_dir().join("config.json");
    let result = shown_to_it(ns, &real, &config);
    let _ = std::fs::remove_file(&config);
    ns.lab.nodes[0].flags.clear();
    let restarted = ns.restart_with(Default::default());
    let ended = real.end(ns);
    result.and(restarted).and(ended)
}

/// A secret of either format.
fn secret(name: &str, legacy: bool, password: &str) -> String {
    let entry = json!({format!("https://{FABRIC_IP}:{PORT}"): {"auth": STANDARD.encode(format!("{USER}:{password}"))}});
    let (kind, key, text) = match legacy {
        true => ("dockercfg", ".dockercfg", entry.to_string()),
        false => ("dockerconfigjson", ".dockerconfigjson", json!({ "auths": entry }).to_string()),
    };
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": format!("kubernetes.io/{kind}"),
        "stringData": {key: text}})
    .to_string()
}

fn shown_to_it(ns: &mut Ns, real: &Real, config: &Path) -> Result<()> {
    let image = real.push(ns, "private/web", None, PORT)?;
    ns.lab.nodes[0].flags = vec!["-v=6".into()];
    ns.restart_with(Default::default())?;
    let by = bystander(ns)?;
    for (name, legacy, password) in
        [("json", false, PASSWORD), ("cfg", true, PASSWORD), ("json-wrong", false, WRONG), ("cfg-wrong", true, WRONG)]
    {
        ns.apply(&secret(name, legacy, password))?;
        ns.apply(&by_secret(name, &image, name))?;
    }
    ns.apply(&pod("none", &image, ""))?;
    ns.apply(&by_secret("missing", &image, "nowhere"))?;
    for name in ["json", "cfg"] {
        ns.ready(name)?;
        ns.event(name, "Pulled", "Successfully pulled image")?;
    }
    for name in ["json-wrong", "cfg-wrong"] {
        not_pulled(ns, name, "401 Unauthorized")?;
    }
    for name in ["none", "missing"] {
        not_pulled(ns, name, "401 Unauthorized")?;
    }
    ns.event("missing", "FailedToRetrieveImagePullSecret", "\"nowhere\"")?;

    // The node's own, where the pods that have none, or wrong ones, find it without being made anew.
    let auths = json!({"auths": {format!("{FABRIC_IP}:{PORT}"): {"username": USER, "password": PASSWORD}}});
    std::fs::write(config, auths.to_string())?;
    for name in ["none", "missing", "json-wrong"] {
        ns.ready(name)?;
    }
    std::fs::write(config, format!("{{\"auths\": \"{PASSWORD}\"}}"))?;
    ns.apply(&pod("unreadable", &image, ""))?;
    not_pulled(ns, "unreadable", "config.json: not the JSON of a docker config")?;
    std::fs::remove_file(config)?;
    by_provider(ns, real, &image)?;
    // Though the agent was started anew in between.
    untouched(ns, &by)?;
    nothing_shown(ns)
}

/// A program that gives the password only for the service account that says so.
fn by_provider(ns: &mut Ns, real: &Real, image: &str) -> Result<()> {
    let bin = real.dir.join("bin");
    std::fs::create_dir_all(&bin)?;
    let answer = |password: &str| {
        json!({"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "cacheKeyType": "Registry",
            "cacheDuration": "0s", "auth": {format!("{FABRIC_IP}:{PORT}"): {"username": USER, "password": password}}})
    };
    let asked = real.dir.join("asked");
    let script = format!(
        "#!/bin/sh\nread question\nprintf '%s\\n' \"$question\" >> {}\ncase \"$question\" in\n\
         *'\"lab/pull\":\"right\"'*) echo '{}' ;;\n*'\"lab/pull\":\"wrong\"'*) echo '{}' ;;\n*) echo {WRONG} >&2; exit 3 ;;\nesac\n",
        asked.display(),
        answer(PASSWORD),
        answer(WRONG)
    );
    std::fs::write(bin.join("lab-provider"), script)?;
    std::fs::set_permissions(bin.join("lab-provider"), std::fs::Permissions::from_mode(0o755))?;
    let file = real.dir.join("providers.yaml");
    let tokens = json!({"serviceAccountTokenAudience": "lab-registry", "cacheType": "Token", "requireServiceAccount": true,
        "optionalServiceAccountAnnotationKeys": ["lab/pull"]});
    let provider = json!({"name": "lab-provider", "matchImages": [format!("{FABRIC_IP}:{PORT}/private")], "defaultCacheDuration": "1m",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "tokenAttributes": tokens});
    let whole = json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]});
    std::fs::write(&file, whole.to_string())?;
    ns.lab.nodes[0].flags.extend([
        format!("--image-credential-provider-config={}", file.display()),
        format!("--image-credential-provider-bin-dir={}", bin.display()),
    ]);
    ns.restart_with(Default::default())?;
    for kind in ["right", "wrong", "else"] {
        ns.apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {kind}, annotations: {{lab/pull: {kind}}}}}\n---\n{}",
            pod(&format!("sa-{kind}"), image, &format!("  serviceAccountName: {kind}\n"))
        ))?;
    }
    ns.ready("sa-right")?;
    not_pulled(ns, "sa-wrong", "401 Unauthorized")?;
    not_pulled(ns, "sa-else", "credential provider \"lab-provider\": failed: exit status: 3")?;
    let asked = std::fs::read_to_string(asked)?;
    must_contain(&asked, &format!("\"image\":\"{FABRIC_IP}:{PORT}/private/web\""))?;
    for line in asked.lines() {
        let question: Value = serde_json::from_str(line)?;
        let token = question["serviceAccountToken"].as_str().unwrap_or_default();
        let claims = token.split('.').nth(1).context("no token was shown")?;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims)?;
        must_contain(&String::from_utf8(claims)?, "lab-registry")?;
        let log = std::fs::read_to_string(ns.lab.nodes[0].agent_log())?;
        if log.contains(token) {
            bail!("the agent's log shows a token");
        }
    }
    Ok(())
}

/// Neither what the agent logs at its most talkative nor what it writes for others to read.
fn nothing_shown(ns: &Ns) -> Result<()> {
    let log = std::fs::read_to_string(ns.lab.nodes[0].agent_log())?;
    let records = std::fs::read_dir(ns.lab.nodes[0].root_dir().join("image_manager/pulled"))?;
    let records = records.map(|entry| Ok(std::fs::read_to_string(entry?.path())?)).collect::<Result<Vec<_>>>()?.join("\n");
    // What the node itself could pull is for all its pods, whoever else has shown what.
    must_contain(&records, "\"nodePodsAccessible\":true")?;
    let (events, pods) = (ns.kubectl(&["get", "events", "-o", "json"])?, ns.kubectl(&["get", "pods", "-o", "json"])?);
    for (what, text) in [("the log", &log), ("a record", &records), ("an event", &events), ("a status", &pods)] {
        let encoded = [PASSWORD, WRONG].map(|password| STANDARD.encode(format!("{USER}:{password}")));
        for secret in [PASSWORD, &encoded[0], &encoded[1]] {
            if text.contains(secret) {
                bail!("{what} shows {secret}");
            }
        }
    }
    // What a program says of itself is for the node's own log only.
    for (what, text) in [("an event", &events), ("a status", &pods), ("a record", &records)] {
        if text.contains(WRONG) {
            bail!("{what} shows {WRONG}");
        }
    }
    Ok(())
}

fn dies(ns: &mut Ns) -> Result<()> {
    if installed().is_none() {
        return Ok(());
    }
    let mut real = Real::start(ns)?;
    let result = dies_and_comes_back(ns, &mut real);
    let ended = real.end(ns);
    result.and(ended)
}

fn dies_and_comes_back(ns: &mut Ns, real: &mut Real) -> Result<()> {
    let by = bystander(ns)?;
    // Bytes that are no other layer's and do not compress.
    let large = real.dir.join("large");
    let mut state = 1u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
    .take(16 << 20)
    .collect();
    std::fs::write(&large, bytes)?;
    let at = |port: u16| format!("{FABRIC_IP}:{port}").parse();
    let proxy = Proxy::start(&ns.lab.fabric, at(PROXY_PORT)?, at(PORT)?)?;
    let image = real.push(ns, "large/web", Some(&large), PROXY_PORT)?;
    let auths = json!({"auths": {format!("{FABRIC_IP}:{PROXY_PORT}"): {"username": USER, "password": PASSWORD}}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": auths.to_string()}});
    ns.apply(&secret.to_string())?;
    proxy.hold_after(4 << 20);
    ns.apply(&by_secret("large", &image, "large"))?;
    wait_for("a layer to be halfway", LIMIT, || if proxy.held() > 0 { Ok(()) } else { bail!("nothing is held") })?;
    ns.event("large", "Pulling", "Pulling image")?;
    real.kill()?;
    proxy.hold_after(0);
    not_pulled(ns, "large", "")?;
    let seen = ns.get("pod", "large")?;
    println!("a registry that died halfway: {}", waiting(&seen));
    untouched(ns, &by)?;
    // Others are pulled meanwhile.
    let other = Registry::start(&ns.lab.nodes[0].netns, 5310)?;
    let there = other.offer("lab/there", lab_image(ns, "there")?);
    ns.apply(&pod("there", &there, ""))?;
    ns.ready("there")?;
    real.run(ns)?;
    ns.ready("large")?;
    untouched(ns, &by)?;
    ns.lab.nodes[0].containerd.ctr(&["images", "rm", &image]).map(drop)
}

fn lab_image(ns: &Ns, words: &str) -> Result<Blobs> {
    let files: &[(&str, &Path)] = &[("/web", &ns.lab.bins.web)];
    images::build(&Image { name: words, files, entrypoint: &["/web"], arguments: &["serve", words], user: "" })
}

fn lies(ns: &mut Ns) -> Result<()> {
    let by = bystander(ns)?;
    let registry = Registry::start(&ns.lab.nodes[0].netns, 5311)?;
    // Layers that nobody has yet: one that is there is not asked for.
    for (name, lie) in [("manifest", Lie::Manifest), ("layer", Lie::Layer)] {
        let own = ns.lab.dir.join(format!("lie-{name}"));
        std::fs::write(&own, name.repeat(64 << 10))?;
        let files: &[(&str, &Path)] = &[("/web", &ns.lab.bins.web), ("/etc/own", &own)];
        let image = images::build(&Image { name, files, entrypoint: &["/web"], arguments: &["serve"], user: "" })?;
        std::fs::remove_file(&own)?;
        let digest = images::digest(&image.manifest);
        let repository = format!("lab/{name}");
        let image = registry.offer(&repository, image);
        registry.lie(&repository, Some(lie));
        let by_digest = format!("{}@{digest}", image.trim_end_matches(":1"));
        for (pod_name, image) in [(name.to_owned(), &image), (format!("{name}-digest"), &by_digest)] {
            ns.apply(&pod(&pod_name, image, ""))?;
            not_pulled(ns, &pod_name, "unexpected commit digest")?;
        }
        let had = ns.lab.nodes[0].containerd.ctr(&["images", "ls", "-q"])?;
        if had.contains(&repository) {
            bail!("an image that is not what it says was kept: {had}");
        }
        untouched(ns, &by)?;
        // As soon as it says the truth.
        registry.lie(&repository, None);
        for pod_name in [name.to_owned(), format!("{name}-digest")] {
            ns.ready(&pod_name)?;
        }
    }
    untouched(ns, &by)
}
