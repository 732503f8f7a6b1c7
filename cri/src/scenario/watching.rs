//! Events, statistics, and what a runtime lacks.

use super::{PATIENCE, Params, Result, Tried, check, with_pod};
use crate::types::*;
use crate::{Client, Error};
use futures::StreamExt;
use std::time::{Duration, Instant};

pub(super) async fn events(client: &Client, params: &Params) -> Result {
    let mut events = match client.get_container_events().await {
        Ok(events) => events,
        Err(Error::Unimplemented { .. }) => {
            check!(!client.features().events, "it is not remembered that there are no events");
            return Ok(());
        }
        Err(error) => return Err(format!("events: {error}")),
    };
    let (seen, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let reader = async move {
        while let Some(event) = events.next().await {
            // Once the work has seen enough nobody takes them any more.
            let _ = seen.send(event);
        }
    };
    let work = with_pod(client, params, "events", |pod| async move {
        let id = pod.run("main", &["exit", "5"]).await?;
        pod.ended(&id).await?;
        client.remove_container(&id).await.tried("remove")?;
        let mut kinds = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while kinds.last() != Some(&ContainerEventKind::Deleted) {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match tokio::time::timeout(left, coming.recv()).await {
                Ok(Some(event)) => event.tried("event")?,
                Ok(None) => return Err(format!("the events ended after {kinds:?}")),
                Err(_) => return Err(format!("of the container's events only {kinds:?} came")),
            };
            if event.container_id != id {
                continue;
            }
            if let Some(status) = &event.sandbox_status {
                check!(status.id == pod.id, "the event is about sandbox {}", status.id);
            }
            if let Some(status) = event.container_statuses.iter().find(|status| status.id == id) {
                let ended = status.state == ContainerState::Exited;
                check!(
                    event.kind != ContainerEventKind::Stopped || !ended || status.exit_code == 5,
                    "exit code {}",
                    status.exit_code
                );
            }
            kinds.push(event.kind);
        }
        use ContainerEventKind::{Created, Deleted, Started, Stopped};
        check!(kinds == [Created, Started, Stopped, Deleted], "the events were {kinds:?}");
        Ok(())
    });
    tokio::select! {
        done = work => done,
        () = reader => Err("the stream of events ended".into()),
    }
}

pub(super) async fn statistics(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "statistics", |pod| async move {
        let id = pod.run("main", &["serve"]).await?;
        let one = client.container_stats(&id).await.tried("container")?;
        check!(one.id == id && one.name == "main", "the statistics are about {} {}", one.name, one.id);
        let deadline = Instant::now() + PATIENCE;
        // The first numbers take some runtimes a moment.
        loop {
            let stats = client.container_stats(&id).await.tried("container")?;
            if stats.cpu.is_some_and(|cpu| cpu.timestamp > 0) && stats.memory.is_some_and(|m| m.working_set_bytes > Some(0)) {
                break;
            }
            check!(Instant::now() < deadline, "the statistics stayed {stats:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let filter = ContainerStatsFilter { sandbox_id: Some(pod.id.clone()), ..Default::default() };
        let all = client.list_container_stats(&filter).await.tried("list")?;
        check!(all.len() == 1 && all[0].id == id, "the sandbox's containers have {} statistics", all.len());
        match client.pod_sandbox_stats(&pod.id).await {
            Ok(stats) => check!(stats.id == pod.id, "the statistics are about sandbox {}", stats.id),
            Err(Error::Unimplemented { .. }) => check!(!client.features().sandbox_stats, "that is not remembered"),
            Err(error) => return Err(format!("sandbox: {error}")),
        }
        let filter = SandboxStatsFilter { id: Some(pod.id.clone()), ..Default::default() };
        match client.list_pod_sandbox_stats(&filter).await {
            Ok(all) => check!(all.len() == 1 && all[0].metadata == pod.config.metadata, "sandboxes: {all:?}"),
            Err(Error::Unimplemented { .. }) => check!(!client.features().sandbox_stats, "that is not remembered"),
            Err(error) => return Err(format!("sandboxes: {error}")),
        }
        match client.list_pod_sandbox_metrics().await {
            Ok(_) => {
                client.list_metric_descriptors().await.tried("descriptors")?;
            }
            Err(Error::Unimplemented { .. }) => check!(!client.features().metrics, "that is not remembered"),
            Err(error) => return Err(format!("metrics: {error}")),
        }
        Ok(())
    })
    .await
}

/// What a runtime lacks is found out once, and is an answer and not a failure.
pub(super) async fn features(client: &Client, params: &Params) -> Result {
    let driver = client.runtime_config().await.tried("configuration")?;
    let again = client.runtime_config().await.tried("configuration")?;
    check!(driver == again, "first {driver:?}, then {again:?}");
    check!(driver.is_none() || client.features().runtime_config, "it answered {driver:?} and is said to lack it");
    with_pod(client, params, "features", |pod| async move {
        let resources = LinuxResources { cpu_shares: Some(512), ..Default::default() };
        match client.update_pod_sandbox_resources(&pod.id, None, Some(&resources)).await {
            Ok(()) => Ok(()),
            Err(Error::Unimplemented { .. }) => {
                check!(!client.features().update_sandbox_resources, "that is not remembered");
                Ok(())
            }
            Err(error) => Err(format!("update of the sandbox: {error}")),
        }
    })
    .await
}
