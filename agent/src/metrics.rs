//! Prometheus metrics, in kubelet's and kube-proxy's names where they have one.
//!
//! Owns the registry. What only matters when somebody looks is read at the scrape.

use ferrolet_cri::Client;
use ferrolet_cri::types::{ContainerFilter, ContainerState, SandboxFilter, SandboxState};
use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

const RUNTIME: Duration = Duration::from_secs(5);

pub mod probes;
pub mod proxy;
pub mod resizes;
pub mod serve;

/// Appends series to a page.
pub type Extra = Box<dyn Fn(&mut String) + Send + Sync>;

pub struct Metrics {
    pub registry: Registry,
    running_pods: IntGauge,
    running_containers: IntGaugeVec,
    process: Process,
    /// Series that other parts of the agent write themselves.
    extra: Vec<Extra>,
}

struct Process {
    resident: IntGauge,
    virtual_bytes: IntGauge,
    cpu: Counter,
    fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
}

impl Metrics {
    /// Fails only if two series were given the same name, which a test would notice.
    pub fn new(node_name: &str, extra: Vec<Extra>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let node = IntGaugeVec::new(Opts::new("kubelet_node_name", "The node's name. The count is always 1."), &["node"])?;
        registry.register(Box::new(node.clone()))?;
        node.with_label_values(&[node_name]).set(1);
        let build =
            IntGaugeVec::new(Opts::new("ferrolet_build_info", "The version that runs. The count is always 1."), &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let running_containers =
            IntGaugeVec::new(Opts::new("kubelet_running_containers", "Number of containers by state"), &["container_state"])?;
        registry.register(Box::new(running_containers.clone()))?;
        let cpu = Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?;
        registry.register(Box::new(cpu.clone()))?;
        let start = Gauge::new("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?;
        registry.register(Box::new(start.clone()))?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        start.set(since_epoch.as_secs_f64());
        Ok(Metrics {
            running_pods: gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox")?,
            running_containers,
            process: Process {
                resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
                virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
                fds: gauge("process_open_fds", "Number of open file descriptors.")?,
                max_fds: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
                threads: gauge("process_threads", "Number of OS threads in the process.")?,
                cpu,
            },
            registry,
            extra,
        })
    }

    /// A counter of ours, registered.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    /// A family of gauges of ours, registered.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    /// The whole page.
    pub async fn scrape(&self, cri: &Client) -> String {
        self.look_at_runtime(cri).await;
        self.process.look();
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default();
        for extra in &self.extra {
            extra(&mut text);
        }
        text
    }

    /// What kube-proxy's own port shows: everything that does not say it is kubelet's.
    pub fn proxy_page(&self) -> String {
        self.process.look();
        let families: Vec<_> = self.registry.gather().into_iter().filter(|f| !f.name().starts_with("kubelet_")).collect();
        let mut text = TextEncoder::new().encode_to_string(&families).unwrap_or_default();
        for extra in &self.extra {
            extra(&mut text);
        }
        text
    }

    /// A runtime that does not answer leaves the last numbers.
    async fn look_at_runtime(&self, cri: &Client) {
        let ready = SandboxFilter { state: Some(SandboxState::Ready), ..SandboxFilter::default() };
        if let Ok(Ok(sandboxes)) = timeout(RUNTIME, cri.list_pod_sandbox(&ready)).await {
            self.running_pods.set(sandboxes.len() as i64);
        }
        if let Ok(Ok(containers)) = timeout(RUNTIME, cri.list_containers(&ContainerFilter::default())).await {
            for (name, state) in [
                ("created", ContainerState::Created),
                ("exited", ContainerState::Exited),
                ("running", ContainerState::Running),
                ("unknown", ContainerState::Unknown),
            ] {
                let count = containers.iter().filter(|c| c.state == state).count();
                self.running_containers.with_label_values(&[name]).set(count as i64);
            }
        }
    }
}

impl Process {
    fn look(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<i64>().ok()
        };
        self.resident.set(field("VmRSS").unwrap_or(0) * 1024);
        self.virtual_bytes.set(field("VmSize").unwrap_or(0) * 1024);
        self.threads.set(field("Threads").unwrap_or(0));
        self.fds.set(std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as i64));
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds.set(limit.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1));
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let used = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        self.cpu.inc_by((used - self.cpu.get()).max(0.0));
    }
}

/// Files, URLs and pods that something is wrong with.
pub fn write_static_pods(problems: usize, page: &mut String) {
    page.push_str("# HELP ferrolet_static_pod_problems Files, URLs and static pods that could not be processed.\n");
    page.push_str("# TYPE ferrolet_static_pod_problems gauge\n");
    page.push_str(&format!("ferrolet_static_pod_problems {problems}\n"));
}

#[cfg(test)]
mod tests;
