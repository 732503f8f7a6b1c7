//! Traffic from inside the lab's namespaces: single requests, counted ones, a bounded stream of them, datagrams from a
//! fixed port, and connections that stay open.

use crate::netns::within;
use crate::sys::{Proc, wait_for};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(3);

/// One GET on a connection of its own from the calling thread's namespace; the body of a 200 answer.
pub fn get_here(address: SocketAddr, path: &str) -> Result<String> {
    match fetch_here(address, path, TIMEOUT)? {
        Answer { status: 200, body, .. } => Ok(body),
        other => bail!("{address}{path} answered {} {:?}", other.status, other.body),
    }
}

/// An HTTP answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

fn fetch_here(address: SocketAddr, path: &str, limit: Duration) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, limit).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read from {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{address} answered {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("no status in {head:?}"))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// One GET from inside a namespace, given up after the limit.
pub fn fetch(ns: &str, address: SocketAddr, path: &str, limit: Duration) -> Result<Answer> {
    let path = path.to_owned();
    within(ns, move || fetch_here(address, &path, limit))?
}

/// One datagram from a port of one's own, and the answer. The same port again is the same flow to conntrack. The socket is
/// connected, so that an ICMP refusal is an error at once.
pub fn ask_udp(ns: &str, from: u16, to: SocketAddr, text: &'static str, limit: Duration) -> Result<String> {
    within(ns, move || {
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, from)).with_context(|| format!("bind port {from}"))?;
        socket.set_read_timeout(Some(limit))?;
        socket.connect(to).with_context(|| format!("connect to {to}"))?;
        socket.send(text.as_bytes()).with_context(|| format!("send to {to}"))?;
        let mut buffer = [0; 512];
        let n = socket.recv(&mut buffer).with_context(|| format!("answer of {to}"))?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    })?
}

/// A TCP connection that stays open: each line is answered by a line.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    pub fn open(ns: &str, address: SocketAddr) -> Result<Lines> {
        let stream = within(ns, move || TcpStream::connect_timeout(&address, TIMEOUT))?
            .with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Lines(BufReader::new(stream)))
    }

    pub fn ask(&mut self, text: &str) -> Result<String> {
        writeln!(self.0.get_mut(), "{text}").context("write a line")?;
        let mut line = String::new();
        self.0.read_line(&mut line).context("read a line")?;
        if line.is_empty() { bail!("the connection was closed") } else { Ok(line.trim().to_owned()) }
    }
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
