//! A whole proxy over the real kernel, in a network namespace that the calling thread made: what a start, a restart, a repair and
//! a change cost. Each figure is one run, or the spread of many.

use ferrolet_netproxy::diff::{Element, Transaction};
use ferrolet_netproxy::netlink::Netlink;
use ferrolet_netproxy::proxy::Kernel;
use ferrolet_netproxy::ruleset::{Backend, Front};
use ferrolet_netproxy::{Config, Handle, Input, Key, Proto, Proxy, Stats, cleanup, wire};
use serde_json::json;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct Running {
    inputs: mpsc::Sender<Input>,
    handle: Handle,
    cancel: CancellationToken,
}

impl Running {
    fn start() -> Running {
        let (inputs, rx) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let config =
            Config { node_name: "node-1".into(), cluster_cidrs: vec!["10.128.0.0/9".parse().unwrap()], ..Config::default() };
        let (handle, _task) = Proxy::spawn(config, rx, cancel.clone()).unwrap();
        Running { inputs, handle, cancel }
    }

    async fn until(&mut self, done: impl Fn(&Stats) -> bool) {
        while !done(&self.handle.stats()) {
            assert!(self.handle.stats_changed().await, "the proxy ended");
        }
    }

    /// From objects in memory to the last transaction.
    async fn list(&mut self, services: &[wire::Service], slices: &[wire::EndpointSlice]) -> String {
        let (services, slices) = (services.to_vec(), slices.to_vec());
        // Sets the highest mark back to what is resident now.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let watch = Watch::start();
        self.inputs.send(Input::Services(services)).await.unwrap();
        self.inputs.send(Input::Slices(slices)).await.unwrap();
        self.handle.synced.wait_for(|s| *s).await.unwrap();
        let took = watch.say();
        self.until(|s| s.syncs > 0).await;
        let (peak, now) = (memory("VmHWM:"), memory("VmRSS:"));
        format!("{took}; memory {} MiB above what stays", peak.saturating_sub(now) / 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn service(n: u32) -> wire::Service {
    let ip = IpAddr::from((0x0a60_0000 + n).to_be_bytes());
    let spec = json!({"clusterIPs": [ip], "ports": [{"name": "web", "protocol": "TCP", "port": 80}]});
    serde_json::from_value(json!({"metadata": {"name": format!("service-{n}"), "namespace": "default"}, "spec": spec})).unwrap()
}

fn address(n: u32, endpoint: u32) -> IpAddr {
    IpAddr::from((0x0a80_0000 + n * 16 + endpoint).to_be_bytes())
}

fn slice(n: u32, endpoints: std::ops::Range<u32>) -> wire::EndpointSlice {
    let endpoint = |e| json!({"addresses": [address(n, e)], "conditions": {"ready": true}, "nodeName": "node-2"});
    let name = format!("service-{n}");
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": endpoints.map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "web", "protocol": "TCP", "port": 8080}]
    }))
    .unwrap()
}

/// Time by the clock, and the processor time of this program and of the kernel on its behalf: on a busy host only that compares.
struct Watch(Instant, Duration);

impl Watch {
    fn start() -> Watch {
        Watch(Instant::now(), processor())
    }

    fn say(&self) -> String {
        format!("{} ({} of the processor)", ms(self.0.elapsed()), ms(processor() - self.1))
    }
}

/// Of all threads that live.
fn processor() -> Duration {
    let nanoseconds = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(std::fs::read_dir("/proc/self/task").unwrap().flatten().map(nanoseconds).sum())
}

/// A line of this process's status, in KiB.
fn memory(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_default();
    value.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn ms(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1e3)
}

fn say(services: u32, endpoints: u32, what: &str, figure: &str) {
    eprintln!("{services:>6} x {endpoints:<2} | {what:<44} | {figure}");
}

/// Prints the figures for a cluster of that size.
pub fn figures(services: u32, endpoints: u32) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(measure(services, endpoints));
    cleanup().unwrap();
}

/// One transaction of as many elements as a step of a resync has at most.
fn one_batch(kernel: &mut Netlink, say: &dyn Fn(&str, &str)) {
    let front = Front::ClusterIp { ip: IpAddr::from([10, 95, 0, 1]), proto: Proto::Tcp, port: 80 };
    let slot = |slot: u32| Element::Slot { front, slot, backend: Backend { ip: IpAddr::from(slot.to_be_bytes()), port: 8080 } };
    let (mut tx, mut back) = (Transaction::default(), Transaction::default());
    tx.add = (0..8_000).map(slot).collect();
    back.remove = tx.add.clone();
    let mut best = [(Duration::MAX, Duration::MAX); 2];
    for _ in 0..5 {
        for (at, tx) in [&tx, &back].into_iter().enumerate() {
            let before = processor();
            kernel.commit(tx).unwrap();
            best[at] = best[at].min((kernel.held(), processor() - before));
        }
    }
    for (what, (held, used)) in ["8,000 elements more in one batch", "8,000 elements less in one batch"].into_iter().zip(best) {
        say(what, &format!("{} in the kernel; with its encoding {} of the processor; best of 5", ms(held), ms(used)));
    }
}

async fn measure(services: u32, endpoints: u32) {
    let say = |what: &str, figure: &str| say(services, endpoints, what, figure);
    let all: Vec<_> = (0..services).map(service).collect();
    let slices: Vec<_> = (0..services).map(|n| slice(n, 0..endpoints)).collect();
    let held = |s: &Stats| format!("{} batches, the longest {}", s.last_full_batches, ms(s.longest_batch));

    let mut run = Running::start();
    let took = run.list(&all, &slices).await;
    say("cold start, from objects to the kernel", &format!("{}; {}", took, held(&run.handle.stats())));
    drop(run);

    let mut run = Running::start();
    let took = run.list(&all, &slices).await;
    let stats = run.handle.stats();
    let same = format!("{}; {} elements changed; {}", took, stats.last_operations, held(&stats));
    say("restart over an unchanged table", &same);

    let mut other = Netlink::open().unwrap();
    let mut repairs = 0;
    let mut gone = Transaction::default();
    let front = Front::ClusterIp { ip: IpAddr::from(0x0a60_0007_u32.to_be_bytes()), proto: Proto::Tcp, port: 80 };
    gone.remove.push(Element::Slot { front, slot: 0, backend: Backend { ip: address(7, 0), port: 8080 } });
    for what in ["one element deleted by another, repaired", "the tables deleted by another, repaired"] {
        // Two repairs in a row are kept apart by half a second: that is not what is measured.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let watch = Watch::start();
        if repairs == 0 {
            other.commit(&gone).unwrap();
        } else {
            cleanup().unwrap();
        }
        repairs += 1;
        run.until(|s| s.repairs >= repairs && s.full_syncs > repairs).await;
        let stats = run.handle.stats();
        say(what, &format!("{}; {} elements and chains; {}", watch.say(), stats.last_operations, held(&stats)));
    }

    tokio::time::sleep(Duration::from_millis(600)).await;
    let watch = Watch::start();
    // A set that no version of this program made; without the program `nft` there is no such figure.
    let foreign = ["add", "set", "ip", "ferrolet", "leftover", "{ type mark; }"];
    if std::process::Command::new("nft").args(foreign).status().is_ok_and(|s| s.success()) {
        repairs += 1;
        run.until(|s| s.repairs >= repairs && s.full_syncs > repairs).await;
        let stats = run.handle.stats();
        say("a table of another layout replaced", &format!("{}; {}", watch.say(), held(&stats)));
    }

    one_batch(&mut other, &say);
    // Others' changes lead to a repair.
    run.until(|s| s.repairs > repairs).await;

    // The chain for it is new, and the kernel walks over the maps that its rules look up.
    let watch = Watch::start();
    let before = run.handle.stats().syncs;
    let key = Key::new("default", "service-9");
    run.inputs.send(Input::Slice(key, Some(slice(9, 0..endpoints + 3)))).await.unwrap();
    run.until(|s| s.syncs > before).await;
    say("the first service with so many endpoints", &watch.say());

    let mut times = Vec::new();
    let watch = Watch::start();
    for turn in 0..400 {
        let n = turn / 2 * 37 % services;
        // Replaced and put back, so that each is a change of one endpoint.
        let range = if turn % 2 == 0 { 1..endpoints + 1 } else { 0..endpoints };
        let changed = slice(n, range);
        let before = run.handle.stats().syncs;
        let began = Instant::now();
        let key = Key::new("default", &changed.metadata.name);
        run.inputs.send(Input::Slice(key, Some(changed))).await.unwrap();
        run.until(|s| s.syncs > before).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| ms(times[times.len() * percent / 100]);
    let each = (processor() - watch.1) / times.len() as u32;
    say(
        "one endpoint changed, from input to the kernel",
        &format!("p50 {}, p99 {} ({} of the processor each)", at(50), at(99), ms(each)),
    );
}
