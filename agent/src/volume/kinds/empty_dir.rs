//! `emptyDir`: a folder of the pod's own, on the disk, in memory or in huge pages.

use super::{Ask, Ready, blocking};
use crate::cgroup;
use crate::volume::beneath::{is_mount_point, open_to_pod};
use crate::volume::fields::PodContext;
use crate::volume::place::{EMPTY_DIR, Folder};
use crate::volume::{Error, Result, manager, mounts};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use std::collections::BTreeSet;
use std::os::fd::AsFd;

/// What an emptyDir is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Medium {
    Disk,
    /// With at most so many bytes.
    Memory(Option<u64>),
    /// Of this size each, in bytes.
    HugePages(u64),
}

pub(super) async fn prepare(ask: &Ask<'_>, source: &EmptyDirVolumeSource) -> Result<Ready> {
    let medium = medium(ask.pod, source, ask.volume, ask.context)?;
    let (place, gid, nested) = (ask.place.clone(), ask.gid, ask.nested.clone());
    let path = blocking(move || {
        let mut folder = place.open(EMPTY_DIR, 0o777)?;
        ensure(&mut folder, &place.name, &medium)?;
        open_to_pod(folder.fd.as_fd(), gid)?;
        manager::make_nested(&folder.fd, &nested)?;
        Ok(folder.path)
    });
    Ok(Ready::path(path.await?))
}

/// Mounts what the medium asks for unless something is mounted there; what was opened is the folder on top then.
pub(super) fn ensure(folder: &mut Folder, name: &str, medium: &Medium) -> Result<()> {
    if *medium == Medium::Disk || is_mount_point(folder.parent.as_fd(), folder.fd.as_fd())? {
        return Ok(());
    }
    match medium {
        Medium::Disk => return Ok(()),
        Medium::Memory(size) => mounts::tmpfs(folder.fd.as_fd(), *size)?,
        Medium::HugePages(page) => mounts::huge_pages(folder.fd.as_fd(), *page)?,
    }
    folder.reopen(name)
}

pub(super) fn medium(pod: &Pod, source: &EmptyDirVolumeSource, volume: &str, context: &PodContext) -> Result<Medium> {
    let invalid = |value: &str, why| {
        Err(Error::Invalid { volume: volume.to_owned(), field: "emptyDir.medium", value: value.to_owned(), why })
    };
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => Ok(Medium::Memory(memory_size(pod, source, volume, context)?)),
        // The size that the pod asks for, which must be one.
        medium @ "HugePages" => match page_sizes(pod).into_iter().collect::<Vec<_>>().as_slice() {
            [] => invalid(medium, "the pod asks for no huge pages"),
            [one] => Ok(Medium::HugePages(*one)),
            _ => invalid(medium, "the pod asks for huge pages of more than one size: name the size in the medium"),
        },
        medium => match medium.strip_prefix("HugePages-").and_then(|size| cgroup::page_size_of(&format!("hugepages-{size}"))) {
            Some(size) if page_sizes(pod).contains(&size) => Ok(Medium::HugePages(size)),
            Some(_) => invalid(medium, "no container asks for huge pages of this size"),
            None => invalid(medium, "not a known medium"),
        },
    }
}

/// The sizes of huge pages that containers ask for.
fn page_sizes(pod: &Pod) -> BTreeSet<u64> {
    let mut out = BTreeSet::new();
    for container in pod.spec.iter().flat_map(crate::pod::containers) {
        let resources = container.resources.iter().flat_map(|r| [&r.requests, &r.limits]);
        out.extend(resources.flatten().flat_map(|list| list.keys()).filter_map(|name| cgroup::page_size_of(name)));
    }
    out
}

/// No more than the volume asks for, the pod's cgroup allows, and the node has.
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, volume: &str, context: &PodContext) -> Result<Option<u64>> {
    let mut sizes: Vec<Quantity> = context.allocatable.get("memory").copied().into_iter().collect();
    if let Some(limit) = &source.size_limit {
        let parsed: Quantity = limit.0.parse().map_err(|_| Error::Invalid {
            volume: volume.to_owned(),
            field: "emptyDir.sizeLimit",
            value: limit.0.clone(),
            why: "not a quantity",
        })?;
        sizes.push(parsed);
    }
    sizes.extend(pod.spec.as_ref().and_then(|spec| cgroup::pod_limits(spec).1));
    Ok(sizes.into_iter().filter_map(|q| u64::try_from(q.units()).ok()).filter(|bytes| *bytes > 0).min())
}

#[cfg(test)]
mod tests;
