//! The data plane in a process of its own, so that its time and memory are nobody else's: `lab bench-plane`, inside a namespace.
//!
//! Reads lines of a watch on standard input as the agent does from its connection (event, head, object: three passes), and feeds
//! the proxy through a channel as long as the agent's. The initial lists are kept in memory until both are complete; then the
//! clock starts. Answers on standard output, one JSON line each. Ends with its input.

use anyhow::{Context, Result, bail};
use ferrolet_netproxy::{Config, Handle, Input, Key, Proxy, wire};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::os::fd::AsFd;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The agent's own number.
pub const QUEUE: usize = 256;

/// What the process says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Started, nothing listed yet.
    Ready,
    /// Everything listed is in the kernel.
    Synced(Start),
    Report(Report),
}

/// A cold start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// From all objects in memory to all rules in the kernel.
    pub seconds: f64,
    /// Processor time of the process within that, which other load on the host does not stretch much.
    pub cpu: f64,
    pub batches: usize,
    /// The longest that one batch kept the kernel, in seconds.
    pub longest_batch: f64,
}

/// Processor time of a process so far, in seconds, the kernel's work in its system calls included.
pub fn cpu(process: &str) -> Result<f64> {
    Ok(ticks(process, 11)? + ticks(process, 12)?)
}

/// The same of its children that have ended.
pub fn cpu_of_children(process: &str) -> Result<f64> {
    Ok(ticks(process, 13)? + ticks(process, 14)?)
}

/// A field of `stat`, counted from the state, in seconds.
fn ticks(process: &str, at: usize) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no name in stat")?;
    let ticks: f64 = rest.split_whitespace().nth(at).context("stat is short")?.parse().context("stat")?;
    // In hundredths of a second: USER_HZ is the same everywhere.
    Ok(ticks / 100.0)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Changes handed on since the last report.
    pub changes: u64,
    /// Length of the queue just before each of them, on average and at most.
    pub queue_mean: f64,
    pub queue_most: usize,
    /// Since the start.
    pub syncs: u64,
    pub full_syncs: u64,
    pub failures: u64,
    pub bad_objects: u64,
}

/// One line of the input.
#[derive(Debug)]
pub enum Line {
    Service(Key, Option<wire::Service>),
    Slice(Key, Option<wire::EndpointSlice>),
    /// All of a kind has been listed.
    ListEnd(String),
    /// Asks for a `Report`.
    Report,
}

/// A line that asks for a report; no API server says such a thing.
pub const REPORT: &str = "{\"type\":\"REPORT\",\"object\":null}\n";

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Head {
    kind: String,
    metadata: wire::Metadata,
}

/// Takes a line apart.
pub fn read(line: &[u8]) -> Result<Line> {
    let event: RawEvent<'_> = serde_json::from_slice(line).context("not a watch event")?;
    if event.kind == "REPORT" {
        return Ok(Line::Report);
    }
    let object = event.object.get();
    let head: Head = serde_json::from_str(object).context("an object without kind and metadata")?;
    let key = Key::new(&head.metadata.namespace, &head.metadata.name);
    let gone = event.kind == "DELETED";
    match (event.kind.as_ref(), head.kind.as_str()) {
        ("BOOKMARK", _) => Ok(Line::ListEnd(head.kind)),
        (_, "Service") => Ok(Line::Service(key, if gone { None } else { serde_json::from_str(object)? })),
        (_, "EndpointSlice") => Ok(Line::Slice(key, if gone { None } else { serde_json::from_str(object)? })),
        (event, kind) => bail!("event {event:?} of a {kind:?}"),
    }
}

/// The process. The agent's runtime has as many workers.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(32).enable_all().build()?;
    // On a worker, where the agent's watches run.
    let done = runtime.block_on(async { tokio::spawn(serve()).await });
    runtime.shutdown_background();
    done?
}

struct Plane {
    inputs: mpsc::Sender<Input>,
    handle: Handle,
    services: Vec<wire::Service>,
    slices: Vec<wire::EndpointSlice>,
    /// Kinds whose list is complete.
    complete: usize,
    queue_sum: u64,
    report: Report,
}

async fn serve() -> Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut lines =
        BufReader::with_capacity(64 << 10, pipe::Receiver::from_owned_fd(input).context("standard input is no pipe")?);
    let (inputs, inbox) = mpsc::channel(QUEUE);
    let config = Config { node_name: super::objects::NODE.into(), ..Config::default() };
    let (handle, task) = Proxy::spawn(config, inbox, CancellationToken::new())?;
    let mut plane =
        Plane { inputs, handle, services: vec![], slices: vec![], complete: 0, queue_sum: 0, report: Report::default() };
    say(&Answer::Ready)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        plane.take(read(&line)?).await?;
    }
    task.abort();
    Ok(())
}

fn say(answer: &Answer) -> Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

impl Plane {
    async fn take(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Report => return self.say_report(),
            Line::ListEnd(_) => {
                self.complete += 1;
                if self.complete == 2 {
                    say(&Answer::Synced(self.first_sync().await?))?;
                }
            }
            Line::Service(_, Some(service)) if self.complete < 2 => self.services.push(service),
            Line::Slice(_, Some(slice)) if self.complete < 2 => self.slices.push(slice),
            Line::Service(key, new) => self.pass_on(Input::Service(key, new)).await?,
            Line::Slice(key, new) => self.pass_on(Input::Slice(key, new)).await?,
        }
        Ok(())
    }

    /// From the objects in memory to the kernel.
    async fn first_sync(&mut self) -> Result<Start> {
        let (cpu_before, began) = (cpu("self")?, Instant::now());
        self.inputs.send(Input::Services(std::mem::take(&mut self.services))).await?;
        self.inputs.send(Input::Slices(std::mem::take(&mut self.slices))).await?;
        self.handle.synced.wait_for(|synced| *synced).await?;
        let seconds = began.elapsed().as_secs_f64();
        let stats = self.handle.stats();
        let (batches, longest_batch) = (stats.last_full_batches, stats.longest_batch.as_secs_f64());
        Ok(Start { seconds, cpu: cpu("self")? - cpu_before, batches, longest_batch })
    }

    async fn pass_on(&mut self, input: Input) -> Result<()> {
        let waiting = self.inputs.max_capacity() - self.inputs.capacity();
        self.report.changes += 1;
        self.queue_sum += waiting as u64;
        self.report.queue_most = self.report.queue_most.max(waiting);
        self.inputs.send(input).await.context("the data plane has ended")
    }

    fn say_report(&mut self) -> Result<()> {
        let stats = self.handle.stats();
        let report = Report {
            queue_mean: self.queue_sum as f64 / self.report.changes.max(1) as f64,
            syncs: stats.syncs,
            full_syncs: stats.full_syncs,
            failures: stats.failures,
            bad_objects: stats.bad_objects,
            ..std::mem::take(&mut self.report)
        };
        self.queue_sum = 0;
        say(&Answer::Report(report))
    }
}
