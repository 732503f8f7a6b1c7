use super::*;
use serde_json::json;

fn status(value: serde_json::Value) -> api::PodStatus {
    serde_json::from_value(value).unwrap()
}

#[test]
fn nothing_to_say() {
    let s = status(json!({"phase": "Running", "podIP": "1"}));
    assert_eq!(patch::between("u", &s, &s), None);
}

#[test]
fn only_what_differs_is_sent() {
    let from = status(json!({"phase": "Pending", "podIP": "1", "hostIP": "2", "message": "m",
        "conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "A", "status": "True"}, {"type": "other", "status": "True"}],
        "podIPs": [{"ip": "1"}]}));
    let to = status(json!({"phase": "Running", "podIP": "3", "hostIP": "2",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "A", "status": "True"}], "podIPs": [{"ip": "3"}]}));
    let patch = patch::between("u", &from, &to).unwrap();
    assert_eq!(
        patch,
        json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "podIP": "3", "message": null,
            "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            "podIPs": [{"ip": "3"}, {"$patch": "delete", "ip": "1"}]}})
    );
}

#[test]
fn a_resize_that_is_over_is_over() {
    let from = status(json!({"conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "A", "status": "True"}]}));
    let to = status(json!({"conditions": []}));
    let patch = patch::between("u", &from, &to).unwrap();
    assert_eq!(patch["status"], json!({"conditions": [{"$patch": "delete", "type": "PodResizePending"}]}));
}

#[test]
fn what_others_own_is_left_alone() {
    let from = status(json!({"phase": "Running", "nominatedNodeName": "n", "resize": ""}));
    let to = status(json!({"phase": "Running"}));
    assert_eq!(patch::between("u", &from, &to), None);
}
