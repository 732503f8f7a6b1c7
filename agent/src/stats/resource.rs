//! `/metrics/resource`: what autoscalers and `kubectl top` go by, under kubelet's names. Pure.

use super::page::{Page, seconds};
use super::sample::{Container, Pod, Sample, Tracked};
use crate::cgroup::Usage;

pub fn page(sample: &Sample) -> String {
    let mut page = Page::new(sample.at);
    let node = |value: fn(&Usage) -> Option<f64>| [([], of(&sample.node.used, value))];
    page.family("node_cpu_usage_seconds_total", "counter", "Processor time that the node has used, in seconds.", node(cpu));
    page.family("node_memory_working_set_bytes", "gauge", "The node's working set.", node(working_set));
    page.family("node_swap_usage_bytes", "gauge", "Swap that the node uses.", node(swap));

    let all = || sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)));
    let each = |value: fn(&Usage) -> Option<f64>| all().map(move |(p, c)| (labels(p, c), of(&c.used, value)));
    let name = "container_cpu_usage_seconds_total";
    page.family(name, "counter", "Processor time that the container has used, in seconds.", each(cpu));
    page.family("container_memory_working_set_bytes", "gauge", "The container's working set.", each(working_set));
    page.family("container_swap_usage_bytes", "gauge", "Swap that the container uses.", each(swap));
    page.family("container_swap_limit_bytes", "gauge", "Swap that the container may use.", each(swap_limit));
    let started = all().map(|(p, c)| (labels(p, c), c.started.map(|t| t.as_duration().as_secs_f64())));
    let name = "container_start_time_seconds";
    page.family(name, "gauge", "When the container started, in seconds since the beginning of 1970.", started);

    let pods = |value: fn(&Usage) -> Option<f64>| {
        sample
            .pods
            .iter()
            .map(|pod| ([("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())], of(&pod.used, value)))
            .collect::<Vec<_>>()
    };
    page.family("pod_cpu_usage_seconds_total", "counter", "Processor time that the pod has used, in seconds.", pods(cpu));
    page.family("pod_memory_working_set_bytes", "gauge", "The pod's working set.", pods(working_set));
    page.family("pod_swap_usage_bytes", "gauge", "Swap that the pod uses.", pods(swap));

    let failed = [([], Some(f64::from(u8::from(!sample.complete))))];
    page.family("resource_scrape_error", "gauge", "1 if the node's cgroups could not be read, else 0.", failed);
    page.family("scrape_error", "gauge", "The same under its older name.", failed);
    page.done()
}

fn labels<'a>(pod: &'a Pod, container: &'a Container) -> [(&'static str, &'a str); 3] {
    [("container", &container.name), ("namespace", &pod.namespace), ("pod", &pod.name)]
}

fn of(tracked: &Tracked, value: fn(&Usage) -> Option<f64>) -> Option<f64> {
    tracked.usage.as_ref().and_then(value)
}

fn cpu(usage: &Usage) -> Option<f64> {
    usage.cpu_ns.map(seconds)
}

fn working_set(usage: &Usage) -> Option<f64> {
    usage.memory.map(|m| m.working_set as f64)
}

fn swap(usage: &Usage) -> Option<f64> {
    usage.swap_bytes.map(|bytes| bytes as f64)
}

fn swap_limit(usage: &Usage) -> Option<f64> {
    usage.swap_limit.map(|bytes| bytes as f64)
}
