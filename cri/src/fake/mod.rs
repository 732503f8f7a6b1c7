//! A stateful container runtime on a real unix socket, for tests.
//!
//! Owns: sandboxes, containers, images and their make-believe processes, which outlive the server as real ones outlive
//! containerd. Its behaviour is held to the real one's by `scenario`, which runs on both.
//! Tests can read what was called, and make any call fail, wait, hang, take effect without an answer, or answer rubbish.
//!
//! The images' program is imitated too: `/web serve`, `env`, `echo`, `cat`, `sleep`, `exit` and so on do what the lab's do.

mod history;
mod image_service;
mod logs;
mod process;
mod profile;
mod program;
mod runtime_service;
mod shared;
mod socket;
mod state;
mod stats;
mod view;
mod work;

pub use history::Run;
pub use profile::Profile;
pub use program::{OnTerm, Program};
pub use state::{CallRecord, ContainerView, EventsCome, Fault, ImageConfig, Outcome, SandboxView};

use crate::error::Error;
use crate::pb::image_service_server::ImageServiceServer;
use crate::pb::runtime_service_server::RuntimeServiceServer;
use crate::{Client, Options};
use process::Signal;
use shared::Shared;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The largest request, as with containerd.
const REQUEST_MAX: usize = 16 << 20;

/// The runtime. Dropping it ends the server and its processes.
#[derive(Debug)]
pub struct Fake {
    shared: Arc<Shared>,
    socket: PathBuf,
    server: Mutex<Option<Server>>,
    _dir: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Server {
    cut: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Starts one in a folder of its own. Inside a tokio runtime only.
    pub fn start(profile: Profile) -> std::io::Result<Fake> {
        let dir = tempfile::Builder::new().prefix("fakecri").tempdir()?;
        let socket = dir.path().join("cri.sock");
        Self::start_in(profile, socket, Some(dir))
    }

    /// Starts one on this socket.
    pub fn start_at(profile: Profile, socket: &Path) -> std::io::Result<Fake> {
        Self::start_in(profile, socket.to_owned(), None)
    }

    fn start_in(profile: Profile, socket: PathBuf, dir: Option<tempfile::TempDir>) -> std::io::Result<Fake> {
        let fake = Fake { shared: Shared::new(profile), socket, server: Mutex::new(None), _dir: dir };
        fake.start_server()?;
        Ok(fake)
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn client(&self) -> Result<Client, Error> {
        self.client_with(Options::default())
    }

    pub fn client_with(&self, options: Options) -> Result<Client, Error> {
        Client::connect(&self.endpoint(), options)
    }

    // ------------------------------------------------------------ the server

    /// Listens (again). State and processes are as they were, and went on.
    pub fn start_server(&self) -> std::io::Result<()> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_some() {
            return Ok(());
        }
        let _ = std::fs::remove_file(&self.socket);
        let incoming = socket::incoming(UnixListener::bind(&self.socket)?, self.shared.clone());
        let cut = CancellationToken::new();
        self.shared.connect(cut.clone());
        let router = tonic::transport::Server::builder()
            .add_service(
                RuntimeServiceServer::new(runtime_service::Service(self.shared.clone())).max_decoding_message_size(REQUEST_MAX),
            )
            .add_service(
                ImageServiceServer::new(image_service::Service(self.shared.clone())).max_decoding_message_size(REQUEST_MAX),
            );
        let ended = cut.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                result = router.serve_with_incoming(incoming) => {
                    if let Err(error) = result {
                        tracing::warn!(%error, "the fake runtime's server ended");
                    }
                }
                () = ended.cancelled() => {}
            }
        });
        *server = Some(Server { cut, task });
        Ok(())
    }

    /// Ends the server as a kill does: every connection breaks, calls under way get no answer. Processes go on.
    pub async fn stop_server(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.cut.cancel();
            let _ = server.task.await;
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    pub async fn restart_server(&self) -> std::io::Result<()> {
        self.stop_server().await;
        self.start_server()
    }

    /// What it is from now on; with a restart in between this is an upgrade.
    pub fn set_profile(&self, profile: Profile) {
        self.shared.with(|state| state.profile = profile);
    }

    // ------------------------------------------------------------ faults

    /// From now on this call, named as in the interface, fails so; `"*"` is every call.
    pub fn inject(&self, method: &str, fault: Fault) {
        self.inject_first(method, u32::MAX, fault);
    }

    /// The next `times` calls fail so. What was injected first happens first.
    pub fn inject_first(&self, method: &str, times: u32, fault: Fault) {
        self.shared.with(|state| state.faults.push((method.to_owned(), times, fault)));
    }

    /// No more faults. What hangs already goes on hanging.
    pub fn clear_faults(&self) {
        self.shared.with(|state| state.faults.clear());
    }

    /// Events are made but never sent.
    pub fn lose_events(&self, lose: bool) {
        self.shared.with(|state| state.lose_events = lose);
    }

    /// How events come from now on.
    pub fn events_come(&self, how: EventsCome) {
        self.shared.with(|state| state.events_come = how);
    }

    /// From now on lists show what there is now, and nothing that happens later, until they no longer lag. Other answers, and
    /// events, are not behind.
    pub fn lag_lists(&self, lag: bool) {
        self.shared.with(|state| {
            state.lists = lag.then(|| Box::new((state.sandboxes.clone(), state.containers.clone())));
        });
    }

    // ------------------------------------------------------------ what was called

    /// All calls so far in the order they came in.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.shared.with(|state| state.calls.clone())
    }

    pub fn count(&self, method: &str) -> usize {
        self.shared.with(|state| state.calls.iter().filter(|call| call.method == method).count())
    }

    /// How many calls there were so far.
    pub fn call_count(&self) -> usize {
        self.shared.with(|state| state.calls.len())
    }

    pub fn clear_calls(&self) {
        self.shared.with(|state| state.forget_calls());
    }

    /// Waits until a call has come in that this is true for, or the deadline.
    pub async fn wait_for_call(&self, limit: std::time::Duration, is_it: impl Fn(&CallRecord) -> bool) -> Option<CallRecord> {
        self.wait(limit, || self.calls().into_iter().find(&is_it)).await
    }

    /// Looks again after every change here, until there is something or the deadline.
    pub async fn wait<T>(&self, limit: std::time::Duration, look: impl Fn() -> Option<T>) -> Option<T> {
        let mut changes = self.shared.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = look() {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(limit, found).await.ok().flatten()
    }

    /// Every process that ever ran, in the order of their starts.
    pub fn runs(&self) -> Vec<Run> {
        self.shared.with(|state| state.history.runs.clone())
    }

    /// How many sandboxes were ever made for this pod.
    pub fn sandboxes_made(&self, uid: &str) -> usize {
        self.shared.with(|state| state.history.sandboxes.iter().filter(|of| *of == uid).count())
    }

    // ------------------------------------------------------------ content

    pub fn sandboxes(&self) -> Vec<SandboxView> {
        self.shared.with(|state| state.sandbox_views())
    }

    pub fn containers(&self) -> Vec<ContainerView> {
        self.shared.with(|state| state.container_views())
    }

    /// An image that is on the node already.
    pub fn add_image(&self, name: &str, config: ImageConfig) {
        self.shared.with(|state| state.add_image(name, config));
    }

    /// An image that can be pulled.
    pub fn add_to_registry(&self, name: &str, config: ImageConfig) {
        self.shared.with(|state| {
            state.registry.insert(name.to_owned(), config);
        });
    }

    pub fn set_conditions(&self, runtime_ready: bool, network_ready: bool) {
        self.shared.with(|state| state.conditions = (runtime_ready, network_ready));
    }

    /// What a command line does that starts with these words, in containers and in ExecSync; before the built-in programs.
    pub fn script(&self, words: &[&str], program: Program) {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.shared.with(|state| state.scripts.insert(0, (words, program)));
    }

    /// Where Exec, Attach and PortForward send the caller: `http://127.0.0.1:PORT`.
    pub fn set_streaming_url(&self, base: &str) {
        self.shared.with(|state| state.streaming_url = base.to_owned());
    }

    /// Ends a container's process from outside; an empty reason is the usual one for the code. False if it does not run.
    pub fn exit_container(&self, id: &str, code: i32, reason: &str) -> bool {
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        self.shared.with(|state| state.signal(id, Signal::Exit(code, reason)))
    }

    /// As if the pause process had been killed: the sandbox is no longer ready. Its containers go on, unless they share its
    /// process namespace.
    pub fn kill_sandbox(&self, id: &str) {
        self.shared.kill_sandbox(id);
    }

    /// As if somebody had removed it behind the back of its owner.
    pub fn forget_container(&self, id: &str) {
        self.shared.forget_container(id);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            server.cut.cancel();
            server.task.abort();
        }
        self.shared.kill_all();
    }
}

#[cfg(test)]
mod tests;
