//! The data plane's numbers as Prometheus text, in kube-proxy's names where it has them. Pure.

use ferrolet_netproxy::Stats;
use ferrolet_netproxy::proxy::stats::{BUCKETS, Histogram};
use std::fmt::Write;
use std::time::SystemTime;

pub fn write(stats: &Stats, page: &mut String) {
    let name = "kubeproxy_sync_proxy_rules_duration_seconds";
    histogram(page, name, "SyncProxyRules latency in seconds", &stats.durations);
    let name = "kubeproxy_sync_full_proxy_rules_duration_seconds";
    histogram(page, name, "SyncProxyRules latency in seconds for full resyncs", &stats.full_durations);
    let stamp = stats.last_sync.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0.0, |d| d.as_secs_f64());
    let mut one = |kind: &str, name: &str, help: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let failures = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total";
    one(
        "gauge",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "The last time proxy rules were successfully synced",
        stamp,
    );
    one("counter", failures, "Cumulative proxy nftables sync failures", stats.failures as f64);
    one("counter", "ferrolet_proxy_syncs_total", "Syncs that changed something in the kernel.", stats.syncs as f64);
    one("counter", "ferrolet_proxy_full_syncs_total", "Syncs that wrote everything.", stats.full_syncs as f64);
    one("counter", "ferrolet_proxy_operations_total", "Elements and chains written.", stats.operations as f64);
    one("counter", "ferrolet_proxy_flows_purged_total", "Stale connection tracking entries removed.", stats.flows_purged as f64);
    one("counter", "ferrolet_proxy_bad_objects_total", "Services and slices that could not be read.", stats.bad_objects as f64);
    let aside = stats.set_aside.len() as f64;
    one("gauge", "ferrolet_netproxy_set_aside_services", "Services without rules: the kernel refused them.", aside);
    one("gauge", "ferrolet_proxy_services", "Services known.", stats.services as f64);
    one("gauge", "ferrolet_proxy_endpoints", "Endpoints known.", stats.endpoints as f64);
}

fn histogram(page: &mut String, name: &str, help: &str, histogram: &Histogram) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram");
    let mut below = 0;
    for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
        below += count;
        let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {below}");
    }
    let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {}", histogram.count);
    let _ = writeln!(page, "{name}_sum {}\n{name}_count {}", histogram.sum, histogram.count);
}
