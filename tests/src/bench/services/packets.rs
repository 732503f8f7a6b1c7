//! The first packet of a connection through the rules, at clusters of different sizes.
//!
//! For each size a client, a node with real rules, and a server that has every endpoint's address, linked by veth. The sizes
//! take turns in short rounds and medians are compared, so that what else the host does falls on all of them alike; a second
//! copy of the smallest shows how far that goes. Every flow has a source port of its own: none is known to conntrack.
//!
//! Flows go to one service, whose rules are among all others', and in rounds of their own to all services in turn, where in
//! addition nothing of a service is in the processor's caches: neither its rules, nor what the network stack of client and server
//! keeps of an address. What the stack alone makes of so many addresses is shown by flows to as many endpoints without any rules.
//!
//! kube-proxy's rules, where there is one, have paths of their own that take turns with the others.

use super::figures::{Table, median, milliseconds, percentile, spread};
use super::kube_proxy::{KubeProxy, PATIENCE};
use super::objects::{self, Shape, TARGET_PORT, TCP_PORT, UDP_EVERY, UDP_PORT, endpoint_ip, service_ip};
use super::{Plane, namespace};
use crate::netns::{self, ip, within};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at whether rules are there.
const POLL: Duration = Duration::from_millis(5);
/// Many and short: a round in which the host had something else to do is far off the median.
const ROUNDS: usize = 200;
/// Flows of a kind in a round, and others before them that are not counted.
const FLOWS: u32 = 40;
const WARM_UP: u32 = 10;
const FIRST_PORT: u32 = 10_000;
/// Sizes may differ by this part.
const WITHIN: f64 = 0.05;
/// Two paths that are alike differ by as much.
const NOISE: f64 = 0.02;

/// Client, node and server.
pub struct Path {
    pub name: String,
    pub client: String,
    pub node: String,
    /// The rules are kube-proxy's.
    other: bool,
    netns: [String; 3],
    shape: Shape,
    /// Flows so far; decides port and service of the next.
    flows: u32,
    server: Server,
}

impl Path {
    /// Makes the namespaces, numbered from `first`; no rules yet.
    pub fn new(first: u8, shape: Shape, name: String) -> Result<Path> {
        let [client, node, server] = [namespace(first)?, namespace(first + 1)?, namespace(first + 2)?];
        for (link, side, peer) in [("client", 1, &client), ("server", 2, &server)] {
            ip(&node, &format!("link add {link} type veth peer name eth0 netns {peer}"))?;
            ip(&node, &format!("addr add 192.168.{side}.1/24 dev {link}"))?;
            ip(peer, &format!("addr add 192.168.{side}.2/24 dev eth0"))?;
            ip(&node, &format!("link set {link} up"))?;
            ip(peer, "link set eth0 up")?;
            ip(peer, &format!("route add default via 192.168.{side}.1"))?;
        }
        ip(&node, &format!("route add {} via 192.168.2.2", objects::ENDPOINTS))?;
        ip(&server, &format!("route add local {} dev lo", objects::ENDPOINTS))?;
        let netns = [client.clone(), node.clone(), server.clone()];
        let server = within(&server, Server::start)??;
        within(&node, || -> Result<()> {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            // Flows of one round are gone some rounds later.
            for name in ["tcp_timeout_close", "udp_timeout"] {
                let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
                std::fs::write(&path, "3").with_context(|| format!("cannot write {path}"))?;
            }
            Ok(())
        })??;
        Ok(Path { name, client, node, other: false, netns, shape, flows: 0, server })
    }

    /// Whether the first, the middle and the last service answer.
    pub fn answers(&self, limit: Duration) -> Result<bool> {
        let last = self.shape.services.saturating_sub(1);
        within(&self.client, move || {
            [0, last / 2, last].into_iter().all(|n| {
                let to = SocketAddrV4::new(service_ip(n), TCP_PORT);
                let answers = TcpStream::connect_timeout(&to.into(), limit).is_ok();
                if !answers {
                    // Where nothing refuses there would be no end of tries.
                    std::thread::sleep(POLL);
                }
                answers
            })
        })
    }

    fn next(&mut self, count: u32) -> std::ops::Range<u32> {
        self.flows += count;
        self.flows - count..self.flows
    }

    /// New flows, one after another.
    pub fn flows(&mut self, kind: Kind, count: u32) -> Result<Round> {
        let flows: Vec<(u32, SocketAddrV4)> = self.next(count).map(|flow| (flow, kind.target(self.shape, flow))).collect();
        let done = within(&self.client, move || -> Result<Round> {
            let one = |(flow, to): &(u32, SocketAddrV4)| if kind.tcp { short_connection(*flow, *to) } else { ask(*flow, *to) };
            let (first, rest) = flows.split_at(WARM_UP.min(count) as usize);
            first.iter().try_for_each(|flow| one(flow).map(drop))?;
            let began = Instant::now();
            let times = rest.iter().map(one).collect::<Result<Vec<_>>>()?;
            Ok(Round { rate: times.len() as f64 / began.elapsed().as_secs_f64(), times })
        })?;
        done.with_context(|| format!("{kind:?} at {}", self.name))
    }

    /// A datagram straight to an endpoint: whether the namespaces are linked as they should be.
    fn check(&mut self) -> Result<()> {
        let flow = self.next(1).start;
        let done = within(&self.client, move || ask(flow, SocketAddrV4::new(endpoint_ip(0, 0), TARGET_PORT)))?;
        done.map(drop).with_context(|| format!("no way from client to server at {}", self.name))
    }

    pub fn end(self) -> Result<()> {
        self.server.end()
    }

    /// With all its namespaces.
    pub fn delete(self) -> Result<()> {
        self.server.end()?;
        self.netns.iter().try_for_each(|name| netns::delete(name))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Always the same.
    Service,
    /// One after another.
    Services,
    /// One after another, where there are no rules.
    Endpoints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    tcp: bool,
    to: Target,
}

impl Kind {
    const RULES: [Kind; 4] = [
        Kind { tcp: true, to: Target::Service },
        Kind { tcp: false, to: Target::Service },
        Kind { tcp: true, to: Target::Services },
        Kind { tcp: false, to: Target::Services },
    ];
    const NO_RULES: [Kind; 2] = [Kind { tcp: true, to: Target::Endpoints }, Kind { tcp: false, to: Target::Endpoints }];

    fn target(self, shape: Shape, flow: u32) -> SocketAddrV4 {
        let among = |count: u32| flow.wrapping_mul(7919) % count;
        // Every tenth has UDP; the one at half is as good as any.
        let step = if self.tcp { 1 } else { UDP_EVERY };
        let service = match self.to {
            Target::Service => shape.services / 2 / UDP_EVERY * UDP_EVERY,
            Target::Services | Target::Endpoints => among(shape.services.div_ceil(step)) * step,
        };
        match self.to {
            Target::Endpoints => SocketAddrV4::new(endpoint_ip(service, flow % shape.endpoints), TARGET_PORT),
            _ => SocketAddrV4::new(service_ip(service), if self.tcp { TCP_PORT } else { UDP_PORT }),
        }
    }

    fn name(self) -> &'static str {
        match self.to {
            Target::Service => "",
            Target::Services => ": all services in turn",
            Target::Endpoints => ": without rules to all endpoints in turn",
        }
    }
}

pub struct Round {
    /// Flows a second.
    rate: f64,
    /// Of each flow until it was there.
    times: Vec<Duration>,
}

fn source_port(flow: u32) -> u16 {
    (FIRST_PORT + flow % 50_000) as u16
}

/// How long the connection took to be there. A byte goes over and back; the end is a reset, which leaves nothing waiting.
fn short_connection(flow: u32, to: SocketAddrV4) -> Result<Duration> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(3))?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(3))?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, source_port(flow)))?;
    let began = Instant::now();
    connect(fd.as_raw_fd(), &SockaddrIn::from(to)).with_context(|| format!("connect to {to}"))?;
    let took = began.elapsed();
    let mut stream = TcpStream::from(fd);
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0]).with_context(|| format!("no answer from {to}"))?;
    Ok(took)
}

/// How long a datagram that begins a flow and its answer took.
fn ask(flow: u32, to: SocketAddrV4) -> Result<Duration> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, source_port(flow)))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect(to)?;
    let began = Instant::now();
    socket.send(b"?")?;
    socket.recv(&mut [0; 16]).with_context(|| format!("no answer from {to}"))?;
    Ok(began.elapsed())
}

/// Answers one byte to each connection and datagram, from the address that was asked.
struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Server {
    /// In the namespace of the calling thread.
    fn start() -> Result<Server> {
        let any = (Ipv4Addr::UNSPECIFIED, TARGET_PORT);
        let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
        let patience = TimeVal::milliseconds(300);
        setsockopt(&tcp, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&udp, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (end, other_end) = (stop.clone(), stop.clone());
        let tcp = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else { continue };
                // A client that went away is the client's matter.
                let _ = stream.read_exact(&mut [0]).and_then(|()| stream.write_all(b"!"));
            }
            Ok(())
        });
        let udp = OwnedFd::from(udp);
        let udp = std::thread::spawn(move || {
            while !other_end.load(Ordering::Relaxed) {
                answer_one(&udp)?;
            }
            Ok(())
        });
        Ok(Server { stop, threads: vec![tcp, udp] })
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("the server panicked"))?)
    }
}

/// The answer has to come from the address the question went to, which is one of millions.
fn answer_one(udp: &OwnedFd) -> Result<()> {
    let mut buffer = [0; 16];
    let mut space = nix::cmsg_space!(libc::in_pktinfo);
    let (from, asked) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<SockaddrIn>(udp.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()) {
            Ok(message) => {
                let asked = message.cmsgs()?.find_map(|c| match c {
                    ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
                    _ => None,
                });
                (message.address, asked)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(e) => return Err(e).context("the server cannot receive"),
        }
    };
    let asked = asked.context("a datagram without the address it went to")?;
    let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: asked.ipi_addr, ipi_addr: libc::in_addr { s_addr: 0 } };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    sendmsg(udp.as_raw_fd(), &[IoSlice::new(b"!")], &control, MsgFlags::empty(), from.as_ref()).context("cannot answer")?;
    Ok(())
}

/// What was seen of one path in rounds of one kind.
#[derive(Clone, Default)]
struct Seen {
    /// Flows a second, of each round.
    rates: Vec<f64>,
    /// In microseconds, the median of each round.
    medians: Vec<f64>,
    times: Vec<Duration>,
}

pub fn measure(table: &mut Table, other: Option<&std::path::Path>) -> Result<()> {
    let shape = |services, endpoints| Shape { services, endpoints, udp: true };
    let sizes = [shape(1, 10), shape(10_000, 10), shape(44_000, 4), shape(1, 10)];
    let mut paths = Vec::new();
    for (i, shape) in sizes.into_iter().enumerate() {
        let name = if i == 3 { "1 service again".to_owned() } else { shape.to_string() };
        let path = Path::new(10 * (i as u8 + 1), shape, name)?;
        let began = Instant::now();
        // The rules stay when the process ends.
        Plane::start(&path.node)?.list(shape)?;
        if !path.answers(Duration::from_secs(3))? {
            bail!("with {} not all answer once they are told to be in the kernel", path.name);
        }
        if i < 3 {
            table.note(started(shape), format!("{:.2} s", began.elapsed().as_secs_f64()));
        }
        paths.push(path);
    }
    if let Some(program) = other {
        for (i, shape) in sizes.into_iter().take(3).enumerate() {
            paths.extend(of_kube_proxy(table, program, 50 + 10 * i as u8, shape)?);
        }
    }
    compare(table, paths, &Kind::RULES)?;
    let bare = |(i, shape): (usize, &Shape)| Path::new(100 + 10 * i as u8, *shape, shape.to_string());
    compare(table, sizes.iter().take(3).enumerate().map(bare).collect::<Result<_>>()?, &Kind::NO_RULES)
}

fn started(shape: Shape) -> String {
    format!("from the program's start until all services answer, {shape}")
}

/// Nothing where its rules do not come.
fn of_kube_proxy(table: &mut Table, program: &std::path::Path, first: u8, shape: Shape) -> Result<Option<Path>> {
    let mut path = Path { other: true, ..Path::new(first, shape, shape.to_string())? };
    let began = Instant::now();
    let mut kube = KubeProxy::start(program, &path.node, shape)?;
    if kube.wait(&mut path)?.is_none() {
        drop(kube);
        path.delete()?;
        table.beside(&started(shape), format!("more than {} s", PATIENCE.as_secs()));
        return Ok(None);
    }
    let text = format!("{:.2} s, {:.2} s of processor time with its nft", began.elapsed().as_secs_f64(), kube.cpu()?);
    table.beside(&started(shape), text);
    Ok(Some(path))
}

fn compare(table: &mut Table, mut paths: Vec<Path>, kinds: &[Kind]) -> Result<()> {
    paths.iter_mut().try_for_each(Path::check)?;
    let seen = rounds(&mut paths, kinds)?;
    for (kind, seen) in kinds.iter().zip(&seen) {
        report(table, *kind, &paths, seen);
    }
    paths.into_iter().try_for_each(Path::end)
}

/// For each kind, what was seen of each path.
fn rounds(paths: &mut [Path], kinds: &[Kind]) -> Result<Vec<Vec<Seen>>> {
    let count = paths.len();
    let mut seen = vec![vec![Seen::default(); count]; kinds.len()];
    for round in 0..=ROUNDS {
        for (kind, seen) in kinds.iter().zip(&mut seen) {
            for turn in 0..count {
                // Another one begins each round.
                let at = (turn + round) % count;
                let done = paths[at].flows(*kind, WARM_UP + FLOWS)?;
                if round > 0 {
                    // In the first one neighbours are found and caches are filled.
                    seen[at].rates.push(done.rate);
                    seen[at].medians.push(percentile(&milliseconds(&done.times), 0.5) * 1e3);
                    seen[at].times.extend(done.times);
                }
            }
        }
    }
    Ok(seen)
}

fn report(table: &mut Table, kind: Kind, paths: &[Path], seen: &[Seen]) {
    type Of = (&'static str, fn(&Seen) -> &Vec<f64>, fn(f64) -> String);
    let rate: Of = ("short TCP connections a second", |s| &s.rates, |v| format!("{v:.0}"));
    let latency: Of = match kind.tcp {
        true => ("new TCP flow, connect() p50", |s| &s.medians, |v| format!("{v:.1} us")),
        false => ("new UDP flow, there and back p50", |s| &s.medians, |v| format!("{v:.1} us")),
    };
    for (what, of, print) in [rate, latency].into_iter().skip(usize::from(!kind.tcp)) {
        for (i, (path, seen_here)) in paths.iter().zip(seen).enumerate() {
            // Each is compared with the first of its own kind.
            let base = paths.iter().zip(seen).find(|(p, _)| p.other == path.other).map_or(seen_here, |(_, first)| first);
            let (middle, (low, high)) = (median(of(seen_here)), spread(of(seen_here)));
            let p99 = percentile(&milliseconds(&seen_here.times), 0.99) * 1e3;
            let spread = format!("half of {ROUNDS} rounds {:+.0} to {:+.0} %, p99 {p99:.0} us", low * 100.0, high * 100.0);
            let figure = format!("{what}, {}{}", path.name, kind.name());
            let change = middle / median(of(base)) - 1.0;
            let text = format!("{}, {:+.1} %; {spread}", print(middle), change * 100.0);
            if path.other {
                table.beside(&figure, text);
            } else if i == 0 || path.name.ends_with("again") || kind.to == Target::Endpoints {
                table.note(figure, text);
            } else {
                table.row(figure, text, "within 5 % of 1 service", change.abs() <= WITHIN);
            }
        }
        for (path, theirs) in paths.iter().zip(seen).filter(|(path, _)| path.other) {
            let Some((_, ours)) = paths.iter().zip(seen).find(|(p, _)| !p.other && p.name == path.name) else { continue };
            let more = median(of(ours)) / median(of(theirs)) - 1.0;
            let reached = if what == rate.0 { more >= -NOISE } else { more <= NOISE };
            let figure = format!("{what}, {}{}: against kube-proxy", path.name, kind.name());
            let to_reach = if what == rate.0 { "not below, but for 2 % of noise" } else { "not above, but for 2 % of noise" };
            table.row(figure, format!("{:+.1} %", more * 100.0), to_reach, reached);
        }
    }
}
