use super::args::Args;
use super::fields::Problem;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::ffi::OsString;

fn kubelet(mut document: Value) -> (Config, Vec<Problem>) {
    document["apiVersion"] = json!("kubelet.config.k8s.io/v1beta1");
    document["kind"] = json!("KubeletConfiguration");
    let (mut config, mut problems) = (Config::default(), Vec::new());
    kubelet::apply(&mut config, document, &mut problems);
    (config, problems)
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn args(words: &[&str]) -> Result<Args, clap::Error> {
    Args::read(std::iter::once("ferrolet").chain(words.iter().copied()).map(OsString::from))
}

#[test]
fn flags_take_both_spellings() {
    for words in [
        &["--node-ip", "10.0.0.1", "-v", "4", "--root-dir", "/r"][..],
        &["--node-ip=10.0.0.1", "-v=4", "--root-dir=/r"],
        &["--node_ip=10.0.0.1", "--v=4", "--root_dir", "/r"],
    ] {
        let args = args(words).unwrap();
        assert_eq!((args.node_ip.as_deref(), args.v), (Some("10.0.0.1"), 4), "{words:?}");
        assert_eq!(args.root_dir.unwrap().to_str(), Some("/r"));
    }
    assert!(args(&["--no-such-flag=1"]).unwrap_err().to_string().contains("--no-such-flag"));
}

#[test]
fn an_empty_document_gives_the_defaults() {
    let (config, problems) = kubelet(json!({}));
    assert_eq!(texts(&problems), Vec::<String>::new());
    assert_eq!(config.server.port, 10250);
    assert_eq!(config.max_pods, 110);
    assert_eq!(config.node.eviction_hard["nodefs.available"], Threshold::MilliPercent(10_000));
    assert_eq!(config.max_parallel_image_pulls, 1);
}

#[test]
fn honoured_fields_are_read() {
    let (config, problems) = kubelet(json!({
        "port": 10350, "address": "192.168.77.11", "healthzPort": 0, "maxPods": 40,
        "authentication": {"x509": {"clientCAFile": "/ca"}, "webhook": {"enabled": false, "cacheTTL": "0s"}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow", "webhook": {"cacheUnauthorizedTTL": "1.5s"}},
        "clusterDNS": ["10.96.0.10", "fd00::a"], "clusterDomain": "cluster.local", "cgroupDriver": "systemd",
        "nodeStatusUpdateFrequency": "4s", "nodeLeaseDurationSeconds": 12,
        "systemReserved": {"cpu": "100m", "memory": "64Mi"}, "kubeReserved": {"cpu": "0.15"},
        "evictionHard": {"memory.available": "5%", "nodefs.available": "1Gi"},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1m30s"}, "maxParallelImagePulls": 4,
        "registerWithTaints": [{"key": "a", "effect": "NoSchedule"}], "failSwapOn": false,
        "containerLogMaxSize": "1.5Mi", "logging": {"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}, "verbosity": 0},
    }));
    assert_eq!(texts(&problems), Vec::<String>::new());
    assert_eq!((config.server.port, config.server.healthz), (10350, None));
    assert_eq!(config.authentication.client_ca_file.unwrap().to_str(), Some("/ca"));
    assert!(!config.authentication.webhook);
    assert_eq!(config.authentication.webhook_cache_ttl, Duration::from_secs(120));
    assert_eq!(config.authorization.unauthorized_ttl, Duration::from_millis(1500));
    assert_eq!(config.cluster_dns.len(), 2);
    assert_eq!(config.cgroup_driver, CgroupDriver::Systemd);
    assert_eq!(config.node.status_report_frequency, Duration::from_secs(4), "follows an explicit update frequency");
    assert_eq!(config.node.reserved.of("cpu").milli(), 250);
    assert_eq!(config.node.eviction_hard.len(), 2, "an explicit map drops the defaults");
    assert_eq!(config.max_container_restart_period, Duration::from_secs(90));
    assert_eq!(config.max_parallel_image_pulls, 4);
    assert_eq!(config.node.taints[0].key, "a");
    assert_eq!(config.upkeep.container_log_max_size, 3 << 19);
}

#[test]
fn limits_of_processes_and_cpu_are_honoured() {
    let (config, problems) = kubelet(json!({"podPidsLimit": 512, "cpuCFSQuota": false, "cpuCFSQuotaPeriod": "20ms"}));
    assert_eq!(texts(&problems), Vec::<String>::new());
    assert_eq!((config.pod_pids_limit, config.cpu_cfs_quota), (Some(512), false));
    assert_eq!(config.cpu_cfs_quota_period, Duration::from_millis(20));
    let node = crate::daemon::node_cgroups(&config);
    assert_eq!((node.pod_pids_limit, node.cpu_cfs_quota, node.cpu_cfs_period_us), (Some(512), false, 20_000));
    let (config, problems) = kubelet(json!({"podPidsLimit": -1, "cpuCFSQuotaPeriod": "2s"}));
    assert_eq!(config.pod_pids_limit, None);
    assert_eq!(texts(&problems), ["cpuCFSQuotaPeriod: 2s must be between 1ms and 1s"]);
}

#[test]
fn what_keeps_pods_apart() {
    let (config, problems) =
        kubelet(json!({"seccompDefault": true, "allowedUnsafeSysctls": ["kernel.msg*", "net/core/somaxconn"],
        "userNamespaces": {"idsPerPod": 131_072}}));
    assert_eq!(texts(&problems), Vec::<String>::new());
    assert!(config.seccomp_default);
    assert_eq!(config.allowed_unsafe_sysctls, ["kernel.msg*", "net/core/somaxconn"]);
    assert_eq!(config.ids_per_pod, 131_072);
    let (plain, _) = kubelet(json!({}));
    assert_eq!((plain.seccomp_default, plain.ids_per_pod), (false, 65_536));
    for (document, path) in [
        (json!({"allowedUnsafeSysctls": ["net.core.somaxconn", "vm.swappiness"]}), "allowedUnsafeSysctls[1]"),
        (json!({"userNamespaces": {"idsPerPod": 65_535}}), "userNamespaces.idsPerPod"),
        (json!({"userNamespaces": {"idsPerPod": 65_537}}), "userNamespaces.idsPerPod"),
        (json!({"userNamespaces": {"idsPerPod": 1_u64 << 32}}), "userNamespaces.idsPerPod"),
    ] {
        let (_, problems) = kubelet(document.clone());
        assert!(texts(&problems).len() == 1 && texts(&problems)[0].starts_with(path), "{document}: {problems:?}");
    }
    let given =
        args(&["--allowed-unsafe-sysctls=kernel.msg*,net.*", "--allowed_unsafe_sysctls", "kernel.sem", "--seccomp-default"]);
    let given = given.unwrap();
    assert_eq!(given.allowed_unsafe_sysctls, ["kernel.msg*", "net.*", "kernel.sem"]);
    assert_eq!(given.seccomp_default, Some(true));
    let off = args(&["--seccomp-default=false"]).unwrap();
    assert_eq!((off.seccomp_default, off.allowed_unsafe_sysctls.len()), (Some(false), 0));
    let common = Args { hostname_override: Some("n".into()), node_ip: Some("10.0.0.1".into()), ..Args::default() };
    let config =
        load(&Args { allowed_unsafe_sysctls: given.allowed_unsafe_sysctls, seccomp_default: Some(true), ..common.clone() });
    let config = config.unwrap();
    assert!(config.seccomp_default && config.allowed_unsafe_sysctls.len() == 3);
    let error = load(&Args { allowed_unsafe_sysctls: vec!["vm.*".into()], ..common }).unwrap_err().to_string();
    assert_eq!(error, "flag --allowed-unsafe-sysctls: the sysctls \"vm.\" are not known to be namespaced");
}

#[test]
fn what_has_no_effect_yet_is_listed() {
    let (config, problems) = kubelet(json!({
        "evictionHard": {"memory.available": "5%"}, "imageGCHighThresholdPercent": 90, "containerLogMaxSize": "1Mi",
        "imageMinimumGCAge": "0s", "failSwapOn": false, "containerLogMaxFiles": null,
    }));
    assert_eq!(texts(&problems), Vec::<String>::new());
    let listed: Vec<&str> = config.no_effect.iter().map(String::as_str).collect();
    assert_eq!(listed, ["containerLogMaxSize", "evictionHard", "imageGCHighThresholdPercent"]);
    assert!(kubelet(json!({})).0.no_effect.is_empty());
}

#[test]
fn every_problem_is_named_with_its_path() {
    let (_, problems) = kubelet(json!({
        "prot": 1, "port": "10250", "healthzPort": 70000, "maxPods": -1, "clusterDNS": ["10.96.0.10", "dns"],
        "authentication": {"x509": {"clientCaFile": "/ca"}, "anonymous": {"enabled": true}},
        "nodeStatusUpdateFrequency": "10 s", "runtimeRequestTimeout": 5, "systemReserved": {"cpu": "lots", "disk": "1"},
        "evictionHard": {"memory.free": "1Gi", "nodefs.available": "110%"}, "staticPodURL": "ftp://h", "staticPodURLHeader": {"a b": ["c"]},
        "featureGates": {"A": true}, "registerWithTaints": [{"key": "a", "effect": "Never"}],
        "crashLoopBackOff": {"maxContainerRestartPeriod": "0.5s"}, "serializeImagePulls": true, "maxParallelImagePulls": 2,
        "cpuManagerPolicy": "static", "cpuManagerReconcilePeriod": "0s", "enableServer": "yes",
    }));
    insta::assert_snapshot!(texts(&problems).join("\n"), @r###"
enableServer: expected a boolean, found a string ("yes")
port: expected an integer, found a string ("10250")
healthzPort: 70000 must be between 0 and 65535
authentication.x509.clientCaFile: unknown field
authentication.anonymous.enabled: not yet supported (value true), leave it out
nodeStatusUpdateFrequency: duration "10 s" has an unknown unit " s", expected h, m, s, ms, us or ns
maxPods: -1 must be between 0 and 2147483647
registerWithTaints[0].effect: must be one of NoSchedule, PreferNoSchedule, NoExecute
systemReserved.cpu: quantity "lots" has no digits
systemReserved.disk: cannot be reserved, expected cpu, memory, ephemeral-storage or pid
evictionHard.memory.free: unknown eviction signal, expected one of memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, containerfs.available, containerfs.inodesFree, pid.available
evictionHard.nodefs.available: "110%" must be between 0% and 100%
runtimeRequestTimeout: expected a string, found a number (5)
clusterDNS[1]: "dns" is not an IP address
crashLoopBackOff.maxContainerRestartPeriod: 500ms must be between 1s and 300s
maxParallelImagePulls: cannot be larger than 1 unless serializeImagePulls is false
staticPodURL: "ftp://h" is not an http or https url
staticPodURLHeader.a b: is not the name of a header
cpuManagerPolicy: not yet supported (value "static"), leave it out
featureGates: not yet supported (value {"A":true}), leave it out
prot: unknown field
"###);
}

#[test]
fn the_document_must_say_what_it_is() {
    let (mut config, mut problems) = (Config::default(), Vec::new());
    kubelet::apply(&mut config, json!({"kind": "KubeProxyConfiguration"}), &mut problems);
    assert_eq!(
        texts(&problems),
        [
            "apiVersion: missing, expected \"kubelet.config.k8s.io/v1beta1\"",
            "kind: expected \"KubeletConfiguration\", found \"KubeProxyConfiguration\"",
        ]
    );
    problems.clear();
    kubelet::apply(&mut config, json!([1]), &mut problems);
    assert_eq!(problems[0].to_string(), "(document): expected an object, found a list ([1])");
}

#[test]
fn duplicate_keys_and_bad_syntax_are_errors() {
    assert!(load::document("a: 1\na: 2\n").unwrap_err().to_string().contains("duplicate"));
    assert!(load::document("a: [1\n").is_err());
    assert_eq!(load::document("").unwrap(), Value::Null);
    assert_eq!(load::document("{\"a\": 1}").unwrap(), json!({"a": 1}));
}

#[test]
fn loading_names_file_and_flag() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubelet.yaml");
    std::fs::write(&file, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nport: 1\nwhat: 2\n").unwrap();
    let file = file.to_str().unwrap();
    let base = ["--kubeconfig=/k", "--hostname-override=Node-1", "--node-ip=10.0.0.1,fd00::1", "--root-dir=/r"];
    let error = load(&args(&[&base[..], &["--config", file]].concat()).unwrap()).unwrap_err().to_string();
    assert_eq!(error, format!("--config {file} has 1 problem(s): what: unknown field"));
    let error = load(&args(&[&base[..], &["--config", "/nonexistent"]].concat()).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "cannot read --config /nonexistent");
    let config = load(&args(&base).unwrap()).unwrap();
    assert_eq!(config.node_name, "node-1");
    assert_eq!(config.node_ips.len(), 2);
    assert_eq!(config.server.cert_dir.to_str(), Some("/r/pki"));
    for (bad, text) in [
        ("--node-ip=10.0.0.1,10.0.0.2", "flag --node-ip: \"10.0.0.1,10.0.0.2\" must hold at most one address of each family"),
        ("--hostname-override=a_b", "flag --hostname-override: \"a_b\" is not a DNS name in lower case"),
        (
            "--container-runtime-endpoint=tcp://x",
            "flag --container-runtime-endpoint: \"tcp://x\" must be of the form unix:///path/to/socket",
        ),
        ("--node-labels=a", "flag --node-labels: \"a\" is not key=value"),
    ] {
        let error = match args(&["--kubeconfig=/k", bad]) {
            Ok(args) => load(&args).unwrap_err().to_string(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(error, text);
    }
}

#[test]
fn without_an_api_server_nobody_is_asked_who_may_what() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubelet.json");
    let load_with = |flags: &[&str], mut document: Value| {
        document["apiVersion"] = json!("kubelet.config.k8s.io/v1beta1");
        document["kind"] = json!("KubeletConfiguration");
        std::fs::write(&file, document.to_string()).unwrap();
        let all = [&["--hostname-override=n", "--node-ip=10.0.0.1", "--config", file.to_str().unwrap()][..], flags].concat();
        load(&args(&all).unwrap()).map_err(|error| error.to_string())
    };
    for flags in [&["--standalone"][..], &[], &["--kubeconfig="]] {
        let config = load_with(flags, json!({})).unwrap();
        assert_eq!((config.kubeconfig, config.authentication.webhook), (None, false), "{flags:?}");
    }
    let config = load_with(&["--kubeconfig=/k"], json!({})).unwrap();
    assert_eq!((config.kubeconfig, config.authentication.webhook), (Some("/k".into()), true));
    let error = load_with(&["--kubeconfig=/k", "--standalone"], json!({})).unwrap_err();
    assert_eq!(error, "flag --standalone: cannot be given together with --kubeconfig");
    let error = load_with(&[], json!({"authentication": {"webhook": {"enabled": true}}})).unwrap_err();
    assert!(error.ends_with("authentication.webhook.enabled: no client provided, cannot use webhook authentication"), "{error}");
    let ca = json!({"x509": {"clientCAFile": "/ca"}});
    let error = load_with(&[], json!({"authentication": ca})).unwrap_err();
    assert!(error.contains("authorization.mode: no client provided, cannot use webhook authorization"), "{error}");
    let allowed = json!({"authentication": ca, "authorization": {"mode": "AlwaysAllow"}});
    assert!(load_with(&["--standalone"], allowed).is_ok());
}

#[test]
fn default_routes() {
    let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
              eth1\t00000000\t0101\t3\t0\t0\t200\t00000000\n\
              eth0\t00000000\t0101\t3\t0\t0\t100\t00000000\n\
              eth0\t0001A8C0\t0\t1\t0\t0\t0\t00FFFFFF\n";
    assert_eq!(hostinfo::default_v4(v4).as_deref(), Some("eth0"));
    let zero = "0".repeat(32);
    let v6 = format!(
        "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
         {zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003     eth2\n"
    );
    assert_eq!(hostinfo::default_v6(&v6).as_deref(), Some("eth2"));
    assert_eq!(hostinfo::default_v4("").as_deref(), None);
}

#[test]
fn durations() {
    for (text, nanos) in [
        ("0", 0i64),
        ("1h30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("300ms", 300_000_000),
        ("-1m", -60_000_000_000),
        ("1us1ns", 1001),
        ("2562047h47m16.854775807s", i64::MAX),
        ("0.3333333333333333333333s", 333_333_333),
    ] {
        assert_eq!(duration::parse_nanos(text), Ok(nanos), "{text}");
    }
    for text in
        ["", "1", "s", "1.s.", "1x", "10 s", "1e3s", "2562047h47m16.854775808s", "99999999999999999999999999999999999h", "+"]
    {
        assert!(duration::parse_nanos(text).is_err(), "{text}");
    }
    assert_eq!(duration::parse("-1s"), Err(duration::DurationError::Negative("-1s".into())));
}

proptest! {
    #[test]
    fn durations_are_exact(h in 0u64..2_000_000, m in 0u64..60, s in 0u64..60, ns in 0u64..1_000_000_000) {
        let text = format!("{h}h{m}m{s}.{ns:09}s");
        prop_assert_eq!(duration::parse_nanos(&text), Ok(((h * 3600 + m * 60 + s) * 1_000_000_000 + ns) as i64));
    }

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let _ = duration::parse_nanos(&text);
        let _ = load::node_ips(&text);
        if let Ok(document) = load::document(&text) {
            let mut problems = Vec::new();
            kubelet::apply(&mut Config::default(), document.clone(), &mut problems);
            proxy::apply(&mut Config::default(), document, &mut problems);
        }
    }

    #[test]
    fn any_value_in_any_field_is_taken_or_named(
        name in prop::sample::select(vec!["port", "evictionHard", "authentication", "registerWithTaints", "clusterDNS", "logging", "tlsCertFile", "x"]),
        value in prop_oneof![Just(json!(1)), Just(json!("a")), Just(json!([1])), Just(json!({"a": 1})), Just(json!(true)), Just(json!(null))],
    ) {
        let (_, problems) = kubelet(json!({ name: value }));
        for problem in problems {
            prop_assert!(problem.path.starts_with(name) || problem.path == "tlsPrivateKeyFile", "{}", problem);
        }
    }
}

#[test]
fn static_pods_by_file_and_by_flag() {
    let (config, problems) = kubelet(json!({
        "staticPodPath": "/etc/kubernetes/manifests", "staticPodURL": "https://h/pods", "fileCheckFrequency": "5s", "httpCheckFrequency": "0s",
        "staticPodURLHeader": {"X-A": ["1", "2"]},
    }));
    assert_eq!(texts(&problems), Vec::<String>::new());
    let mut statics = config.static_pods;
    assert_eq!(statics.path.as_deref(), Some(std::path::Path::new("/etc/kubernetes/manifests")));
    assert_eq!(statics.url.as_deref(), Some("https://h/pods"));
    assert_eq!((statics.file_check, statics.http_check), (Duration::from_secs(5), Duration::from_secs(20)));
    assert_eq!(statics.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);

    let flags = [
        "--pod-manifest-path=/m",
        "--manifest-url=http://h",
        "--manifest-url-header",
        "a:hello,b:again",
        "--manifest-url-header=a:you",
        "--file-check-frequency=1s",
        "--http-check-frequency=2s",
    ];
    statics::flags(&mut statics, &args(&flags).unwrap()).unwrap();
    assert_eq!(statics.path.as_deref(), Some(std::path::Path::new("/m")));
    assert_eq!(statics.url.as_deref(), Some("http://h"));
    assert_eq!((statics.file_check, statics.http_check), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!(statics.headers.get_all("a").iter().collect::<Vec<_>>(), ["hello", "you"]);
    assert_eq!(statics.headers.len(), 3);
    for (flag, name) in [
        ("--manifest-url=h", "manifest-url"),
        ("--manifest-url-header=a", "manifest-url-header"),
        ("--file-check-frequency=often", "file-check-frequency"),
    ] {
        assert_eq!(statics::flags(&mut statics, &args(&[flag]).unwrap()).unwrap_err().0, name);
    }
    // A relative path in the file begins at the file.
    statics.path = Some("m".into());
    statics::anchor(&mut statics, Some(std::path::Path::new("/etc/k/config.yaml")));
    assert_eq!(statics.path.as_deref(), Some(std::path::Path::new("/etc/k/m")));
}

#[test]
fn who_may_use_pulled_images() {
    use crate::images::policy::{Allowlist, Policy};
    let policy = |document: serde_json::Value| {
        let (config, problems) = kubelet(document);
        (config.image_policy, texts(&problems))
    };
    let list = vec!["reg.local/team/*".to_owned(), "reg.local/one".to_owned()];
    for (document, expected) in [
        (json!({}), Policy::Preloaded),
        (json!({"imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages"}), Policy::Preloaded),
        (json!({"imagePullCredentialsVerificationPolicy": "NeverVerify"}), Policy::Never),
        (
            json!({"imagePullCredentialsVerificationPolicy": "AlwaysVerify", "preloadedImagesVerificationAllowlist": []}),
            Policy::Always,
        ),
        (
            json!({"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": list}),
            Policy::Allowlisted(Allowlist::parse(&list).unwrap()),
        ),
    ] {
        assert_eq!(policy(document), (expected, Vec::new()));
    }
    for (document, expected) in [
        (
            json!({"imagePullCredentialsVerificationPolicy": "Sometimes"}),
            "imagePullCredentialsVerificationPolicy: \"Sometimes\" must be NeverVerify, NeverVerifyPreloadedImages, \
             NeverVerifyAllowlistedImages or AlwaysVerify",
        ),
        (
            json!({"preloadedImagesVerificationAllowlist": ["a"]}),
            "preloadedImagesVerificationAllowlist: can only be set if imagePullCredentialsVerificationPolicy is \
             \"NeverVerifyAllowlistedImages\"",
        ),
        (
            json!({"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": ["a:1"]}),
            "preloadedImagesVerificationAllowlist: neither tag nor digest is accepted in an image reference: a:1",
        ),
    ] {
        assert_eq!(policy(document).1, [expected]);
    }
}

#[test]
fn memory_of_containers_is_shaped_by_the_configuration() {
    let (config, problems) = kubelet(json!({"singleProcessOOMKill": false, "memorySwap": {"swapBehavior": "LimitedSwap"},
        "memoryThrottlingFactor": 0.8, "memoryReservationPolicy": "TieredReservation", "featureGates": {"MemoryQoS": true}}));
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((config.single_process_oom_kill, config.memory_qos), (Some(false), Some((0.8, true))));
    assert_eq!(config.swap, crate::cgroup::SwapBehavior::LimitedSwap);
    let (_, problems) = kubelet(json!({"memorySwap": {"swapBehavior": "Unlimited"}, "memoryThrottlingFactor": 2,
        "memoryReservationPolicy": "TieredReservation", "featureGates": {"MemoryQoS": "yes"}}));
    let wanted = [
        "featureGates.MemoryQoS: expected a boolean, found a string (\"yes\")",
        "memoryReservationPolicy: needs the feature gate MemoryQoS",
        "memorySwap.swapBehavior: \"Unlimited\" must be NoSwap or LimitedSwap",
        "memoryThrottlingFactor: 2 must be greater than 0 and at most 1",
    ];
    let mut found = texts(&problems);
    found.sort();
    assert_eq!(found, wanted);
}
