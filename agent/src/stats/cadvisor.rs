//! `/metrics/cadvisor`: the series of containers that dashboards are made of, under cAdvisor's names and labels. Pure.

use super::host::Interface;
use super::page::{Page, seconds};
use super::sample::{Sample, Tracked};
use crate::cgroup::Usage;

/// A cgroup with the labels that its series have: the root, a pod's or a container's.
struct Series<'a> {
    id: String,
    container: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
    used: &'a Tracked,
    started: Option<jiff::Timestamp>,
}

type Value = fn(&Usage) -> Option<f64>;

const PER_CGROUP: &[(&str, &str, &str, Value)] = &[
    ("container_memory_usage_bytes", "gauge", "Memory in use, with all that can be taken back.", |u| {
        Some(u.memory?.usage as f64)
    }),
    ("container_memory_working_set_bytes", "gauge", "The working set.", |u| Some(u.memory?.working_set as f64)),
    ("container_memory_rss", "gauge", "Anonymous memory.", |u| Some(u.memory?.rss? as f64)),
    ("container_memory_cache", "gauge", "Memory that caches files.", |u| Some(u.memory?.cache? as f64)),
    ("container_memory_swap", "gauge", "Swap in use.", |u| Some(u.swap_bytes? as f64)),
    ("container_spec_memory_limit_bytes", "gauge", "The limit of memory, 0 for none.", |u| {
        Some(u.memory?.limit.unwrap_or(0) as f64)
    }),
    ("container_threads", "gauge", "Processes and their threads.", |u| Some(u.tasks? as f64)),
    ("container_cpu_cfs_periods_total", "counter", "Periods of the processor's quota.", |u| Some(u.throttling?.periods as f64)),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Periods in which the quota was used up.", |u| {
        Some(u.throttling?.throttled as f64)
    }),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Time held back by the quota.", |u| {
        Some(seconds(u.throttling?.time_ns))
    }),
    ("container_pressure_cpu_waiting_seconds_total", "counter", "Time in which some task waited for a processor.", |u| {
        Some(seconds(u.cpu_pressure?.some.total_ns))
    }),
    ("container_pressure_cpu_stalled_seconds_total", "counter", "Time in which all tasks waited for a processor.", |u| {
        Some(seconds(u.cpu_pressure?.full.total_ns))
    }),
    ("container_pressure_memory_waiting_seconds_total", "counter", "Time in which some task waited for memory.", |u| {
        Some(seconds(u.memory_pressure?.some.total_ns))
    }),
    ("container_pressure_memory_stalled_seconds_total", "counter", "Time in which all tasks waited for memory.", |u| {
        Some(seconds(u.memory_pressure?.full.total_ns))
    }),
    ("container_pressure_io_waiting_seconds_total", "counter", "Time in which some task waited for disks.", |u| {
        Some(seconds(u.io_pressure?.some.total_ns))
    }),
    ("container_pressure_io_stalled_seconds_total", "counter", "Time in which all tasks waited for disks.", |u| {
        Some(seconds(u.io_pressure?.full.total_ns))
    }),
];

type Counter = fn(&Interface) -> u64;

const PER_INTERFACE: &[(&str, &str, Counter)] = &[
    ("container_network_receive_bytes_total", "Bytes received.", |i| i.received.bytes),
    ("container_network_receive_packets_total", "Packets received.", |i| i.received.packets),
    ("container_network_receive_errors_total", "Errors of receiving.", |i| i.received.errors),
    ("container_network_receive_packets_dropped_total", "Packets dropped in receiving.", |i| i.received.dropped),
    ("container_network_transmit_bytes_total", "Bytes sent.", |i| i.sent.bytes),
    ("container_network_transmit_packets_total", "Packets sent.", |i| i.sent.packets),
    ("container_network_transmit_errors_total", "Errors of sending.", |i| i.sent.errors),
    ("container_network_transmit_packets_dropped_total", "Packets dropped in sending.", |i| i.sent.dropped),
];

pub fn page(sample: &Sample) -> String {
    let mut page = Page::new(sample.at);
    let series = series(sample);
    let cpu = series.iter().map(|s| {
        let [container, rest @ ..] = labels(s);
        let [id, image, name, namespace, pod] = rest;
        ([container, ("cpu", "total"), id, image, name, namespace, pod], value(s, |u| Some(seconds(u.cpu_ns?))))
    });
    page.family("container_cpu_usage_seconds_total", "counter", "Processor time used, in seconds.", cpu);
    for (name, kind, help, of) in PER_CGROUP {
        page.family(name, kind, help, series.iter().map(|s| (labels(s), value(s, *of))));
    }
    let started = series.iter().map(|s| (labels(s), s.started.map(|t| t.as_duration().as_secs_f64())));
    let help = "When it started, in seconds since the beginning of 1970.";
    page.family("container_start_time_seconds", "gauge", help, started);
    let of_pods = sample.pods.iter().filter_map(|pod| Some((pod.network.as_ref()?, pod)));
    let networks = of_pods.map(|(n, pod)| (n, path(&pod.cgroup), pod.namespace.as_str(), pod.name.as_str()));
    let networks: Vec<_> = sample.node.network.iter().map(|n| (n, "/".to_owned(), "", "")).chain(networks).collect();
    for (name, help, of) in PER_INTERFACE {
        let each = networks.iter().flat_map(|(network, id, namespace, pod)| {
            network.interfaces.iter().map(move |i| {
                let labels = [("id", id.as_str()), ("interface", &i.name), ("namespace", namespace), ("pod", pod)];
                (labels, Some(of(i) as f64))
            })
        });
        page.family(name, "counter", help, each);
    }
    let cores = std::thread::available_parallelism().ok().map(|n| n.get() as f64);
    page.family("machine_cpu_cores", "gauge", "Logical processors.", [([], cores)]);
    let memory = sample.node.memory_capacity.map(|bytes| bytes as f64);
    page.family("machine_memory_bytes", "gauge", "Memory installed.", [([], memory)]);
    page.done()
}

fn path(cgroup: &std::path::Path) -> String {
    format!("/{}", cgroup.display())
}

fn series(sample: &Sample) -> Vec<Series<'_>> {
    let node = &sample.node;
    let root = Series {
        id: "/".into(),
        container: "",
        image: "",
        name: "",
        namespace: "",
        pod: "",
        used: &node.used,
        started: node.booted,
    };
    let mut all = vec![root];
    for pod in &sample.pods {
        let (namespace, name, id) = (pod.namespace.as_str(), pod.name.as_str(), path(&pod.cgroup));
        for c in &pod.containers {
            let id = format!("{id}/{}", c.id);
            let (container, image) = (c.name.as_str(), c.image.as_str());
            all.push(Series { id, container, image, name: &c.id, namespace, pod: name, used: &c.used, started: c.started });
        }
        let (container, image, started) = ("", "", pod.started);
        all.push(Series { id, container, image, name: "", namespace, pod: name, used: &pod.used, started });
    }
    all
}

fn labels<'a>(s: &'a Series<'_>) -> [(&'static str, &'a str); 6] {
    let Series { id, container, image, name, namespace, pod, .. } = s;
    [("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)]
}

fn value(s: &Series<'_>, of: Value) -> Option<f64> {
    s.used.usage.as_ref().and_then(of)
}
