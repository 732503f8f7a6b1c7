//! What every container runtime must do, as functions over a [`Client`].
//!
//! Owns: the list of scenarios and what they have in common. They run against the fake runtime here and against real ones
//! elsewhere: that is what keeps the fake honest. Each makes pods of its own and removes them, also when it fails.

mod containers;
mod exec;
mod images;
mod sandboxes;
mod watching;

use crate::types::*;
use crate::{Client, Error};
use futures::future::BoxFuture;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the scenarios need to know about the runtime they run on.
#[derive(Debug, Clone)]
pub struct Params {
    /// An image that is on the node and holds the test program.
    pub image: String,
    /// The test program in it: `PROGRAM serve`, `env`, `exit N`, `sleep SECONDS`, `ignore-term SECONDS`, `cat FILE`, `echo TEXT..`.
    pub program: String,
    /// A name that no registry has.
    pub absent_image: String,
    /// Each pod's logs go into a folder below it.
    pub log_dir: PathBuf,
    /// For files to mount.
    pub scratch_dir: PathBuf,
    /// Puts the pods on the host's network, where there are no network plugins.
    pub host_network: bool,
    /// Empty: the runtime's own choice.
    pub cgroup_parent: String,
}

pub type Result = std::result::Result<(), String>;
pub type Scenario = for<'a> fn(&'a Client, &'a Params) -> BoxFuture<'a, Result>;

/// All of them, by name.
pub fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("version_and_status", |c, p| Box::pin(sandboxes::version_and_status(c, p))),
        ("sandbox_life", |c, p| Box::pin(sandboxes::life(c, p))),
        ("sandbox_name_conflict", |c, p| Box::pin(sandboxes::name_conflict(c, p))),
        ("sandbox_list_filters", |c, p| Box::pin(sandboxes::list_filters(c, p))),
        ("sandbox_removed_with_containers", |c, p| Box::pin(sandboxes::removed_with_containers(c, p))),
        ("sandbox_stopped_takes_no_containers", |c, p| Box::pin(sandboxes::stopped_takes_no_containers(c, p))),
        ("what_is_gone", |c, p| Box::pin(sandboxes::what_is_gone(c, p))),
        ("container_life", |c, p| Box::pin(containers::life(c, p))),
        ("container_name_conflict", |c, p| Box::pin(containers::name_conflict(c, p))),
        ("container_exit_codes", |c, p| Box::pin(containers::exit_codes(c, p))),
        ("container_without_such_command", |c, p| Box::pin(containers::no_such_command(c, p))),
        ("container_stop_with_grace", |c, p| Box::pin(containers::stop_with_grace(c, p))),
        ("container_removed_while_running", |c, p| Box::pin(containers::removed_while_running(c, p))),
        ("container_list_filters", |c, p| Box::pin(containers::list_filters(c, p))),
        ("container_environment_and_mounts", |c, p| Box::pin(containers::environment_and_mounts(c, p))),
        ("container_logs", |c, p| Box::pin(containers::logs(c, p))),
        ("container_resources", |c, p| Box::pin(containers::resources(c, p))),
        ("exec_sync_output", |c, p| Box::pin(exec::output(c, p))),
        ("exec_sync_timeout", |c, p| Box::pin(exec::timeout(c, p))),
        ("exec_sync_refused", |c, p| Box::pin(exec::refused(c, p))),
        ("streaming_urls", |c, p| Box::pin(exec::streaming_urls(c, p))),
        ("image_status", |c, p| Box::pin(images::status(c, p))),
        ("image_absent", |c, p| Box::pin(images::absent(c, p))),
        ("events", |c, p| Box::pin(watching::events(c, p))),
        ("statistics", |c, p| Box::pin(watching::statistics(c, p))),
        ("features", |c, p| Box::pin(watching::features(c, p))),
    ]
}

/// How long something may take that a runtime does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails with these words unless it holds.
macro_rules! check {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
use check;

/// Adds what was tried to an error.
trait Tried<T> {
    fn tried(self, what: &str) -> std::result::Result<T, String>;
}

impl<T> Tried<T> for std::result::Result<T, Error> {
    fn tried(self, what: &str) -> std::result::Result<T, String> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// A sandbox that is removed when its scenario is over.
struct Pod<'a> {
    client: &'a Client,
    params: &'a Params,
    config: SandboxConfig,
    id: String,
}

fn unique() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos:x}-{:x}-{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn sandbox_config(params: &Params, name: &str) -> SandboxConfig {
    let uid = unique();
    let network = if params.host_network { NamespaceMode::Node } else { NamespaceMode::Pod };
    let namespaces = NamespaceOptions { network, pid: NamespaceMode::Container, ..Default::default() };
    SandboxConfig {
        metadata: SandboxMetadata { name: name.to_owned(), namespace: "scenario".into(), uid: uid.clone(), attempt: 0 },
        hostname: if params.host_network { String::new() } else { name.to_owned() },
        log_directory: params.log_dir.join(&uid).to_string_lossy().into_owned(),
        labels: Labels::from([("scenario".into(), name.to_owned()), ("uid".into(), uid)]),
        annotations: Labels::from([("note".into(), "made by a scenario".into())]),
        cgroup_parent: params.cgroup_parent.clone(),
        security: SandboxSecurity { namespaces, ..Default::default() },
        ..Default::default()
    }
}

impl<'a> Pod<'a> {
    fn container(&self, name: &str, args: &[&str]) -> ContainerConfig {
        ContainerConfig {
            name: name.to_owned(),
            image: ImageSpec::new(&self.params.image),
            command: vec![self.params.program.clone()],
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            labels: Labels::from([("container".into(), name.to_owned())]),
            log_path: format!("{name}.log"),
            security: ContainerSecurity { namespaces: self.config.security.namespaces.clone(), ..Default::default() },
            ..Default::default()
        }
    }

    async fn create(&self, config: &ContainerConfig) -> std::result::Result<String, String> {
        self.client.create_container(&self.id, config, &self.config).await.tried("create")
    }

    /// Creates and starts one.
    async fn run(&self, name: &str, args: &[&str]) -> std::result::Result<String, String> {
        let id = self.create(&self.container(name, args)).await?;
        self.client.start_container(&id).await.tried("start")?;
        Ok(id)
    }

    async fn status(&self, id: &str) -> std::result::Result<ContainerStatus, String> {
        self.client.container_status(id, false).await.tried("status")
    }

    /// Waits until the container has ended.
    async fn ended(&self, id: &str) -> std::result::Result<ContainerStatus, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(id).await?;
            if status.state == ContainerState::Exited {
                return Ok(status);
            }
            check!(Instant::now() < deadline, "container {} is still {:?} after {PATIENCE:?}", status.name, status.state);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes a sandbox, does this with it, removes it; what was done counts more than what the removal says.
async fn with_pod<'a, F>(client: &'a Client, params: &'a Params, name: &str, work: impl FnOnce(Pod<'a>) -> F) -> Result
where
    F: Future<Output = Result> + 'a,
{
    let config = sandbox_config(params, name);
    std::fs::create_dir_all(&config.log_directory).map_err(|error| format!("{}: {error}", config.log_directory))?;
    let id = client.run_pod_sandbox(&config, "").await.tried("run sandbox")?;
    let done = work(Pod { client, params, config, id: id.clone() }).await;
    let removed = remove(client, &id).await;
    done.and(removed)
}

async fn remove(client: &Client, id: &str) -> Result {
    client.stop_pod_sandbox(id).await.tried("stop sandbox")?;
    client.remove_pod_sandbox(id).await.tried("remove sandbox")
}
