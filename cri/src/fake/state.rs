//! What the fake runtime knows: sandboxes, containers, images, calls and faults. The lock is never held across an await.

use super::history::History;
use super::logs;
use super::process::{self, Process, Signal};
use super::profile::Profile;
use super::program::{self, Program};
use crate::convert::requests;
use crate::error::Code;
use crate::pb;
use crate::types::{ContainerConfig, ContainerState, SandboxConfig, SandboxState};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

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
    pub(super) history: History,
    pub(super) faults: Vec<(String, u32, Fault)>,
    pub(super) calls: Vec<CallRecord>,
    /// How many records were thrown away before the first one.
    forgotten: usize,
    counter: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<pb::ContainerEventResponse>,
    changed: watch::Sender<u64>,
    /// Ends all connections of the present server.
    cut: Mutex<CancellationToken>,
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

impl Shared {
    pub(super) fn new(profile: Profile) -> Arc<Self> {
        let state = State {
            profile,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            registry: BTreeMap::new(),
            scripts: Vec::new(),
            conditions: (true, true),
            streaming_url: "http://127.0.0.1:1".into(),
            lose_events: false,
            history: History::default(),
            faults: Vec::new(),
            calls: Vec::new(),
            forgotten: 0,
            counter: 0,
        };
        let (events, _) = broadcast::channel(4096);
        let (changed, _) = watch::channel(0);
        Arc::new(Self { state: Mutex::new(state), events, changed, cut: Mutex::new(CancellationToken::new()) })
    }

    /// Reads or changes the state. What tests may wait for is followed by [`Shared::touch`].
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn connect(&self, cut: CancellationToken) {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }

    pub(super) fn cut(&self) -> CancellationToken {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<pb::ContainerEventResponse> {
        self.events.subscribe()
    }

    /// Writes the call down, and says how it shall fail. Unimplemented calls are written down too.
    pub(super) fn begin(self: &Arc<Self>, method: &'static str, ids: Vec<String>) -> (Ticket, Option<Fault>, bool) {
        let (number, fault, missing) = self.with(|state| {
            state.calls.push(CallRecord { method, ids, at: Instant::now(), outcome: Outcome::Running });
            let number = state.forgotten + state.calls.len() - 1;
            let position = state.faults.iter().position(|(name, times, _)| *times > 0 && (name == method || name == "*"));
            let fault = position.map(|at| {
                let (_, times, fault) = &mut state.faults[at];
                if *times != u32::MAX {
                    *times -= 1;
                }
                fault.clone()
            });
            state.faults.retain(|(_, times, _)| *times > 0);
            (number, fault, state.profile.missing.contains(method))
        });
        self.touch();
        (Ticket { shared: self.clone(), number, outcome: Outcome::Cancelled }, fault, missing)
    }

    pub(super) fn emit(&self, id: &str, sandbox_id: &str, kind: pb::ContainerEventType) {
        let event = self.with(|state| {
            if state.lose_events {
                return None;
            }
            let sandbox = state.sandboxes.get(sandbox_id);
            Some(pb::ContainerEventResponse {
                container_id: id.to_owned(),
                container_event_type: kind as i32,
                created_at: now(),
                pod_sandbox_status: sandbox.map(Sandbox::status),
                containers_statuses: state
                    .containers
                    .values()
                    .filter(|container| container.sandbox_id == sandbox_id)
                    .map(|container| state.container_status(container))
                    .collect(),
            })
        });
        if let Some(event) = event {
            let _ = self.events.send(event);
        }
        self.touch();
    }

    /// Starts the container's process, or says why it cannot be.
    pub(super) fn start(self: &Arc<Self>, id: &str) -> Result<(), String> {
        let started = self.with(|state| {
            let container = state.containers.get(id).cloned().ok_or_else(|| format!("container {id:?} is gone"))?;
            let argv = state.argv(&container);
            let program = state.program(&container, &argv);
            program.iter().for_each(|program| state.write(&container, program));
            let stored = state.containers.get_mut(id).ok_or_else(|| format!("container {id:?} is gone"))?;
            let Some(program) = program else {
                let name = argv.first().cloned().unwrap_or_default();
                let message = format!(
                    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                     unable to start container process: exec: {name:?}: stat {name}: no such file or directory: unknown"
                );
                stored.state = pb::ContainerState::ContainerExited;
                stored.finished_at = now();
                stored.exit_code = 128;
                stored.reason = "StartError".into();
                stored.message = message.clone();
                return Err(message);
            };
            if !stored.log_path.is_empty()
                && let Err(error) = logs::append(stored.log_path.as_ref(), now(), &program.stdout, &program.stderr)
            {
                tracing::warn!(%error, path = stored.log_path, "the fake runtime cannot write a log");
            }
            stored.state = pb::ContainerState::ContainerRunning;
            stored.started_at = now();
            stored.process = Some(process::spawn(Arc::downgrade(self), id.to_owned(), program));
            let sandbox_id = stored.sandbox_id.clone();
            state.note_start(id);
            Ok(sandbox_id)
        });
        self.touch();
        let sandbox_id = started?;
        self.emit(id, &sandbox_id, pb::ContainerEventType::ContainerStartedEvent);
        Ok(())
    }

    pub(super) fn process_ended(&self, id: &str, code: i32, reason: Option<String>, told: bool) {
        let sandbox_id = self.with(|state| {
            state.note_end(id, told);
            let container = state.containers.get_mut(id)?;
            container.state = pb::ContainerState::ContainerExited;
            container.finished_at = now();
            container.exit_code = code;
            container.reason = reason.unwrap_or_else(|| if code == 0 { "Completed".into() } else { "Error".into() });
            Some(container.sandbox_id.clone())
        });
        if let Some(sandbox_id) = sandbox_id {
            self.emit(id, &sandbox_id, pb::ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// The processes of a sandbox's containers that run.
    pub(super) fn running_in(&self, sandbox_id: &str) -> Vec<Process> {
        self.with(|state| {
            state.containers.values().filter(|c| c.sandbox_id == sandbox_id).filter_map(Container::running).collect()
        })
    }

    pub(super) fn kill_sandbox(&self, id: &str) {
        let shared = |s: &Sandbox| {
            let context = s.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
            let namespaces = context.and_then(|c| c.namespace_options.as_ref());
            namespaces.is_some_and(|n| n.pid() == pb::NamespaceMode::Pod)
        };
        if self.with(|state| state.sandboxes.get(id).is_some_and(shared)) {
            // The kernel ends all of a process namespace with its first process.
            self.running_in(id).iter().for_each(|process| process.send(Signal::Kill));
        }
        self.sandbox_stopped(id);
    }

    /// Marks it as not ready, once.
    pub(super) fn sandbox_stopped(&self, id: &str) {
        let was = self.with(|state| state.sandboxes.get_mut(id).map(|s| std::mem::replace(&mut s.ready, false)));
        if was == Some(true) {
            self.emit(id, id, pb::ContainerEventType::ContainerStoppedEvent);
        }
    }

    pub(super) fn forget_container(&self, id: &str) {
        if let Some(container) = self.with(|state| state.containers.remove(id)) {
            if let Some(process) = &container.process {
                process.send(Signal::Kill);
            }
            self.emit(id, &container.sandbox_id, pb::ContainerEventType::ContainerDeletedEvent);
        }
    }

    pub(super) fn kill_all(&self) {
        self.with(|state| {
            for process in state.containers.values().filter_map(|c| c.process.as_ref()) {
                process.send(Signal::Kill);
            }
        });
    }
}

/// A call under way; what becomes of it is written down when this goes.
#[derive(Debug)]
pub(super) struct Ticket {
    shared: Arc<Shared>,
    number: usize,
    pub(super) outcome: Outcome,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let (number, outcome) = (self.number, self.outcome);
        self.shared.with(|state| {
            if let Some(record) = number.checked_sub(state.forgotten).and_then(|index| state.calls.get_mut(index)) {
                record.outcome = outcome;
            }
        });
        self.shared.touch();
    }
}
