//! Resizes in place, in kubelet's series. Cheap to clone.

use super::Metrics;
use crate::pod::allocation::Allocation;
use crate::pod::resources::Resources;
use ferrolet_quantity::Quantity;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use std::collections::BTreeMap;
use std::time::Duration;

const BUCKETS_MS: [f64; 14] = [
    10.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0, 120_000.0, 300_000.0, 600_000.0,
];

#[derive(Debug, Clone)]
pub struct Resizes {
    requested: IntCounterVec,
    duration: HistogramVec,
    pending: IntGaugeVec,
    infeasible: IntCounterVec,
    in_progress: IntGauge,
    accepted: IntCounterVec,
}

/// What made a resize that had to wait be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    PodUpdated,
    PodsRemoved,
    PodResized,
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Trigger::PodUpdated => "pod_updated",
            Trigger::PodsRemoved => "pods_removed",
            Trigger::PodResized => "pod_resized",
        }
    }
}

impl Resizes {
    pub fn new(metrics: &Metrics) -> Result<Resizes, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("kubelet_{name}"), help);
        let requested =
            opts("container_requested_resizes_total", "Resizes asked for, by container, resource and what changed of it");
        let duration =
            HistogramOpts::new("kubelet_pod_resize_duration_milliseconds", "Milliseconds that it took to carry out a resize");
        let all = Resizes {
            requested: IntCounterVec::new(requested, &["resource", "requirement", "operation"])?,
            duration: HistogramVec::new(duration.buckets(BUCKETS_MS.to_vec()), &["success"])?,
            pending: IntGaugeVec::new(opts("pod_pending_resizes", "Pods whose resize waits, by reason"), &["reason"])?,
            infeasible: IntCounterVec::new(
                opts("pod_infeasible_resizes_total", "Resizes that can never be granted"),
                &["reason_detail"],
            )?,
            in_progress: IntGauge::with_opts(opts("pod_in_progress_resizes", "Pods whose resize is being carried out"))?,
            accepted: IntCounterVec::new(
                opts("pod_deferred_accepted_resizes_total", "Resizes granted after they had to wait"),
                &["retry_trigger"],
            )?,
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(all.requested.clone()),
            Box::new(all.duration.clone()),
            Box::new(all.pending.clone()),
            Box::new(all.infeasible.clone()),
            Box::new(all.in_progress.clone()),
            Box::new(all.accepted.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(all)
    }

    pub fn requested(&self, before: &Allocation, now: &Allocation) {
        for labels in changes(before, now) {
            self.requested.with_label_values(&labels).inc();
        }
    }

    pub fn carried_out(&self, took: Duration, success: bool) {
        let label = if success { "true" } else { "false" };
        self.duration.with_label_values(&[label]).observe(took.as_millis() as f64);
    }

    /// The only reason that there is here.
    pub fn infeasible(&self) {
        self.infeasible.with_label_values(&["swap_limitation"]).inc();
    }

    pub fn accepted(&self, trigger: Trigger) {
        self.accepted.with_label_values(&[trigger.as_str()]).inc();
    }

    pub fn standing(&self, deferred: usize, infeasible: usize, in_progress: usize) {
        for (reason, count) in [("deferred", deferred), ("infeasible", infeasible)] {
            self.pending.with_label_values(&[reason]).set(count as i64);
        }
        self.in_progress.set(in_progress as i64);
    }
}

fn changes(before: &Allocation, now: &Allocation) -> Vec<[&'static str; 3]> {
    let none = Resources::default();
    let mut all = Vec::new();
    for (name, now) in &now.containers {
        let before = before.containers.get(name).unwrap_or(&none);
        for (requirement, old, new) in [("requests", &before.requests, &now.requests), ("limits", &before.limits, &now.limits)] {
            for resource in ["memory", "cpu"] {
                all.extend(operation(amount(old, resource), amount(new, resource)).map(|op| [resource, requirement, op]));
            }
        }
    }
    all
}

fn amount(list: &BTreeMap<String, String>, resource: &str) -> Quantity {
    list.get(resource).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn operation(old: Quantity, new: Quantity) -> Option<&'static str> {
    match (old.is_zero(), new.is_zero()) {
        _ if old == new => None,
        (true, _) => Some("add"),
        (_, true) => Some("remove"),
        _ => Some(if new > old { "increase" } else { "decrease" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Allocation {
        let list = |list: &[(&str, &str)]| list.iter().map(|(n, q)| ((*n).to_owned(), (*q).to_owned())).collect();
        let own = Resources { requests: list(requests), limits: list(limits) };
        Allocation { containers: [("c".to_owned(), own)].into(), ..Allocation::default() }
    }

    #[test]
    fn every_change_of_a_container_is_counted() {
        let metrics = Metrics::new("n", Vec::new()).unwrap();
        let resizes = Resizes::new(&metrics).unwrap();
        let before = of(&[("cpu", "100m"), ("memory", "1Gi")], &[("cpu", "1"), ("memory", "1Gi")]);
        let now = of(&[("cpu", "0.1"), ("memory", "2Gi")], &[("cpu", "500m")]);
        assert_eq!(
            changes(&before, &now),
            [["memory", "requests", "increase"], ["memory", "limits", "remove"], ["cpu", "limits", "decrease"]]
        );
        assert_eq!(changes(&of(&[], &[]), &of(&[("cpu", "1")], &[])), [["cpu", "requests", "add"]]);
        resizes.requested(&before, &now);
        resizes.requested(&before, &now);
        resizes.carried_out(Duration::from_millis(60), true);
        resizes.infeasible();
        resizes.accepted(Trigger::PodsRemoved);
        resizes.standing(2, 0, 1);
        let page = metrics.proxy_page();
        assert!(!page.contains("kubelet_"), "kube-proxy's page has none of them");
        let page = prometheus::TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
        for line in [
            "kubelet_container_requested_resizes_total{operation=\"decrease\",requirement=\"limits\",resource=\"cpu\"} 2",
            "kubelet_pod_resize_duration_milliseconds_bucket{success=\"true\",le=\"50\"} 0",
            "kubelet_pod_resize_duration_milliseconds_bucket{success=\"true\",le=\"100\"} 1",
            "kubelet_pod_pending_resizes{reason=\"deferred\"} 2",
            "kubelet_pod_infeasible_resizes_total{reason_detail=\"swap_limitation\"} 1",
            "kubelet_pod_in_progress_resizes 1",
            "kubelet_pod_deferred_accepted_resizes_total{retry_trigger=\"pods_removed\"} 1",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
