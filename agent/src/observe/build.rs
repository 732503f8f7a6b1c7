//! From the runtime's lists to a pod's snapshot. Details that lists lack are asked for only where something changed.

use super::PodRuntime;
use crate::pod::observed::{Container, Sandbox, State};
use crate::pod::{PodId, Time, labels, time_of_nanos};
use ferrolet_cri::{Class, Client, Error, types as cri};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use crate::pod::labels::POD_UID as UID;

/// A termination message is cut at this length.
const MESSAGE_MAX: usize = 4096;
/// How much of a log stands in for a missing termination message.
const LOG_TAIL_MAX: u64 = 2048;
const LOG_TAIL_LINES: usize = 80;

pub(super) struct Group {
    pub id: PodId,
    pub sandboxes: Vec<cri::SandboxSummary>,
    pub containers: Vec<cri::ContainerSummary>,
}

pub(super) fn id_of(l: &cri::Labels) -> PodId {
    let get = |key: &str| l.get(key).cloned().unwrap_or_default();
    PodId { uid: get(labels::POD_UID), namespace: get(labels::POD_NAMESPACE), name: get(labels::POD_NAME) }
}

pub(super) fn group_of<'a>(groups: &'a mut BTreeMap<String, Group>, l: &cri::Labels) -> &'a mut Group {
    let id = id_of(l);
    groups.entry(id.uid.clone()).or_insert_with(|| Group { id, sandboxes: Vec::new(), containers: Vec::new() })
}

/// Everything of one pod. What vanishes between the list and the question is left out.
pub(super) async fn pod(
    client: &Client,
    id: PodId,
    sandboxes: Vec<cri::SandboxSummary>,
    containers: Vec<cri::ContainerSummary>,
    known: Option<&PodRuntime>,
) -> Result<PodRuntime, Error> {
    let from = |s: &cri::SandboxSummary| s.annotations.get(labels::SOURCE).is_some_and(|source| source != "api");
    let is_static = sandboxes.iter().any(from);
    let mut out = PodRuntime { id, sandboxes: Vec::new(), containers: Vec::new(), is_static };
    for s in sandboxes {
        let ready = s.state == cri::SandboxState::Ready;
        let same = known.and_then(|k| k.sandboxes.iter().find(|b| b.id == s.id && b.ready == ready));
        match same.filter(|b| !ready || b.host_network || !b.ips.is_empty()) {
            Some(before) => out.sandboxes.push(before.clone()),
            None => out.sandboxes.extend(some(client.pod_sandbox_status(&s.id).await)?.map(sandbox)),
        }
    }
    for c in containers {
        let same = known.and_then(|k| k.containers.iter().find(|b| b.id == c.id && same_state(&b.state, c.state)));
        match same {
            Some(before) => out.containers.push(before.clone()),
            None => {
                if let Some(status) = some(client.container_status(&c.id, false).await)? {
                    let message = termination_message(&status).await;
                    out.containers.push(container(c.sandbox_id, status, message));
                }
            }
        }
    }
    // The runtime's order is no order: the same state must give the same value.
    out.sandboxes.sort_by(|a, b| (a.attempt, &a.id).cmp(&(b.attempt, &b.id)));
    out.containers.sort_by(|a, b| (&a.name, a.attempt, &a.id).cmp(&(&b.name, b.attempt, &b.id)));
    Ok(out)
}

/// The name by which the runtime knows the image, which is not always the one in the spec: an image has many. An ID is no name.
pub(super) fn image_name(image: cri::ImageSpec) -> String {
    let hex = image.image.strip_prefix("sha256:").unwrap_or(&image.image);
    let id = hex.is_empty() || (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if id && !image.user_specified_image.is_empty() { image.user_specified_image } else { image.image }
}

fn some<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(t) => Ok(Some(t)),
        Err(error) if error.class() == Class::Gone => Ok(None),
        Err(error) => Err(error),
    }
}

fn same_state(known: &State, listed: cri::ContainerState) -> bool {
    matches!(
        (known, listed),
        (State::Created, cri::ContainerState::Created)
            | (State::Running, cri::ContainerState::Running)
            | (State::Exited { .. }, cri::ContainerState::Exited)
            | (State::Unknown, cri::ContainerState::Unknown)
    )
}

fn time(nanos: i64) -> Time {
    time_of_nanos(nanos).unwrap_or(Time::UNIX_EPOCH)
}

fn sandbox(s: cri::PodSandboxStatus) -> Sandbox {
    let host_network = s.namespaces.as_ref().is_some_and(|n| n.network == cri::NamespaceMode::Node);
    Sandbox {
        id: s.id,
        attempt: s.metadata.attempt,
        ready: s.state == cri::SandboxState::Ready,
        created_at: time(s.created_at),
        host_network,
        ips: s.ips.iter().map(ToString::to_string).collect(),
    }
}

fn container(sandbox_id: String, s: cri::ContainerStatus, message: String) -> Container {
    let number = |key: &str| s.annotations.get(key).and_then(|v| v.parse::<u64>().ok());
    let state = match s.state {
        cri::ContainerState::Created => State::Created,
        cri::ContainerState::Running => State::Running,
        cri::ContainerState::Exited => State::Exited {
            code: s.exit_code,
            finished_at: time(s.finished_at),
            reason: s.reason.clone(),
            message: if message.is_empty() { s.message.clone() } else { message },
        },
        cri::ContainerState::Unknown => State::Unknown,
    };
    Container {
        sandbox_id,
        attempt: number(labels::RESTART_COUNT).and_then(|n| u32::try_from(n).ok()).unwrap_or(s.attempt),
        state,
        created_at: time(s.created_at),
        started_at: time_of_nanos(s.started_at),
        image: image_name(s.image),
        image_id: s.image_ref,
        hash: s.annotations.get(labels::OWN_HASH).cloned(),
        backoff: Duration::from_millis(number(labels::OWN_BACKOFF).unwrap_or(0)),
        resources: s.annotations.get(labels::OWN_RESOURCES).and_then(|text| serde_json::from_str(text).ok()),
        stop_signal: s.stop_signal,
        user: s.user.map(|u| (u.uid, u.gid, u.supplemental_groups)),
        name: s.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(s.name),
        id: s.id,
    }
}

/// What the container has written to its termination message file, or on request the end of its log.
async fn termination_message(s: &cri::ContainerStatus) -> String {
    if s.state != cri::ContainerState::Exited {
        return String::new();
    }
    let path = s.annotations.get(labels::MESSAGE_PATH).map_or("", String::as_str);
    let file = s.mounts.iter().find(|m| !path.is_empty() && m.container_path == path).map(|m| m.host_path.clone());
    let from_log = s.annotations.get(labels::MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError") && s.exit_code != 0;
    let log = s.log_path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let text = file.and_then(|f| head(&f)).unwrap_or_default();
        if text.is_empty() && from_log { log_tail(&log).unwrap_or_default() } else { text }
    });
    read.await.unwrap_or_default()
}

fn head(path: &str) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MESSAGE_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log in the CRI format, without its prefixes.
fn log_tail(path: &str) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    // Each line carries a prefix of about 45 bytes that does not count.
    let window = LOG_TAIL_MAX + LOG_TAIL_LINES as u64 * 48;
    let from = file.metadata().ok()?.len().saturating_sub(window);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let skip = usize::from(from > 0);
    let lines: Vec<String> = text
        .lines()
        .skip(skip)
        .filter_map(|line| {
            let mut parts = line.splitn(4, ' ');
            let tag = parts.nth(2)?;
            let content = parts.next().unwrap_or_default();
            Some(if tag.starts_with('P') { content.to_owned() } else { format!("{content}\n") })
        })
        .collect();
    let tail: String = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].concat();
    let mut start = tail.len().saturating_sub(LOG_TAIL_MAX as usize);
    while !tail.is_char_boundary(start) {
        start += 1;
    }
    Some(tail[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_tails_lose_their_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let line = "2026-01-01T00:00:00.000000000Z stdout F";
        std::fs::write(&path, format!("{line} one\n2026-01-01T00:00:00.0Z stderr P tw\n{line} o\n")).unwrap();
        assert_eq!(log_tail(path.to_str().unwrap()).unwrap(), "one\ntwo\n");
    }
}
