//! NFS, in a pod or in a PersistentVolume: mounted by the host's `mount.nfs`, if it has one.

use super::{Ask, Ready, Shown, blocking};
use crate::volume::beneath::is_mount_point;
use crate::volume::{Error, Result};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const KIND: &str = "kubernetes.io~nfs";
const PROGRAM: &str = "mount.nfs";
const FOLDERS: [&str; 4] = ["/sbin", "/usr/sbin", "/usr/local/sbin", "/usr/bin"];
/// The program itself tries for two minutes.
const LIMIT: Duration = Duration::from_secs(150);
/// Of what it says, for the event.
const SAID: usize = 1024;

/// What a server offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Export<'a> {
    pub(super) server: &'a str,
    pub(super) path: &'a str,
    pub(super) options: &'a [String],
}

pub(super) async fn prepare(ask: &Ask<'_>, export: &Export<'_>, read_only: bool) -> Result<Ready> {
    let from = source(ask.volume, export)?;
    let place = ask.place.clone();
    // Open until it is mounted: another try waits.
    let folder = blocking(move || place.open(KIND, 0o750)).await?;
    if !is_mount_point(folder.parent.as_fd(), folder.fd.as_fd())? {
        let program = find(&FOLDERS).ok_or_else(|| Error::Program { volume: ask.volume.to_owned(), program: PROGRAM })?;
        mount(ask.volume, &program, &arguments(&from, &folder.path, export.options, read_only)).await?;
    }
    Ok(Ready { shown: Shown::Path(folder.path), read_only, renew_at: None })
}

/// As the program takes it. Nothing in it may look like an option or another field.
fn source(volume: &str, export: &Export<'_>) -> Result<String> {
    let invalid = |field, value: &str, why| Error::Invalid { volume: volume.to_owned(), field, value: value.to_owned(), why };
    let (server, path) = (export.server, export.path);
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%'));
    if server.is_empty() || server.starts_with('-') || server.contains(odd) {
        return Err(invalid("nfs.server", server, "not a host name or address"));
    }
    if !path.starts_with('/') || path.contains('\0') {
        return Err(invalid("nfs.path", path, "must be an absolute path"));
    }
    if let Some(option) = export.options.iter().find(|o| o.is_empty() || o.contains([',', '\0']) || o.starts_with('-')) {
        return Err(invalid("mountOptions", option, "not an option"));
    }
    // Literal IPv6 addresses stand in brackets.
    let v6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    Ok(if v6 { format!("[{server}]:{path}") } else { format!("{server}:{path}") })
}

fn arguments(from: &str, to: &Path, options: &[String], read_only: bool) -> Vec<String> {
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    if read_only {
        all.push("ro");
    }
    let mut out = vec![from.to_owned(), to.to_string_lossy().into_owned()];
    if !all.is_empty() {
        out.extend(["-o".to_owned(), all.join(",")]);
    }
    out
}

fn find(folders: &[&str]) -> Option<PathBuf> {
    folders.iter().map(|folder| Path::new(folder).join(PROGRAM)).find(|path| path.is_file())
}

async fn mount(volume: &str, program: &Path, arguments: &[String]) -> Result<()> {
    let failed = |why: String| Error::Mount { volume: volume.to_owned(), program: PROGRAM, why };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.map_err(|_| failed(format!("no end after {LIMIT:?}")))?.map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(SAID).collect();
    Err(failed(format!("{}: {said}", output.status)))
}

#[cfg(test)]
mod tests;
