//! A containerd of the lab's own: its root, state, socket and CNI network below the lab's folder.

use crate::cluster::cni_network;
use crate::netns::Stack;
use crate::setup::Tools;
use crate::sys::{Proc, run, wait_for};
use crate::{images, netns};
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PROMPT_PTP: &str = "lab-ptp";

/// Which addresses the pods of a node get.
#[derive(Debug, Clone, Copy)]
pub struct PodNetwork {
    /// The node's number, which is in its ranges.
    pub n: u8,
    pub stack: Stack,
}

#[derive(Debug)]
pub struct PodTask {
    pub id: String,
    pub pid: i32,
    pub pod: Option<String>,
    pub container: Option<String>,
    pub created: String,
}

pub struct Containerd {
    pub socket: PathBuf,
    lab: String,
    netns: String,
    dir: PathBuf,
    tools: Tools,
    process: Option<Proc>,
}

impl Containerd {
    /// Writes the configuration. `run` holds the socket (short path).
    pub fn new(lab: &str, netns: &str, network: PodNetwork, dir: &Path, run: &Path, tools: &Tools) -> Result<Containerd> {
        for sub in ["root", "state", "cni", "ipam", "certs.d"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        std::fs::create_dir_all(run)?;
        let socket = run.join("containerd.sock");
        let programs =
            if network.stack.has_v6() { prompt_ptp(&dir.join("cni-bin"), &tools.cni_dir)? } else { tools.cni_dir.clone() };
        std::fs::write(dir.join("config.toml"), config(dir, &socket, &programs, tools.runtime.runc.as_deref()))?;
        std::fs::write(dir.join("cni/10-lab.conflist"), cni(lab, &dir.join("ipam"), network))?;
        Ok(Containerd { socket, lab: lab.into(), netns: netns.into(), dir: dir.into(), tools: tools.clone(), process: None })
    }

    /// Where it looks for what it must know of registries: a folder `host:port` each, with a `hosts.toml`.
    pub fn registries(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        let argv: Vec<String> = vec![
            self.tools.runtime.containerd.display().to_string(),
            "--config".into(),
            self.dir.join("config.toml").display().to_string(),
        ];
        let mut envs = vec![];
        if let Some(dir) = &self.tools.runtime.path {
            envs.push(("PATH", format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default())));
        }
        let log = self.log();
        self.process = Some(Proc::spawn("containerd", &self.lab, Some(&self.netns), &log, &argv, &envs)?);
        wait_for("containerd to answer", Duration::from_secs(30), || {
            self.process.as_mut().context("not started")?.check_alive()?;
            self.ctr(&["version"]).map(drop)
        })
    }

    /// Which one it is, as in `2.1.9`.
    pub fn version(&self) -> &str {
        &self.tools.runtime.version
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    /// Ends it; its containers go on.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.end(Duration::from_secs(10))?;
        }
        Ok(())
    }

    pub fn process(&self) -> Result<&Proc> {
        self.process.as_ref().context("containerd is not running")
    }

    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("containerd is not running")?.kill()
    }

    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        run(Command::new(&self.tools.runtime.ctr).arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]).args(args))
    }

    pub fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", &archive.to_string_lossy()]).map(drop)
    }

    /// IDs of all containers it knows, sandboxes among them.
    pub fn containers(&self) -> Result<Vec<String>> {
        Ok(self.ctr(&["containers", "list", "-q"])?.split_whitespace().map(str::to_owned).collect())
    }

    /// Process IDs by container ID.
    pub fn tasks(&self) -> Result<Vec<(String, i32)>> {
        let text = self.ctr(&["tasks", "list"])?;
        let rows = text.lines().skip(1).filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        });
        Ok(rows.collect())
    }

    /// Every task with the pod and container that it is of; a sandbox's has no container name.
    pub fn tasks_of_pods(&self) -> Result<Vec<PodTask>> {
        let tasks = self.tasks()?.into_iter().map(|(id, pid)| {
            // It may have gone since.
            let info = self.ctr(&["containers", "info", &id]).unwrap_or_else(|_| "null".to_owned());
            let info: serde_json::Value = serde_json::from_str(&info)?;
            let label = |name: &str| info["Labels"][format!("io.kubernetes.{name}")].as_str().map(str::to_owned);
            let created = info["CreatedAt"].as_str().unwrap_or_default().to_owned();
            Ok(PodTask { id, pid, pod: label("pod.name"), container: label("container.name"), created })
        });
        tasks.collect()
    }

    /// Removes whatever containers are left, by ctr, so that shims, mounts and namespaces go.
    pub fn remove_all(&self) -> Result<()> {
        if !self.log().exists() {
            // It was never started.
            return Ok(());
        }
        for (id, _) in self.tasks()? {
            let _ = self.ctr(&["tasks", "delete", "--force", &id]);
        }
        for id in self.containers()? {
            let _ = self.ctr(&["containers", "delete", &id]);
        }
        let left = self.containers()?;
        if left.is_empty() { Ok(()) } else { bail!("containers that cannot be removed: {left:?}") }
    }
}

/// Version 2 of the format: containerd 1.6 needs it, 2.x still reads it.
fn config(dir: &Path, socket: &Path, programs: &Path, runc: Option<&Path>) -> String {
    let (dir, socket, cni) = (dir.display(), socket.display(), programs.display());
    let runc = runc.map(|path| format!("BinaryName = \"{}\"\n", path.display())).unwrap_or_default();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[debug]
level = "info"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{dir}/certs.d"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
{runc}"#,
        pause = images::PAUSE,
    )
}

/// A plugin in front of ptp, beside links to all others. Waiting until an IPv6 address is known to be nobody else's takes
/// two seconds a pod, and there is nobody else on a pod's cable.
fn prompt_ptp(dir: &Path, plugins: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    for entry in std::fs::read_dir(plugins).with_context(|| format!("cannot read {}", plugins.display()))? {
        let entry = entry?;
        let link = dir.join(entry.file_name());
        if !link.exists() {
            std::os::unix::fs::symlink(entry.path(), link)?;
        }
    }
    let script = "#!/bin/sh\n\
        if [ \"$CNI_COMMAND\" = ADD ]; then\n\
        \tnsenter --net=\"$CNI_NETNS\" sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad' < /dev/null || exit\n\
        fi\n\
        exec \"${0%/*}/ptp\"\n";
    let file = dir.join(PROMPT_PTP);
    std::fs::write(&file, script)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    Ok(dir.to_owned())
}

/// Routed veth pairs: needs no bridge netfilter for Service traffic between pods of one node.
fn cni(lab: &str, ipam: &Path, network: PodNetwork) -> String {
    let mut ranges = vec![serde_json::json!([{"subnet": netns::pod_cidr(network.n)}])];
    let mut routes = vec![serde_json::json!({"dst": "0.0.0.0/0"})];
    if network.stack.has_v6() {
        ranges.push(serde_json::json!([{"subnet": netns::pod_cidr6(network.n)}]));
        routes.push(serde_json::json!({"dst": "::/0"}));
    }
    serde_json::json!({
        "cniVersion": "0.4.0", "name": cni_network(lab),
        "plugins": [{
            "type": if network.stack.has_v6() { PROMPT_PTP } else { "ptp" }, "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": ipam, "ranges": ranges, "routes": routes},
        }, {"type": "portmap", "capabilities": {"portMappings": true}}],
    })
    .to_string()
}
