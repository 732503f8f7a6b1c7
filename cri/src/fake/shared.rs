//! The fake runtime's state behind its lock: calls are noted, fail as told, and tell whoever waits for changes. The lock is never held
//! across an await.

use super::history::History;
use super::logs;
use super::process::{self, Process, Signal};
use super::profile::Profile;
use super::state::{CallRecord, Container, EventsCome, Fault, Outcome, Sandbox, State, now};
use crate::pb;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<pb::ContainerEventResponse>,
    changed: watch::Sender<u64>,
    /// Ends all connections of the present server.
    cut: Mutex<CancellationToken>,
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
            events_come: EventsCome::Once,
            lists: None,
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
            let (how, number) = self.with(|state| {
                state.counter += 1;
                (state.events_come, state.counter)
            });
            match how {
                EventsCome::Once => drop(self.events.send(event)),
                EventsCome::Twice => [event.clone(), event].into_iter().for_each(|event| drop(self.events.send(event))),
                EventsCome::Late(most) => {
                    // Spread evenly by the golden ratio.
                    let wait = most.mul_f64((number as f64 * 0.618_033_988).fract());
                    let events = self.events.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(wait).await;
                        let _ = events.send(event);
                    });
                }
            }
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
