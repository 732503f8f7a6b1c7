//! HTTP requests from inside the lab's namespaces: single ones, counted ones, and a bounded stream of them.

use crate::netns::within;
use crate::sys::{Proc, wait_for};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);

/// One GET on a connection of its own from the calling thread's namespace; the body of a 200 answer.
pub fn get_here(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read from {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{address} answered {answer:?}"))?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{address}{path} answered {:?}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// One GET from inside a namespace.
pub fn get(ns: &str, address: SocketAddr, path: &str) -> Result<String> {
    let path = path.to_owned();
    within(ns, move || get_here(address, &path))?
}

/// `count` requests one after another; how often each body was seen. Any failure is an error.
pub fn spread(ns: &str, address: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
    within(ns, move || {
        let mut seen = BTreeMap::new();
        for i in 0..count {
            let body = get_here(address, "/").with_context(|| format!("request {} of {count}", i + 1))?;
            *seen.entry(body.trim().to_owned()).or_insert(0) += 1;
        }
        Ok(seen)
    })?
}

/// A stream of requests that runs beside what is tested; bounded by rate and by ten minutes.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub requests: usize,
    /// At most the first 20 failures, with their time since the start.
    pub failures: Vec<String>,
    pub failed: usize,
    pub slowest: Duration,
}

impl Load {
    /// One request every `every`, each on a new connection, from inside the namespace.
    pub fn start(ns: &str, address: SocketAddr, every: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (ns, stopped) = (ns.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            within(&ns, move || {
                let start = Instant::now();
                let mut tally = Tally::default();
                while !stopped.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(600) {
                    let sent = Instant::now();
                    if let Err(error) = get_here(address, "/") {
                        tally.failed += 1;
                        if tally.failures.len() < 20 {
                            tally.failures.push(format!("{:.3} s: {error:#}", start.elapsed().as_secs_f64()));
                        }
                    }
                    tally.requests += 1;
                    tally.slowest = tally.slowest.max(sent.elapsed());
                    std::thread::sleep(every.saturating_sub(sent.elapsed()));
                }
                tally
            })
        });
        Load { stop, thread }
    }

    pub fn finish(self) -> Result<Tally> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the load thread panicked"))?
    }

    /// Ends the stream; an error if any request failed.
    pub fn finish_clean(self) -> Result<Tally> {
        let tally = self.finish()?;
        if tally.failed > 0 {
            bail!("expected no failed request, saw {} of {}:\n  {}", tally.failed, tally.requests, tally.failures.join("\n  "));
        }
        Ok(tally)
    }
}

/// Starts a process that passes connections to a port on the host's loopback on to an address inside a namespace, so
/// that a user's own kubectl reaches the lab. Returns the port.
pub fn forward(lab: &str, ns: &str, to: &str, port_file: &Path) -> Result<u16> {
    let _ = std::fs::remove_file(port_file);
    let argv: Vec<String> = vec![
        std::env::current_exe()?.display().to_string(),
        "forward".into(),
        format!("--netns={ns}"),
        format!("--to={to}"),
        format!("--port-file={}", port_file.display()),
    ];
    Proc::spawn("forward", lab, None, &port_file.with_extension("log"), &argv, &[])?;
    wait_for("the forwarder to listen", Duration::from_secs(5), || Ok(std::fs::read_to_string(port_file)?.trim().parse()?))
}

/// The forwarding process itself. Ends only by a signal.
pub fn run_forward(ns: &str, to: SocketAddr, port_file: &Path) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    std::fs::write(port_file.with_extension("new"), listener.local_addr()?.port().to_string())?;
    std::fs::rename(port_file.with_extension("new"), port_file)?;
    for near in listener.incoming().flatten() {
        // The socket belongs to the namespace it was made in; the copying needs none.
        let Ok(Ok(far)) = within(ns, move || TcpStream::connect_timeout(&to, TIMEOUT)) else { continue };
        let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { continue };
        std::thread::spawn(move || copy(near, far));
        std::thread::spawn(move || copy(far2, near2));
    }
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}
