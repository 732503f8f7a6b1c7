use super::*;
use crate::kinds::core::pod::printed;
use crate::kinds::{CONFIG_MAP, KINDS, POD};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[test]
fn ages() {
    let cases = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (12000, "3h20m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (190000, "2d4h"),
        (691200, "8d"),
        (86400 * 729, "729d"),
        (86400 * 730, "2y"),
        (86400 * 740, "2y10d"),
        (86400 * 365 * 9, "9y"),
    ];
    for (seconds, text) in cases {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
    assert_eq!(age(&Value::Null, at(0)), "<unknown>");
}

#[test]
fn tables_carry_what_was_asked_for() {
    let map = json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"}, "data": {"x": "y"}});
    let table = render(&CONFIG_MAP, [&map], json!({"resourceVersion": "7"}), IncludeObject::Metadata, at(60));
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["metadata"]["resourceVersion"], "7");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "60s"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
    let table = render(&CONFIG_MAP, [&map], json!({}), IncludeObject::None, at(60));
    assert!(table["rows"][0].get("object").is_none());
    let table = render(&CONFIG_MAP, [&map], json!({}), IncludeObject::Object, at(60));
    assert_eq!(table["rows"][0]["object"], map);
    assert_eq!(IncludeObject::parse("bogus"), None);
}

#[test]
fn hollow_objects_have_all_cells() {
    for kind in KINDS {
        for object in
            [json!({}), json!({"metadata": {}, "spec": {}, "status": {}}), json!({"spec": [], "status": "x", "metadata": 1})]
        {
            assert_eq!((kind.cells)(&object, at(0)).len(), kind.columns.len(), "{}", kind.kind);
        }
    }
}

fn pod_status(status: Value) -> (String, String, String) {
    pod_cells(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status}))
}

fn pod_cells(pod: Value) -> (String, String, String) {
    let cells = printed::cells(&pod, at(1000));
    assert_eq!(cells.len(), POD.columns.len());
    let text = |i: usize| cells[i].as_str().unwrap().to_string();
    (text(1), text(2), text(3))
}

fn row(ready: &str, status: &str, restarts: &str) -> (String, String, String) {
    (ready.to_string(), status.to_string(), restarts.to_string())
}

#[test]
fn pod_status_column() {
    let running = |name: &str, ready: bool| json!({"name": name, "ready": ready, "restartCount": 0, "state": {"running": {}}});
    let ended = |name: &str, code: i64, reason: &str| json!({"name": name, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}});
    assert_eq!(pod_status(json!({"phase": "Pending"})), row("0/2", "Pending", "0"));
    assert_eq!(
        pod_status(json!({"phase": "Running", "containerStatuses": [running("a", true), running("b", false)]})),
        row("1/2", "Running", "0")
    );
    let crashing = json!({"name": "a", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "1970-01-01T00:15:40Z"}}});
    assert_eq!(
        pod_status(json!({"phase": "Running", "containerStatuses": [crashing, running("b", true)]})),
        row("1/2", "CrashLoopBackOff", "3 (60s ago)")
    );
    assert_eq!(
        pod_status(json!({"phase": "Succeeded", "containerStatuses": [ended("a", 0, "Completed"), ended("b", 0, "Completed")]})),
        row("0/2", "Completed", "0")
    );
    assert_eq!(
        pod_status(json!({"phase": "Running", "containerStatuses": [ended("a", 0, "Completed"), running("b", true)]})),
        row("1/2", "NotReady", "0")
    );
    assert_eq!(
        pod_status(json!({"phase": "Failed", "containerStatuses": [ended("a", 0, "Completed"), ended("b", 1, "Error")]})),
        row("0/2", "Error", "0")
    );
    assert_eq!(
        pod_status(json!({"phase": "Failed", "containerStatuses": [ended("a", 137, ""), running("b", false)]})),
        row("0/2", "ExitCode:137", "0")
    );
    assert_eq!(pod_status(json!({"phase": "Failed", "reason": "Evicted"})), row("0/2", "Evicted", "0"));
    let gated =
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
    assert_eq!(pod_status(gated), row("0/2", "SchedulingGated", "0"));
}

#[test]
fn pods_that_initialize_or_end() {
    let pod = |init: Value| {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": "Pending", "initContainerStatuses": init}})
    };
    assert_eq!(pod_cells(pod(json!([{"name": "i", "state": {"running": {}}}]))), row("0/2", "Init:0/2", "0"));
    assert_eq!(
        pod_cells(pod(json!([{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]))),
        row("0/2", "Init:ImagePullBackOff", "2")
    );
    assert_eq!(
        pod_cells(pod(json!([{"name": "i", "state": {"terminated": {"exitCode": 3}}}]))),
        row("0/2", "Init:ExitCode:3", "0")
    );
    let done = json!([{"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
        {"name": "s", "restartCount": 1, "started": true, "ready": true, "state": {"running": {}}}]);
    assert_eq!(pod_cells(pod(done)), row("1/2", "Pending", "1"));
    let mut going = pod(json!([]));
    going["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    assert_eq!(pod_cells(going.clone()), row("0/2", "Terminating", "0"));
    going["status"]["reason"] = json!("NodeLost");
    assert_eq!(pod_cells(going), row("0/2", "Unknown", "0"));
}
