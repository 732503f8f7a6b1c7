//! The two processes of the bench, each in a namespace of its own, so that their time and their sockets are nobody else's: the
//! prober, which is the agent's probe driver alone, and the server that it asks. Both end with their input.

use crate::bench::services::plane::cpu;
use crate::sys;
use anyhow::{Context, Result};
use ferrolet_probes::{Check, Driver, Exec, ExecError, ExecOutcome, InitialVerdicts, Kind, Limits, Probe, Scheme, Spec};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What a process says when it is asked with a line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Said {
    /// Processor time so far, in seconds.
    pub cpu: f64,
    pub resident_kib: u64,
    /// Connections taken, or probes that succeed.
    pub count: u64,
}

/// What the prober is to do: one line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Work {
    pub http: bool,
    pub probes: usize,
    pub server: SocketAddr,
}

fn say(count: u64) -> Result<()> {
    let said = Said { cpu: cpu("self")?, resident_kib: sys::rss_kib(std::process::id() as i32)?, count };
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}

/// The agent's runtime has as many workers.
fn block_on(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(32).enable_all().build()?;
    let done = runtime.block_on(async { tokio::spawn(work).await });
    runtime.shutdown_background();
    done?
}

fn input() -> Result<pipe::Receiver> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    pipe::Receiver::from_owned_fd(input).context("standard input is no pipe")
}

pub fn server() -> Result<()> {
    block_on(async {
        let listener = TcpListener::bind("0.0.0.0:8080").await?;
        let taken = Arc::new(AtomicU64::new(0));
        let mut lines = BufReader::new(input()?).lines();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    taken.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(answer(accepted?.0));
                }
                line = lines.next_line() => match line? {
                    Some(_) => say(taken.load(Ordering::Relaxed))?,
                    None => return Ok(()),
                }
            }
        }
    })
}

/// As servers do that were asked to close: they close. One that is asked nothing waits for the end.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 1024];
    if stream.read(&mut request).await? > 0 {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n").await?;
    }
    Ok(())
}

struct NoExec;

impl Exec for NoExec {
    fn exec(
        &self,
        _: &str,
        _: &[String],
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<ExecOutcome, ExecError>> + Send + '_>> {
        Box::pin(async { Err(ExecError::Failed("no containers here".to_owned())) })
    }
}

pub fn prober() -> Result<()> {
    block_on(async {
        let mut lines = BufReader::new(input()?).lines();
        let work = lines.next_line().await?.context("nothing to do")?;
        let work: Work = serde_json::from_str(&work)?;
        let (driver, mut events, _task) = Driver::spawn(Arc::new(NoExec), Limits::default(), CancellationToken::new());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                eprintln!("{}", event.message);
            }
        });
        let mut verdicts = Vec::new();
        for n in 0..work.probes {
            let uid = format!("6d1f8a52-7a0c-4c8e-9a55-{n:012}");
            driver.set(&uid, vec![probe(&work, n)], InitialVerdicts::new()).await;
            verdicts.push(driver.verdicts(&uid).await);
            // As if they had been started over a second: a node's pods never start in one moment.
            tokio::time::sleep(Duration::from_secs(1) / work.probes as u32).await;
        }
        while lines.next_line().await?.is_some() {
            let well = verdicts.iter().filter(|v| v.borrow().values().all(|v| v.state == ferrolet_probes::State::Success));
            say(well.count() as u64)?;
        }
        Ok(())
    })
}

fn probe(work: &Work, n: usize) -> Probe {
    let (host, port) = (work.server.ip().to_string(), work.server.port());
    let check = match work.http {
        true => Check::Http { host, port, path: "/readyz".into(), scheme: Scheme::Http, headers: vec![] },
        false => Check::Tcp { host, port },
    };
    Probe {
        container: "main".into(),
        container_id: format!("{n:064x}"),
        kind: Kind::Readiness,
        spec: Spec {
            check,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        },
        started_at: SystemTime::now(),
    }
}
