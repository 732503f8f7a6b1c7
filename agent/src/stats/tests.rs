use super::*;
use ferrolet_cri::fake::{Fake, Profile};
use serde_json::{Value, json};

fn pod(name: &str, more: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {
            "startTime": "2026-01-01T00:00:00Z",
            "containerStatuses": [{
                "name": "c", "image": "i:1", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{}", id(name)),
                "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
            }],
        },
    });
    for (field, value) in more.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn id(name: &str) -> String {
    format!("0123456789abcdef-{name}")
}

/// A node whose cgroups are plain folders.
struct Host {
    at: tempfile::TempDir,
    stats: Stats,
    _runtime: Fake,
}

impl Host {
    async fn new() -> Host {
        let at = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| put(&at.path().join("cgroup").join(path), text);
        file("cgroup.controllers", "cpu memory\n");
        file("cpu.stat", "usage_usec 9000000\n");
        let container = format!("kubepods/besteffort/poduid-a/{}", id("a"));
        file(&format!("{container}/cpu.stat"), "usage_usec 2000000\n");
        file(&format!("{container}/memory.current"), "3000\n");
        file(&format!("{container}/memory.max"), "5000\n");
        file(&format!("{container}/memory.stat"), "anon 700\ninactive_file 1000\n");
        file("kubepods/besteffort/poduid-a/cpu.stat", "usage_usec 2500000\n");
        put(&at.path().join("logs/ns_a_uid-a/c/0.log"), "twelve bytes");
        let config = crate::config::Config {
            node_name: "n".into(),
            root_dir: at.path().into(),
            pod_logs_dir: at.path().join("logs"),
            ..crate::config::Config::default()
        };
        let cgroups = cgroup::Manager::at(&at.path().join("cgroup"), cgroup::NodeCgroups::default()).unwrap();
        let runtime = Fake::start(Profile::containerd_2()).unwrap();
        Host { stats: Stats::new(cgroups, runtime.client().unwrap(), &config), at, _runtime: runtime }
    }
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_in_all_three_pages() {
    let host = Host::new().await;
    let pods = [pod("a", json!({})), pod("gone", json!({}))];
    let sample = host.stats.sample(&pods).await;
    assert!(Arc::ptr_eq(&sample, &host.stats.sample(&pods).await), "those who ask together share a sample");

    let page = resource::page(&sample);
    let at = sample.at.as_millisecond();
    for line in [
        format!("node_cpu_usage_seconds_total 9 {at}"),
        format!("container_cpu_usage_seconds_total{{container=\"c\",namespace=\"ns\",pod=\"a\"}} 2 {at}"),
        format!("container_memory_working_set_bytes{{container=\"c\",namespace=\"ns\",pod=\"a\"}} 2000 {at}"),
        format!("container_start_time_seconds{{container=\"c\",namespace=\"ns\",pod=\"a\"}} 1767225601 {at}"),
        format!("pod_cpu_usage_seconds_total{{namespace=\"ns\",pod=\"a\"}} 2.5 {at}"),
        format!("resource_scrape_error 0 {at}"),
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }

    let page = cadvisor::page(&sample);
    let labels = format!(
        "container=\"c\",cpu=\"total\",id=\"/kubepods/besteffort/poduid-a/{id}\",image=\"i:1\",name=\"{id}\",namespace=\"ns\",pod=\"a\"",
        id = id("a")
    );
    let line = format!("container_cpu_usage_seconds_total{{{labels}}} 2 {at}");
    assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    assert!(page.contains("container_network_receive_bytes_total{id=\"/\",interface="), "{page}");

    let document = summary::document(&sample, &host.stats.layers(&pods).await, false);
    let a = &document["pods"][0];
    assert_eq!(a["podRef"], json!({"name": "a", "namespace": "ns", "uid": "uid-a"}));
    let c = &a["containers"][0];
    assert_eq!((&c["name"], &c["startTime"]), (&json!("c"), &json!("2026-01-01T00:00:01Z")));
    assert_eq!(c["cpu"]["usageCoreNanoSeconds"], 2_000_000_000_u64);
    assert_eq!((&c["memory"]["availableBytes"], &c["memory"]["rssBytes"]), (&json!(3000), &json!(700)));
    assert_eq!((&c["logs"]["usedBytes"], &c["logs"]["inodesUsed"]), (&json!(12), &json!(2)));
    assert_eq!(a["cpu"]["usageCoreNanoSeconds"], 2_500_000_000_u64);
    assert_eq!(document["pods"][1]["containers"][0].get("cpu"), None, "what is not known is left out");
    assert_eq!(document["node"]["nodeName"], "n");
    assert!(
        document["node"]["memory"]["availableBytes"].as_u64() > Some(0)
            && document["node"]["fs"]["capacityBytes"].as_u64() > Some(0)
    );

    let brief = summary::document(&sample, &sample::Layers::default(), true);
    assert_eq!((brief["node"].get("fs"), brief["pods"][0]["containers"][0].get("logs")), (None, None));
    assert!(brief["pods"][0]["containers"][0]["memory"].is_object());
    drop(host.at);
}

#[test]
fn rates_are_between_samples_and_never_across_a_counters_beginning() {
    let used = |ns| Tracked::of(Some(Usage { cpu_ns: Some(ns), ..Usage::default() }));
    let sample = |ns| Sample { node: Node { used: used(ns), ..Node::default() }, ..Sample::default() };
    let mut after = sample(3_000_000_000);
    after.rate_against(&sample(1_000_000_000), Duration::from_secs(4));
    assert_eq!(after.node.used.nano_cores, Some(500_000_000));
    let mut anew = sample(5);
    anew.rate_against(&sample(1_000_000_000), Duration::from_secs(4));
    assert_eq!(anew.node.used.nano_cores, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_measured_apart_and_count_for_their_pod() {
    let host = Host::new().await;
    let volumes =
        json!([{"name": "own", "emptyDir": {}}, {"name": "given", "configMap": {"name": "x"}}, {"name": "away", "emptyDir": {}}]);
    let pods = [pod("a", json!({"volumes": volumes}))];
    let folder = host.at.path().join("pods/uid-a/volumes");
    put(&folder.join("kubernetes.io~empty-dir/own/file"), &"x".repeat(40 << 10));
    put(&folder.join("kubernetes.io~configmap/given/file"), &"x".repeat(80 << 10));
    let end = Instant::now() + Duration::from_secs(10);
    let layers = loop {
        let layers = host.stats.layers(&pods).await;
        if layers.volumes.len() == 2 {
            break layers;
        }
        assert!(Instant::now() < end, "not measured: {layers:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let document = summary::document(&*host.stats.sample(&pods).await, &layers, false);
    let a = &document["pods"][0];
    let used = |volume: &Value| volume["usedBytes"].as_u64().unwrap();
    let [given, own] = [0, 1].map(|i| a["volume"][i].clone());
    assert_eq!((&given["name"], &own["name"]), (&json!("given"), &json!("own")));
    assert!(used(&own) >= 40 << 10 && used(&given) >= 80 << 10 && own["capacityBytes"].as_u64() > Some(0), "{a}");
    // Its logs are twelve bytes, and the runtime's fake has no such container.
    assert_eq!(used(&a["ephemeral-storage"]), used(&own) + 12);
    let none = host.stats.layers(&[]).await;
    assert!(none.volumes.is_empty(), "nothing is kept of pods that are gone");
}
