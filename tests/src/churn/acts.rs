//! What is done to the node, one thing at a time, as chance has it.

use super::random::Random;
use crate::cluster::Lab;
use crate::images::{self, Image, WEB};
use crate::sys::wait_for;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const OTHER: &str = "ferrolet.dev/web:2";
const MOST: usize = 25;
const MAPS: usize = 4;
const PAUSE_MS: usize = 250;
/// Between two kills of the same thing, on average, in actions.
const AGENT_KILL: usize = 150;
const RUNTIME_KILL: usize = 300;

pub struct Acts {
    random: Random,
    pods: BTreeSet<String>,
    services: BTreeSet<String>,
    pub may_kill_agent: bool,
    pub count: usize,
    pub made: usize,
    pub agent_kills: usize,
    pub runtime_kills: usize,
}

/// The same program under another name, to which pods are changed.
pub fn second_image(lab: &Lab) -> Result<()> {
    let files: &[(&str, &Path)] = &[("/web", &lab.bins.web)];
    let archive = lab.dir.join("other.tar");
    images::write_archive(&Image { name: OTHER, files, entrypoint: &["/web"], arguments: &[], user: "" }, &archive)?;
    lab.nodes[0].containerd.import(&archive)
}

/// A Service of each kind, once: what the rules have for all Services of a kind stays with them from then on.
pub fn first_services(lab: &Lab) -> Result<()> {
    let of = |kind: &str, port: u16| {
        let spec = format!("{{type: {kind}, selector: {{churn: serve}}, ports: [{{port: {port}, targetPort: 8080}}]}}");
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: first-{port}}}\nspec: {spec}\n")
    };
    let spec = format!("{{terminationGracePeriodSeconds: 1, containers: [{{name: main, image: {WEB}, args: [serve]}}]}}");
    let pod = format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: first, labels: {{churn: serve}}}}\nspec: {spec}\n");
    lab.apply(&[of("ClusterIP", 80), of("NodePort", 81), pod].concat())?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"])?;
    lab.kubectl(&["delete", "pod/first", "service/first-80", "service/first-81", "--timeout=60s"]).map(drop)
}

impl Acts {
    pub fn new(random: Random) -> Acts {
        let (pods, services) = Default::default();
        Acts { random, pods, services, may_kill_agent: true, count: 0, made: 0, agent_kills: 0, runtime_kills: 0 }
    }

    pub fn alive(&self) -> usize {
        self.pods.len()
    }

    pub fn one(&mut self, lab: &mut Lab) -> Result<()> {
        self.count += 1;
        if self.count == 1 {
            (0..MAPS).try_for_each(|n| self.config_map(lab, n))?;
        }
        if self.random.one_in(AGENT_KILL) && self.may_kill_agent {
            return self.kill_agent(lab);
        }
        if self.random.one_in(RUNTIME_KILL) {
            return self.kill_runtime(lab);
        }
        match self.random.below(20) {
            0..=6 if self.pods.len() < MOST => self.make(lab)?,
            0..=12 => self.delete(lab)?,
            13 => self.patch(lab, |r| {
                let image = [WEB, OTHER][r.below(2)];
                (vec![], format!(r#"{{"spec": {{"containers": [{{"name": "main", "image": "{image}"}}]}}}}"#))
            })?,
            14 => self.patch(lab, |r| (vec![], format!(r#"{{"metadata": {{"labels": {{"round": "{}"}}}}}}"#, r.below(100))))?,
            15 => self.patch(lab, |r| {
                let (cpu, memory) = (10 + r.below(90), 16 + r.below(64));
                let resources = format!(r#"{{"requests": {{"cpu": "{cpu}m", "memory": "{memory}Mi"}}}}"#);
                let spec = format!(r#"{{"spec": {{"containers": [{{"name": "main", "resources": {resources}}}]}}}}"#);
                (vec!["--subresource=resize"], spec)
            })?,
            16 => {
                let n = self.random.below(MAPS);
                self.config_map(lab, n)?;
            }
            17 => self.crash(lab)?,
            18 => self.service(lab)?,
            _ => self.look(lab),
        }
        let pause = self.random.below(PAUSE_MS) as u64;
        std::thread::sleep(Duration::from_millis(pause));
        Ok(())
    }

    fn any(&mut self) -> Option<String> {
        if self.pods.is_empty() {
            return None;
        }
        let n = self.random.below(self.pods.len());
        self.pods.iter().nth(n).cloned()
    }

    fn make(&mut self, lab: &Lab) -> Result<()> {
        self.made += 1;
        let name = format!("p{}", self.made);
        lab.apply(&manifest(&name, &mut self.random)).with_context(|| format!("pod {name}"))?;
        self.pods.insert(name);
        Ok(())
    }

    fn delete(&mut self, lab: &Lab) -> Result<()> {
        let Some(name) = self.any() else { return Ok(()) };
        let mut args = vec!["delete", "pod", name.as_str(), "--wait=false", "--ignore-not-found"];
        if self.random.one_in(8) {
            args.extend(["--grace-period=0", "--force"]);
        }
        lab.kubectl(&args)?;
        self.pods.remove(&name);
        Ok(())
    }

    /// What the API refuses for this pod (a resize of one that is over) is no action.
    fn patch(&mut self, lab: &Lab, patch: impl FnOnce(&mut Random) -> (Vec<&'static str>, String)) -> Result<()> {
        let Some(name) = self.any() else { return Ok(()) };
        let (more, patch) = patch(&mut self.random);
        let mut args = vec!["patch", "pod", name.as_str(), "--type=strategic", "-p", patch.as_str()];
        args.extend(more);
        let _ = lab.kubectl(&args);
        Ok(())
    }

    fn config_map(&mut self, lab: &Lab, n: usize) -> Result<()> {
        let text = "t".repeat(1 + self.random.below(2000));
        lab.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{n}}}\ndata: {{a: {text}, b: {text}}}\n"))
            .map(drop)
    }

    fn service(&mut self, lab: &Lab) -> Result<()> {
        let name = format!("s{}", self.random.below(4));
        if self.services.remove(&name) {
            return lab.kubectl(&["delete", "service", &name]).map(drop);
        }
        let kind = ["ClusterIP", "NodePort"][self.random.below(2)];
        let spec = format!("{{type: {kind}, selector: {{churn: serve}}, ports: [{{port: 80, targetPort: 8080}}]}}");
        lab.apply(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n"))?;
        self.services.insert(name);
        Ok(())
    }

    /// A process of a pod ends as nobody asked it to; now and then a sandbox's.
    fn crash(&mut self, lab: &Lab) -> Result<()> {
        let tasks = lab.nodes[0].containerd.tasks()?;
        if tasks.is_empty() {
            return Ok(());
        }
        let (_, pid) = tasks[self.random.below(tasks.len())];
        // It may have ended meanwhile.
        let _ = if pid > 0 { kill(Pid::from_raw(pid), Signal::SIGKILL) } else { Ok(()) };
        Ok(())
    }

    /// Somebody reads the log or runs a command, where that is possible.
    fn look(&mut self, lab: &Lab) {
        let Some(name) = self.any() else { return };
        let _ = match self.random.below(3) {
            0 => lab.kubectl(&["logs", &name]),
            1 => lab.kubectl(&["exec", &name, "--", "/web", "echo", "hello"]),
            _ => lab.kubectl(&["logs", &name, "--previous"]),
        };
    }

    pub fn kill_agent(&mut self, lab: &mut Lab) -> Result<()> {
        self.agent_kills += 1;
        lab.nodes[0].kill_agent()?;
        std::thread::sleep(Duration::from_millis(self.random.below(2000) as u64));
        lab.start_agent(0)
    }

    fn kill_runtime(&mut self, lab: &mut Lab) -> Result<()> {
        self.runtime_kills += 1;
        lab.nodes[0].containerd.kill()?;
        std::thread::sleep(Duration::from_millis(self.random.below(2000) as u64));
        lab.nodes[0].containerd.start()
    }

    /// Also what was told to go before, and is on its way.
    pub fn delete_all(&mut self, lab: &Lab) -> Result<()> {
        lab.kubectl(&["delete", "service", "--wait=false", "--ignore-not-found", "s0", "s1", "s2", "s3"])?;
        lab.kubectl(&["delete", "pods", "--all", "--wait=false"])?;
        self.pods.clear();
        self.services.clear();
        wait_for("the pods to be gone", Duration::from_secs(90), || {
            let left = lab.list("pods", "")?;
            if left.is_empty() {
                return Ok(());
            }
            let shown = left.iter().map(|p| format!("{}: {}", p["metadata"]["name"], p["status"])).collect::<Vec<_>>();
            anyhow::bail!("left: {shown:#?}")
        })
    }
}

/// One of many kinds of pods.
fn manifest(name: &str, random: &mut Random) -> String {
    let serve = "args: [serve], readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}";
    let map = random.below(MAPS);
    let volumes = format!(
        "volumes: [{{name: told, configMap: {{name: m{map}}}}}, {{name: disk, emptyDir: {{}}}}, {{name: memory, emptyDir: {{medium: Memory}}}}]"
    );
    let mounts =
        "volumeMounts: [{name: told, mountPath: /told}, {name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]";
    let sized = "resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 500m, memory: 128Mi}}";
    let (main, spec) = match random.below(9) {
        0 => ("args: [exit, '1']".to_owned(), String::new()),
        1 => ("args: [exit, '0']".to_owned(), "restartPolicy: Never".to_owned()),
        2 => (format!("{serve}, {mounts}"), volumes),
        3 => {
            let init = format!(
                "initContainers: [{{name: first, image: {WEB}, args: [exit, '0']}}, {{name: side, image: {WEB}, args: [sleep, '10000'], restartPolicy: Always}}]"
            );
            (serve.to_owned(), init)
        }
        4 => {
            let probe = "livenessProbe: {exec: {command: [/web, echo]}, periodSeconds: 1}";
            (format!("args: [serve], {probe}, {sized}"), String::new())
        }
        5 => (format!("args: [ignore-term, '10000'], envFrom: [{{configMapRef: {{name: m{map}}}}}]"), String::new()),
        6 => ("args: [crash]".to_owned(), "restartPolicy: OnFailure".to_owned()),
        7 => {
            let hook =
                "lifecycle: {postStart: {exec: {command: [/web, echo]}}, preStop: {exec: {command: [/web, sleep, '0.3']}}}";
            (format!("{serve}, {hook}"), "hostNetwork: false".to_owned())
        }
        _ => (format!("{serve}, {sized}"), String::new()),
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{churn: serve}}}}\nspec:\n  terminationGracePeriodSeconds: 2\n  {spec}\n  \
         containers: [{{name: main, image: {WEB}, env: [{{name: WEB_DRAIN_MS, value: '0'}}], {main}}}]\n"
    )
}
