//! One lab: a fabric with `ferrolet-stub`, and nodes with containerd and `ferrolet`.

use crate::bins::Bins;
use crate::containerd::{Containerd, PodNetwork};
use crate::images::{self, Image};
use crate::leftovers;
use crate::netns::{self, FABRIC_IP, Stack};
use crate::setup::Tools;
use crate::sys::{Proc, run, wait_for};
use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub const API_PORT: u16 = 6443;
pub const DNS_IP: &str = "10.96.0.10";

/// Where a lab keeps its state and its sockets; fixed, so that a later run finds what an earlier one left.
pub fn state_dir(lab: &str) -> PathBuf {
    Path::new("/var/lib/ferrolet-lab").join(lab)
}

pub fn run_dir(lab: &str) -> PathBuf {
    Path::new("/run/ferrolet-lab").join(lab)
}

pub fn lock(lab: &str) -> Result<Flock<File>> {
    let path = format!("/run/ferrolet-lab-{lab}.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {path}"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| anyhow!("the lab {lab:?} is in use by another run ({path}: {error})"))
}

/// The cgroup below every hierarchy's root that holds all of a lab's pods.
pub fn cgroup_root(lab: &str) -> String {
    format!("/ferrolet-lab/{lab}")
}

/// The CNI network of a lab's pods.
pub fn cni_network(lab: &str) -> String {
    format!("ferrolet-lab-{lab}")
}

/// Namespace names: the demo's are plain, those of other labs carry the lab's name.
pub fn ns_name(lab: &str, role: &str) -> String {
    if lab == "demo" { role.to_owned() } else { format!("{lab}-{role}") }
}

/// What a lab is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub nodes: u8,
    pub stack: Stack,
}

impl From<u8> for Shape {
    /// So many nodes with IPv4.
    fn from(nodes: u8) -> Shape {
        Shape { nodes, stack: Stack::V4 }
    }
}

pub struct Lab {
    pub name: String,
    pub dir: PathBuf,
    pub fabric: String,
    pub stack: Stack,
    pub bins: Bins,
    pub tools: Tools,
    pub stub: Option<Proc>,
    pub nodes: Vec<Node>,
    /// Held for as long as the lab is in use; two runs of one name would remove each other's.
    _lock: Flock<File>,
}

pub struct Node {
    pub name: String,
    pub netns: String,
    pub ip: String,
    /// Its addresses, one of each of the lab's families.
    pub ips: Vec<IpAddr>,
    pub dir: PathBuf,
    pub containerd: Containerd,
    /// Where the agent finds its runtime: at its containerd's socket, unless a test puts something else there.
    pub endpoint: String,
    pub agent: Option<Proc>,
    /// `key=value`, which the agent gives its node when it registers; see [`Lab::label`] for later.
    pub labels: Vec<String>,
    /// Flags of the agent besides the lab's own, from its next start on.
    pub flags: Vec<String>,
    /// Fields of the KubeProxyConfiguration besides the lab's own, or instead of them, from the agent's next start on.
    pub proxy: serde_json::Map<String, Value>,
    /// The same of the KubeletConfiguration.
    pub kubelet: serde_json::Map<String, Value>,
    stack: Stack,
    lab: String,
    ferrolet: PathBuf,
}

impl Lab {
    /// Removes what an earlier run left, then makes namespaces and starts containerd on each node, with the images. A shape
    /// may be a number of nodes.
    pub fn create(name: &str, shape: impl Into<Shape>, bins: Bins, tools: Tools) -> Result<Lab> {
        let Shape { nodes, stack } = shape.into();
        let lock = lock(name)?;
        leftovers::remove(name)?;
        let (dir, fabric) = (state_dir(name), ns_name(name, "fabric"));
        std::fs::create_dir_all(&dir)?;
        std::fs::create_dir_all(run_dir(name))?;
        netns::create_fabric(&fabric, stack)?;
        let mut lab = Lab { name: name.into(), dir, fabric, stack, bins, tools, stub: None, nodes: vec![], _lock: lock };
        for _ in 1..=nodes {
            lab.add_node(Some(&lab.tools.clone()))?;
        }
        Ok(lab)
    }

    /// One more node, on the containerd of these tools; with none its [`Node::endpoint`] is for the test to set.
    pub fn add_node(&mut self, tools: Option<&Tools>) -> Result<usize> {
        let archives = self.archives()?;
        let n = u8::try_from(self.nodes.len() + 1)?;
        let node = self.create_node(n, &archives, tools)?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The images that every node has.
    pub fn archives(&self) -> Result<Vec<PathBuf>> {
        let mut files = vec![];
        let pause: &[(&str, &Path)] = &[("/pause", &self.bins.pause)];
        let web: &[(&str, &Path)] = &[("/web", &self.bins.web)];
        for (name, content, entrypoint) in [(images::PAUSE, pause, &["/pause"]), (images::WEB, web, &["/web"])] {
            let file = self.dir.join(format!("{}.tar", name.replace(['/', ':'], "_")));
            files.push(file.clone());
            if file.exists() {
                continue;
            }
            images::write_archive(&Image { name, files: content, entrypoint, arguments: &[], user: "" }, &file)?;
        }
        Ok(files)
    }

    fn create_node(&self, n: u8, archives: &[PathBuf], tools: Option<&Tools>) -> Result<Node> {
        let name = format!("node-{n}");
        let netns = ns_name(&self.name, &name);
        netns::create_node(&self.fabric, &netns, n, self.stack)?;
        let dir = self.dir.join(&name);
        for sub in ["kubelet", "pod-logs"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let run = run_dir(&self.name).join(&name);
        let network = PodNetwork { n, stack: self.stack };
        let mut containerd =
            Containerd::new(&self.name, &netns, network, &dir.join("containerd"), &run, tools.unwrap_or(&self.tools))?;
        if tools.is_some() {
            containerd.start()?;
            for archive in archives {
                containerd.import(archive)?;
            }
        }
        let (ip, stack, ferrolet) = (netns::node_ip(n), self.stack, self.bins.ferrolet.clone());
        let ips = stack.join(&ip, &netns::node_ip6(n)).split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Node {
            name,
            netns,
            ip,
            ips,
            dir,
            endpoint: containerd.endpoint(),
            containerd,
            agent: None,
            labels: vec![],
            flags: vec![],
            proxy: Default::default(),
            kubelet: Default::default(),
            stack,
            lab: self.name.clone(),
            ferrolet,
        })
    }

    /// The network namespace of a host outside the cluster, made when it is first asked for: on the fabric's bridge, with
    /// addresses of its own ([`netns::CLIENT_IP`]) and the fabric as its way to everything else.
    pub fn client(&self) -> Result<String> {
        let ns = ns_name(&self.name, "client");
        if !netns::exists(&ns) {
            netns::create_client(&self.fabric, &ns, self.stack)?;
        }
        Ok(ns)
    }

    /// Gives a node a label, or takes it away: `topology.kubernetes.io/zone=a`, `topology.kubernetes.io/zone-`.
    pub fn label(&self, index: usize, label: &str) -> Result<()> {
        self.kubectl(&["label", "--overwrite", "node", &self.nodes[index].name, label]).map(drop)
    }

    pub fn stub_dir(&self) -> PathBuf {
        self.dir.join("stub")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.stub_dir().join("admin.kubeconfig")
    }

    /// Starts the control plane and waits until it answers.
    pub fn start_stub(&mut self) -> Result<()> {
        let argv: Vec<String> = vec![
            self.bins.stub.display().to_string(),
            format!("--data-dir={}", self.stub_dir().display()),
            format!("--listen={FABRIC_IP}:{API_PORT}"),
            format!("--service-cidr={}", self.stack.join(netns::SERVICE_CIDR, netns::SERVICE_CIDR6)),
            format!("--cluster-cidr={}", self.stack.join(netns::CLUSTER_CIDR, netns::CLUSTER_CIDR6)),
        ];
        let log = self.dir.join("stub.log");
        self.stub = Some(Proc::spawn("ferrolet-stub", &self.name, Some(&self.fabric), &log, &argv, &[])?);
        wait_for("the control plane to answer", Duration::from_secs(30), || {
            self.stub.as_mut().context("not started")?.check_alive()?;
            self.kubectl(&["get", "--raw", "/readyz"]).map(drop)
        })
    }

    pub fn stop_stub(&mut self) -> Result<()> {
        if let Some(mut stub) = self.stub.take() {
            stub.end(Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Starts the agent of one node; [`Lab::wait_ready`] waits for it.
    pub fn start_agent(&mut self, index: usize) -> Result<()> {
        let kubeconfig = self.node_kubeconfig(index)?;
        self.start_agent_with(index, Some(&kubeconfig))
    }

    /// Starts the agent of one node without an API server. Its own API takes the administrator's certificate.
    pub fn start_agent_alone(&mut self, index: usize) -> Result<()> {
        self.start_agent_with(index, None)
    }

    /// Starts the agent of one node with the API server at another port of its address.
    pub fn start_agent_through(&mut self, index: usize, port: u16) -> Result<()> {
        let kubeconfig = self.node_kubeconfig(index)?;
        let text = std::fs::read_to_string(&kubeconfig)?;
        let other = self.nodes[index].dir.join("through.kubeconfig");
        std::fs::write(&other, text.replace(&format!("{FABRIC_IP}:{API_PORT}"), &format!("{FABRIC_IP}:{port}")))?;
        self.start_agent_with(index, Some(&other))
    }

    fn start_agent_with(&mut self, index: usize, kubeconfig: Option<&Path>) -> Result<()> {
        let ca = self.stub_dir().join("pki/ca.crt");
        let cgroups = cgroup_root(&self.name);
        self.nodes[index].start_agent(kubeconfig, &ca, &cgroups)
    }

    fn node_kubeconfig(&self, index: usize) -> Result<PathBuf> {
        let name = &self.nodes[index].name;
        run(Command::new(&self.bins.stub).args(["kubeconfig", "--data-dir"]).arg(self.stub_dir()).args(["--node", name]))?;
        let path = self.stub_dir().join(format!("node-{name}.kubeconfig"));
        if path.exists() { Ok(path) } else { bail!("ferrolet-stub kubeconfig wrote no {}", path.display()) }
    }

    /// Waits until every node says it is Ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            let name = self.nodes[index].name.clone();
            wait_for(&format!("{name} to be Ready"), Duration::from_secs(30), || {
                self.nodes[index].agent.as_mut().context("the agent is not started")?.check_alive()?;
                let node = self.object("node", &name)?;
                let ready = condition(&node, "Ready");
                if ready["status"] == "True" { Ok(()) } else { bail!("{name} is not Ready: {ready}") }
            })?;
        }
        Ok(())
    }

    /// kubectl as the administrator, from inside the fabric.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        run(&mut self.kubectl_command(args))
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.fabric)).arg(&self.tools.kubectl);
        command.arg("--kubeconfig").arg(self.admin_kubeconfig()).arg("--cache-dir").arg(self.dir.join("kubectl-cache"));
        // Never through a proxy that the user's environment names: the lab has no route out.
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "KUBECONFIG"] {
            command.env_remove(name);
        }
        command.args(args);
        command
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let file = self.dir.join("manifest.yaml");
        std::fs::write(&file, manifest)?;
        self.kubectl(&["apply", "-f", &file.to_string_lossy()])
    }

    pub fn object(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// The items of a list by label selector.
    pub fn list(&self, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let mut args = vec!["get", kind, "-o", "json"];
        if !selector.is_empty() {
            args.extend(["-l", selector]);
        }
        let list: Value = serde_json::from_str(&self.kubectl(&args)?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Ends everything and removes every trace.
    pub fn destroy(mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.stop_agent()?;
            node.containerd.remove_all()?;
            node.containerd.stop()?;
        }
        self.stop_stub()?;
        leftovers::remove(&self.name)
    }

    /// The ends of all logs, for a failed step.
    pub fn log_tails(&self, lines: usize) -> String {
        let mut files = vec![self.dir.join("stub.log")];
        files.extend(self.nodes.iter().flat_map(|n| [n.agent_log(), n.dir.join("containerd/containerd.log")]));
        let tails = files.iter().map(|f| format!("--- the end of {}\n{}\n", f.display(), crate::sys::tail(f, lines)));
        tails.collect()
    }
}

impl Node {
    pub fn agent_log(&self) -> PathBuf {
        self.dir.join("ferrolet.log")
    }

    pub fn root_dir(&self) -> PathBuf {
        self.dir.join("kubelet")
    }

    /// Where the agent looks for static pods. Nobody makes the folder but a test that needs it.
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// Its address of the family of another address.
    pub fn ip_like(&self, like: IpAddr) -> Result<IpAddr> {
        let found = self.ips.iter().find(|ip| ip.is_ipv4() == like.is_ipv4()).copied();
        found.with_context(|| format!("{} has no address of the family of {like}", self.name))
    }

    fn start_agent(&mut self, kubeconfig: Option<&Path>, ca: &Path, cgroups: &str) -> Result<()> {
        let config = self.dir.join("kubelet.yaml");
        let mut kubelet_config = self.kubelet_config(ca, cgroups);
        let ips: Vec<String> = self.ips.iter().map(ToString::to_string).collect();
        let mut argv: Vec<String> = vec![
            self.ferrolet.display().to_string(),
            format!("--config={}", config.display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", ips.join(",")),
            format!("--root-dir={}", self.root_dir().display()),
            format!("--container-runtime-endpoint={}", self.endpoint),
        ];
        match kubeconfig {
            Some(kubeconfig) => {
                argv.push(format!("--kubeconfig={}", kubeconfig.display()));
                argv.push(format!("--proxy-config={}", self.write_proxy_config()?.display()));
            }
            None => {
                argv.push("--standalone".into());
                kubelet_config["authentication"]["webhook"]["enabled"] = json!(false);
                kubelet_config["authorization"]["mode"] = json!("AlwaysAllow");
            }
        }
        if !self.labels.is_empty() {
            argv.push(format!("--node-labels={}", self.labels.join(",")));
        }
        argv.extend(self.flags.iter().cloned());
        self.kubelet.iter().for_each(|(field, value)| kubelet_config[field] = value.clone());
        std::fs::write(&config, serde_json::to_string_pretty(&kubelet_config)?)?;
        self.agent = Some(Proc::spawn("ferrolet", &self.lab, Some(&self.netns), &self.agent_log(), &argv, &[])?);
        Ok(())
    }

    fn write_proxy_config(&self) -> Result<PathBuf> {
        let file = self.dir.join("kube-proxy.yaml");
        let mut config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clusterCIDR": self.stack.join(netns::CLUSTER_CIDR, netns::CLUSTER_CIDR6), "mode": "nftables",
        });
        self.proxy.iter().for_each(|(field, value)| config[field] = value.clone());
        std::fs::write(&file, serde_json::to_string_pretty(&config)?)?;
        Ok(file)
    }

    fn kubelet_config(&self, ca: &Path, cgroups: &str) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"x509": {"clientCAFile": ca}, "webhook": {"enabled": true}, "anonymous": {"enabled": false}},
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [DNS_IP], "clusterDomain": "cluster.local",
            "cgroupDriver": "cgroupfs", "cgroupRoot": format!("{cgroups}/{}", self.name),
            "podLogsDir": self.dir.join("pod-logs"),
            "staticPodPath": self.manifests(),
        })
    }

    pub fn stop_agent(&mut self) -> Result<()> {
        if let Some(mut agent) = self.agent.take() {
            agent.end(Duration::from_secs(10))?;
        }
        Ok(())
    }

    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent is not running")?.kill()
    }
}

/// One condition of an object's status, or null.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}
