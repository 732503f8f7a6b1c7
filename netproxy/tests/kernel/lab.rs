//! Network namespaces without names: they live as long as a descriptor here, so nothing is left behind however a test ends.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

/// Says loudly why a test cannot run here; true if it can.
pub fn able() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let mut why = Vec::new();
    if !root {
        why.push("not root");
    }
    for program in ["ip", "nft"] {
        if Command::new(program).arg("-V").output().is_err() {
            why.push("a program is missing: ip (iproute2) and nft (nftables) are needed");
        }
    }
    if root && thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().unwrap().is_err() {
        why.push("no network namespaces");
    }
    if !why.is_empty() {
        eprintln!("SKIPPED, NOT PASSED: {}", why.join("; "));
    }
    why.is_empty()
}

#[derive(Clone)]
pub struct Netns(Arc<File>);

impl Netns {
    pub fn new() -> Netns {
        let ns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let ns = Netns(Arc::new(ns.join().unwrap()));
        // While a link-local address is being probed for duplicates, no neighbour is asked for forwarded packets.
        ns.sysctl("ipv6/conf/default/accept_dad", "0");
        ns.sysctl("ipv6/conf/default/dad_transmits", "0");
        ns.ip("link set lo up");
        ns
    }

    /// Runs something in the namespace, on a thread of its own.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|s| {
            let inside = || {
                setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            };
            match s.spawn(inside).join() {
                Ok(t) => t,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    pub fn command(&self, program: &str, args: &[&str]) -> String {
        let out = self.run(|| Command::new(program).args(args).output().unwrap());
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{program} {args:?}: {stderr}\n{stdout}");
        stdout.into_owned() + &stderr
    }

    pub fn ip(&self, args: &str) -> String {
        self.command("ip", &args.split_whitespace().collect::<Vec<_>>())
    }

    pub fn nft(&self, args: &str) -> String {
        self.command("nft", &args.split_whitespace().collect::<Vec<_>>())
    }

    fn sysctl(&self, name: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value)).unwrap();
    }
}

/// A node with an uplink to an outside host, and pods on routed links.
pub struct Lab {
    pub node: Netns,
    pub outside: Netns,
    pub pods: Vec<Pod>,
}

pub const NODE_IP: &str = "192.168.77.11";
pub const NODE_IP6: &str = "fd00:77::11";

pub struct Pod {
    pub ns: Netns,
    pub ip: IpAddr,
    pub ip6: IpAddr,
}

impl Lab {
    /// `None`, said loudly, where network namespaces cannot be made.
    pub fn new(pods: usize) -> Option<Lab> {
        if !able() {
            return None;
        }
        let node = Netns::new();
        let outside = Netns::new();
        node.sysctl("ipv4/ip_forward", "1");
        node.sysctl("ipv6/conf/all/forwarding", "1");
        node.ip(&format!("link add eth0 type veth peer name eth0 netns {}", outside.path()));
        for (ns, last) in [(&node, 11), (&outside, 1)] {
            ns.ip(&format!("addr add 192.168.77.{last}/24 dev eth0"));
            ns.ip(&format!("addr add fd00:77::{last}/64 dev eth0 nodad"));
            ns.ip("link set eth0 up");
        }
        node.ip("route add default via 192.168.77.1");
        node.ip("-6 route add default via fd00:77::1");
        // The outside knows the way to the pods and to nothing else: what no rule took dies there.
        outside.ip(&format!("route add 10.244.0.0/16 via {NODE_IP}"));
        outside.ip(&format!("-6 route add fd00:244::/64 via {NODE_IP6}"));
        outside.ip("route add blackhole 10.96.0.0/16");
        let mut lab = Lab { node, outside, pods: Vec::new() };
        for n in 0..pods {
            lab.add_pod(n);
        }
        Some(lab)
    }

    /// The same with the pods on a bridge, as most CNI set-ups have them. `None`, said loudly, where bridged packets do not pass
    /// the rules: replies between pods of one bridge would not come back through the node.
    pub fn bridged(pods: usize) -> Option<Lab> {
        let mut lab = Lab::new(0)?;
        let node = lab.node.clone();
        if node.run(|| std::fs::metadata("/proc/sys/net/bridge/bridge-nf-call-iptables")).is_err() {
            eprintln!("SKIPPED, NOT PASSED: no br_netfilter");
            return None;
        }
        node.sysctl("bridge/bridge-nf-call-iptables", "1");
        node.ip("link add cni0 type bridge");
        node.ip("addr add 10.244.0.1/24 dev cni0");
        node.ip("link set cni0 up");
        for n in 0..pods {
            let ns = Netns::new();
            let ip = format!("10.244.0.{}", n + 10);
            node.ip(&format!("link add pod{n} type veth peer name eth0 netns {}", ns.path()));
            node.ip(&format!("link set pod{n} master cni0 up"));
            node.ip(&format!("link set pod{n} type bridge_slave hairpin on"));
            ns.ip(&format!("addr add {ip}/24 dev eth0"));
            ns.ip("link set eth0 up");
            ns.ip("route add default via 10.244.0.1");
            lab.pods.push(Pod { ns, ip: ip.parse().unwrap(), ip6: "::1".parse().unwrap() });
        }
        Some(lab)
    }

    pub fn outside_ip(&self) -> IpAddr {
        IpAddr::from([192, 168, 77, 1])
    }

    fn add_pod(&mut self, n: usize) {
        let ns = Netns::new();
        let (node, last) = (&self.node, n + 10);
        node.ip(&format!("link add pod{n} type veth peer name eth0 netns {}", ns.path()));
        node.ip(&format!("addr add 10.244.0.1/32 dev pod{n}"));
        node.ip(&format!("addr add fd00:244::1/128 dev pod{n} nodad"));
        node.ip(&format!("link set pod{n} up"));
        node.ip(&format!("route add 10.244.0.{last}/32 dev pod{n}"));
        node.ip(&format!("-6 route add fd00:244::{last}/128 dev pod{n}"));
        ns.ip(&format!("addr add 10.244.0.{last}/32 dev eth0"));
        ns.ip(&format!("addr add fd00:244::{last}/128 dev eth0 nodad"));
        ns.ip("link set eth0 up");
        ns.ip("route add 10.244.0.1/32 dev eth0 scope link");
        ns.ip("route add default via 10.244.0.1");
        ns.ip("-6 route add fd00:244::1/128 dev eth0");
        ns.ip("-6 route add default via fd00:244::1");
        let ip = format!("10.244.0.{last}").parse().unwrap();
        let ip6 = format!("fd00:244::{last}").parse().unwrap();
        self.pods.push(Pod { ns, ip, ip6 });
    }
}

/// Answers every connection and datagram with a name and the client's address; ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(ns: &Netns, address: SocketAddr, name: &str) -> Server {
        let (tcp, udp) = ns.run(|| (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (s1, n1) = (stop.clone(), name.to_string());
        let tcp = thread::spawn(move || {
            while !s1.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut c, from)) => drop(c.write_all(format!("{n1} {}", from.ip()).as_bytes())),
                    Err(_) => thread::sleep(Duration::from_micros(500)),
                }
            }
        });
        let (s2, n2) = (stop.clone(), name.to_string());
        let udp = thread::spawn(move || {
            let mut buffer = [0; 64];
            while !s2.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    drop(udp.send_to(format!("{n2} {}", from.ip()).as_bytes(), from));
                }
            }
        });
        Server { stop, threads: vec![tcp, udp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            drop(t.join());
        }
    }
}

/// Who answered, and which client address it saw.
pub fn tcp(ns: &Netns, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    ns.run(|| tcp_here(to))
}

/// The same from the calling thread's namespace.
pub fn tcp_here(to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    let mut c = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
    c.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    c.read_to_string(&mut text)?;
    Ok(parse(&text))
}

/// The same with a chosen address of its own.
pub fn tcp_from(from: SocketAddr, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let s = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(s.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(s.as_raw_fd(), &SockaddrStorage::from(to))?;
    let mut text = String::new();
    TcpStream::from(s).read_to_string(&mut text)?;
    Ok(parse(&text))
}

/// Sends a TCP segment that belongs to no connection.
pub fn stray_reset(to: IpAddr) {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};
    const RESET: u8 = 4;
    let s = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).unwrap();
    let mut segment = [0; 20];
    segment[..4].copy_from_slice(&[0x30, 0x39, 0x1f, 0x90]);
    (segment[12], segment[13]) = (5 << 4, RESET);
    sendto(s.as_raw_fd(), &segment, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty()).unwrap();
}

pub fn udp(ns: &Netns, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    ns.run(|| {
        let socket = UdpSocket::bind((any, PORT.fetch_add(1, Ordering::Relaxed)))?;
        ask(&socket, to)
    })
}

/// One datagram and its answer, on a socket that lives on.
pub fn ask(socket: &UdpSocket, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(b"?")?;
    let mut buffer = [0; 256];
    let n = socket.recv(&mut buffer)?;
    Ok(parse(std::str::from_utf8(&buffer[..n]).unwrap()))
}

fn parse(text: &str) -> (String, IpAddr) {
    let (name, from) = text.split_once(' ').unwrap_or_else(|| panic!("{text:?} is no answer"));
    (name.into(), from.parse().unwrap())
}
