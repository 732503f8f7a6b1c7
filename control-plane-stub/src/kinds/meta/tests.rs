use super::*;
use serde_json::json;

fn errors(meta: Value, old: Option<Value>) -> Vec<String> {
    let mut e = Errors::new();
    let new = json!({"metadata": meta});
    let old = old.map(|m| json!({"metadata": m}));
    validate(&mut e, &new, old.as_ref(), names::dns1123_subdomain);
    e.0.iter().map(ToString::to_string).collect()
}

#[test]
fn metadata() {
    assert_eq!(errors(json!({"name": "a.b-c"}), None), Vec::<String>::new());
    assert_eq!(errors(json!({}), None), ["metadata.name: Required value: name or generateName is required"]);
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
    let two = errors(json!({"name": "a", "ownerReferences": [owner, owner]}), None);
    assert!(two[0].contains("Only one reference can have Controller set to true"), "{two:?}");
    let frozen = errors(json!({"name": "b"}), Some(json!({"name": "a"})));
    assert_eq!(frozen, ["metadata.name: Invalid value: \"b\": field is immutable"]);
    let deleting = json!({"name": "a", "deletionTimestamp": "x", "finalizers": []});
    let added = errors(json!({"name": "a", "finalizers": ["x.io/y"], "deletionTimestamp": "x"}), Some(deleting));
    assert!(added[0].starts_with("metadata.finalizers: Forbidden"), "{added:?}");
    let large = errors(json!({"name": "a", "annotations": {"a": "x".repeat(300 * 1024)}}), None);
    assert_eq!(large, ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
}

#[test]
fn texts() {
    let ok = |p: names::Problems| assert!(p.is_empty(), "{p:?}");
    let bad = |p: names::Problems| assert!(!p.is_empty());
    ok(names::dns1123_label("a-1"));
    bad(names::dns1123_label("-a"));
    bad(names::dns1123_label(&"a".repeat(64)));
    ok(names::dns1123_subdomain("a.b"));
    bad(names::dns1123_subdomain("a..b"));
    ok(names::qualified("x.io/Name_1"));
    bad(names::qualified("/x"));
    bad(names::qualified("a/b/c"));
    ok(names::label_value(""));
    bad(names::label_value("a/b"));
    ok(names::port_name("http-2"));
    bad(names::port_name("123"));
    bad(names::port_name("a--b"));
    ok(names::config_key("a.b_c"));
    bad(names::config_key(".."));
    bad(names::config_key("a/b"));
    ok(names::ip("::1"));
    bad(names::ip("1.2.3"));
}
