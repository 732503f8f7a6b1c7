//! A node's power cut, as far as a lab can have it: what a reboot takes is taken, what lies on a disk stays.
//!
//! Gone are all processes of the node, what containerd keeps under /run, the mounts and network namespaces of pods, memory
//! file systems, cgroups and rules. What stays is containerd's root, the agent's folder, logs, and what CNI keeps on the disk.

use crate::cluster::{Lab, cgroup_root, run_dir};
use crate::leftovers;
use crate::netns;
use crate::sys::{kill_all, sh};
use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

impl Lab {
    /// The agent and containerd are to be started again by the caller.
    pub fn cut_power(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        if node.agent.is_some() {
            node.kill_agent()?;
        }
        let pods = leftovers::pod_namespaces(&self.name, u8::try_from(index + 1)?);
        if node.containerd.process().is_ok() {
            node.containerd.kill()?;
        }
        let roots = [node.dir.clone(), run_dir(&self.name).join(&node.name)];
        kill_all(&leftovers::shims_below(&roots))?;
        let below = format!("{}/{}", cgroup_root(&self.name), node.name);
        let cgroups = leftovers::cgroups_at(&below);
        for dir in &cgroups {
            kill_all(&leftovers::processes_below(dir))?;
        }
        for mount in leftovers::mounts_below(&roots) {
            umount2(&mount, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", mount.display()))?;
        }
        for name in pods {
            netns::delete(&name)?;
        }
        for dir in &cgroups {
            leftovers::remove_cgroup(dir)?;
        }
        let state = node.dir.join("containerd/state");
        std::fs::remove_dir_all(&state).with_context(|| format!("cannot empty {}", state.display()))?;
        std::fs::create_dir(&state)?;
        let net = format!("--net=/run/netns/{}", node.netns);
        sh("nsenter", &[&net, "nft", "flush", "ruleset"])?;
        sh("nsenter", &[&net, "conntrack", "-F"]).map(drop)
    }
}
