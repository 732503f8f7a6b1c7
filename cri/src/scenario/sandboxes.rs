//! Sandboxes: their life, their names, what is gone.

use super::{Params, Result, Tried, check, remove, sandbox_config, with_pod};
use crate::types::*;
use crate::{Class, Client};
use std::time::Duration;

pub(super) async fn version_and_status(client: &Client, _: &Params) -> Result {
    let version = client.version().await.tried("version")?;
    check!(!version.runtime_version.is_empty(), "the runtime {} has no version", version.runtime_name);
    check!(version.runtime_api_version.starts_with("v1"), "the interface is {:?}", version.runtime_api_version);
    let status = client.status(false).await.tried("status")?;
    check!(status.runtime_ready.ok, "the runtime is not ready: {:?}", status.runtime_ready);
    check!(status.info.is_empty(), "info was not asked for");
    let verbose = client.status(true).await.tried("verbose status")?;
    check!(!verbose.info.is_empty(), "info was asked for");
    Ok(())
}

pub(super) async fn life(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "sandbox-life", |pod| async move {
        let status = client.pod_sandbox_status(&pod.id).await.tried("status")?;
        check!(status.state == SandboxState::Ready, "the state is {:?}", status.state);
        check!(status.metadata == pod.config.metadata, "the metadata became {:?}", status.metadata);
        check!(status.labels == pod.config.labels, "the labels became {:?}", status.labels);
        check!(status.annotations == pod.config.annotations, "the annotations became {:?}", status.annotations);
        check!(status.created_at > 0, "it was created at {}", status.created_at);
        check!(status.ips.is_empty() == params.host_network, "the addresses are {:?}", status.ips);
        let mode = status.namespaces.map(|namespaces| namespaces.network);
        check!(mode == Some(pod.config.security.namespaces.network.clone()), "the network mode became {mode:?}");
        let verbose = client.inspect_pod_sandbox(&pod.id).await.tried("inspect")?;
        check!(!verbose.info.is_empty(), "info was asked for");

        for _ in 0..2 {
            client.stop_pod_sandbox(&pod.id).await.tried("stop")?;
            let status = client.pod_sandbox_status(&pod.id).await.tried("status")?;
            check!(status.state == SandboxState::NotReady, "after a stop the state is {:?}", status.state);
        }
        for _ in 0..2 {
            client.remove_pod_sandbox(&pod.id).await.tried("remove")?;
        }
        match client.pod_sandbox_status(&pod.id).await {
            Err(error) if error.is_gone() => Ok(()),
            other => Err(format!("the status of a removed sandbox: {other:?}")),
        }
    })
    .await
}

pub(super) async fn name_conflict(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "sandbox-name", |pod| async move {
        match client.run_pod_sandbox(&pod.config, "").await {
            Err(error) => check!(error.class() == Class::Transient, "a taken name is {:?}: {error}", error.class()),
            Ok(id) => {
                remove(client, &id).await?;
                return Err("a second sandbox of the same name and attempt was made".into());
            }
        }
        let mut next = pod.config.clone();
        next.metadata.attempt += 1;
        let id = client.run_pod_sandbox(&next, "").await.tried("the next attempt")?;
        remove(client, &id).await?;
        let status = client.pod_sandbox_status(&pod.id).await.tried("status")?;
        check!(status.state == SandboxState::Ready, "the first became {:?}", status.state);
        Ok(())
    })
    .await
}

pub(super) async fn list_filters(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "sandbox-filters", |pod| async move {
        let uid = Labels::from([("uid".to_owned(), pod.config.metadata.uid.clone())]);
        let found = async |filter: SandboxFilter| -> std::result::Result<bool, String> {
            let list = client.list_pod_sandbox(&filter).await.tried("list")?;
            Ok(list.iter().any(|sandbox| sandbox.id == pod.id))
        };
        let by_label = || SandboxFilter { labels: uid.clone(), ..Default::default() };
        check!(found(SandboxFilter::default()).await?, "it is missing in the whole list");
        check!(found(by_label()).await?, "it is not found by its label");
        check!(found(SandboxFilter { id: Some(pod.id.clone()), ..Default::default() }).await?, "it is not found by its id");
        check!(found(SandboxFilter { state: Some(SandboxState::Ready), ..by_label() }).await?, "it is not found as ready");
        check!(!found(SandboxFilter { state: Some(SandboxState::NotReady), ..by_label() }).await?, "it is found as not ready");
        let other = Labels::from([("uid".to_owned(), "another".to_owned())]);
        check!(!found(SandboxFilter { labels: other, ..Default::default() }).await?, "it is found by another label");
        let list = client.list_pod_sandbox(&by_label()).await.tried("list")?;
        check!(list.len() == 1, "{} sandboxes have the label of one", list.len());
        check!(list[0].metadata == pod.config.metadata, "the metadata became {:?}", list[0].metadata);
        check!(list[0].annotations == pod.config.annotations, "the annotations became {:?}", list[0].annotations);
        client.stop_pod_sandbox(&pod.id).await.tried("stop")?;
        check!(found(SandboxFilter { state: Some(SandboxState::NotReady), ..by_label() }).await?, "it is not found as not ready");
        Ok(())
    })
    .await
}

pub(super) async fn removed_with_containers(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "sandbox-containers", |pod| async move {
        let running = pod.run("running", &["ignore-term", "1000"]).await?;
        let created = pod.create(&pod.container("created", &["exit", "0"])).await?;
        client.stop_pod_sandbox(&pod.id).await.tried("stop")?;
        let status = pod.status(&running).await?;
        check!(status.state == ContainerState::Exited, "the container of a stopped sandbox is {:?}", status.state);
        client.remove_pod_sandbox(&pod.id).await.tried("remove")?;
        for id in [running, created] {
            match client.container_status(&id, false).await {
                Err(error) if error.is_gone() => {}
                other => return Err(format!("a container of a removed sandbox: {other:?}")),
            }
        }
        Ok(())
    })
    .await
}

pub(super) async fn stopped_takes_no_containers(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "sandbox-stopped", |pod| async move {
        client.stop_pod_sandbox(&pod.id).await.tried("stop")?;
        let made = client.create_container(&pod.id, &pod.container("late", &["serve"]), &pod.config).await;
        // Some runtimes only refuse to start it.
        let started = match made {
            Ok(id) => client.start_container(&id).await,
            Err(error) => Err(error),
        };
        check!(started.is_err(), "a container was started in a stopped sandbox");
        Ok(())
    })
    .await
}

pub(super) async fn what_is_gone(client: &Client, params: &Params) -> Result {
    let absent = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let gone = |what: &str, error: Option<crate::Error>| match error {
        Some(error) if error.is_gone() => Ok(()),
        other => Err(format!("{what} of what is not there: {other:?}")),
    };
    gone("status of a sandbox", client.pod_sandbox_status(absent).await.err())?;
    gone("status of a container", client.container_status(absent, false).await.err())?;
    gone("start", client.start_container(absent).await.err())?;
    gone("exec", client.exec_sync(absent, &["/x".into()], Duration::from_secs(1)).await.err())?;
    // These say that it shall not be there, and it is not.
    client.stop_container(absent, Duration::ZERO).await.tried("stop of an absent container")?;
    client.remove_container(absent).await.tried("removal of an absent container")?;
    client.stop_pod_sandbox(absent).await.tried("stop of an absent sandbox")?;
    client.remove_pod_sandbox(absent).await.tried("removal of an absent sandbox")?;
    // Nothing is sent for an empty id: to some runtimes it means the first best container.
    let refused = client.stop_container("", Duration::ZERO).await;
    check!(matches!(refused, Err(crate::Error::Request { .. })), "an empty id: {refused:?}");
    let config = sandbox_config(params, "gone");
    let config_of = ContainerConfig { name: "c".into(), image: ImageSpec::new(&params.image), ..Default::default() };
    check!(client.create_container(absent, &config_of, &config).await.is_err(), "a container was made in an absent sandbox");
    Ok(())
}
