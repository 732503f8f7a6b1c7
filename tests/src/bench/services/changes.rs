//! Changes of single endpoints: how long one takes to be in the kernel, and many of them, one after another for a minute.

use super::driver::Plane;
use super::listen::Listener;
use super::objects::{self, Shape, endpoints, fresh_ip};
use super::plane::Report;
use anyhow::{Result, bail};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Between two single changes, so that each meets a data plane at rest.
pub const PAUSE: Duration = Duration::from_millis(2);

/// Makes one change after another, each of another service, each with an address never seen before.
pub struct Changes {
    shape: Shape,
    made: u32,
}

impl Changes {
    pub fn new(shape: Shape) -> Changes {
        Changes { shape, made: 0 }
    }

    /// A line of the watch and the address that is new in it: one endpoint replaced, or one more.
    pub fn make(&mut self) -> (String, Ipv4Addr) {
        let n = self.made.wrapping_mul(7919) % self.shape.services;
        let mut ips = endpoints(self.shape, n);
        let new = fresh_ip(self.made);
        if self.made.is_multiple_of(2) {
            let at = self.made as usize / 2 % ips.len();
            ips[at] = new;
        } else {
            ips.push(new);
        }
        self.made += 1;
        (objects::slice(self.shape, "MODIFIED", n, &ips, 10 + u64::from(self.made)), new)
    }
}

/// Takes a line of the watch.
pub type Send<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

/// From the line's first byte sent to the kernel's notice of the new element, for each of `count` changes.
pub fn one_by_one(send: Send, netns: &str, changes: &mut Changes, count: usize, pause: Duration) -> Result<Vec<Duration>> {
    let mut listener = Listener::open(netns)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let (line, address) = changes.make();
        std::thread::sleep(pause);
        listener.drain()?;
        let began = Instant::now();
        send(&line)?;
        times.push(listener.wait(Some(address))? - began);
    }
    Ok(times)
}

/// What a stream of changes did.
pub struct Stream {
    pub sent: u32,
    pub took: Duration,
    /// Processor time of the data plane, as a part of one core.
    pub cpu: f64,
    /// How far behind its time a change was at most when it had been sent.
    pub latest: Duration,
    /// One for each second.
    pub reports: Vec<Report>,
    /// From the last change sent to its notice.
    pub settled: Duration,
}

impl Stream {
    /// Mean length of the queue in the first and the last quarter.
    pub fn queue(&self) -> (f64, f64) {
        let quarter = (self.reports.len() / 4).max(1);
        let mean = |part: &[Report]| part.iter().map(|r| r.queue_mean).sum::<f64>() / part.len().max(1) as f64;
        (
            mean(&self.reports[..quarter.min(self.reports.len())]),
            mean(&self.reports[self.reports.len().saturating_sub(quarter)..]),
        )
    }

    pub fn longest_queue(&self) -> usize {
        self.reports.iter().map(|r| r.queue_most).max().unwrap_or(0)
    }
}

/// `rate` changes a second, evenly: sends each with its number, and returns how far behind its time one was at most.
pub fn paced(changes: &mut Changes, rate: u32, seconds: u32, mut send: impl FnMut(&str, u32) -> Result<()>) -> Result<Duration> {
    let (began, mut latest) = (Instant::now(), Duration::ZERO);
    for i in 0..rate * seconds {
        let due = began + Duration::from_secs(1) * i / rate;
        let (line, _) = changes.make();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        send(&line, i)?;
        latest = latest.max(due.elapsed());
    }
    Ok(latest)
}

pub fn stream(plane: &mut Plane, netns: &str, changes: &mut Changes, rate: u32, seconds: u32) -> Result<Stream> {
    let (cpu, began) = (plane.cpu()?, Instant::now());
    let mut reports = Vec::new();
    plane.report()?;
    let latest = paced(changes, rate, seconds, |line, i| {
        plane.send(line)?;
        if (i + 1).is_multiple_of(rate) {
            reports.push(plane.report()?);
        }
        Ok(())
    })?;
    let took = began.elapsed();
    let cpu = (plane.cpu()? - cpu) / took.as_secs_f64();
    let settled = one_by_one(&mut |line| plane.send(line), netns, changes, 1, PAUSE)?[0];
    let last = plane.report()?;
    if last.failures > 0 || last.bad_objects > 0 {
        bail!("{} failed syncs, {} objects that could not be read", last.failures, last.bad_objects);
    }
    Ok(Stream { sent: rate * seconds, took, cpu, latest, reports, settled })
}
