//! The host's own figures, from `/proc` and statvfs. Blocks.

use super::sample::Layer;
use crate::cgroup::Memory;
use crate::node::facts::meminfo_kib;
use jiff::Timestamp;
use std::path::Path;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Counters,
    pub sent: Counters,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// All interfaces but the loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The name of the one with the default route.
    pub default: Option<String>,
    pub interfaces: Vec<Interface>,
}

/// Tasks of the whole host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    pub max: Option<i64>,
    pub running: Option<i64>,
}

/// The sizes of the files of a folder, without those of its subfolders.
pub fn folder(path: &Path) -> Layer {
    let Ok(entries) = std::fs::read_dir(path) else { return Layer::default() };
    // Of a link its own size: never follows one.
    let sizes: Vec<u64> = entries.flatten().filter_map(|entry| entry.metadata().ok().map(|m| m.len())).collect();
    Layer { bytes: Some(sizes.iter().sum()), inodes: Some(sizes.len() as u64 + 1), on: None }
}

/// From a folder like `/proc/PID/net`.
pub fn read_network(folder: &Path) -> Option<Network> {
    let dev = std::fs::read_to_string(folder.join("dev")).ok()?;
    let route = std::fs::read_to_string(folder.join("route")).unwrap_or_default();
    Some(network(&dev, &route))
}

/// proc_pid_net(5): `dev` has two lines of heads, then a line an interface; `route` has the destination in hexadecimal digits.
fn network(dev: &str, route: &str) -> Network {
    let interfaces = dev.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let counters = |at: usize| {
            Some(Counters {
                bytes: *numbers.get(at)?,
                packets: *numbers.get(at + 1)?,
                errors: *numbers.get(at + 2)?,
                dropped: *numbers.get(at + 3)?,
            })
        };
        Some(Interface { name: name.trim().to_owned(), received: counters(0)?, sent: counters(8)? })
    });
    let interfaces: Vec<Interface> = interfaces.filter(|i| i.name != "lo").collect();
    let default = route.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then(|| name.to_owned())
    });
    Network { default: default.or_else(|| interfaces.first().map(|i| i.name.clone())), interfaces }
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn meminfo(text: &str, field: &str) -> Option<u64> {
    Some(meminfo_kib(text, field)?.saturating_mul(1024))
}

/// proc_meminfo(5).
pub fn memory() -> Option<Memory> {
    let text = text("/proc/meminfo")?;
    let used = meminfo(&text, "MemTotal")?.saturating_sub(meminfo(&text, "MemFree")?);
    Some(Memory {
        usage: used,
        working_set: used.saturating_sub(meminfo(&text, "Inactive(file)").unwrap_or(0)),
        rss: meminfo(&text, "AnonPages"),
        cache: meminfo(&text, "Cached"),
        ..Memory::default()
    })
}

pub fn memory_capacity() -> Option<u64> {
    meminfo(&text("/proc/meminfo")?, "MemTotal")
}

pub fn pids() -> Pids {
    let number = |path: &str| text(path)?.trim().parse::<i64>().ok();
    let max = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")].into_iter().flatten().min();
    // proc_loadavg(5): the fourth field is runnable/all.
    let running = text("/proc/loadavg").and_then(|t| t.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok());
    Pids { max, running }
}

pub fn booted() -> Option<Timestamp> {
    let stat = text("/proc/stat")?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_interfaces_and_which_has_the_default_route() {
        let dev = "Inter-|   Receive |  Transmit\n face |bytes packets errs drop\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                   eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n eth1: 1 2 x\nnonsense\n eth2: 1 1 1 1 0 0 0 0 2 2 2 2 0 0 0 0\n";
        let route = "Iface\tDestination\tGateway\neth2\t0000F40A\t00000000\neth0\t00000000\t0100F40A\n";
        let network = network(dev, route);
        assert_eq!(network.default.as_deref(), Some("eth0"));
        let names: Vec<&str> = network.interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth2"]);
        assert_eq!(network.interfaces[0].received, Counters { bytes: 100, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(network.interfaces[0].sent, Counters { bytes: 500, packets: 6, errors: 7, dropped: 8 });
    }

    #[test]
    fn this_host_has_memory_tasks_and_a_boot() {
        let memory = memory().unwrap();
        assert!(memory.working_set <= memory.usage && memory.usage < memory_capacity().unwrap());
        assert!(pids().running.unwrap() > 0 && pids().max.unwrap() > 0);
        assert!(booted().unwrap() < Timestamp::now());
        assert!(crate::node::facts::file_system(Path::new("/no/such/folder")).unwrap().size_bytes > 0);
    }
}
