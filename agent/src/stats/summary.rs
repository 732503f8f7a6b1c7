//! `/stats/summary`: kubelet's `stats/v1alpha1` document. Pure. What is not known is left out.

use super::host::{Interface, Network};
use super::sample::{Container, Layer, Layers, Pod, Sample, Tracked};
use crate::cgroup::{Pressure, Stall};
use crate::node::facts::FileSystem;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// With `only_cpu_and_memory`, as kubelet's query parameter of that name has it.
pub fn document(sample: &Sample, layers: &Layers, only_cpu_and_memory: bool) -> Value {
    let writer = Writer { at: sample.at, layers, brief: only_cpu_and_memory };
    let pods: Vec<Value> = sample.pods.iter().map(|pod| writer.pod(pod)).collect();
    json!({ "node": writer.node(sample), "pods": pods })
}

struct Writer<'a> {
    at: Timestamp,
    layers: &'a Layers,
    brief: bool,
}

/// The fields that have a value.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(known.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Writer<'_> {
    fn node(&self, sample: &Sample) -> Value {
        let node = &sample.node;
        let capacity = node.memory_capacity;
        let images = self.layers.images.unwrap_or_default();
        let image_fs = object([("imageFs", self.fs(images.on, images.bytes, images.inodes))]);
        let rlimit =
            object([("time", json!(seconds(self.at))), ("maxpid", json!(node.pids.max)), ("curproc", json!(node.pids.running))]);
        object([
            ("nodeName", json!(node.name)),
            ("startTime", json!(node.booted.map(seconds))),
            ("cpu", self.cpu(&node.used)),
            ("memory", self.memory(&node.used, capacity)),
            ("io", self.unless_brief(self.io(&node.used))),
            ("network", self.unless_brief(self.network(node.network.as_ref()))),
            ("fs", self.unless_brief(self.fs(node.fs, node.fs.map(|fs| fs.used_bytes), None))),
            ("runtime", self.unless_brief(image_fs)),
            ("rlimit", self.unless_brief(rlimit)),
            ("swap", self.swap(&node.used)),
        ])
    }

    fn pod(&self, pod: &Pod) -> Value {
        let containers: Vec<Value> = pod.containers.iter().map(|c| self.container(c)).collect();
        let tasks = pod.used.usage.as_ref().and_then(|u| u.tasks);
        object([
            ("podRef", json!({ "name": pod.name, "namespace": pod.namespace, "uid": pod.uid })),
            ("startTime", json!(pod.started.map(seconds))),
            ("containers", json!(containers)),
            ("cpu", self.cpu(&pod.used)),
            ("memory", self.memory(&pod.used, None)),
            ("io", self.unless_brief(self.io(&pod.used))),
            ("network", self.unless_brief(self.network(pod.network.as_ref()))),
            ("volume", self.unless_brief(self.volumes(pod))),
            ("ephemeral-storage", self.unless_brief(self.ephemeral(pod))),
            ("process_stats", self.unless_brief(tasks.map_or(Value::Null, |n| json!({ "process_count": n })))),
            ("swap", self.swap(&pod.used)),
        ])
    }

    fn container(&self, container: &Container) -> Value {
        let rootfs = self.layers.containers.get(&container.id).copied().unwrap_or_default();
        let logs = container.logs.unwrap_or_default();
        object([
            ("name", json!(container.name)),
            ("startTime", json!(container.started.map(seconds))),
            ("cpu", self.cpu(&container.used)),
            ("memory", self.memory(&container.used, None)),
            ("io", self.unless_brief(self.io(&container.used))),
            ("rootfs", self.unless_brief(self.fs(rootfs.on, rootfs.bytes, rootfs.inodes))),
            ("logs", self.unless_brief(self.fs(logs.on, logs.bytes, logs.inodes))),
            ("swap", self.swap(&container.used)),
        ])
    }

    fn unless_brief(&self, value: Value) -> Value {
        if self.brief { Value::Null } else { value }
    }

    fn cpu(&self, used: &Tracked) -> Value {
        let Some(usage) = used.usage.as_ref().filter(|u| u.cpu_ns.is_some()) else { return Value::Null };
        object([
            ("time", json!(seconds(self.at))),
            ("usageNanoCores", json!(used.nano_cores)),
            ("usageCoreNanoSeconds", json!(usage.cpu_ns)),
            ("psi", pressure(usage.cpu_pressure)),
        ])
    }

    /// What is left is that of the limit, or of the capacity of a node.
    fn memory(&self, used: &Tracked, capacity: Option<u64>) -> Value {
        let Some((usage, memory)) = used.usage.as_ref().and_then(|u| Some((u, u.memory?))) else { return Value::Null };
        let available = memory.limit.or(capacity).map(|limit| limit.saturating_sub(memory.working_set));
        object([
            ("time", json!(seconds(self.at))),
            ("availableBytes", json!(available)),
            ("usageBytes", json!(memory.usage)),
            ("workingSetBytes", json!(memory.working_set)),
            ("rssBytes", json!(memory.rss)),
            ("pageFaults", json!(memory.page_faults)),
            ("majorPageFaults", json!(memory.major_page_faults)),
            ("psi", pressure(usage.memory_pressure)),
        ])
    }

    fn io(&self, used: &Tracked) -> Value {
        let pressure = pressure(used.usage.as_ref().and_then(|u| u.io_pressure));
        if pressure.is_null() { Value::Null } else { json!({ "time": seconds(self.at), "psi": pressure }) }
    }

    fn swap(&self, used: &Tracked) -> Value {
        let Some(usage) = used.usage.as_ref().filter(|u| u.swap_bytes.is_some()) else { return Value::Null };
        let available = usage.swap_limit.zip(usage.swap_bytes).map(|(limit, used)| limit.saturating_sub(used));
        object([
            ("time", json!(seconds(self.at))),
            ("swapAvailableBytes", json!(available)),
            ("swapUsageBytes", json!(usage.swap_bytes)),
        ])
    }

    fn network(&self, network: Option<&Network>) -> Value {
        let Some(network) = network else { return Value::Null };
        let default = network.interfaces.iter().find(|i| Some(&i.name) == network.default.as_ref());
        let mut whole = default.map_or_else(|| json!({ "name": "" }), interface);
        whole["time"] = json!(seconds(self.at));
        whole["interfaces"] = json!(network.interfaces.iter().map(interface).collect::<Vec<_>>());
        whole
    }

    /// Of a file system; what is used of it may be told by somebody else, as for a part of it.
    fn fs(&self, on: Option<FileSystem>, used: Option<u64>, inodes_used: Option<u64>) -> Value {
        if on.is_none() && used.is_none() {
            return Value::Null;
        }
        object([
            ("time", json!(seconds(self.at))),
            ("availableBytes", json!(on.map(|fs| fs.available_bytes))),
            ("capacityBytes", json!(on.map(|fs| fs.size_bytes))),
            ("usedBytes", json!(used)),
            ("inodesFree", json!(on.map(|fs| fs.inodes_free))),
            ("inodes", json!(on.map(|fs| fs.inodes))),
            ("inodesUsed", json!(inodes_used.or(on.map(|fs| fs.inodes.saturating_sub(fs.inodes_free))))),
        ])
    }

    fn volumes(&self, pod: &Pod) -> Value {
        let own = self.layers.volumes.iter().filter(|((uid, _), _)| *uid == pod.uid);
        let each = own.map(|((_, name), measured)| {
            let mut volume = self.fs(measured.layer.on, measured.layer.bytes, measured.layer.inodes);
            volume["name"] = json!(name);
            volume
        });
        let all: Vec<Value> = each.collect();
        if all.is_empty() { Value::Null } else { json!(all) }
    }

    /// Of the writable layers, the logs and the pod's own volumes on the disk.
    fn ephemeral(&self, pod: &Pod) -> Value {
        let rootfs = pod.containers.iter().filter_map(|c| self.layers.containers.get(&c.id).copied());
        let volumes = self.layers.volumes.iter().filter(|((uid, _), measured)| *uid == pod.uid && measured.ephemeral);
        let logs = pod.containers.iter().filter_map(|c| c.logs);
        let layers: Vec<Layer> = rootfs.chain(logs).chain(volumes.map(|(_, measured)| measured.layer)).collect();
        let on = layers.iter().find_map(|layer| layer.on);
        let sum = |of: fn(&Layer) -> Option<u64>| layers.iter().filter_map(of).reduce(u64::saturating_add);
        self.fs(on, sum(|l| l.bytes), sum(|l| l.inodes))
    }
}

fn interface(interface: &Interface) -> Value {
    json!({
        "name": interface.name,
        "rxBytes": interface.received.bytes,
        "rxErrors": interface.received.errors,
        "txBytes": interface.sent.bytes,
        "txErrors": interface.sent.errors,
    })
}

fn pressure(pressure: Option<Pressure>) -> Value {
    let stall = |s: Stall| json!({ "total": s.total_ns, "avg10": s.avg[0], "avg60": s.avg[1], "avg300": s.avg[2] });
    pressure.map_or(Value::Null, |p| json!({ "full": stall(p.full), "some": stall(p.some) }))
}
