use super::*;

fn shown(settings: &[Setting]) -> String {
    let line = |s: &Setting| format!("{} {} {:?}", s.path.display(), s.value, s.rule);
    settings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_defaults_are_those_of_kube_proxy() {
    insta::assert_snapshot!(shown(&plan(&Conntrack::default(), 16, true)), @r"
    proc/sys/net/ipv4/ip_forward 1 Is
    proc/sys/net/ipv6/conf/all/forwarding 1 Wanted
    proc/sys/net/bridge/bridge-nf-call-iptables 1 IsIfThere
    proc/sys/net/bridge/bridge-nf-call-ip6tables 1 IsIfThere
    proc/sys/net/netfilter/nf_conntrack_max 524288 AtLeast
    sys/module/nf_conntrack/parameters/hashsize 131072 AtLeastWithLast
    proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established 86400 Is
    proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait 3600 Is
    ");
}

#[test]
fn the_limit_of_connections() {
    let most = |max_per_core, min, cores| most_connections(&Conntrack { max_per_core, min, ..Conntrack::default() }, cores);
    assert_eq!(most(32_768, 131_072, 2), Some(131_072), "the minimum");
    assert_eq!(most(32_768, 131_072, 8), Some(262_144));
    assert_eq!(most(32_768, 131_072, 1000), Some(1_048_576), "capped");
    assert_eq!(most(32_768, 2_000_000, 2), Some(2_000_000), "a minimum is not");
    assert_eq!(most(0, 131_072, 8), None, "as it is, whatever the minimum");
}

#[test]
fn what_is_zero_is_left_alone_and_the_rest_is_asked_for() {
    let conntrack = Conntrack {
        max_per_core: 0,
        tcp_established_timeout: Duration::ZERO,
        tcp_close_wait_timeout: Duration::ZERO,
        tcp_be_liberal: true,
        udp_timeout: Duration::from_secs(30),
        udp_stream_timeout: Duration::from_millis(60_500),
        ..Conntrack::default()
    };
    insta::assert_snapshot!(shown(&plan(&conntrack, 2, false)), @r"
    proc/sys/net/ipv4/ip_forward 1 Is
    proc/sys/net/bridge/bridge-nf-call-iptables 1 IsIfThere
    proc/sys/net/netfilter/nf_conntrack_udp_timeout 30 Is
    proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream 60 Is
    proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal 1 Is
    ");
}

#[test]
fn only_what_differs_is_written() {
    let root = tempfile::tempdir().unwrap();
    let setting = |path: &str, value, rule| Setting { path: path.into(), value, rule };
    let there =
        [("same", "1\n"), ("other", "0\n"), ("larger", "500\n"), ("smaller", "5\n"), ("small", "5\n"), ("words", "many\n")];
    for (name, text) in there {
        std::fs::write(root.path().join(name), text).unwrap();
    }
    std::fs::create_dir(root.path().join("folder")).unwrap();
    let settings = [
        setting("same", 1, Rule::Is),
        setting("other", 1, Rule::Is),
        setting("larger", 100, Rule::AtLeast),
        setting("smaller", 100, Rule::AtLeast),
        setting("words", 3, Rule::IsIfThere),
        setting("missing", 1, Rule::Is),
        setting("not-needed", 1, Rule::IsIfThere),
        setting("folder", 1, Rule::Is),
        setting("small", 9, Rule::AtLeastWithLast),
        setting("small", 9, Rule::AtLeastWithLast),
        setting("larger", 1, Rule::Wanted),
        setting("same", 1, Rule::Wanted),
    ];
    let outcomes: Vec<String> = apply(root.path(), &settings)
        .iter()
        .map(|outcome| match outcome {
            Outcome::Refused(error) => format!("refused {:?}", error.kind()),
            other => format!("{other:?}"),
        })
        .collect();
    insta::assert_snapshot!(outcomes.join("\n"), @r"
    Kept
    Written { before: Some(0) }
    Kept
    Written { before: Some(5) }
    Written { before: None }
    refused NotFound
    Kept
    refused IsADirectory
    Kept
    Written { before: Some(5) }
    Differs
    Kept
    ");
    let now = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!((now("same"), now("larger")), ("1\n".into(), "500\n".into()), "not touched");
    assert!(now("other").starts_with('1') && now("smaller").starts_with("100"));
    assert!(!root.path().join("missing").exists());
}

#[test]
fn cores_of_the_machine() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/devices/system/cpu");
    std::fs::create_dir_all(&folder).unwrap();
    for (text, cores) in [("0-7\n", Some(8)), ("0\n", Some(1)), ("0-1,4,6-7\n", Some(5)), ("\n", None), ("7-0\n", None)] {
        std::fs::write(folder.join("online"), text).unwrap();
        assert_eq!(online_cores(root.path()), cores, "{text:?}");
    }
}
