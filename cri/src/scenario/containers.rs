//! Containers: their life, exit codes, stopping, what they see, what they print.

use super::{PATIENCE, Params, Result, Tried, check, unique, with_pod};
use crate::types::*;
use crate::{Class, Client};
use std::time::{Duration, Instant};

pub(super) async fn life(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-life", |pod| async move {
        let mut config = pod.container("main", &["serve"]);
        config.annotations = Labels::from([("hash".into(), "abc".into())]);
        let id = pod.create(&config).await?;
        let status = pod.status(&id).await?;
        check!(status.state == ContainerState::Created, "after create the state is {:?}", status.state);
        check!((status.name.as_str(), status.attempt) == ("main", 0), "the name became {} {}", status.name, status.attempt);
        check!(status.labels == config.labels, "the labels became {:?}", status.labels);
        check!(status.annotations == config.annotations, "the annotations became {:?}", status.annotations);
        check!(status.created_at > 0 && status.started_at == 0 && status.finished_at == 0, "times of a created one: {status:?}");
        check!(!status.image_ref.is_empty(), "the image has no reference");
        let path = format!("{}/{}", pod.config.log_directory, config.log_path);
        check!(status.log_path == path, "the log is at {} instead of {path}", status.log_path);

        client.start_container(&id).await.tried("start")?;
        let status = pod.status(&id).await?;
        check!(status.state == ContainerState::Running, "after start the state is {:?}", status.state);
        check!(status.started_at >= status.created_at && status.finished_at == 0, "times of a running one: {status:?}");
        check!(client.start_container(&id).await.is_err(), "it was started twice");

        for _ in 0..2 {
            client.stop_container(&id, Duration::from_secs(5)).await.tried("stop")?;
            let status = pod.status(&id).await?;
            check!(status.state == ContainerState::Exited, "after stop the state is {:?}", status.state);
            check!(status.finished_at >= status.started_at, "it ended before it began: {status:?}");
        }
        check!(client.start_container(&id).await.is_err(), "an ended one was started again");
        for _ in 0..2 {
            client.remove_container(&id).await.tried("remove")?;
        }
        match client.container_status(&id, false).await {
            Err(error) if error.is_gone() => Ok(()),
            other => Err(format!("the status of a removed container: {other:?}")),
        }
    })
    .await
}

pub(super) async fn name_conflict(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-name", |pod| async move {
        let mut config = pod.container("main", &["serve"]);
        let id = pod.create(&config).await?;
        match client.create_container(&pod.id, &config, &pod.config).await {
            Err(error) => check!(error.class() == Class::Transient, "a taken name is {:?}: {error}", error.class()),
            Ok(_) => return Err("a second container of the same name and attempt was made".into()),
        }
        config.attempt = 1;
        pod.create(&config).await?;
        config.attempt = 0;
        client.remove_container(&id).await.tried("remove")?;
        // Once the first is gone its name is free.
        pod.create(&config).await?;
        Ok(())
    })
    .await
}

pub(super) async fn exit_codes(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-exits", |pod| async move {
        for (name, code, reason) in [("zero", 0, "Completed"), ("three", 3, "Error"), ("most", 255, "Error")] {
            let id = pod.run(name, &["exit", &code.to_string()]).await?;
            let status = pod.ended(&id).await?;
            check!(status.exit_code == code, "exit {code} became {}", status.exit_code);
            check!(status.reason == reason, "the reason for exit {code} is {:?}", status.reason);
            // Not compared with each other: containerd takes a short-lived process's end for earlier than its start.
            check!(status.finished_at > 0 && status.started_at > 0, "times: {status:?}");
        }
        Ok(())
    })
    .await
}

pub(super) async fn no_such_command(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-command", |pod| async move {
        let mut config = pod.container("main", &[]);
        config.command = vec!["/no/such/command".into()];
        let id = pod.create(&config).await?;
        let error = match client.start_container(&id).await {
            Ok(()) => return Err("a command that does not exist was started".into()),
            Err(error) => error,
        };
        check!(error.message().contains("/no/such/command"), "the error does not name the command: {error}");
        let status = pod.status(&id).await?;
        check!(status.state != ContainerState::Running, "it runs");
        client.remove_container(&id).await.tried("remove")
    })
    .await
}

pub(super) async fn stop_with_grace(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-grace", |pod| async move {
        let obeys = pod.run("obeys", &["sleep", "1000"]).await?;
        let ignores = pod.run("ignores", &["ignore-term", "1000"]).await?;
        // Nothing tells when a process has set up its handlers; a command run in it afterwards is a fair sign.
        for id in [&obeys, &ignores] {
            let command = [params.program.clone(), "echo".into(), "ready".into()];
            client.exec_sync(id, &command, PATIENCE).await.tried("exec")?;
        }
        let begin = Instant::now();
        client.stop_container(&obeys, Duration::from_secs(30)).await.tried("stop")?;
        let took = begin.elapsed();
        check!(took < Duration::from_secs(15), "the stop of an obedient process took {took:?}");
        let status = pod.status(&obeys).await?;
        check!(status.exit_code == 0, "an obedient process ended with {}", status.exit_code);

        let begin = Instant::now();
        client.stop_container(&ignores, Duration::from_secs(1)).await.tried("stop")?;
        let took = begin.elapsed();
        check!(took >= Duration::from_millis(900), "a stubborn process was killed after {took:?}");
        let status = pod.status(&ignores).await?;
        check!(status.exit_code == 137, "a killed process ended with {}", status.exit_code);

        let at_once = pod.run("at-once", &["ignore-term", "1000"]).await?;
        let begin = Instant::now();
        client.stop_container(&at_once, Duration::ZERO).await.tried("stop at once")?;
        let took = begin.elapsed();
        check!(took < Duration::from_secs(10), "a stop without grace took {took:?}");
        check!(pod.status(&at_once).await?.exit_code == 137, "it was not killed");
        Ok(())
    })
    .await
}

pub(super) async fn removed_while_running(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-remove", |pod| async move {
        let id = pod.run("main", &["ignore-term", "1000"]).await?;
        client.remove_container(&id).await.tried("remove")?;
        match client.container_status(&id, false).await {
            Err(error) if error.is_gone() => Ok(()),
            other => Err(format!("the status of a removed container: {other:?}")),
        }
    })
    .await
}

pub(super) async fn list_filters(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-filters", |pod| async move {
        let running = pod.run("running", &["serve"]).await?;
        let created = pod.create(&pod.container("created", &["serve"])).await?;
        let ended = pod.run("ended", &["exit", "0"]).await?;
        pod.ended(&ended).await?;
        let found = async |filter: ContainerFilter| -> std::result::Result<Vec<String>, String> {
            let list = client.list_containers(&filter).await.tried("list")?;
            Ok(list.into_iter().filter(|c| c.sandbox_id == pod.id).map(|c| c.name).collect())
        };
        let mine = || ContainerFilter { sandbox_id: Some(pod.id.clone()), ..Default::default() };
        check!(found(ContainerFilter::default()).await?.len() == 3, "not all three are in the whole list");
        check!(found(mine()).await?.len() == 3, "not all three are in the sandbox's list");
        for (state, name) in
            [(ContainerState::Running, "running"), (ContainerState::Created, "created"), (ContainerState::Exited, "ended")]
        {
            let names = found(ContainerFilter { state: Some(state), ..mine() }).await?;
            check!(names == [name], "{state:?} are {names:?}");
        }
        let labels = Labels::from([("container".to_owned(), "created".to_owned())]);
        let names = found(ContainerFilter { labels, ..mine() }).await?;
        check!(names == ["created"], "by label: {names:?}");
        let names = found(ContainerFilter { id: Some(running.clone()), ..Default::default() }).await?;
        check!(names == ["running"], "by id: {names:?}");
        let list = client.list_containers(&ContainerFilter { id: Some(created), ..mine() }).await.tried("list")?;
        check!(list.len() == 1 && list[0].state == ContainerState::Created, "both by id and sandbox: {list:?}");
        check!(!list[0].image_ref.is_empty() && list[0].created_at > 0, "the entry is not complete: {:?}", list[0]);
        Ok(())
    })
    .await
}

pub(super) async fn environment_and_mounts(client: &Client, params: &Params) -> Result {
    let dir = params.scratch_dir.join(unique());
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let file = dir.join("greeting");
    std::fs::write(&file, "hello from the host\n").map_err(|error| format!("{}: {error}", file.display()))?;
    let done = with_pod(client, params, "container-mounts", |pod| async move {
        let mut config = pod.container("main", &["serve"]);
        config.env = vec![EnvVar::new("PLAIN", "a value"), EnvVar::new("ODD", "a=b \"c\" é"), EnvVar::new("EMPTY", "")];
        config.mounts = vec![Mount {
            container_path: "/mnt/greeting".into(),
            host_path: file.to_string_lossy().into_owned(),
            readonly: true,
            ..Default::default()
        }];
        let id = pod.create(&config).await?;
        client.start_container(&id).await.tried("start")?;
        let mounts = pod.status(&id).await?.mounts;
        check!(mounts.iter().any(|m| m.container_path == "/mnt/greeting" && m.readonly), "the mounts are {mounts:?}");
        let run = async |args: [&str; 2]| {
            let command: Vec<String> =
                [params.program.as_str()].iter().chain(&args).filter(|a| !a.is_empty()).map(|a| (*a).to_owned()).collect();
            client.exec_sync(&id, &command, PATIENCE).await.tried("exec")
        };
        let env = run(["env", ""]).await?;
        let env = String::from_utf8_lossy(&env.stdout).into_owned();
        for line in ["PLAIN=a value", "ODD=a=b \"c\" é", "EMPTY="] {
            check!(env.lines().any(|l| l == line), "{line:?} is not in the environment");
        }
        let content = run(["cat", "/mnt/greeting"]).await?;
        check!(
            content.stdout == b"hello from the host\n",
            "the mounted file reads {:?}",
            String::from_utf8_lossy(&content.stdout)
        );
        let absent = run(["cat", "/mnt/absent"]).await?;
        check!(absent.exit_code != 0 && !absent.stderr.is_empty(), "an absent file: {absent:?}");
        Ok(())
    })
    .await;
    let _ = std::fs::remove_dir_all(&dir);
    done
}

pub(super) async fn logs(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-logs", |pod| async move {
        let id = pod.run("main", &["echo", "one", "two"]).await?;
        let path = pod.ended(&id).await?.log_path;
        let deadline = Instant::now() + PATIENCE;
        // What was printed may reach the file a moment after the process has ended.
        let text = loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.ends_with('\n') {
                break text;
            }
            check!(Instant::now() < deadline, "the log {path} stayed {text:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let fields: Vec<&str> = text.trim_end().splitn(4, ' ').collect();
        check!(fields.len() == 4 && fields[1..] == ["stdout", "F", "one two"], "the log reads {text:?}");
        check!(fields[0].contains('T') && fields[0].len() >= 20, "the time reads {:?}", fields[0]);

        let running = pod.run("running", &["serve"]).await?;
        let path = pod.status(&running).await?.log_path;
        std::fs::rename(&path, format!("{path}.old")).map_err(|error| format!("{path}: {error}"))?;
        client.reopen_container_log(&running).await.tried("reopen")?;
        check!(std::path::Path::new(&path).exists(), "no new log was made at {path}");
        check!(client.reopen_container_log(&id).await.is_err(), "the log of an ended container was reopened");
        Ok(())
    })
    .await
}

pub(super) async fn resources(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "container-resources", |pod| async move {
        let mut config = pod.container("main", &["serve"]);
        let limit = 64 << 20;
        config.resources = Some(LinuxResources {
            cpu_period: Some(100_000),
            cpu_quota: Some(50_000),
            cpu_shares: Some(512),
            memory_limit_bytes: Some(limit),
            ..Default::default()
        });
        let id = pod.create(&config).await?;
        client.start_container(&id).await.tried("start")?;
        let change = LinuxResources { memory_limit_bytes: Some(2 * limit), ..Default::default() };
        client.update_container_resources(&id, &change, &Labels::new()).await.tried("update")?;
        // Not every runtime tells; one that does must tell the truth.
        if let Some(now) = pod.status(&id).await?.resources {
            check!(now.memory_limit_bytes == Some(2 * limit), "the memory limit is {:?}", now.memory_limit_bytes);
            check!(now.cpu_quota == Some(50_000), "the quota became {:?}", now.cpu_quota);
        }
        Ok(())
    })
    .await
}
