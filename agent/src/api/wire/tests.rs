use super::*;
use serde_json::json;

#[test]
fn requests_are_asked_for_in_the_apis_own_words() {
    let mine = Selector::fields("spec.nodeName=n");
    assert_eq!(
        uri::<Pod>(&mine, Ask::Page { limit: 5, cursor: Some("a b") }),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn&limit=5&continue=a+b"
    );
    assert_eq!(
        uri::<lean::EndpointSlice>(&Selector::labels("!x"), Ask::StreamingList { timeout_seconds: 9 }),
        "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21x&watch=true&allowWatchBookmarks=true\
         &sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=9"
    );
    assert_eq!(
        uri::<Node>(&Selector::default(), Ask::Watch { from: "7", timeout_seconds: 9 }),
        "/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=9"
    );
}

fn line(kind: &str, object: serde_json::Value) -> Vec<u8> {
    json!({ "type": kind, "object": object }).to_string().into_bytes()
}

#[test]
fn events() {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "d", "resourceVersion": "5"}});
    let Event::Applied { object, revision } = event::<Pod>(&line("ADDED", pod.clone())).unwrap() else { panic!() };
    assert_eq!((object.key.namespace.as_str(), object.key.name.as_str(), revision.as_str()), ("d", "a", "5"));
    assert!(object.body.is_ok());
    assert!(matches!(event::<Pod>(&line("DELETED", pod)).unwrap(), Event::Deleted { .. }));
    let end = json!({"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}});
    assert!(matches!(event::<Pod>(&line("BOOKMARK", end)).unwrap(), Event::Bookmark { initial_end: true, .. }));
    let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
    let Event::Failed(status) = event::<Pod>(&line("ERROR", status)).unwrap() else { panic!() };
    assert_eq!(status.code, 410);
}

#[test]
fn a_malformed_object_is_named_with_its_field() {
    let bad = json!({"metadata": {"name": "a", "namespace": "d", "resourceVersion": "5"},
        "spec": {"containers": [{"name": "x", "ports": [{"containerPort": "80"}]}]}});
    let Event::Applied { object, revision } = event::<Pod>(&line("MODIFIED", bad)).unwrap() else { panic!() };
    assert_eq!(revision, "5");
    let text = object.body.unwrap_err().to_string();
    assert!(text.starts_with("pods d/a: "), "{text}");
    assert!(text.contains("containerPort") || text.contains("string \"80\""), "{text}");
}

#[test]
fn a_list_survives_its_bad_members() {
    let list = json!({"kind": "ServiceList", "metadata": {"resourceVersion": "7", "continue": ""}, "items": [
        {"metadata": {"name": "good", "namespace": "d"}, "spec": {"ports": [{"port": 80}]}},
        {"metadata": {"name": "bad", "namespace": "d"}, "spec": {"ports": [{"port": "http"}]}},
        {"metadata": {"annotations": 5}}, 17,
        {"metadata": {"name": "odd", "namespace": "d", "annotations": {"a": 5}}, "spec": {}},
    ]});
    let page = page::<lean::Service>(list.to_string().as_bytes()).unwrap();
    assert_eq!((page.revision.as_str(), page.cursor, page.unreadable.len()), ("7", None, 2));
    let readable: Vec<_> = page.items.iter().map(|item| (item.key.name.as_str(), item.body.is_ok())).collect();
    assert_eq!(readable, [("good", true), ("bad", false), ("odd", true)]);
    assert!(super::page::<Pod>(br#"{"metadata": {}, "items": []}"#).unwrap_err().to_string().contains("resourceVersion"));
    let empty = super::page::<Pod>(br#"{"metadata": {"resourceVersion": "1"}, "items": null}"#).unwrap();
    assert!(empty.items.is_empty());
}

#[test]
fn half_a_line_is_no_event() {
    let whole = line("ADDED", json!({"metadata": {"name": "a", "resourceVersion": "5"}}));
    for end in 0..whole.len() {
        assert!(matches!(event::<Pod>(&whole[..end]), Err(WireError::Json { what: "watch event", .. })), "{end}");
    }
    assert!(matches!(event::<Pod>(&line("NEWS", json!({"metadata": {"resourceVersion": "1"}}))), Err(WireError::EventType(_))));
}
