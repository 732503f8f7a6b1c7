//! The environment of a container, and `$(VAR)` expansion. Pure: what must be fetched is named by `needs` and handed in.

use crate::volume::{FieldError, PodContext, field_value, resource_value};
use ferrolet_cri::types::EnvVar;
use ferrolet_netproxy::wire::Service;
use k8s_openapi::api::core::v1 as api;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub mod file;

/// Names of the ConfigMaps and Secrets of the pod's namespace that a container's environment refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub files: BTreeSet<InFile>,
}

/// One variable of a file in a volume of the pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InFile {
    pub volume: String,
    pub path: String,
    pub key: String,
}

/// What was found of it.
pub enum FoundInFile {
    /// There is no such volume, or it is not one for files that containers write.
    NoVolume,
    Unreadable(file::FileError),
    /// The file lies here; `None`: it has no such variable, or an empty one.
    Read {
        at: String,
        value: Option<String>,
    },
}

/// What was fetched; `None`: there is no such object.
#[derive(Default)]
pub struct Fetched {
    pub config_maps: BTreeMap<String, Option<Arc<api::ConfigMap>>>,
    pub secrets: BTreeMap<String, Option<Arc<api::Secret>>>,
    pub files: BTreeMap<InFile, FoundInFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{kind} {name:?} not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
    #[error("env {name:?}: {why}")]
    Malformed { name: String, why: &'static str },
    #[error("env {name:?}: {source}")]
    Field { name: String, source: Box<FieldError> },
    #[error("cannot find the volume {0:?} referenced by FileKeyRef")]
    Volume(String),
    #[error("couldn't parse env file {path:?} of volume {volume:?}: {why}")]
    File { volume: String, path: String, why: String },
    #[error("environment variable key {key:?} not found in file {at:?}")]
    NotInFile { key: String, at: String },
}

pub fn needs(c: &api::Container) -> Needs {
    let mut n = Needs::default();
    for from in c.env_from.iter().flatten() {
        n.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        n.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for from in c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        n.config_maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
        n.secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
        n.files.extend(from.file_key_ref.iter().map(in_file));
    }
    n
}

fn in_file(r: &api::FileKeySelector) -> InFile {
    InFile { volume: r.volume_name.clone(), path: r.path.clone(), key: r.key.clone() }
}

/// Variables in the order they are declared, the later of two of one name winning in place; those of services last.
pub fn resolve(
    pod: &api::Pod,
    c: &api::Container,
    fetched: &Fetched,
    services: &BTreeMap<String, String>,
    context: &PodContext,
) -> Result<Vec<EnvVar>, EnvError> {
    let mut vars = Vars::default();
    for from in c.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(r) = &from.config_map_ref {
            let found = required(&fetched.config_maps, "configmap", &r.name, r.optional)?;
            for (k, v) in found.iter().flat_map(|m| m.data.iter().flatten()) {
                vars.set(format!("{prefix}{k}"), v.clone());
            }
        }
        if let Some(r) = &from.secret_ref {
            let found = required(&fetched.secrets, "secret", &r.name, r.optional)?;
            for (k, v) in found.iter().flat_map(|m| m.data.iter().flatten()) {
                vars.set(format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned());
            }
        }
    }
    for e in c.env.iter().flatten() {
        let value = match &e.value {
            Some(text) if !text.is_empty() => {
                Some(expand(text, |name| vars.get(name).or_else(|| services.get(name).map(String::as_str))))
            }
            _ => from_source(pod, c, e, fetched, context)?,
        };
        // An optional reference to nothing leaves the variable out.
        if let Some(value) = value {
            vars.set(e.name.clone(), value);
        }
    }
    for (name, value) in services {
        if vars.get(name).is_none() {
            vars.set(name.clone(), value.clone());
        }
    }
    for (name, value) in &vars.order {
        if let Some(why) = malformed(name, value) {
            return Err(EnvError::Malformed { name: name.chars().take(64).collect(), why });
        }
    }
    Ok(vars.order.into_iter().map(|(name, value)| EnvVar { name, value }).collect())
}

/// Why no process can be given this variable. The value stays unsaid: it may be secret.
fn malformed(name: &str, value: &str) -> Option<&'static str> {
    match () {
        () if name.is_empty() => Some("the name is empty"),
        () if name.contains(['=', '\0']) => Some("the name holds an equals sign or a zero byte"),
        () if value.contains('\0') => Some("the value holds a zero byte"),
        () => None,
    }
}

#[derive(Default)]
struct Vars {
    order: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Vars {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(i) => self.order[*i].1 = value,
            None => {
                self.index.insert(name.clone(), self.order.len());
                self.order.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|i| self.order[*i].1.as_str())
    }
}

/// The object; `None` if it is missing and may be.
fn required<'a, T>(
    all: &'a BTreeMap<String, Option<Arc<T>>>,
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a T>, EnvError> {
    match all.get(name).and_then(Option::as_deref) {
        Some(found) => Ok(Some(found)),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvError::Missing { kind, name: name.to_owned() }),
    }
}

fn from_source(
    pod: &api::Pod,
    c: &api::Container,
    e: &api::EnvVar,
    fetched: &Fetched,
    context: &PodContext,
) -> Result<Option<String>, EnvError> {
    let Some(source) = &e.value_from else { return Ok(Some(String::new())) };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let field = |source| EnvError::Field { name: e.name.clone(), source: Box::new(source) };
    let missing_key = |kind, name: &str, key: &str| EnvError::Key {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(r) = &source.field_ref {
        return field_value(pod, &r.field_path, context).map(Some).map_err(field);
    }
    if let Some(r) = &source.resource_field_ref {
        let container = r.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(&c.name);
        let divisor = r.divisor.as_ref().map(|q| q.0.as_str());
        return resource_value(pod, container, &r.resource, divisor, context).map(Some).map_err(field);
    }
    if let Some(r) = &source.config_map_key_ref {
        let map = required(&fetched.config_maps, "configmap", &r.name, r.optional)?;
        let value = map.and_then(|m| m.data.as_ref()?.get(&r.key).cloned());
        return match value {
            None if r.optional != Some(true) => Err(missing_key("ConfigMap", &r.name, &r.key)),
            value => Ok(value),
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let map = required(&fetched.secrets, "secret", &r.name, r.optional)?;
        let value = map.and_then(|m| m.data.as_ref()?.get(&r.key)).map(|b| String::from_utf8_lossy(&b.0).into_owned());
        return match value {
            None if r.optional != Some(true) => Err(missing_key("Secret", &r.name, &r.key)),
            value => Ok(value),
        };
    }
    if let Some(r) = &source.file_key_ref {
        return from_file(r, fetched.files.get(&in_file(r)));
    }
    Ok(Some(String::new()))
}

/// `optional` forgives a variable that is missing or empty, but as with kubelet not a file that cannot be read.
fn from_file(r: &api::FileKeySelector, found: Option<&FoundInFile>) -> Result<Option<String>, EnvError> {
    match found {
        None | Some(FoundInFile::NoVolume) => Err(EnvError::Volume(r.volume_name.clone())),
        Some(FoundInFile::Unreadable(error)) => {
            Err(EnvError::File { volume: r.volume_name.clone(), path: r.path.clone(), why: error.to_string() })
        }
        Some(FoundInFile::Read { at, value: None }) if r.optional != Some(true) => {
            Err(EnvError::NotInFile { key: r.key.clone(), at: at.clone() })
        }
        Some(FoundInFile::Read { value, .. }) => Ok(value.clone()),
    }
}

/// Replaces `$(NAME)` where the name is known; `$$` is a dollar sign; all else stays as written.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// What `subPathExpr` says. A path with a hole in it could be that of another's files: each variable must have a value.
pub fn expand_sub_path(text: &str, env: &[EnvVar]) -> Result<String, MissingValues> {
    let missing = std::cell::RefCell::new(BTreeSet::new());
    let expanded = expand(text, |name| {
        let value = env.iter().find(|e| e.name == name).map(|e| e.value.as_str()).unwrap_or_default();
        if value.is_empty() {
            missing.borrow_mut().insert(name.to_owned());
        }
        Some(value)
    });
    let missing = missing.into_inner();
    if missing.is_empty() { Ok(expanded) } else { Err(MissingValues(Vec::from_iter(missing).join(", "))) }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("missing value for {0}")]
pub struct MissingValues(String);

/// The variables that tell a pod of Services: always the API's own, and with links those of its namespace. A Service of its
/// own namespace stands before the API's where both have one name.
pub fn of_services<'a>(services: impl Iterator<Item = &'a Service>, namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut by_name: BTreeMap<&str, &Service> = BTreeMap::new();
    for s in services.filter(|s| address(s).is_some()) {
        if links && s.metadata.namespace == namespace {
            by_name.insert(&s.metadata.name, s);
        } else if s.metadata.namespace == "default" && s.metadata.name == "kubernetes" {
            by_name.entry(&s.metadata.name).or_insert(s);
        }
    }
    let mut out = BTreeMap::new();
    for s in by_name.into_values() {
        of_service(s, &mut out);
    }
    out
}

fn address(s: &Service) -> Option<&str> {
    s.spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn of_service(s: &Service, out: &mut BTreeMap<String, String>) {
    let Some(ip) = address(s) else { return };
    let upper = |text: &str| text.replace('-', "_").to_ascii_uppercase();
    let name = upper(&s.metadata.name);
    let joined = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    for (i, p) in s.spec.ports.iter().enumerate() {
        let port = p.port;
        let protocol = p.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_ascii_lowercase();
        if i == 0 {
            out.insert(format!("{name}_SERVICE_PORT"), port.to_string());
            out.insert(format!("{name}_PORT"), format!("{lower}://{joined}:{port}"));
        }
        if !p.name.is_empty() {
            out.insert(format!("{name}_SERVICE_PORT_{}", upper(&p.name)), port.to_string());
        }
        let each = format!("{name}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        out.insert(format!("{each}_PROTO"), lower.clone());
        out.insert(format!("{each}_PORT"), port.to_string());
        out.insert(format!("{each}_ADDR"), ip.to_owned());
        out.insert(each, format!("{lower}://{joined}:{port}"));
    }
}

#[cfg(test)]
mod tests;
