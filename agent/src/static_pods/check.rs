//! What is wrong with a static pod: what an API server would refuse, and what no pod without one may ask for. Pure.
//!
//! Not all of an API server's checks: those whose neglect would let a pod do other than its manifest says, or harm the node. What this
//! agent cannot do is found later, as for every pod. Facts from `pkg/apis/core/validation` and `pkg/api/pod`.

use crate::config::is_subdomain;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use std::collections::BTreeSet;

const DNS_NAME: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                        with an alphanumeric character";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";

struct Problems(Vec<String>);

impl Problems {
    fn required(&mut self, field: impl std::fmt::Display) {
        self.0.push(format!("{field}: Required value"));
    }

    fn invalid(&mut self, field: impl std::fmt::Display, value: impl std::fmt::Debug, why: &str) {
        self.0.push(format!("{field}: Invalid value: {value:?}: {why}"));
    }

    fn duplicate(&mut self, field: impl std::fmt::Display, value: &str) {
        self.0.push(format!("{field}: Duplicate value: {value:?}"));
    }

    fn one_of(&mut self, field: impl std::fmt::Display, value: &Option<String>, allowed: &[&str]) {
        let value = value.as_deref().unwrap_or_default();
        if !allowed.contains(&value) {
            let all: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
            self.0.push(format!("{field}: Unsupported value: {value:?}: supported values: {}", all.join(", ")));
        }
    }

    fn label(&mut self, field: impl std::fmt::Display, value: &str) {
        if value.is_empty() {
            self.required(field);
        } else if value.len() > 63 || value.contains('.') || !is_subdomain(value) {
            self.invalid(field, value, DNS_LABEL);
        }
    }
}

/// In kubelet's words, one a field; the defaults are in place.
pub(super) fn problems(pod: &Pod) -> Vec<String> {
    let mut p = Problems(Vec::new());
    let meta = &pod.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    if !is_subdomain(name) {
        p.invalid("metadata.name", name, DNS_NAME);
    }
    p.label("metadata.namespace", meta.namespace.as_deref().unwrap_or_default());
    let uid = meta.uid.as_deref().unwrap_or_default();
    // It becomes the name of folders.
    if !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') || uid.len() > 128 {
        p.invalid("metadata.uid", uid, "must consist of alphanumeric characters or '-'");
    }
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    p.one_of("spec.restartPolicy", &spec.restart_policy, &["Always", "OnFailure", "Never"]);
    p.one_of("spec.dnsPolicy", &spec.dns_policy, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let seconds = spec.termination_grace_period_seconds.unwrap_or_default();
        p.invalid("spec.terminationGracePeriodSeconds", seconds, "must be greater than or equal to 0");
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| *s < 1) {
        p.invalid("spec.activeDeadlineSeconds", seconds, "must be between 1 and 2147483647, inclusive");
    }
    if spec.ephemeral_containers.iter().flatten().next().is_some() {
        p.0.push("spec.ephemeralContainers: Forbidden: cannot be set on create".into());
    }
    if spec.containers.is_empty() {
        p.required("spec.containers");
    }
    let volumes = volumes(&mut p, spec.volumes.as_deref().unwrap_or_default());
    let mut names = BTreeSet::new();
    let lists = [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    for (list, containers) in lists {
        for (i, c) in containers.iter().enumerate() {
            let at = format!("spec.{list}[{i}]");
            container(&mut p, &at, c, &volumes, &mut names);
            proc_mount(&mut p, &at, c, spec.host_users != Some(false));
        }
    }
    own_users(&mut p, spec);
    p.0
}

/// All of /proc is only for who is nobody on the host.
fn proc_mount(p: &mut Problems, at: &str, c: &Container, host_users: bool) {
    let Some(kind) = c.security_context.as_ref().and_then(|s| s.proc_mount.as_ref()) else { return };
    let field = format!("{at}.securityContext.procMount");
    p.one_of(&field, &Some(kind.clone()), &["Default", "Unmasked"]);
    if host_users && kind == "Unmasked" {
        p.invalid(field, kind, "`hostUsers` must be false to use `Unmasked`");
    }
}

/// A user namespace goes with no other namespace of the host, and has no raw devices.
fn own_users(p: &mut Problems, spec: &PodSpec) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (field, _) in shared.iter().filter(|(_, on)| *on == Some(true)) {
        p.0.push(format!("spec.{field}: Forbidden: when `hostUsers` is false"));
    }
    let lists = [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    for (list, containers) in lists {
        for (i, _) in containers.iter().enumerate().filter(|(_, c)| c.volume_devices.iter().flatten().next().is_some()) {
            p.0.push(format!("spec.{list}[{i}].volumeDevices: Forbidden: when `hostUsers` is false"));
        }
    }
}

fn volumes<'a>(p: &mut Problems, all: &'a [Volume]) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (i, volume) in all.iter().enumerate() {
        let field = format!("spec.volumes[{i}].name");
        p.label(&field, &volume.name);
        if !names.insert(volume.name.as_str()) {
            p.duplicate(&field, &volume.name);
        }
    }
    names
}

fn container<'a>(p: &mut Problems, at: &str, c: &'a Container, volumes: &BTreeSet<&str>, names: &mut BTreeSet<&'a str>) {
    p.label(format!("{at}.name"), &c.name);
    if !names.insert(c.name.as_str()) {
        p.duplicate(format!("{at}.name"), &c.name);
    }
    let image = c.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        p.required(format!("{at}.image"));
    } else if image.trim() != image {
        p.invalid(format!("{at}.image"), image, "must not have leading or trailing whitespace");
    }
    p.one_of(format!("{at}.imagePullPolicy"), &c.image_pull_policy, &["Always", "IfNotPresent", "Never"]);
    p.one_of(format!("{at}.terminationMessagePolicy"), &c.termination_message_policy, &["File", "FallbackToLogsOnError"]);
    for (i, port) in c.ports.iter().flatten().enumerate() {
        let field = format!("{at}.ports[{i}]");
        let range = "must be between 1 and 65535, inclusive";
        if !(1..=65535).contains(&port.container_port) {
            p.invalid(format!("{field}.containerPort"), port.container_port, range);
        }
        if let Some(host) = port.host_port.filter(|n| !(1..=65535).contains(n)) {
            p.invalid(format!("{field}.hostPort"), host, range);
        }
        p.one_of(format!("{field}.protocol"), &port.protocol, &["SCTP", "TCP", "UDP"]);
    }
    let mut mounted = BTreeSet::new();
    for (i, mount) in c.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{at}.volumeMounts[{i}]");
        if !volumes.contains(mount.name.as_str()) {
            p.0.push(format!("{field}.name: Not found: {:?}", mount.name));
        }
        if mount.mount_path.is_empty() {
            p.required(format!("{field}.mountPath"));
        } else if !mounted.insert(mount.mount_path.as_str()) {
            p.invalid(format!("{field}.mountPath"), &mount.mount_path, "must be unique");
        }
    }
    for (i, env) in c.env.iter().flatten().enumerate().filter(|(_, env)| env.name.is_empty()) {
        let _ = env;
        p.required(format!("{at}.env[{i}].name"));
    }
    for (i, env) in c.env.iter().flatten().enumerate() {
        let Some(r) = env.value_from.as_ref().and_then(|v| v.file_key_ref.as_ref()) else { continue };
        let field = format!("{at}.env[{i}].valueFrom.fileKeyRef");
        if !volumes.contains(r.volume_name.as_str()) {
            p.0.push(format!("{field}.volumeName: Not found: {:?}", r.volume_name));
        }
        if r.path.split('/').any(|part| part == "..") {
            p.invalid(format!("{field}.path"), &r.path, "must not contain '..'");
        }
    }
    amounts(p, at, c);
}

fn amounts(p: &mut Problems, at: &str, c: &Container) {
    let Some(resources) = &c.resources else { return };
    let (limits, requests) = (resources.limits.iter().flatten(), resources.requests.iter().flatten());
    let all = limits.map(|l| ("limits", l)).chain(requests.map(|r| ("requests", r)));
    for (list, (name, amount)) in all {
        let field = format!("{at}.resources.{list}[{name}]");
        match amount.0.parse::<Quantity>() {
            Err(error) => p.invalid(field, &amount.0, &error.to_string()),
            Ok(q) if q.is_negative() => p.invalid(field, &amount.0, "must be greater than or equal to 0"),
            Ok(request) if list == "requests" => {
                let limit = resources.limits.as_ref().and_then(|l| l.get(name)).and_then(|l| l.0.parse::<Quantity>().ok());
                if limit.is_some_and(|limit| limit < request) {
                    let why = format!("must be less than or equal to {name} limit");
                    p.invalid(format!("{at}.resources.requests"), &amount.0, &why);
                }
            }
            Ok(_) => {}
        }
    }
}

/// The first thing of the API that the pod asks for, as kubelet names it.
pub(super) fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let containers = || crate::pod::containers(spec);
    let env = || containers().flat_map(|c| c.env.iter().flatten()).filter_map(|e| e.value_from.as_ref());
    let env_from = || containers().flat_map(|c| c.env_from.iter().flatten());
    let volumes = || spec.volumes.iter().flatten();
    let projected = || volumes().filter_map(|v| v.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let secrets = spec.image_pull_secrets.iter().flatten().next().is_some()
        || env().any(|v| v.secret_key_ref.is_some())
        || env_from().any(|e| e.secret_ref.is_some())
        || projected().any(|s| s.secret.is_some())
        || volumes().any(secret);
    if secrets {
        return Some("secrets");
    }
    let maps = env().any(|v| v.config_map_key_ref.is_some())
        || env_from().any(|e| e.config_map_ref.is_some())
        || projected().any(|s| s.config_map.is_some())
        || volumes().any(|v| v.config_map.is_some());
    if maps {
        return Some("configmaps");
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return Some("resourceclaims");
    }
    volumes().find_map(volume)
}

/// Volumes whose drivers are given a secret.
fn secret(v: &Volume) -> bool {
    v.secret.is_some()
        || v.azure_file.is_some()
        || v.cephfs.as_ref().is_some_and(|s| s.secret_ref.is_some())
        || v.cinder.as_ref().is_some_and(|s| s.secret_ref.is_some())
        || v.flex_volume.as_ref().is_some_and(|s| s.secret_ref.is_some())
        || v.rbd.as_ref().is_some_and(|s| s.secret_ref.is_some())
        || v.scale_io.is_some()
        || v.iscsi.as_ref().is_some_and(|s| s.secret_ref.is_some())
        || v.storageos.as_ref().is_some_and(|s| s.secret_ref.is_some())
        || v.csi.as_ref().is_some_and(|s| s.node_publish_secret_ref.is_some())
}

fn volume(v: &Volume) -> Option<&'static str> {
    if v.csi.is_some() {
        return Some("csidrivers (via CSI volumes)");
    }
    if v.glusterfs.is_some() {
        return Some("endpoints (via glusterFS volumes)");
    }
    if v.persistent_volume_claim.is_some() {
        return Some("persistentvolumeclaims");
    }
    if v.ephemeral.is_some() {
        return Some("persistentvolumeclaims (via ephemeral volumes)");
    }
    v.projected.iter().flat_map(|p| p.sources.iter().flatten()).find_map(|s| {
        if s.service_account_token.is_some() {
            Some("serviceaccounts (via projected volumes)")
        } else if s.cluster_trust_bundle.is_some() {
            Some("clustertrustbundles")
        } else {
            s.pod_certificate.is_some().then_some("podcertificates")
        }
    })
}
