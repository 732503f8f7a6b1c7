//! As much of an API server as kube-proxy needs: lists that are streamed by a watch, and lines that are sent to it later.
//!
//! Plain HTTP on loopback of one namespace. It never reads more than a request's head, and answers all else with 404.

use super::objects::{self, Shape};
use crate::netns::within;
use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Of a request's head.
const LONGEST_HEAD: u64 = 16 << 10;
/// For a client to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(60);

const KINDS: [(&str, &str); 4] = [
    ("/api/v1/services", "Service"),
    ("/apis/discovery.k8s.io/v1/endpointslices", "EndpointSlice"),
    ("/api/v1/nodes", "Node"),
    ("/apis/networking.k8s.io/v1/servicecidrs", "ServiceCIDR"),
];

/// Watches that go on, by kind.
type Watches = Arc<Mutex<BTreeMap<&'static str, TcpStream>>>;

/// Ends with its last watch when dropped.
pub struct Api {
    pub address: SocketAddr,
    watches: Watches,
    stop: Arc<AtomicBool>,
}

impl Api {
    pub fn start(netns: &str, shape: Shape) -> Result<Api> {
        let listener = within(netns, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.context("cannot listen for kube-proxy")?;
        setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::milliseconds(300))?;
        let address = listener.local_addr()?;
        let (watches, stop) = (Watches::default(), Arc::new(AtomicBool::new(false)));
        let (all, end) = (watches.clone(), stop.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else { continue };
                let all = all.clone();
                // A client that went away is seen when it is sent something.
                std::thread::spawn(move || answer(stream, shape, &all));
            }
        });
        Ok(Api { address, watches, stop })
    }

    /// A line of the EndpointSlices' watch.
    pub fn send(&self, line: &str) -> Result<()> {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watch = watches.get("EndpointSlice").context("nobody watches EndpointSlices")?;
        watch.write_all(line.as_bytes()).context("the watch of EndpointSlices has ended")
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answer(stream: TcpStream, shape: Shape, watches: &Watches) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?.take(LONGEST_HEAD)).lines();
    let first = lines.next().context("no request")??;
    while !lines.next().context("a head without an end")??.is_empty() {}
    let mut out = BufWriter::with_capacity(64 << 10, stream.try_clone()?);
    let Some((kind, initial)) = watched(&first) else {
        write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return out.flush().context("cannot answer");
    };
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
    if initial {
        objects(kind, shape).try_for_each(|line| out.write_all(line.as_bytes()))?;
        out.write_all(objects::end_of(kind).as_bytes())?;
    }
    out.flush()?;
    watches.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, stream);
    Ok(())
}

/// Which kind a request's first line watches, and whether it wants what is there first.
fn watched(line: &str) -> Option<(&'static str, bool)> {
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let (path, query) = target.split_once('?')?;
    let (_, kind) = KINDS.into_iter().find(|(at, _)| *at == path)?;
    let has = |wanted: &str| query.split('&').any(|part| part == wanted);
    has("watch=true").then(|| (kind, has("sendInitialEvents=true")))
}

fn objects(kind: &str, shape: Shape) -> Box<dyn Iterator<Item = String>> {
    match kind {
        "Service" => Box::new((0..shape.services).map(move |n| objects::service(shape, n))),
        "EndpointSlice" => {
            Box::new((0..shape.services).map(move |n| objects::slice(shape, "ADDED", n, &objects::endpoints(shape, n), 1)))
        }
        "Node" => Box::new(std::iter::once(objects::node("192.168.2.1"))),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests;
