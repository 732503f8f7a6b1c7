//! The other side of `plane`: starts the process in a namespace, feeds it, and reads what it costs.
//!
//! Ends it when dropped. One whose parent was killed ends with its input.

use super::objects::{self, Shape};
use super::plane::{self, Answer, REPORT, Report, Start};
use crate::sys::MARK;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// For one answer of the process.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Plane {
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    answers: mpsc::Receiver<String>,
}

/// In KiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: u64,
    pub peak: u64,
}

impl Plane {
    pub fn start(netns: &str) -> Result<Plane> {
        let program = std::env::current_exe().context("cannot find this program itself")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).arg(program).arg("bench-plane").env(MARK, super::LAB);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the data plane")?;
        let to = child.stdin.take().map(|pipe| BufWriter::with_capacity(64 << 10, pipe));
        let from = child.stdout.take().context("no output of the data plane")?;
        let (say, answers) = mpsc::channel();
        std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let plane = Plane { child, to, answers };
        match plane.answer()? {
            Answer::Ready => Ok(plane),
            other => bail!("the data plane began with {other:?}"),
        }
    }

    fn answer(&self) -> Result<Answer> {
        let line = self.answers.recv_timeout(PATIENCE).context("no answer from the data plane")?;
        serde_json::from_str(&line).with_context(|| format!("the data plane said {line:?}"))
    }

    /// One line, sent at once.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.push(line)?;
        self.flush()
    }

    fn push(&mut self, line: &str) -> Result<()> {
        let to = self.to.as_mut().context("the input is closed")?;
        to.write_all(line.as_bytes()).context("the data plane takes no input")
    }

    fn flush(&mut self) -> Result<()> {
        self.to.as_mut().context("the input is closed")?.flush().context("the data plane takes no input")
    }

    /// Lists a whole cluster and waits for its rules.
    pub fn list(&mut self, shape: Shape) -> Result<Start> {
        for n in 0..shape.services {
            self.push(&objects::service(shape, n))?;
        }
        self.push(&objects::end_of("Service"))?;
        for n in 0..shape.services {
            self.push(&objects::slice(shape, "ADDED", n, &objects::endpoints(shape, n), 1))?;
        }
        self.send(&objects::end_of("EndpointSlice"))?;
        match self.answer()? {
            Answer::Synced(start) => Ok(start),
            other => bail!("the data plane said {other:?}, not that it is synced"),
        }
    }

    pub fn report(&mut self) -> Result<Report> {
        self.send(REPORT)?;
        match self.answer()? {
            Answer::Report(report) => Ok(report),
            other => bail!("the data plane said {other:?} for a report"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn memory(&self) -> Result<Memory> {
        memory(self.pid())
    }

    /// Processor time so far, in seconds.
    pub fn cpu(&self) -> Result<f64> {
        plane::cpu(&self.pid().to_string())
    }
}

pub fn memory(pid: u32) -> Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        line.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("no number in {name}"))
    };
    Ok(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
