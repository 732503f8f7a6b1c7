use super::*;
use crate::pod::observed::Local;
use crate::pod::testing::{desired, instance, t};
use serde_json::{Value, json};

fn spec(resources: Value, policy: Value) -> Desired {
    desired(json!({"containers": [{"name": "main", "image": "i", "resources": resources, "resizePolicy": policy}]}))
}

fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Resources {
    let map = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Resources { requests: map(requests), limits: map(limits) }
}

fn runs(given: Option<Resources>) -> Observed {
    Observed { containers: vec![Container { resources: given, ..instance("main", State::Running) }], ..Observed::default() }
}

#[test]
fn what_a_container_has_is_told_from_what_it_is_to_have() {
    let d = spec(json!({"requests": {"cpu": "0.2"}}), json!(null));
    assert!(!due(&d, &runs(Some(resources(&[("cpu", "200m")], &[])))));
    assert!(due(&d, &runs(Some(resources(&[("cpu", "100m")], &[])))));
    assert!(!due(&d, &runs(None)), "something else made it: nothing is known");
    let mut o = runs(Some(resources(&[("cpu", "100m")], &[])));
    o.local.resize.record.actuated.insert("main-0".into(), resources(&[("cpu", "200m")], &[]));
    assert!(!due(&d, &o), "it was set since");
    o.local.resize.record.unsettled = true;
    assert!(due(&d, &o), "the pod's cgroup may not be");
}

#[test]
fn a_restart_is_asked_for_by_resource() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"},
        {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    let d = spec(json!({"requests": {"cpu": "1", "memory": "1Gi"}}), policy);
    let asks = |cpu: &str, memory: &str| {
        let o = runs(Some(resources(&[("cpu", cpu), ("memory", memory)], &[])));
        restarts(&d.containers[0], &o.containers[0], &o)
    };
    assert!(!asks("1", "1Gi") && !asks("2", "1Gi") && asks("1", "2Gi") && asks("2", "2Gi"));
}

#[test]
fn only_what_ended_since_is_brought_back() {
    let d = spec(json!({"requests": {"cpu": "1"}}), json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]));
    let ended = |at| State::Exited { code: 0, finished_at: t(at), reason: String::new(), message: String::new() };
    let asks = |at, since, cpu: &str| {
        let n = Container { resources: Some(resources(&[("cpu", cpu)], &[])), ..instance("main", ended(at)) };
        let record = Record { since, ..Record::default() };
        let local = Local { resize: Resized { record, ..Resized::default() }, ..Local::default() };
        brings_back(&d.containers[0], &n, &Observed { local, ..Observed::default() })
    };
    assert!(asks(5, Some(t(5)), "2"));
    assert!(!asks(4, Some(t(5)), "2"), "it had ended before");
    assert!(!asks(5, None, "2") && !asks(5, Some(t(5)), "1"));
}

#[test]
fn the_limits_of_the_pod_are_those_of_a_container_without_its_own() {
    let d = desired(json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
        "containers": [{"name": "main", "image": "i", "resources": {"limits": {"cpu": "200m"}}}]}));
    assert_eq!(d.containers[0].resize.resources, resources(&[], &[("cpu", "200m"), ("memory", "1Gi")]));
}

#[test]
fn amounts_are_written_in_the_words_that_were_used() {
    let like = resources(&[("cpu", "0.1")], &[("memory", "1Gi")]);
    let mut into = resources(&[("cpu", "5")], &[("memory", "1")]);
    Amounts { cpu_request: 100, cpu_limit: 250, memory_request: 0, memory_limit: 1 << 30 }.put(&mut into, &like);
    assert_eq!(into, resources(&[("cpu", "0.1")], &[("cpu", "250m"), ("memory", "1Gi")]));
}
