use super::*;
use ferrolet_netproxy::Stats;

#[tokio::test]
async fn the_page_is_whole_and_no_series_is_there_twice() {
    let extra: Extra = Box::new(|page| {
        proxy::write(&Stats { set_aside: vec!["ns/a".into(), "ns/b".into()], repairs: 3, ..Stats::default() }, page);
        proxy::write_answered(&ferrolet_netproxy::health::Answered::default(), page);
    });
    let metrics = Metrics::new("n", vec![extra]).unwrap();
    let cri = Client::connect("unix:///nonexistent/socket", ferrolet_cri::Options::default()).unwrap();
    let page = metrics.scrape(&cri).await;
    assert!(page.contains("kubelet_node_name{node=\"n\"} 1\n"), "{page}");
    assert!(page.contains("kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\"} 0\n"));
    assert!(page.contains("ferrolet_netproxy_set_aside_services 2\n"));
    assert!(page.contains("ferrolet_proxy_repairs_total 3\n"));
    assert!(page.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 0\n"));
    let resident = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(resident.parse::<f64>().unwrap() > 1e6);
    let mut kinds: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let all = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), all);
    assert!(metrics.counter("kubelet_running_pods", "again").is_err());
}
