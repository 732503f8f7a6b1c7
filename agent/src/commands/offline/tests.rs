use crate::api::testing::{Answer, Server};
use crate::commands::trace;
use clap::Parser;
use serde_json::{Value, json};

fn answer(uri: &str) -> Value {
    let slice = |name: &str, ip: &str, ready: bool| {
        json!({"metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}, "nodeName": "n1"}]})
    };
    if uri.contains("endpointslices") {
        // Two pages.
        return match uri.contains("continue=") {
            false => json!({"metadata": {"resourceVersion": "5", "continue": "c"}, "items": [slice("a", "10.244.0.2", true)]}),
            true => json!({"metadata": {"resourceVersion": "5"}, "items": [slice("b", "10.244.0.3", false)]}),
        };
    }
    if uri.contains("/services") {
        return json!({"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "nodePort": 30080}], "type": "NodePort"}}]});
    }
    json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}})
}

#[tokio::test]
async fn the_api_alone_is_enough() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start(|asked| Some(Answer::Json(200, answer(&asked.uri)))).await;
    let _ = server.transport();
    let dir = server.dir.path();
    let proxy = dir.join("proxy.yaml");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\ndetectLocalMode: NodeCIDR\n";
    std::fs::write(&proxy, text).unwrap();
    let base = [
        "trace",
        "--root-dir",
        dir.to_str().unwrap(),
        "--hostname-override=n1",
        "--kubeconfig",
        &dir.join("kubeconfig").display().to_string(),
        "--proxy-config",
        proxy.to_str().unwrap(),
    ];
    let run = async |from: &str, to: &str| {
        let args = trace::Args::parse_from(base.iter().copied().chain(["--from", from, "--to", to]));
        trace::run(&args).await.unwrap()
    };
    let text = run("10.244.0.9", "10.96.0.1:80/tcp").await;
    assert!(text.contains("service    shop/web\n"), "{text}");
    assert!(text.contains("10.244.0.2:8080  100.0 % of new connections, source kept\n"), "{text}");
    assert!(text.contains("10.244.0.3  not ready\n"), "{text}");
    assert!(text.contains("no ferrolet was asked"), "{text}");
    let text = run("203.0.113.5", "10.96.0.1:80/tcp").await;
    assert!(text.contains("source masqueraded"), "not from the node's pod ranges: {text}");
    let text = run("203.0.113.5", "192.0.2.7:30080/tcp").await;
    assert!(text.contains("frontend   node port 30080/tcp\n"), "{text}");
    let text = run("203.0.113.5", "10.96.0.1:81/tcp").await;
    assert!(text.contains("verdict    rejected"), "{text}");
}

#[tokio::test]
async fn without_daemon_and_kubeconfig_both_ways_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let args = trace::Args::parse_from(["trace", "--from=10.0.0.1", "--to=10.0.0.2:1", "--root-dir", root]);
    let error = trace::run(&args).await.unwrap_err().to_string();
    assert!(error.contains("ferrolet.sock") && error.contains("--kubeconfig"), "{error}");
}
