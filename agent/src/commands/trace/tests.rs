use super::*;
use ferrolet_netproxy::Key;
use ferrolet_netproxy::proxy::explain::Unused;
use ferrolet_netproxy::ruleset::Backend;
use ferrolet_netproxy::trace::Verdict;

fn ask(from: &str, to: &str, interface: Option<&str>) -> Ask {
    Ask { from: from.into(), to: to.into(), interface: interface.map(str::to_owned) }
}

#[test]
fn packets_are_read_from_text() {
    let packet = ask("10.0.0.1", "10.96.0.1:53/UDP", Some("eth0")).packet().unwrap();
    assert_eq!((packet.dst_port, packet.proto, packet.from_interface.as_deref()), (53, Proto::Udp, Some("eth0")));
    let packet = ask("fd00::1", "[fd00::2]:443", None).packet().unwrap();
    assert_eq!((packet.dst, packet.proto), ("fd00::2".parse().unwrap(), Proto::Tcp));
    let packet = ask("::ffff:10.0.0.1", "10.0.0.2:5000/sctp", None).packet().unwrap();
    assert_eq!((packet.src, packet.proto), ("10.0.0.1".parse().unwrap(), Proto::Sctp));
}

#[test]
fn what_is_no_packet_is_named() {
    let cases = [
        ("10.0.0", "10.96.0.1:80/tcp", None),
        ("10.0.0.1", "10.96.0.1:80/icmp", None),
        ("10.0.0.1", "10.96.0.1/tcp", None),
        ("10.0.0.1", "10.96.0.1:70000/tcp", None),
        ("10.0.0.1", "web.default:80/tcp", None),
        ("10.0.0.1", "10.96.0.1:0/tcp", None),
        ("10.0.0.1", "[fd00::2]:80/tcp", None),
        ("10.0.0.1", "10.96.0.1:80/tcp", Some("much-too-long-for-one")),
    ];
    let texts: Vec<String> = cases.iter().map(|(f, t, i)| ask(f, t, *i).packet().unwrap_err().to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    --from: "10.0.0" is not an IP address
    --to: "10.96.0.1:80/icmp" is not of the form IP:PORT/tcp, /udp or /sctp, with an IPv6 address in brackets
    --to: "10.96.0.1/tcp" is not of the form IP:PORT/tcp, /udp or /sctp, with an IPv6 address in brackets
    --to: "10.96.0.1:70000/tcp" is not of the form IP:PORT/tcp, /udp or /sctp, with an IPv6 address in brackets
    --to: "web.default:80/tcp" is not of the form IP:PORT/tcp, /udp or /sctp, with an IPv6 address in brackets
    --to: port 0 cannot be reached
    --from 10.0.0.1 and --to fd00::2 are not of one address family
    --interface: "much-too-long-for-one" is not the name of an interface
    "#);
}

fn explained() -> Explained {
    let ip = [10, 96, 0, 1].into();
    let front = Front::ClusterIp { ip, proto: Proto::Tcp, port: 80 };
    let to = |n: u8| Backend { ip: [10, 244, 0, n].into(), port: 8080 };
    let outcome = Outcome::Forward { front, to: to(2), masquerade: false };
    Explained {
        verdict: Verdict { outcome, service: Some(Key::new("shop", "web")), why: "cluster IP of a service" },
        endpoints: vec![(to(2), false), (to(13), true)],
        unused: vec![Unused { ip: [10, 244, 0, 9].into(), why: "not ready" }],
        chain: Some("service-pick-2-for-10800s".into()),
        affinity: Some(10_800),
        set_aside: None,
    }
}

#[test]
fn a_forwarded_packet_reads_well() {
    let report = Report::new(&ask("10.244.0.13", "10.96.0.1:80/tcp", Some("veth1")), explained(), false);
    insta::assert_snapshot!(report.text(), @r"
    packet     10.244.0.13 -> 10.96.0.1:80/tcp by veth1
    verdict    forwarded: cluster IP of a service
    service    shop/web
    frontend   cluster IP 10.96.0.1:80/tcp
    chain      service-pick-2-for-10800s
    affinity   a client stays with its endpoint until it is silent for 10800 s
    endpoints  10.244.0.2:8080   50.0 % of new connections, source kept
               10.244.0.13:8080  50.0 % of new connections, source masqueraded
    not used   10.244.0.9  not ready
               the daemon has not programmed all services yet
    ");
}

#[test]
fn a_report_crosses_the_socket_unchanged() {
    let report = Report::new(&ask("10.244.0.13", "10.96.0.1:80/tcp", None), explained(), true);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    let printed: serde_json::Value = serde_json::from_str(&json(&report, "nobody")).unwrap();
    assert_eq!(printed["answerOf"], "nobody");
    assert_eq!(printed["endpoints"][1]["source"], "masqueraded");
}

#[test]
fn what_is_not_forwarded_has_no_endpoints() {
    for (outcome, word) in [(Outcome::Reject, "rejected"), (Outcome::Drop, "dropped"), (Outcome::Pass, "passed")] {
        let verdict = Verdict { outcome, service: None, why: "because" };
        let explained =
            Explained { verdict, endpoints: Vec::new(), unused: Vec::new(), chain: None, affinity: None, set_aside: None };
        let text = Report::new(&ask("10.0.0.1", "10.0.0.2:1/tcp", None), explained, true).text();
        assert_eq!(text, format!("packet     10.0.0.1 -> 10.0.0.2:1/tcp\nverdict    {word}: because\n"));
    }
}
