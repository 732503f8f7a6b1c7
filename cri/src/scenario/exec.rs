//! Commands in containers, and where to stream them.

use super::{PATIENCE, Params, Result, Tried, check, with_pod};
use crate::types::*;
use crate::{Client, Error};
use std::time::{Duration, Instant};

fn command(params: &Params, args: &[&str]) -> Vec<String> {
    [params.program.as_str()].iter().chain(args).map(|word| (*word).to_owned()).collect()
}

pub(super) async fn output(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "exec-output", |pod| async move {
        let id = pod.run("main", &["serve"]).await?;
        let echo = client.exec_sync(&id, &command(params, &["echo", "one", "two"]), PATIENCE).await.tried("echo")?;
        check!(echo.exit_code == 0 && echo.stdout == b"one two\n" && echo.stderr.is_empty(), "echo answered {echo:?}");
        let seven = client.exec_sync(&id, &command(params, &["exit", "7"]), PATIENCE).await.tried("exit 7")?;
        check!(seven.exit_code == 7, "exit 7 became {}", seven.exit_code);
        let fails = client.exec_sync(&id, &command(params, &["cat", "/absent"]), PATIENCE).await.tried("cat")?;
        check!(fails.exit_code != 0 && !fails.stderr.is_empty() && fails.stdout.is_empty(), "cat answered {fails:?}");
        // No timeout at all.
        let echo = client.exec_sync(&id, &command(params, &["echo", "x"]), Duration::ZERO).await.tried("echo without timeout")?;
        check!(echo.stdout == b"x\n", "echo answered {echo:?}");
        // Many at once, each with its own output.
        let many = (0..8).map(|n| {
            let words = command(params, &["echo", &n.to_string()]);
            let id = &id;
            async move { (n, client.exec_sync(id, &words, PATIENCE).await) }
        });
        for (n, answer) in futures::future::join_all(many).await {
            let answer = answer.tried("one of many")?;
            check!(answer.stdout == format!("{n}\n").into_bytes(), "the {n}th answered {answer:?}");
        }
        check!(pod.status(&id).await?.state == ContainerState::Running, "the container did not survive it");
        Ok(())
    })
    .await
}

pub(super) async fn timeout(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "exec-timeout", |pod| async move {
        let id = pod.run("main", &["serve"]).await?;
        let begin = Instant::now();
        let answer = client.exec_sync(&id, &command(params, &["ignore-term", "1000"]), Duration::from_secs(1)).await;
        let took = begin.elapsed();
        check!(matches!(answer, Err(Error::ExecTimeout { .. })), "a command that takes too long: {answer:?}");
        check!(took >= Duration::from_millis(900) && took < PATIENCE, "the timeout of 1 s came after {took:?}");
        let echo = client.exec_sync(&id, &command(params, &["echo", "x"]), PATIENCE).await.tried("echo afterwards")?;
        check!(echo.stdout == b"x\n", "echo answered {echo:?}");
        Ok(())
    })
    .await
}

pub(super) async fn refused(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "exec-refused", |pod| async move {
        let running = pod.run("running", &["serve"]).await?;
        let error = match client.exec_sync(&running, &["/no/such/command".into()], PATIENCE).await {
            Err(error) => error,
            Ok(answer) => return Err(format!("a command that does not exist: {answer:?}")),
        };
        check!(!matches!(error, Error::ExecTimeout { .. }), "{error}");
        check!(error.message().contains("/no/such/command"), "the error does not name the command: {error}");
        let empty = client.exec_sync(&running, &[], PATIENCE).await;
        check!(matches!(empty, Err(Error::Request { .. })), "an empty command: {empty:?}");
        let ended = pod.run("ended", &["exit", "0"]).await?;
        pod.ended(&ended).await?;
        let answer = client.exec_sync(&ended, &command(params, &["echo", "x"]), PATIENCE).await;
        check!(matches!(answer, Err(Error::Call { .. })), "a command in an ended container: {answer:?}");
        Ok(())
    })
    .await
}

pub(super) async fn streaming_urls(client: &Client, params: &Params) -> Result {
    with_pod(client, params, "streaming-urls", |pod| async move {
        let id = pod.run("main", &["serve"]).await?;
        let streams = StreamOptions { stdout: true, stderr: true, ..Default::default() };
        let exec = client.exec(&id, &command(params, &["env"]), streams).await.tried("exec")?;
        let attach = client.attach(&id, streams).await.tried("attach")?;
        let forward = client.port_forward(&pod.id, &[8080]).await.tried("port forward")?;
        for url in [exec, attach, forward] {
            check!(url.starts_with("http://") || url.starts_with("https://"), "the address is {url:?}");
        }
        Ok(())
    })
    .await
}
