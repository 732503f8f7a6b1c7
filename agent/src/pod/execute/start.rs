//! Creating and starting a container.

use super::stop::Ending;
use super::{CONFIG_ERROR, Failed, Job, Outcome};
use crate::cgroup;
use crate::pod::container::{self, ContainerInput, Mounted};
use crate::pod::desired::image_volumes;
use crate::pod::env::{self, Fetched, FoundInFile};
use crate::pod::hosts;
use crate::pod::stage::Stage;
use crate::pod::{Time, after};
use crate::volume::SubPath;
use ferrolet_cri::types as cri;
use ferrolet_netproxy::wire::Service;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// What sets one instance of a container apart from the others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Instance<'a> {
    pub attempt: u32,
    pub backoff: Duration,
    pub round: u32,
    /// The container whose processes it is to see, by id.
    pub target: Option<&'a str>,
}

impl Job {
    pub(super) async fn start_container(&self, name: &str, sandbox_id: &str, instance: Instance<'_>) -> Result<Outcome, Failed> {
        let created = self.create(name, sandbox_id, instance).await;
        let id = created.inspect_err(|f| self.warn(Some(name), "Failed", format!("Error: {}", f.message)))?;
        self.normal(Some(name), "Created", "Container created");
        self.start(name, &id).await
    }

    /// An interrupted attempt got as far as creating it.
    pub(super) async fn start_created(&self, name: &str, id: &str) -> Result<Outcome, Failed> {
        self.start(name, id).await
    }

    async fn start(&self, name: &str, id: &str) -> Result<Outcome, Failed> {
        self.at(Stage::Starting);
        self.check_stop_signal(name, id).await;
        if let Err(error) = self.shared.cri.start_container(id).await {
            let message = error.message();
            self.warn(Some(name), "Failed", format!("Error: {message}"));
            return Err(Failed { reason: "RunContainerError", message });
        }
        self.normal(Some(name), "Started", "Container started");
        let hook = self.desired.spec_of(name).and_then(|c| c.lifecycle.as_ref()?.post_start.as_ref());
        if hook.is_some() {
            self.at(Stage::PostStart);
        }
        if let Some(hook) = hook
            && let Err(error) = self.hook(name, id, hook).await
        {
            self.at(Stage::HookFailed);
            tracing::warn!(pod = %self.desired.id, container = name, error, "postStart hook failed");
            // The hook's own words may hold secrets: they are for those who may read the pod, and not told in an event.
            self.warn(Some(name), "FailedPostStartHook", "PostStartHook failed");
            self.normal(Some(name), "Killing", "FailedPostStartHook");
            let deadline = watch::channel(after(Time::now(), self.desired.grace)).1;
            let _ = self.end_container(&Ending { name, id, follows: &[], deadline }).await;
            return Err(Failed { reason: "PostStartHookError", message: error });
        }
        Ok(Outcome::Done)
    }

    /// Runtimes before CRI 1.33 do not know the field and would stop the container with another signal: the user is told.
    async fn check_stop_signal(&self, name: &str, id: &str) {
        let wanted = self.desired.spec_of(name).and_then(|c| c.lifecycle.as_ref()?.stop_signal.clone());
        let Some(wanted) = wanted else { return };
        match self.shared.cri.container_status(id, false).await {
            Ok(status) if status.stop_signal.as_ref() != Some(&wanted) => {
                let message = format!("the container runtime does not know stop signals: {wanted} will not be used");
                self.warn(Some(name), "StopSignalUnsupported", message);
            }
            // What is wrong with the runtime shows in what follows.
            Ok(_) | Err(_) => {}
        }
    }

    async fn create(&self, name: &str, sandbox_id: &str, instance: Instance<'_>) -> Result<String, Failed> {
        self.at(Stage::Gathering);
        let config_error = |e: &dyn std::fmt::Display| Failed::new(CONFIG_ERROR, e);
        let (Some(wanted), Some(spec)) = (self.desired.container(name), self.desired.spec_of(name)) else {
            return Err(Failed::new(CONFIG_ERROR, format!("container {name:?} is not in the pod")));
        };
        let Some(image) = &self.image else {
            return Err(Failed::new(CONFIG_ERROR, format!("the image of container {name:?} is not known")));
        };
        let env = self.environment(spec).await?;
        self.check_image_volumes(spec).await?;
        let mut mounts = container::volume_mounts(spec, self.prepared.recursive_read_only, |volume| {
            let path = || self.prepared.host_paths.get(volume).map(|p| Mounted::Path(p.to_string_lossy().into_owned()));
            let reference = |id: &String| Mounted::Image { id: id.clone(), reference: self.reference_of(volume) };
            image.volumes.get(volume).map(reference).or_else(path)
        })
        .map_err(|e| config_error(&e))?;
        for (m, mount) in spec.volume_mounts.iter().flatten().zip(&mut mounts) {
            mount.readonly |= self.prepared.read_only.contains(&m.name);
        }
        let devices = container::volume_devices(spec, |volume| {
            let path = self.prepared.devices.get(volume)?;
            Some((path.to_string_lossy().into_owned(), self.prepared.read_only.contains(volume)))
        })
        .map_err(|e| config_error(&e))?;
        self.sub_paths(spec, &env, &mut mounts).await.map_err(|e| config_error(&e))?;
        let pod_dir = self.shared.volumes.pod_dir(&self.desired.id.uid).map_err(|e| config_error(&e))?;
        self.managed_files(&pod_dir, spec, instance.attempt, &mut mounts).await.map_err(|e| config_error(&e))?;
        let sandbox = self.observed.sandboxes.iter().find(|s| s.id == sandbox_id).map_or(0, |s| s.attempt);
        let sandbox = self.sandbox_config(sandbox).await.map_err(|e| config_error(&e))?;
        let input = ContainerInput {
            desired: &self.desired,
            wanted,
            spec,
            attempt: instance.attempt,
            backoff: instance.backoff,
            round: instance.round,
            image,
            env,
            mounts,
            devices,
            target: instance.target,
            node: &self.shared.limits,
        };
        let mut config = container::container(input).map_err(|e| config_error(&e))?;
        if let Some(resources) = &mut config.resources {
            let limit = resources.memory_limit_bytes.unwrap_or(0);
            let extras = cgroup::extras(&self.desired.pod, spec, limit, &self.shared.memory);
            container::extend(resources, extras);
        }
        if let Some(cri::SecurityProfile::Localhost(file)) = &mut config.security.seccomp {
            *file = self.shared.config.root_dir.join("seccomp").join(&file).to_string_lossy().into_owned();
        }
        container::in_user_namespace(&mut config, sandbox.security.namespaces.user.as_ref());
        let logs = Path::new(&sandbox.log_directory).join(name);
        tokio::fs::create_dir_all(&logs)
            .await
            .map_err(|e| Failed::new("CreateContainerError", format!("create {}: {e}", logs.display())))?;
        self.at(Stage::Creating);
        let created = self.shared.cri.create_container(sandbox_id, &config, &sandbox).await;
        created.map_err(|e| Failed::new("CreateContainerError", e.message()))
    }

    /// The pod's own name for the image of a volume.
    fn reference_of(&self, volume: &str) -> String {
        let found = image_volumes(&self.desired.pod).find(|(name, _)| *name == volume);
        found.and_then(|(_, image)| image.reference.clone()).unwrap_or_default()
    }

    /// A runtime that does not know the field would mount nothing, or fail with words that say nothing.
    async fn check_image_volumes(&self, spec: &api::Container) -> Result<(), Failed> {
        let is_image = |name: &str| image_volumes(&self.desired.pod).any(|(volume, _)| volume == name);
        let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        let mounts = spec.volume_mounts.iter().flatten().filter(|m| is_image(&m.name));
        let asked: Vec<(&str, bool)> = mounts.map(|m| (m.name.as_str(), given(&m.sub_path) || given(&m.sub_path_expr))).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let version = self.shared.cri.version().await.map_err(|e| Failed::new(CONFIG_ERROR, e))?;
        let (name, version) = (version.runtime_name, version.runtime_version);
        let why = |part| container::no_image_volumes(&name, &version, part);
        let refused = asked.iter().find_map(|(volume, part)| Some((volume, why(*part)?)));
        refused.map_or(Ok(()), |(volume, why)| Err(Failed::new(CONFIG_ERROR, format!("volume {volume:?}: {why}"))))
    }

    /// Puts the part of the volume that each mount asks for in the place of the whole.
    async fn sub_paths(&self, spec: &api::Container, env: &[cri::EnvVar], mounts: &mut [cri::Mount]) -> Result<(), String> {
        for (index, (m, mount)) in spec.volume_mounts.iter().flatten().zip(mounts).enumerate() {
            let sub = match (m.sub_path.as_deref(), m.sub_path_expr.as_deref()) {
                (_, Some(text)) if !text.is_empty() => env::expand_sub_path(text, env).map_err(|e| e.to_string())?,
                (Some(sub), _) if !sub.is_empty() => sub.to_owned(),
                _ => continue,
            };
            if mount.image.is_some() {
                mount.image_sub_path = crate::volume::checked_path(&m.name, &sub).map_err(|e| super::chain(&e))?;
                continue;
            }
            let root = std::path::PathBuf::from(&mount.host_path);
            let wanted = SubPath { volume: &m.name, container: &spec.name, index, root: &root, sub: &sub };
            let found = self.shared.volumes.sub_path(&self.desired.id.uid, &wanted).await;
            mount.host_path = found.map_err(|e| super::chain(&e))?.to_string_lossy().into_owned();
        }
        Ok(())
    }

    async fn environment(&self, spec: &api::Container) -> Result<Vec<cri::EnvVar>, Failed> {
        let fetched = self.fetch_sources(spec).await?;
        let links = self.desired.pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
        let services = self.service_variables(links).await?;
        env::resolve(&self.desired.pod, spec, &fetched, &services, &self.context()).map_err(|e| Failed::new(CONFIG_ERROR, e))
    }

    async fn fetch_sources(&self, spec: &api::Container) -> Result<Fetched, Failed> {
        let needs = env::needs(spec);
        let namespace = &self.desired.id.namespace;
        let (objects, mut fetched) = (&self.shared.objects, Fetched::default());
        for name in needs.config_maps {
            let found = objects.get::<api::ConfigMap>(namespace, &name).await;
            let found = found.map_err(|e| Failed::new(CONFIG_ERROR, format!("configmap {namespace}/{name}: {e}")))?;
            fetched.config_maps.insert(name, found);
        }
        for name in needs.secrets {
            let found = objects.get::<api::Secret>(namespace, &name).await;
            let found = found.map_err(|e| Failed::new(CONFIG_ERROR, format!("secret {namespace}/{name}: {e}")))?;
            fetched.secrets.insert(name, found);
        }
        for wanted in needs.files {
            let found = self.in_file(&wanted).await;
            fetched.files.insert(wanted, found);
        }
        Ok(fetched)
    }

    /// Looked up at each start: the file is there once the container that writes it has ended.
    async fn in_file(&self, wanted: &env::InFile) -> FoundInFile {
        let volumes = self.desired.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let empty_dir = volumes.filter(|v| v.empty_dir.is_some()).any(|v| v.name == wanted.volume);
        let Some(root) = self.prepared.host_paths.get(&wanted.volume).filter(|_| empty_dir) else {
            return FoundInFile::NoVolume;
        };
        let key = wanted.key.clone();
        let read = self.shared.volumes.with_file(root, &wanted.path, move |file| env::file::find(file, &key)).await;
        match read {
            Err(error) => FoundInFile::Unreadable(env::file::FileError::Open(super::chain(&error))),
            Ok(Err(error)) => FoundInFile::Unreadable(error),
            Ok(Ok(value)) => {
                let at = root.join(wanted.path.trim_start_matches('/'));
                FoundInFile::Read { at: at.to_string_lossy().into_owned(), value }
            }
        }
    }

    async fn service_variables(&self, links: bool) -> Result<BTreeMap<String, String>, Failed> {
        let namespace = &self.desired.id.namespace;
        if let Some(services) = &self.shared.services {
            let snapshot = services.borrow().clone();
            // A static pod starts with what is known of services, as there need not be any API server.
            if !snapshot.synced && !crate::admission::is_static(&self.desired.pod) {
                let message = "services have not yet been read at least once, cannot construct envvars";
                return Err(Failed::new(CONFIG_ERROR, message));
            }
            return Ok(env::of_services(snapshot.items.values().map(AsRef::as_ref), namespace, links));
        }
        // Without a snapshot at least the API's own address, which clients in the cluster rely on.
        let api = kube::Api::<api::Service>::namespaced(self.shared.kube.clone(), "default");
        let found = match api.get_opt("kubernetes").await {
            Err(_) if crate::admission::is_static(&self.desired.pod) => None,
            found => found.map_err(|e| Failed::new(CONFIG_ERROR, format!("service default/kubernetes: {e}")))?,
        };
        let lean = found.and_then(|s| serde_json::to_value(s).ok()).and_then(|v| serde_json::from_value::<Service>(v).ok());
        Ok(env::of_services(lean.iter(), namespace, false))
    }

    /// /etc/hosts and the termination message file, unless a volume is mounted there.
    async fn managed_files(
        &self,
        pod_dir: &Path,
        spec: &api::Container,
        attempt: u32,
        mounts: &mut Vec<cri::Mount>,
    ) -> Result<(), String> {
        let failed = |path: &Path, e: std::io::Error| format!("write {}: {e}", path.display());
        let taken = |path: &str, mounts: &[cri::Mount]| mounts.iter().any(|m| m.container_path == path);
        let ips = self.observed.newest_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        if !taken("/etc/hosts", mounts) && (self.desired.host_network || !ips.is_empty()) {
            let name = hosts::name(&self.desired.pod, &self.shared.config.cluster_domain).map_err(|e| e.to_string())?;
            let own = if self.desired.host_network { tokio::fs::read_to_string("/etc/hosts").await.ok() } else { None };
            let text = hosts::file(&self.desired.pod, &name, &ips, own.as_deref());
            let path = pod_dir.join("etc-hosts");
            tokio::fs::create_dir_all(pod_dir).await.map_err(|e| failed(pod_dir, e))?;
            tokio::fs::write(&path, text).await.map_err(|e| failed(&path, e))?;
            set_mode(&path, 0o644).await.map_err(|e| failed(&path, e))?;
            mounts.push(mount(&path, "/etc/hosts"));
        }
        let target = container::message_path(spec);
        if !target.is_empty() && !taken(target, mounts) {
            let folder: PathBuf = pod_dir.join("containers").join(&spec.name);
            let path = folder.join(format!("{attempt:08x}"));
            tokio::fs::create_dir_all(&folder).await.map_err(|e| failed(&folder, e))?;
            tokio::fs::write(&path, "").await.map_err(|e| failed(&path, e))?;
            // Any user may write its last words.
            set_mode(&path, 0o666).await.map_err(|e| failed(&path, e))?;
            mounts.push(mount(&path, target));
        }
        Ok(())
    }
}

fn mount(host: &Path, target: &str) -> cri::Mount {
    cri::Mount { container_path: target.to_owned(), host_path: host.to_string_lossy().into_owned(), ..Default::default() }
}

async fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).await
}
