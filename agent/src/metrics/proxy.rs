//! The data plane's numbers as Prometheus text, in kube-proxy's names where it has them. Pure.

use ferrolet_netproxy::Stats;
use ferrolet_netproxy::health::Answered;
use ferrolet_netproxy::proxy::stats::{BUCKETS, Histogram, Programming};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// The health servers' counters.
pub fn write_answered(answered: &Answered, page: &mut String) {
    for (name, help, [good, bad]) in [
        ("kubeproxy_proxy_healthz_total", "Cumulative proxy healthz HTTP status", &answered.healthz),
        ("kubeproxy_proxy_livez_total", "Cumulative proxy livez HTTP status", &answered.livez),
    ] {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter");
        for (code, count) in [(200, good), (503, bad)] {
            let _ = writeln!(page, "{name}{{code=\"{code}\"}} {}", count.load(Ordering::Relaxed));
        }
    }
}

pub fn write(stats: &Stats, page: &mut String) {
    let name = "kubeproxy_sync_proxy_rules_duration_seconds";
    histogram(page, name, "SyncProxyRules latency in seconds", &stats.durations);
    let name = "kubeproxy_sync_full_proxy_rules_duration_seconds";
    histogram(page, name, "SyncProxyRules latency in seconds for full resyncs", &stats.full_durations);
    let name = "kubeproxy_sync_partial_proxy_rules_duration_seconds";
    histogram(
        page,
        name,
        "SyncProxyRules latency in seconds for partial resyncs",
        &without(&stats.durations, &stats.full_durations),
    );
    let name = "kubeproxy_conntrack_reconciler_sync_duration_seconds";
    histogram(page, name, "ReconcileConntrackFlowsLatency latency in seconds", &stats.purge_durations);
    let Programming { counts, sum, count } = &stats.programming;
    let name = "kubeproxy_network_programming_duration_seconds";
    let help = "In Cluster Network Programming Latency in seconds";
    // Nothing was counted before the first observation.
    buckets(page, name, help, Programming::bounds().zip(counts.iter().copied().chain(std::iter::repeat(0))), (*sum, *count));
    let stamp = stamp_of(stats.last_sync);
    let mut one = |kind: &str, name: &str, help: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    one(
        "gauge",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "The last time a sync of proxy rules was queued",
        stamp_of(stats.last_queued),
    );
    for (what, total, pending) in [
        ("service", stats.service_changes, stats.service_changes_pending),
        ("endpoint", stats.endpoint_changes, stats.endpoint_changes_pending),
    ] {
        let name = format!("kubeproxy_sync_proxy_rules_{what}_changes");
        let of = if what == "service" { "Service" } else { "Endpoint" };
        one("counter", &format!("{name}_total"), &format!("Cumulative proxy rules {of} changes"), total as f64);
        one("gauge", &format!("{name}_pending"), &format!("Pending proxy rules {of} changes"), pending as f64);
    }
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
    let deleted = "kubeproxy_conntrack_reconciler_deleted_entries_total";
    one("counter", deleted, "Cumulative conntrack flows deleted by conntrack reconciler", stats.flows_purged as f64);
    let repairs = "ferrolet_proxy_repairs_total";
    one("counter", repairs, "How often others changed the tables and they were put right.", stats.repairs as f64);
    one("counter", "ferrolet_proxy_flows_purged_total", "Stale connection tracking entries removed.", stats.flows_purged as f64);
    one("counter", "ferrolet_proxy_bad_objects_total", "Services and slices that could not be read.", stats.bad_objects as f64);
    let aside = stats.set_aside.len() as f64;
    one("gauge", "ferrolet_netproxy_set_aside_services", "Services without rules: the kernel refused them.", aside);
    one("gauge", "ferrolet_proxy_services", "Services known.", stats.services as f64);
    one("gauge", "ferrolet_proxy_endpoints", "Endpoints known.", stats.endpoints as f64);
}

fn stamp_of(at: Option<SystemTime>) -> f64 {
    at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64())
}

/// Those of the one that are not in the other, which it holds.
fn without(all: &Histogram, part: &Histogram) -> Histogram {
    let mut rest = all.clone();
    for (count, other) in rest.counts.iter_mut().zip(part.counts) {
        *count = count.saturating_sub(other);
    }
    Histogram { sum: (all.sum - part.sum).max(0.0), count: all.count.saturating_sub(part.count), ..rest }
}

fn histogram(page: &mut String, name: &str, help: &str, histogram: &Histogram) {
    buckets(page, name, help, BUCKETS.into_iter().zip(histogram.counts), (histogram.sum, histogram.count));
}

/// The counts are those between two bounds, the page's those below one.
fn buckets(page: &mut String, name: &str, help: &str, counts: impl Iterator<Item = (f64, u64)>, (sum, count): (f64, u64)) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram");
    let mut below = 0;
    for (bound, here) in counts {
        below += here;
        let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {below}");
    }
    let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
}
