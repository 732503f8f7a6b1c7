//! A real control plane in the lab's fabric: etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
//!
//! The cluster's authority, the administrator's kubeconfig and those of the nodes are `ferrolet-stub`'s, which runs only to
//! write them; so that all else of the lab works on either. The programs' own certificates are signed here with openssl.

use crate::cluster::{API_PORT, DNS_IP, Lab};
use crate::netns::{CLUSTER_CIDR, FABRIC_IP, SERVICE_CIDR, pod_cidr};
use crate::setup::which;
use crate::sys::{Proc, run, wait_for};
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ETCD: &str = "127.0.0.1:2379";
/// How long a program of the control plane may take to answer; the API server makes its own objects first.
const START: Duration = Duration::from_secs(120);

pub struct Plane {
    programs: PathBuf,
    pki: PathBuf,
    dir: PathBuf,
    processes: Vec<Proc>,
}

impl Plane {
    /// Starts it all, and waits until the API server is ready and has made the default namespace's service account.
    pub fn start(lab: &mut Lab, programs: &Path) -> Result<Plane> {
        lab.start_stub()?;
        lab.stop_stub()?;
        let pki = lab.stub_dir().join("pki");
        let dir = lab.dir.join("plane");
        std::fs::create_dir_all(&dir)?;
        let mut plane = Plane { programs: programs.into(), pki, dir, processes: vec![] };
        plane.certificates()?;
        plane.start_etcd(lab)?;
        plane.start_api(lab)?;
        plane.start_others(lab)?;
        plane.wait_for("the default service account", || lab.kubectl(&["get", "serviceaccount", "default"]))?;
        plane.start_dns(lab)?;
        // Nodes may not read EndpointSlices.
        let proxy = json!({"kubeconfig": plane.kubeconfig("kube-proxy")?});
        lab.nodes.iter_mut().for_each(|node| drop(node.proxy.insert("clientConnection".into(), proxy.clone())));
        Ok(plane)
    }

    pub fn stop(&mut self) -> Result<()> {
        // The API server before its store.
        for process in self.processes.iter_mut().rev() {
            process.end(Duration::from_secs(10))?;
        }
        Ok(())
    }

    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The ranges of the lab's pods, which its CNI configuration has fixed.
    pub fn give_ranges(lab: &Lab) -> Result<()> {
        for (n, node) in (1..).zip(&lab.nodes) {
            let patch = json!({"spec": {"podCIDR": pod_cidr(n), "podCIDRs": [pod_cidr(n)]}}).to_string();
            lab.kubectl(&["patch", "node", &node.name, "-p", &patch])?;
        }
        Ok(())
    }

    fn certificates(&self) -> Result<()> {
        let names = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local";
        let service = SERVICE_CIDR.replace(".0/16", ".1");
        self.sign(
            "plane-apiserver",
            "/CN=kube-apiserver",
            &format!("{names},DNS:localhost,IP:{FABRIC_IP},IP:{service},IP:127.0.0.1"),
        )?;
        self.sign("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")?;
        self.sign("kube-controller-manager", "/CN=system:kube-controller-manager", "")?;
        self.sign("kube-scheduler", "/CN=system:kube-scheduler", "")?;
        self.sign("kube-proxy", "/CN=system:kube-proxy", "")?;
        let mut public = openssl(&["pkey", "-pubout", "-in"]);
        run(public.arg(self.pki.join("sa.key")).arg("-out").arg(self.pki.join("sa.pub")))?;
        let front = self.pki.join("front-proxy-ca");
        let authority = [front.with_extension("key"), front.with_extension("crt")];
        let mut make =
            openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        run(make.args(["-subj", "/CN=front-proxy-ca", "-keyout"]).arg(&authority[0]).arg("-out").arg(&authority[1]))?;
        self.sign_by("front-proxy-ca", "front-proxy-client", "/CN=front-proxy-client", "")
    }

    fn sign(&self, name: &str, subject: &str, names: &str) -> Result<()> {
        self.sign_by("ca", name, subject, names)
    }

    fn sign_by(&self, authority: &str, name: &str, subject: &str, names: &str) -> Result<()> {
        let file = |name: &str, kind: &str| self.pki.join(format!("{name}.{kind}"));
        let mut request = openssl(&["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        run(request.args(["-subj", subject, "-keyout"]).arg(file(name, "key")).arg("-out").arg(file(name, "csr")))?;
        let extensions = file(name, "ext");
        let alternative = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
        std::fs::write(&extensions, format!("extendedKeyUsage=clientAuth,serverAuth\n{alternative}"))?;
        let mut sign = openssl(&["x509", "-req", "-days", "30", "-CAcreateserial", "-in"]);
        sign.arg(file(name, "csr")).arg("-CA").arg(file(authority, "crt")).arg("-CAkey").arg(file(authority, "key"));
        run(sign.arg("-extfile").arg(&extensions).arg("-out").arg(file(name, "crt"))).map(drop)
    }

    fn kubeconfig(&self, name: &str) -> Result<PathBuf> {
        let file = |kind: &str| self.pki.join(format!("{name}.{kind}"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{FABRIC_IP}:{API_PORT}"), "certificate-authority": self.pki.join("ca.crt")}}],
            "users": [{"name": name, "user": {"client-certificate": file("crt"), "client-key": file("key")}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        });
        let path = self.dir.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    fn spawn(&mut self, lab: &Lab, name: &str, program: PathBuf, flags: &[(&str, String)]) -> Result<()> {
        let mut argv = vec![program.display().to_string()];
        argv.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        let log = self.dir.join(format!("{name}.log"));
        self.processes.push(Proc::spawn(name, &lab.name, Some(&lab.fabric), &log, &argv, &[])?);
        Ok(())
    }

    /// Until there is an answer, or one of the programs has ended.
    fn wait_for(&mut self, what: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
        wait_for(what, START, || match self.check_alive() {
            Ok(()) => ask().map(|_| Ok(())),
            Err(ended) => Ok(Err(ended)),
        })?
    }

    pub fn check_alive(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Proc::check_alive)
    }

    fn start_etcd(&mut self, lab: &Lab) -> Result<()> {
        let own = self.programs.join("etcd");
        let program =
            if own.exists() { own } else { which("etcd").context("there is no etcd in FERROLET_KUBE_BIN_DIR or PATH")? };
        // In memory: a disk that is busy with other things for seconds would fail specs that wait for the control plane.
        let data = self.dir.join("etcd");
        std::fs::create_dir_all(&data)?;
        mount(Some("tmpfs"), &data, Some("tmpfs"), MsFlags::empty(), Some("mode=0700,size=2g"))
            .context("cannot mount a tmpfs")?;
        let flags = [
            ("data-dir", data.display().to_string()),
            ("listen-client-urls", format!("http://{ETCD}")),
            ("advertise-client-urls", format!("http://{ETCD}")),
            ("listen-peer-urls", "http://127.0.0.1:2380".into()),
            // A slow disk under load is no reason for elections.
            ("heartbeat-interval", "500".into()),
            ("election-timeout", "5000".into()),
        ];
        self.spawn(lab, "etcd", program, &flags)
    }

    fn start_api(&mut self, lab: &Lab) -> Result<()> {
        let policy = self.dir.join("audit-policy.yaml");
        let rules = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "userGroups": ["system:nodes"]}, {"level": "None"}],
        });
        std::fs::write(&policy, rules.to_string())?;
        let pki = |name: &str| self.pki.join(name).display().to_string();
        let flags = [
            ("etcd-servers", format!("http://{ETCD}")),
            ("bind-address", FABRIC_IP.into()),
            ("advertise-address", FABRIC_IP.into()),
            ("secure-port", API_PORT.to_string()),
            ("tls-cert-file", pki("plane-apiserver.crt")),
            ("tls-private-key-file", pki("plane-apiserver.key")),
            ("client-ca-file", pki("ca.crt")),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
            ("service-account-key-file", pki("sa.pub")),
            ("service-account-signing-key-file", pki("sa.key")),
            ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
            ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP".into()),
            ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client".into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
            ("proxy-client-cert-file", pki("front-proxy-client.crt")),
            ("proxy-client-key-file", pki("front-proxy-client.key")),
            ("service-cluster-ip-range", SERVICE_CIDR.into()),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", "true".into()),
            ("audit-policy-file", policy.display().to_string()),
            ("audit-log-path", self.audit_log().display().to_string()),
        ];
        self.spawn(lab, "kube-apiserver", self.programs.join("kube-apiserver"), &flags)?;
        self.wait_for("kube-apiserver to be ready", || lab.kubectl(&["get", "--raw", "/readyz"]))
    }

    /// Names of Services, where the folder has coredns: one server in the fabric, behind the Service that pods ask.
    fn start_dns(&mut self, lab: &Lab) -> Result<()> {
        let program = self.programs.join("coredns");
        if !program.is_file() {
            println!("there is no coredns in the folder: specs that ask for names will fail");
            return Ok(());
        }
        let conf = self.dir.join("Corefile");
        let zone = "kubernetes cluster.local in-addr.arpa ip6.arpa";
        let kubeconfig = lab.admin_kubeconfig();
        let text = format!(".:53 {{\n bind {FABRIC_IP}\n errors\n {zone} {{\n  kubeconfig {}\n }}\n}}\n", kubeconfig.display());
        std::fs::write(&conf, text)?;
        let argv = [program.display().to_string(), "-conf".into(), conf.display().to_string()];
        self.processes.push(Proc::spawn("coredns", &lab.name, Some(&lab.fabric), &self.dir.join("coredns.log"), &argv, &[])?);
        let ports = |number: &str| json!([{"name": "dns", "port": 53, "protocol": "UDP", number: 53}, {"name": "dns-tcp", "port": 53, "protocol": "TCP", number: 53}]);
        let meta = |name: &str| json!({"name": name, "namespace": "kube-system", "labels": {"k8s-app": "kube-dns", "kubernetes.io/service-name": "kube-dns"}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns"),
            "spec": {"clusterIP": DNS_IP, "ports": ports("targetPort")}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("kube-dns-1"),
            "addressType": "IPv4", "endpoints": [{"addresses": [FABRIC_IP], "conditions": {"ready": true}}], "ports": ports("port")});
        let file = self.dir.join("dns.json");
        std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": [service, slice]}).to_string())?;
        // Some servers have nothing yet to check an object against.
        lab.kubectl(&["apply", "--validate=false", "-f", &file.to_string_lossy()]).map(drop)
    }

    fn start_others(&mut self, lab: &Lab) -> Result<()> {
        let pki = |name: &str| self.pki.join(name).display().to_string();
        let kubeconfig = self.kubeconfig("kube-controller-manager")?.display().to_string();
        let controllers = [
            ("kubeconfig", kubeconfig),
            ("bind-address", "127.0.0.1".into()),
            ("leader-elect", "false".into()),
            ("use-service-account-credentials", "true".into()),
            ("root-ca-file", pki("ca.crt")),
            ("service-account-private-key-file", pki("sa.key")),
            ("cluster-signing-cert-file", pki("ca.crt")),
            ("cluster-signing-key-file", pki("ca.key")),
            // The lab's CNI configuration has the nodes' ranges fixed.
            ("allocate-node-cidrs", "false".into()),
            ("cluster-cidr", CLUSTER_CIDR.into()),
            ("service-cluster-ip-range", SERVICE_CIDR.into()),
            ("flex-volume-plugin-dir", self.dir.join("flex").display().to_string()),
        ];
        self.spawn(lab, "kube-controller-manager", self.programs.join("kube-controller-manager"), &controllers)?;
        let kubeconfig = self.kubeconfig("kube-scheduler")?.display().to_string();
        let scheduler = [("kubeconfig", kubeconfig), ("bind-address", "127.0.0.1".into()), ("leader-elect", "false".into())];
        self.spawn(lab, "kube-scheduler", self.programs.join("kube-scheduler"), &scheduler)
    }
}

fn openssl(args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(args);
    command
}

/// What the API server refused the nodes, each with how often, from its audit log: verb, resource, code and message.
pub fn refused(audit: &str) -> Vec<(String, usize)> {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for event in audit.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        if code < 400 {
            continue;
        }
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reference = &event["objectRef"];
        let mut resource = word(&reference["resource"]);
        if let Some(sub) = reference["subresource"].as_str() {
            resource = format!("{resource}/{sub}");
        }
        // The object's own names would make each a row of its own.
        let mut message = word(&event["responseStatus"]["message"]);
        for field in ["name", "namespace"] {
            let own = word(&reference[field]);
            if !own.is_empty() {
                message = message.replace(&own, &field.to_uppercase());
            }
        }
        *seen.entry(format!("{} {resource} {code} {message}", word(&event["verb"]))).or_default() += 1;
    }
    seen.into_iter().collect()
}
