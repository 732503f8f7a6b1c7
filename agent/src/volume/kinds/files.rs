//! Volumes of files that the agent writes: configMap, secret, downwardAPI and projected.

use super::payload::{Payload, checked, conflict};
use super::source::{Collector, Named};
use super::{Ask, Ready, Shown, atomic, blocking, empty_dir};
use crate::pod::containers;
use crate::volume::beneath::open_to_pod;
use crate::volume::place::{self, Place};
use crate::volume::{Error, Result, manager};
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, Volume};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::SystemTime;

/// What is in such a volume and how it is laid out.
struct Files {
    kind: &'static str,
    /// On a tmpfs, so that it never reaches a disk.
    in_memory: bool,
    payload: Payload,
    renew_at: Option<SystemTime>,
}

pub(super) async fn prepare(volume: &Volume, ask: &Ask<'_>) -> Result<Ready> {
    let Files { kind, in_memory, payload, renew_at } = collect(volume, ask).await?;
    if let Some(path) = conflict(&payload) {
        return Err(Error::Path { volume: ask.volume.to_owned(), path: path.to_owned() });
    }
    let (place, gid, nested) = (ask.place.clone(), ask.gid, ask.nested.clone());
    let path = blocking(move || {
        let mut folder = place.open(kind, 0o777)?;
        if in_memory {
            empty_dir::ensure(&mut folder, &place.name, &empty_dir::Medium::Memory(None))?;
        }
        open_to_pod(folder.fd.as_fd(), gid)?;
        atomic::write(folder.fd.as_fd(), &payload, gid)?;
        manager::make_nested(&folder.fd, &nested)?;
        Ok(folder.path)
    });
    Ok(Ready { shown: Shown::Path(path.await?), read_only: true, renew_at })
}

async fn collect(volume: &Volume, ask: &Ask<'_>) -> Result<Files> {
    let name = ask.volume;
    let (kube, objects, pod, context) = (ask.kube, ask.objects, ask.pod, ask.context);
    let (certificates, fs_group) = (ask.certificates, ask.gid);
    let collector = Collector { kube, objects, certificates, pod, context, volume: name, fs_group, fs_user: fs_user(pod) };
    if let Some(c) = &volume.config_map {
        let named = Named { name: &c.name, items: c.items.as_ref(), default_mode: c.default_mode, optional: c.optional };
        let payload = collector.config_map(&named).await?;
        return Ok(Files { kind: place::CONFIG_MAP, in_memory: false, payload, renew_at: None });
    }
    if let Some(s) = &volume.secret {
        let object = s.secret_name.as_deref().unwrap_or_default();
        let named = Named { name: object, items: s.items.as_ref(), default_mode: s.default_mode, optional: s.optional };
        let payload = collector.secret(&named).await?;
        return Ok(Files { kind: place::SECRET, in_memory: true, payload, renew_at: None });
    }
    if let Some(d) = &volume.downward_api {
        let payload = collector.downward(d.items.as_deref().unwrap_or_default(), d.default_mode)?;
        return Ok(Files { kind: place::DOWNWARD_API, in_memory: true, payload, renew_at: None });
    }
    if let Some(p) = &volume.projected {
        let kind = place::PROJECTED;
        let (wanted, place) = (token_paths(name, p)?, ask.place.clone());
        let tokens = blocking(move || current(&place, kind, &wanted)).await?;
        let (payload, renew_at) = collector.projected(p, &tokens).await?;
        return Ok(Files { kind, in_memory: true, payload, renew_at });
    }
    Err(Error::Unsupported { volume: name.to_owned(), field: "source".to_owned() })
}

/// The files of these paths that are in the volume now, with the time they were written.
fn current(place: &Place, kind: &str, paths: &[String]) -> Result<BTreeMap<String, (Vec<u8>, SystemTime)>> {
    let mut out = BTreeMap::new();
    let Some(folder) = place.find(kind)? else { return Ok(out) };
    for path in paths {
        if let Some((data, written)) = atomic::read(folder.as_fd(), path)? {
            out.insert(path.clone(), (data, written));
        }
    }
    Ok(out)
}

fn token_paths(volume: &str, source: &ProjectedVolumeSource) -> Result<Vec<String>> {
    let tokens = source.sources.iter().flatten().filter_map(|s| s.service_account_token.as_ref());
    tokens.map(|t| checked(volume, &t.path)).collect()
}

/// The one user that all containers run as, if it is stated for each.
fn fs_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let default = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = containers(spec).map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(default));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}
