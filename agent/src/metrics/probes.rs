//! `/metrics/probes`: how the checks of containers have ended, in kubelet's series. Pure.

use ferrolet_probes::{BUCKETS, Tallied};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Of pods that this node knows by name; the others are on their way out.
pub fn page(tallies: &[Tallied], pods: &[Arc<Pod>]) -> String {
    let names: BTreeMap<&str, (&str, &str)> = pods
        .iter()
        .filter_map(|pod| {
            let meta = &pod.metadata;
            Some((meta.uid.as_deref()?, (meta.namespace.as_deref()?, meta.name.as_deref()?)))
        })
        .collect();
    let named: Vec<(&Tallied, &(&str, &str))> =
        tallies.iter().filter_map(|t| Some((t, names.get(t.pod_uid.as_str())?))).collect();
    let mut page = String::new();
    if named.is_empty() {
        return page;
    }
    page.push_str("# HELP prober_probe_duration_seconds Duration in seconds of the checks that succeeded.\n");
    page.push_str("# TYPE prober_probe_duration_seconds histogram\n");
    for (t, (namespace, pod)) in &named {
        let labels = labels(t, namespace, pod);
        let mut below = 0;
        for (bound, within) in BUCKETS.iter().zip(t.tally.within) {
            below += u64::from(within);
            let _ = writeln!(page, "prober_probe_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(page, "prober_probe_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}", t.tally.successful);
        let _ = writeln!(page, "prober_probe_duration_seconds_sum{{{labels}}} {}", t.tally.seconds);
        let _ = writeln!(page, "prober_probe_duration_seconds_count{{{labels}}} {}", t.tally.successful);
    }
    page.push_str("# HELP prober_probe_total Checks of containers, by how they ended.\n# TYPE prober_probe_total counter\n");
    for (t, (namespace, pod)) in &named {
        let labels = labels(t, namespace, pod);
        for (result, count) in [("successful", t.tally.successful), ("failed", t.tally.failed)] {
            if count > 0 {
                let uid = &t.pod_uid;
                let _ = writeln!(page, "prober_probe_total{{{labels},pod_uid=\"{uid}\",result=\"{result}\"}} {count}");
            }
        }
    }
    page
}

/// All of these are names that the API has checked, or a manifest of this node: no character in them has to be escaped.
fn labels(t: &Tallied, namespace: &str, pod: &str) -> String {
    let (container, kind) = (&t.container, t.kind.as_str());
    format!("container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",probe_type=\"{kind}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrolet_probes::{Kind, Tally};

    #[test]
    fn series_are_those_of_kubelet() {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u"}})).unwrap();
        let mut within = [0; BUCKETS.len()];
        (within[0], within[3]) = (2, 1);
        let tally = Tally { successful: 4, failed: 1, within, seconds: 20.5 };
        let of = |uid: &str| Tallied { pod_uid: uid.into(), container: "c".into(), kind: Kind::Readiness, tally };
        let text = page(&[of("u"), of("gone")], &[Arc::new(pod)]);
        let own = "container=\"c\",namespace=\"ns\",pod=\"web\",probe_type=\"Readiness\"";
        for line in [
            format!("prober_probe_duration_seconds_bucket{{{own},le=\"0.005\"}} 2"),
            format!("prober_probe_duration_seconds_bucket{{{own},le=\"0.05\"}} 3"),
            format!("prober_probe_duration_seconds_bucket{{{own},le=\"10\"}} 3"),
            format!("prober_probe_duration_seconds_bucket{{{own},le=\"+Inf\"}} 4"),
            format!("prober_probe_duration_seconds_sum{{{own}}} 20.5"),
            format!("prober_probe_total{{{own},pod_uid=\"u\",result=\"successful\"}} 4"),
            format!("prober_probe_total{{{own},pod_uid=\"u\",result=\"failed\"}} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!text.contains("gone"));
        assert_eq!(page(&[], &[]), "");
    }
}
