//! What the fake runtime knows: sandboxes, containers, images, calls and faults.

use super::history::History;
use super::process::{Process, Signal};
use super::profile::Profile;
use super::program::{self, Program};
use crate::convert::requests;
use crate::error::Code;
use crate::pb;
use crate::types::{ContainerConfig, ContainerState, SandboxConfig, SandboxState};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It answers this and does nothing.
    Error(Code, String),
    /// It does its work later.
    Delay(Duration),
    /// It never answers and does nothing.
    Hang,
    /// It does its work, then answers this instead.
    ErrorAfter(Code, String),
    /// It does its work and never answers.
    HangAfter,
    /// It does nothing, and answers a message without any content.
    Empty,
}

impl Fault {
    pub fn error(code: Code, message: &str) -> Fault {
        Fault::Error(code, message.to_owned())
    }
}

/// How events are brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsCome {
    Once,
    Twice,
    /// Each after a time of its own, up to this: out of order.
    Late(Duration),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Running,
    Answered,
    /// The caller, or the server, ended it.
    Cancelled,
}

#[derive(Debug, Clone)]
pub struct CallRecord {
    /// As in the interface: `StopContainer`.
    pub method: &'static str,
    /// What it was about: ids, names, image.
    pub ids: Vec<String>,
    pub at: Instant,
    pub outcome: Outcome,
}

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    pub uid: Option<i64>,
    pub username: String,
    pub size_bytes: u64,
    pub pinned: bool,
    /// User and password that the registry wants.
    pub credentials: Option<(String, String)>,
    pub pull_time: Duration,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            entrypoint: vec!["/web".into()],
            cmd: vec!["serve".into()],
            env: vec![("PATH".into(), "/bin:/usr/bin:/".into())],
            uid: Some(0),
            username: String::new(),
            size_bytes: 1 << 20,
            pinned: false,
            credentials: None,
            pull_time: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone)]
pub struct SandboxView {
    pub id: String,
    pub config: SandboxConfig,
    pub runtime_handler: String,
    pub state: SandboxState,
    pub ip: String,
}

#[derive(Debug, Clone)]
pub struct ContainerView {
    pub id: String,
    pub sandbox_id: String,
    pub config: ContainerConfig,
    pub state: ContainerState,
    pub exit_code: i32,
}

#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) config: pb::PodSandboxConfig,
    pub(super) handler: String,
    pub(super) ready: bool,
    pub(super) created_at: i64,
    pub(super) ip: String,
}

#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) config: pb::ContainerConfig,
    pub(super) state: pb::ContainerState,
    pub(super) created_at: i64,
    pub(super) started_at: i64,
    pub(super) finished_at: i64,
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) image_id: String,
    pub(super) log_path: String,
    pub(super) process: Option<Process>,
}

#[derive(Debug, Clone)]
pub(super) struct StoredImage {
    pub(super) id: String,
    pub(super) tags: Vec<String>,
    pub(super) config: ImageConfig,
}

/// Sandboxes and containers, by id.
pub(super) type Lists = (BTreeMap<String, Sandbox>, BTreeMap<String, Container>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) profile: Profile,
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) containers: BTreeMap<String, Container>,
    /// By id.
    pub(super) images: BTreeMap<String, StoredImage>,
    /// By name.
    pub(super) registry: BTreeMap<String, ImageConfig>,
    pub(super) scripts: Vec<(Vec<String>, Program)>,
    pub(super) conditions: (bool, bool),
    pub(super) streaming_url: String,
    pub(super) lose_events: bool,
    pub(super) events_come: EventsCome,
    /// What lists show while they lag.
    pub(super) lists: Option<Box<Lists>>,
    pub(super) history: History,
    pub(super) faults: Vec<(String, u32, Fault)>,
    pub(super) calls: Vec<CallRecord>,
    /// How many records were thrown away before the first one.
    pub(super) forgotten: usize,
    pub(super) counter: u64,
}

pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_nanos()).ok()).unwrap_or(0)
}

impl Container {
    /// Its process, while that runs.
    pub(super) fn running(&self) -> Option<Process> {
        self.process.clone().filter(|_| self.state == pb::ContainerState::ContainerRunning)
    }
}

impl State {
    /// 64 hexadecimal digits, as real runtimes have them; never the same twice.
    pub(super) fn new_id(&mut self) -> String {
        self.counter += 1;
        let mixed = self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:016x}", mixed).repeat(4)
    }

    pub(super) fn next_ip(&mut self) -> String {
        self.counter += 1;
        format!("10.244.{}.{}", (self.counter >> 8) & 0xff, self.counter & 0xff)
    }

    pub(super) fn add_image(&mut self, name: &str, config: ImageConfig) -> String {
        if let Some(old) = self.image(name).map(|image| image.id.clone()) {
            if let Some(image) = self.images.get_mut(&old) {
                image.config = config;
            }
            return old;
        }
        let id = format!("sha256:{}", self.new_id());
        self.images.insert(id.clone(), StoredImage { id: id.clone(), tags: vec![name.to_owned()], config });
        id
    }

    /// By id or by name.
    pub(super) fn image(&self, reference: &str) -> Option<&StoredImage> {
        self.images.get(reference).or_else(|| self.images.values().find(|image| image.tags.iter().any(|tag| tag == reference)))
    }

    pub(super) fn forget_calls(&mut self) {
        self.forgotten += self.calls.len();
        self.calls.clear();
    }

    pub(super) fn signal(&self, id: &str, signal: Signal) -> bool {
        match self.containers.get(id).and_then(Container::running) {
            Some(process) => {
                process.send(signal);
                true
            }
            None => false,
        }
    }

    pub(super) fn sandbox_views(&self) -> Vec<SandboxView> {
        let view = |s: &Sandbox| {
            Some(SandboxView {
                id: s.id.clone(),
                config: requests::sandbox_config(s.config.clone()).ok()?,
                runtime_handler: s.handler.clone(),
                state: if s.ready { SandboxState::Ready } else { SandboxState::NotReady },
                ip: s.ip.clone(),
            })
        };
        self.sandboxes.values().filter_map(view).collect()
    }

    pub(super) fn container_views(&self) -> Vec<ContainerView> {
        let view = |c: &Container| {
            Some(ContainerView {
                id: c.id.clone(),
                sandbox_id: c.sandbox_id.clone(),
                config: requests::container_config(c.config.clone()).ok()?,
                state: match c.state {
                    pb::ContainerState::ContainerCreated => ContainerState::Created,
                    pb::ContainerState::ContainerRunning => ContainerState::Running,
                    pb::ContainerState::ContainerExited => ContainerState::Exited,
                    pb::ContainerState::ContainerUnknown => ContainerState::Unknown,
                },
                exit_code: c.exit_code,
            })
        };
        self.containers.values().filter_map(view).collect()
    }

    /// What a command line does in this container, or `None` if there is no such program.
    pub(super) fn program(&self, container: &Container, argv: &[String]) -> Option<Program> {
        if let Some((_, program)) = self.scripts.iter().find(|(words, _)| argv.starts_with(words)) {
            return Some(program.clone());
        }
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        if let Some(image) = self.images.get(&container.image_id) {
            env.extend(image.config.env.iter().cloned());
        }
        if let Some(sandbox) = self.sandboxes.get(&container.sandbox_id) {
            env.insert("HOSTNAME".into(), sandbox.config.hostname.clone());
        }
        env.extend(container.config.envs.iter().map(|e| (e.key.clone(), String::from_utf8_lossy(&e.value).into_owned())));
        let env: Vec<(String, String)> = env.into_iter().collect();
        let read = |path: &str| std::fs::read(on_host(&container.config.mounts, path)?).ok();
        program::interpret(argv, &env, read)
    }

    /// What a program writes to files on its container's mounts.
    pub(super) fn write(&self, container: &Container, program: &Program) {
        for (path, content) in &program.writes {
            if let Some(file) = on_host(&container.config.mounts, path)
                && let Err(error) = std::fs::write(&file, content)
            {
                tracing::warn!(%error, path = %file.display(), "the fake runtime cannot write a file");
            }
        }
    }

    /// The command line a container is started with.
    pub(super) fn argv(&self, container: &Container) -> Vec<String> {
        let config = &container.config;
        let mut argv = config.command.clone();
        if argv.is_empty() {
            let image = self.images.get(&container.image_id).map(|image| &image.config);
            argv.extend(image.iter().flat_map(|image| image.entrypoint.iter().cloned()));
            if config.args.is_empty() {
                argv.extend(image.iter().flat_map(|image| image.cmd.iter().cloned()));
            }
        }
        argv.extend(config.args.iter().cloned());
        argv
    }
}

/// Where a path of the container is on the host, if it is mounted: the innermost mount counts.
fn on_host(mounts: &[pb::Mount], path: &str) -> Option<PathBuf> {
    let inside = |mount: &&pb::Mount| path == mount.container_path || path.starts_with(&format!("{}/", mount.container_path));
    let mount = mounts.iter().filter(inside).max_by_key(|mount| mount.container_path.len())?;
    Some(PathBuf::from(format!("{}{}", mount.host_path, &path[mount.container_path.len()..])))
}
