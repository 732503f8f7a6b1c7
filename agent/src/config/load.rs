//! Files and flags to `Config`: the only part of the configuration that touches the host.

use super::fields::Problem;
use super::{Args, Config, hostinfo, kubelet, providers, proxy, standalone, statics};
use crate::admission::sysctls;
use crate::images::node_config::Places;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A configuration file larger than this is not one.
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {flag} {}", path.display())]
    Read { flag: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{flag} {} is larger than 1 MiB", path.display())]
    TooLarge { flag: &'static str, path: PathBuf },
    #[error("{flag} {} is not valid YAML or JSON", path.display())]
    Syntax { flag: &'static str, path: PathBuf, source: serde_yaml_ng::Error },
    #[error("{flag} {} has {} problem(s): {}", path.display(), problems.len(), list(problems))]
    Invalid { flag: &'static str, path: PathBuf, problems: Vec<Problem> },
    #[error("flag --{flag}: {detail}")]
    Flag { flag: &'static str, detail: String },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads what the flags name; flags win over the files.
pub fn load(args: &Args) -> Result<Config, Error> {
    let mut config = Config { node_name: node_name(args)?, ..Config::default() };
    config.kubeconfig = args.kubeconfig.clone().filter(|path| !path.as_os_str().is_empty());
    if args.standalone && config.kubeconfig.is_some() {
        return Err(flag("standalone", "cannot be given together with --kubeconfig"));
    }
    let alone = config.kubeconfig.is_none();
    if alone {
        standalone::defaults(&mut config);
    }
    apply_file(&mut config, "--config", args.config.as_deref(), kubelet::apply)?;
    apply_file(&mut config, "--proxy-config", args.proxy_config.as_deref(), proxy::apply)?;
    if let (true, Some(path)) = (alone, &args.config) {
        let problems = standalone::problems(&config);
        if !problems.is_empty() {
            return Err(Error::Invalid { flag: "--config", path: path.clone(), problems });
        }
    }
    statics::anchor(&mut config.static_pods, args.config.as_deref());
    statics::flags(&mut config.static_pods, args).map_err(|(name, detail)| flag(name, detail))?;
    if let Some(dir) = &args.root_dir {
        if !dir.is_absolute() {
            return Err(flag("root-dir", format!("{:?} must be an absolute path", dir.display())));
        }
        config.root_dir = dir.clone();
        config.server.cert_dir = dir.join("pki");
    }
    if let Some(dir) = &args.cert_dir {
        config.server.cert_dir = dir.clone();
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    config.docker_config = Places::new(&config.root_dir, std::env::current_dir().ok().as_deref(), home.as_deref());
    credential_providers(&mut config, args)?;
    if let Some(on) = args.seccomp_default {
        config.seccomp_default = on;
    }
    if !args.allowed_unsafe_sysctls.is_empty() {
        if let Some(problem) = args.allowed_unsafe_sysctls.iter().find_map(|text| sysctls::problem(text)) {
            return Err(flag("allowed-unsafe-sysctls", problem));
        }
        config.allowed_unsafe_sysctls = args.allowed_unsafe_sysctls.clone();
    }
    if let Some(endpoint) = &args.container_runtime_endpoint {
        if config.image_service_endpoint == config.container_runtime_endpoint {
            config.image_service_endpoint = endpoint.clone();
        }
        config.container_runtime_endpoint = endpoint.clone();
    }
    if !config.container_runtime_endpoint.starts_with("unix:///") {
        let detail = format!("{:?} must be of the form unix:///path/to/socket", config.container_runtime_endpoint);
        return Err(flag("container-runtime-endpoint", detail));
    }
    config.node_ips = match &args.node_ip {
        Some(text) => node_ips(text)?,
        None => hostinfo::default_addresses(),
    };
    config.node_ips_given = args.node_ip.is_some();
    // A node alone need not be on any network.
    if config.node_ips.is_empty() && !alone {
        return Err(flag("node-ip", "the host has no usable address, name one"));
    }
    for pair in args.node_labels.iter().flat_map(|text| text.split(',')).filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(flag("node-labels", format!("{pair:?} is not key=value")));
        };
        config.node.labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(config)
}

/// What a trace without a running daemon needs: the node's name and the data plane's configuration.
pub fn for_trace(proxy_config: Option<&Path>, name: Option<&str>) -> Result<Config, Error> {
    let named = Args { hostname_override: name.map(str::to_owned), ..Args::default() };
    let mut config = Config { node_name: node_name(&named)?, ..Config::default() };
    apply_file(&mut config, "--proxy-config", proxy_config, proxy::apply)?;
    Ok(config)
}

const PROVIDER_CONFIG: &str = "--image-credential-provider-config";

/// One flag is of no use without the other.
fn credential_providers(config: &mut Config, args: &Args) -> Result<(), Error> {
    let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let (file, folder) = match (given(&args.image_credential_provider_config), given(&args.image_credential_provider_bin_dir)) {
        (None, None) => return Ok(()),
        (Some(file), Some(folder)) => (file, folder),
        (None, _) => return Err(flag("image-credential-provider-bin-dir", "needs --image-credential-provider-config")),
        (_, None) => return Err(flag("image-credential-provider-config", "needs --image-credential-provider-bin-dir")),
    };
    let mut names = BTreeSet::new();
    for path in provider_files(&file)? {
        let text = read(PROVIDER_CONFIG, &path)?;
        let document = document(&text).map_err(|source| Error::Syntax { flag: PROVIDER_CONFIG, path: path.clone(), source })?;
        let mut problems = Vec::new();
        config.credential_providers.extend(providers::read(document, &mut names, &mut problems));
        if !problems.is_empty() {
            return Err(Error::Invalid { flag: PROVIDER_CONFIG, path, problems });
        }
    }
    for provider in &config.credential_providers {
        let program = folder.join(&provider.name);
        let there = std::fs::metadata(&program);
        let detail = match there {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => continue,
            Ok(_) => "is no program".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(flag("image-credential-provider-bin-dir", format!("{}: {detail}", program.display())));
    }
    // It is run from wherever the agent is by then.
    config.credential_provider_dir = std::path::absolute(&folder).unwrap_or(folder);
    Ok(())
}

/// The file, or those of the folder that look like one, by name.
fn provider_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { flag: PROVIDER_CONFIG, path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.path();
        let named = file.extension().is_some_and(|e| matches!(e.to_str(), Some("json" | "yaml" | "yml")));
        if named && !entry.file_type().map_err(failed)?.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let detail = format!("{}: no *.json, *.yaml or *.yml in it", path.display());
        return Err(flag("image-credential-provider-config", detail));
    }
    Ok(files)
}

type Apply = fn(&mut Config, Value, &mut Vec<Problem>);

fn apply_file(config: &mut Config, flag: &'static str, path: Option<&Path>, apply: Apply) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let text = read(flag, path)?;
    let document = document(&text).map_err(|source| Error::Syntax { flag, path: path.to_owned(), source })?;
    let mut problems = Vec::new();
    apply(config, document, &mut problems);
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { flag, path: path.to_owned(), problems })
}

fn read(flag: &'static str, path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { flag, path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(Error::TooLarge { flag, path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// One YAML or JSON document. Duplicate keys are errors; an empty file is an empty document.
pub(super) fn document(text: &str) -> Result<Value, serde_yaml_ng::Error> {
    // Through YAML's own value: it refuses duplicate keys, which JSON's silently overwrites.
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text)?;
    serde_yaml_ng::from_value(value)
}

fn node_name(args: &Args) -> Result<String, Error> {
    let name = match &args.hostname_override {
        Some(name) => name.trim().to_lowercase(),
        None => hostinfo::hostname().ok_or_else(|| flag("hostname-override", "the host has no name, give one"))?,
    };
    match is_subdomain(&name) {
        true => Ok(name),
        false => Err(flag("hostname-override", format!("{name:?} is not a DNS name in lower case"))),
    }
}

/// RFC 1123 subdomain, which names of nodes must be.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = label.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(&a), Some(&z)) if inner(a) && inner(z))
            && bytes.iter().all(|&b| inner(b) || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

pub(super) fn node_ips(text: &str) -> Result<Vec<IpAddr>, Error> {
    let parse = |part: &str| part.trim().parse().map_err(|_| flag("node-ip", format!("{part:?} is not an IP address")));
    let ips: Vec<IpAddr> = text.split(',').map(parse).collect::<Result<_, _>>()?;
    let v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
    if v4 > 1 || ips.len() - v4 > 1 {
        return Err(flag("node-ip", format!("{text:?} must hold at most one address of each family")));
    }
    if let Some(ip) = ips.iter().find(|ip| ip.is_unspecified() || ip.is_multicast() || ip.is_loopback()) {
        return Err(flag("node-ip", format!("{ip} cannot be a node's address")));
    }
    Ok(ips)
}

fn flag(flag: &'static str, detail: impl Into<String>) -> Error {
    Error::Flag { flag, detail: detail.into() }
}
