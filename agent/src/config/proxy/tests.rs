use super::*;
use crate::config::{Conntrack, load};
use serde_json::json;

/// What kubeadm writes: every field, most without a value.
const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

fn applied(document: Value) -> (ProxyConfig, String) {
    let (mut config, mut problems) = (Config { node_name: "n1".into(), ..Config::default() }, Vec::new());
    apply(&mut config, document, &mut problems);
    (config.proxy, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn read(mut document: Value) -> (ProxyConfig, String) {
    document["apiVersion"] = json!("kubeproxy.config.k8s.io/v1alpha1");
    document["kind"] = json!("KubeProxyConfiguration");
    applied(document)
}

fn good(document: Value) -> ProxyConfig {
    let (proxy, problems) = read(document.clone());
    assert_eq!(problems, "", "{document}");
    proxy
}

#[test]
fn what_kubeadm_writes_is_taken_as_it_is() {
    let (proxy, problems) = applied(load::document(KUBEADM).unwrap());
    assert_eq!(problems, "");
    let expected = ProxyConfig {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        ..ProxyConfig::default()
    };
    assert_eq!(format!("{proxy:#?}"), format!("{expected:#?}"));
}

#[test]
fn every_field_that_has_a_meaning_here_is_read() {
    let proxy = good(json!({
        "bindAddress": "192.0.2.7", "hostnameOverride": "N1", "clusterCIDR": "10.244.9.9/16,fd00:10::/48",
        "healthzBindAddress": "127.0.0.1", "metricsBindAddress": "[::]:9999", "bindAddressHardFail": true, "oomScoreAdj": -998,
        "mode": "nftables", "nftables": {"masqueradeAll": true, "masqueradeBit": 0, "syncPeriod": "10s", "minSyncPeriod": "1s"},
        "nodePortAddresses": ["10.0.0.0/8", "fd00::/8"], "configSyncPeriod": "15m0s", "portRange": "1-2",
        "conntrack": {"maxPerCore": 0, "min": 5, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "60s", "tcpBeLiberal": true,
            "udpTimeout": "30s", "udpStreamTimeout": "300s"},
    }));
    assert_eq!(proxy.bind_address, Some("192.0.2.7".parse().unwrap()));
    assert_eq!(proxy.cluster_cidrs, ["10.244.0.0/16".parse().unwrap(), "fd00:10::/48".parse().unwrap()]);
    assert_eq!((proxy.healthz, proxy.metrics), ("127.0.0.1:10256".parse().ok(), "[::]:9999".parse().ok()));
    assert!(proxy.hard_fail && proxy.masquerade_all);
    assert_eq!((proxy.masquerade_bit, proxy.oom_score_adj, proxy.sync_period), (0, Some(-998), Duration::from_secs(10)));
    let conntrack = Conntrack {
        max_per_core: 0,
        min: 5,
        tcp_established_timeout: Duration::ZERO,
        tcp_close_wait_timeout: Duration::from_secs(60),
        tcp_be_liberal: true,
        udp_timeout: Duration::from_secs(30),
        udp_stream_timeout: Duration::from_secs(300),
    };
    assert_eq!(proxy.conntrack, conntrack);
    assert_eq!(proxy.notices, Vec::<String>::new());
}

#[test]
fn the_family_of_the_bind_address_decides_where_servers_listen() {
    let proxy = good(json!({"bindAddress": "::"}));
    assert_eq!((proxy.healthz, proxy.metrics), ("[::]:10256".parse().ok(), "[::1]:10249".parse().ok()));
    assert_eq!(proxy.bind_address, None);
}

#[test]
fn the_other_modes_are_mapped_and_said() {
    let proxy =
        good(json!({"mode": "iptables", "iptables": {"masqueradeBit": 15, "masqueradeAll": true, "localhostNodePorts": true,
        "syncPeriod": "5s"}, "nftables": {"masqueradeBit": 3}, "ipvs": {"scheduler": "lc"}}));
    assert_eq!((proxy.masquerade_bit, proxy.masquerade_all, proxy.sync_period), (15, true, Duration::from_secs(5)));
    assert_eq!(proxy.node_port_addresses, NodePortAddresses::All, "as in that mode");
    assert_eq!(proxy.notices, ["mode: nftables is used instead of iptables; node ports do not answer on loopback"]);
    let proxy = good(
        json!({"mode": "ipvs", "nodePortAddresses": ["primary"], "ipvs": {"scheduler": "lc", "excludeCIDRs": ["10.0.0.0/8"],
        "strictARP": true, "tcpTimeout": "1s", "udpTimeout": "1s", "syncPeriod": "7s"}}),
    );
    assert_eq!((&proxy.node_port_addresses, proxy.sync_period), (&NodePortAddresses::Primary, Duration::from_secs(7)));
    insta::assert_snapshot!(proxy.notices.join("\n"), @r"
    mode: nftables is used instead of ipvs; node ports do not answer on loopback
    ipvs.scheduler (connections are spread at random): has no effect with nftables
    ipvs.excludeCIDRs (no virtual server is touched): has no effect with nftables
    ipvs.strictARP (no service address is put on an interface): has no effect with nftables
    ipvs.tcpTimeout, tcpFinTimeout and udpTimeout (see conntrack): has no effect with nftables
    ");
    let proxy = good(json!({"iptables": {"masqueradeAll": true, "masqueradeBit": 9}, "ipvs": {"strictARP": true}}));
    assert_eq!((proxy.masquerade_all, proxy.masquerade_bit), (true, 9), "without a mode both sections count");
    assert_eq!(proxy.notices, Vec::<String>::new());
}

#[test]
fn local_traffic() {
    let local = |document| good(document).local;
    assert_eq!(local(json!({"detectLocalMode": "ClusterCIDR"})), LocalTraffic::ClusterCidrs);
    assert_eq!(
        local(json!({"detectLocalMode": "NodeCIDR", "detectLocal": {"bridgeInterface": "cni0"}})),
        LocalTraffic::NodeCidrs
    );
    let bridge = json!({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}});
    assert_eq!(local(bridge), LocalTraffic::Bridge("cni0".parse().unwrap()));
    let prefix = json!({"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "veth"}});
    assert_eq!(local(prefix), LocalTraffic::InterfacePrefix("veth".parse().unwrap()));
    let ranges = good(json!({"detectLocal": {"clusterCIDRs": ["10.0.0.0/8", "fd00::/8"]}})).cluster_cidrs;
    assert_eq!(ranges.len(), 2);
    let problems = |document| read(document).1;
    assert_eq!(problems(json!({"detectLocalMode": "BridgeInterface"})), "detectLocalMode: needs detectLocal.bridgeInterface");
    assert_eq!(
        problems(json!({"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "a/b"}})),
        "detectLocal.interfaceNamePrefix: \"a/b\" is not the name of an interface\n\
         detectLocalMode: needs detectLocal.interfaceNamePrefix"
    );
}

#[test]
fn node_port_addresses() {
    use NodePortAddresses as Chosen;
    let ranges = |texts: &[&str]| Chosen::Within(texts.iter().map(|text| text.parse().unwrap()).collect());
    for (value, expected) in [
        (json!(null), Chosen::Primary),
        (json!([]), Chosen::Primary),
        (json!(["primary"]), Chosen::Primary),
        (json!(["10.0.0.0/8", "fd00::/8"]), ranges(&["10.0.0.0/8", "fd00::/8"])),
        (json!(["10.0.0.0/8"]), ranges(&["10.0.0.0/8", "::/0"])),
        (json!(["fd00::/8"]), ranges(&["fd00::/8", "0.0.0.0/0"])),
    ] {
        assert_eq!(good(json!({ "nodePortAddresses": value })).node_port_addresses, expected, "{value}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let (_, problems) = read(json!({
        "mode": "kernelspace", "clusterCIDR": "10.0.0.0/8,10.1.0.0/16", "nodePortAddresses": ["primary", "10.0.0.0/8"],
        "conntrack": {"min": -5, "max": 1, "udpTimeout": "-1s"}, "detectLocalMode": "Guess", "healthzBindAddress": "x",
        "metricsBindAddress": "127.0.0.1:0", "featureGates": {"A": true, "B": false}, "bindAddress": "here", "hostnameOverride": "n2",
        "clientConnection": {"qps": "5", "burst": -1, "x": 1}, "logging": {"format": "json", "vmodule": [{"filePattern": "a", "verbosity": 1}]},
        "oomScoreAdj": -2000, "enableProfiling": true, "windowsRunAsService": true, "showHiddenMetricsForVersion": "1.35",
        "nftables": {"masqueradeBit": 32, "syncPeriod": "often"}, "iptables": {"localhostNodePorts": "no"}, "ipvs": {"excludeCIDRs": ["a"]},
        "configSyncPeriod": 5, "nodePortAdresses": [],
    }));
    insta::assert_snapshot!(problems, @r#"
    mode: "kernelspace" is not a mode, expected nftables, iptables, ipvs or nothing
    bindAddress: "here" is not an IP address
    healthzBindAddress: "x" is not an address with an optional port
    metricsBindAddress: "127.0.0.1:0" is not an address with an optional port
    hostnameOverride: "n2" differs from the node's name "n1"
    clusterCIDR: "10.0.0.0/8,10.1.0.0/16" must hold at most one CIDR of each family
    detectLocalMode: "Guess" is not a mode, expected ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix or nothing
    nodePortAddresses[0]: "primary" is not a CIDR, nor primary by itself
    nftables.masqueradeBit: 32 must be between 0 and 31
    nftables.syncPeriod: duration "often" is not of the form 1h30m, 1.5s or 300ms
    iptables.localhostNodePorts: expected a boolean, found a string ("no")
    ipvs.excludeCIDRs[0]: "a" is not a CIDR
    conntrack.min: -5 must be between 0 and 2147483647
    conntrack.udpTimeout: duration "-1s" must not be negative
    conntrack.max: unknown field
    clientConnection.qps: expected a number, found "5"
    clientConnection.burst: -1 must be between 0 and 2147483647
    clientConnection.x: unknown field
    logging.format: logs are written as text
    logging.vmodule: files have no verbosity of their own here, leave it out
    oomScoreAdj: -2000 must be between -1000 and 1000
    featureGates.A: there are no feature gates here, leave it out
    featureGates.B: there are no feature gates here, leave it out
    enableProfiling: profiles are not served, leave it out
    windowsRunAsService: this is not Windows, leave it out
    showHiddenMetricsForVersion: there are no hidden metrics, of "1.35" or another version
    configSyncPeriod: expected a string, found a number (5)
    nodePortAdresses: unknown field
    "#);
}
