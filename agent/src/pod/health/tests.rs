use super::*;
use crate::pod::Desired;
use crate::pod::lifecycle::Why;
use crate::pod::observed;
use crate::pod::testing::{desired, instance, t};
use serde_json::{Value, json};
use std::sync::Arc;

const IP: Option<&str> = Some("10.0.0.7");

fn running(names: &[&str]) -> Observed {
    let containers = names.iter().map(|n| instance(n, observed::State::Running)).collect();
    Observed { containers, ..Observed::default() }
}

fn main_with(more: Value) -> Desired {
    let mut main = json!({"name": "main", "image": "img:1"});
    for (key, value) in more.as_object().unwrap() {
        main[key] = value.clone();
    }
    desired(json!({"containers": [main]}))
}

fn probes_of(d: &Desired, ip: Option<&str>) -> Vec<Probe> {
    probes(d, &Lifecycle::Active, &running(&["main", "side"]), ip, &Periods::of(d))
}

fn check_of(probe: Value, more: Value) -> Check {
    let mut all = more;
    all["readinessProbe"] = probe;
    probes_of(&main_with(all), IP).remove(0).spec.check
}

#[test]
fn every_field_and_its_default() {
    let plain = probes_of(&main_with(json!({"livenessProbe": {"tcpSocket": {"port": 80}}})), IP).remove(0);
    let seconds = Duration::from_secs;
    let spec = Spec {
        check: Check::Tcp { host: "10.0.0.7".into(), port: 80 },
        initial_delay: Duration::ZERO,
        period: seconds(10),
        timeout: seconds(1),
        success_threshold: 1,
        failure_threshold: 3,
    };
    assert_eq!(plain.spec, spec);
    assert_eq!((plain.container.as_str(), plain.container_id.as_str(), plain.kind), ("main", "main-0", Kind::Liveness));
    let full = json!({"readinessProbe": {"grpc": {"port": 9000, "service": "s"}, "initialDelaySeconds": 2, "periodSeconds": 3,
        "timeoutSeconds": 4, "successThreshold": 5, "failureThreshold": 6}});
    let spec = Spec {
        check: Check::Grpc { host: "10.0.0.7".into(), port: 9000, service: "s".into() },
        initial_delay: seconds(2),
        period: seconds(3),
        timeout: seconds(4),
        success_threshold: 5,
        failure_threshold: 6,
    };
    assert_eq!(probes_of(&main_with(full), IP).remove(0).spec, spec);
}

#[test]
fn ports_have_names_and_hosts_defaults() {
    let ports = json!({"ports": [{"name": "web", "containerPort": 8080}]});
    let tcp = |port: Value| check_of(json!({"tcpSocket": {"port": port}}), ports.clone());
    let at = |port| Check::Tcp { host: "10.0.0.7".into(), port };
    assert_eq!(tcp(json!("web")), at(8080));
    assert_eq!(tcp(json!("9090")), at(9090));
    for (port, why) in [
        (json!("other"), "tcpSocket.port: container \"main\" has no port named \"other\""),
        (json!(70_000), "tcpSocket.port: 70000 must be between 1 and 65535"),
    ] {
        assert_eq!(tcp(port), Check::Impossible { why: why.into() });
    }
    let http = json!({"httpGet": {"port": "web", "scheme": "HTTPS", "host": "other", "path": "/p",
        "httpHeaders": [{"name": "A", "value": "b"}]}});
    let (path, headers) = ("/p".into(), vec![("A".into(), "b".into())]);
    let wanted = Check::Http { host: "other".into(), port: 8080, path, scheme: Scheme::Https, headers };
    assert_eq!(check_of(http.clone(), ports.clone()), wanted);
    // Without an address only what names its own host can be asked.
    let mut both = ports;
    both["readinessProbe"] = http;
    both["livenessProbe"] = json!({"tcpSocket": {"port": 80}});
    let all: Vec<Check> = probes_of(&main_with(both), None).into_iter().map(|p| p.spec.check).collect();
    assert_eq!(all, [wanted, Check::Impossible { why: "the pod has no address".into() }]);
}

#[test]
fn commands_are_expanded_by_what_the_definition_writes() {
    let env = json!({"env": [{"name": "A", "value": "old"}, {"name": "A", "value": "$(B)"},
        {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
    let check = check_of(json!({"exec": {"command": ["x=$(A)", "[$(F)]", "$(NONE) $$(A)"]}}), env);
    assert_eq!(check, Check::Exec { command: ["x=$(B)", "[]", "$(NONE) $(A)"].map(String::from).to_vec() });
}

fn all_three() -> Value {
    let tcp = json!({"tcpSocket": {"port": 80}});
    json!({"startupProbe": tcp, "readinessProbe": tcp, "livenessProbe": tcp})
}

#[test]
fn of_an_ending_pod_only_readiness_is_asked_sidecars_too() {
    let side = json!({"name": "side", "image": "i", "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 1}},
        "readinessProbe": {"tcpSocket": {"port": 1}}});
    let mut main = all_three();
    main["name"] = json!("main");
    let init = json!({"name": "init", "image": "i"});
    let d = desired(json!({"initContainers": [init, side], "containers": [main]}));
    let why = Why::Deleted;
    let kinds = |life: &Lifecycle| -> Vec<(String, Kind)> {
        let all = probes(&d, life, &running(&["init", "side", "main"]), IP, &Periods::default());
        all.into_iter().map(|p| (p.container, p.kind)).collect()
    };
    let key = |c: &str, k| (c.to_owned(), k);
    let (startup, ready, live) = (Kind::Startup, Kind::Readiness, Kind::Liveness);
    let everything = [key("side", ready), key("side", live), key("main", startup), key("main", ready), key("main", live)];
    assert_eq!(kinds(&Lifecycle::Active), everything);
    let ending = Lifecycle::Terminating { deadline: t(30), why: why.clone() };
    assert_eq!(kinds(&ending), [key("side", ready), key("main", ready)]);
    assert_eq!(kinds(&Lifecycle::Terminated { why }), []);
}

#[test]
fn what_ends_has_started_and_stays_ready() {
    let told = |kind, state| {
        let verdict = probes::Verdict { container_id: "main-0".into(), state, message: String::new(), since: None };
        (("main".to_owned(), kind), verdict)
    };
    let o = running(&["main"]);
    let active = probes::Verdicts::from([told(Kind::Startup, State::Success), told(Kind::Readiness, State::Success)]);
    // The driver no longer has the startup probe then.
    let ending = probes::Verdicts::from([told(Kind::Readiness, State::Success)]);
    let life = Lifecycle::Terminating { deadline: t(30), why: Why::Deleted };
    let before = verdicts(&active, &InitialVerdicts::new(), &o, &Lifecycle::Active);
    let after = verdicts(&ending, &InitialVerdicts::new(), &o, &life);
    for v in [&before, &after] {
        let v = v.of(&o.containers[0]).unwrap();
        assert_eq!((v.startup, v.readiness), (Some(true), Some(true)));
    }
    let nothing_known = verdicts(&probes::Verdicts::new(), &InitialVerdicts::new(), &o, &life);
    assert_eq!(nothing_known.of(&o.containers[0]).map(|v| v.startup), Some(Some(true)));
}

#[test]
fn carried_verdicts_count_until_the_driver_knows() {
    let status = json!({"containerStatuses": [{"name": "main", "containerID": "containerd://main-0", "ready": true,
        "started": true, "image": "i", "imageID": "i", "restartCount": 0}]});
    let known = carried(&serde_json::from_value(status).unwrap());
    let o = running(&["main"]);
    let v = verdicts(&probes::Verdicts::new(), &known, &o, &Lifecycle::Active);
    let v = v.of(&o.containers[0]).unwrap();
    assert_eq!((v.startup, v.readiness, v.liveness), (Some(true), Some(true), None));
}

fn annotated(text: &str) -> Desired {
    let exec = json!({"exec": {"command": ["x"]}});
    let side = json!({"name": "side", "image": "i", "restartPolicy": "Always", "livenessProbe": exec});
    let mut main = all_three();
    main["name"] = json!("main");
    let d = desired(json!({"initContainers": [{"name": "init", "image": "i"}, side], "containers": [main]}));
    let mut pod = (*d.pod).clone();
    pod.metadata.annotations = Some([(ANNOTATION.to_owned(), text.to_owned())].into());
    Desired::of(&Arc::new(pod))
}

#[test]
fn the_annotation_gives_single_probes_another_period() {
    let d = annotated(" main.readiness = 200, side.liveness=100,main.liveness=10 ,");
    let periods = Periods::of(&d);
    assert_eq!(periods.wrong, Vec::<String>::new());
    let all: Vec<_> = probes_of(&d, IP).into_iter().map(|p| (p.container, p.kind, p.spec.period.as_millis())).collect();
    let ms = |c: &str, k, ms| (c.to_owned(), k, ms);
    let wanted = [
        ms("side", Kind::Liveness, 100),
        ms("main", Kind::Startup, 10_000),
        ms("main", Kind::Readiness, 200),
        ms("main", Kind::Liveness, 10),
    ];
    assert_eq!(all, wanted);
}

#[test]
fn what_is_wrong_in_the_annotation_is_told_and_left_out() {
    for (entry, why) in [
        ("main", "\"main\" is not of the form container.readiness=200"),
        ("main.readiness", "\"main.readiness\" is not of the form container.readiness=200"),
        ("main.ready=200", "\"main.ready=200\" names none of startup, readiness and liveness"),
        ("other.liveness=200", "\"other.liveness=200\": the pod probes no such container"),
        ("init.liveness=200", "\"init.liveness=200\": the pod probes no such container"),
        ("side.readiness=200", "\"side.readiness=200\": the container has no such probe"),
        ("main.readiness=9", "\"main.readiness=9\": must be 10 to 3600000 milliseconds"),
        ("main.readiness=-1", "\"main.readiness=-1\": must be 10 to 3600000 milliseconds"),
        ("main.readiness=1s", "\"main.readiness=1s\": must be 10 to 3600000 milliseconds"),
        ("main.readiness=99999999999999999999", "\"main.readiness=99999999999999999999\": must be 10 to 3600000 milliseconds"),
        ("side.liveness=99", "\"side.liveness=99\": must be 100 to 3600000 milliseconds"),
        ("main.startup=300", "\"main.startup\" is there twice, the first counts"),
    ] {
        let periods = Periods::of(&annotated(&format!("main.startup=200,{entry}")));
        assert_eq!(periods.wrong, [format!("annotation ferrolet.dev/probe-period-ms: {why}")]);
        assert_eq!(periods.get("main", Kind::Startup), Some(Duration::from_millis(200)), "{entry}");
        assert_eq!(periods.get("main", Kind::Readiness), None, "{entry}");
    }
    let many = Periods::of(&annotated("main.startup=10,main.readiness=10,main.liveness=500"));
    assert_eq!(
        many.wrong,
        ["annotation ferrolet.dev/probe-period-ms: \"main.liveness\": the pod's probes would be more than 200 checks a second"]
    );
    let long = Periods::of(&annotated(&"x".repeat(200_000)));
    assert!(long.wrong[0].len() < 200, "{}", long.wrong[0].len());
    assert_eq!(Periods::of(&annotated(&"x,".repeat(10_000))).wrong.len(), 8);
}
