use super::*;
use crate::kinds::{CONFIG_MAP, POD};
use serde_json::json;

fn selects(text: &str, labels: Value) -> bool {
    LabelSelector::parse(text).unwrap().matches(&json!({"metadata": {"labels": labels}}))
}

#[test]
fn label_selectors_match() {
    let labels = json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
    for text in [
        "",
        "app=web",
        "app==web",
        "app = web , tier=front",
        "app!=db",
        "missing!=x",
        "app in (web,db)",
        "app in (web)",
        "app notin (db)",
        "missing notin (a)",
        "app",
        "!missing",
        "n>4",
        "n<6",
        "empty=",
        "empty in (,x)",
        "tier in (front), app",
        "x.io/y!=1",
    ] {
        assert!(selects(text, labels.clone()), "{text}");
    }
    for text in ["app=db", "app!=web", "missing", "!app", "app notin (web)", "missing in (a)", "n>5", "app>1", "missing="] {
        assert!(!selects(text, labels.clone()), "{text}");
    }
}

#[test]
fn bad_label_selectors_are_refused() {
    for text in ["a=b=c", "a in b", "a in (b", "=a", "a b", "a=b c=d", "a,", "a>x", "-a=b", "a=b!", "a=-x", "(a)"] {
        let error = LabelSelector::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("unable to parse requirement: "), "{text}: {error}");
    }
}

#[test]
fn selector_objects() {
    let s = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
    assert_eq!(format_object(&s), "a in (x,y),b=1,!c");
    let s = LabelSelector::from_object(&s).unwrap();
    assert!(s.matches(&json!({"metadata": {"labels": {"a": "x", "b": "1"}}})));
    assert!(!s.matches(&json!({"metadata": {"labels": {"a": "x", "b": "1", "c": ""}}})));
    assert!(LabelSelector::from_object(&json!({})).unwrap().is_everything());
    assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches(&json!({})));
    assert!(!LabelSelector::from_map(&json!({})).matches(&json!({})));
    assert!(LabelSelector::from_map(&json!({"a": "b"})).matches(&json!({"metadata": {"labels": {"a": "b", "c": "d"}}})));
    assert!(LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})).is_err());
}

#[test]
fn printed_selectors_parse_back() {
    for text in ["a=b,c in (d,e),!f", "a!=b,g", "a notin (x),n>3"] {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
    }
}

#[test]
fn field_selectors() {
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "node-1", "restartPolicy": "Always"},
        "status": {"phase": "Running", "podIP": "10.0.0.1"}});
    for text in
        ["", "metadata.name=p", "spec.nodeName==node-1,status.phase!=Failed", "status.podIP=10.0.0.1,metadata.namespace=n"]
    {
        assert!(FieldSelector::parse(&POD, text).unwrap().matches(&POD, &pod), "{text}");
    }
    for text in ["metadata.name=q", "spec.nodeName=", "status.phase!=Running"] {
        assert!(!FieldSelector::parse(&POD, text).unwrap().matches(&POD, &pod), "{text}");
    }
    let s = FieldSelector::parse(&POD, r"spec.nodeName=a\,b\=c").unwrap();
    assert_eq!(s.exact("spec.nodeName"), Some("a,b=c"));
    assert_eq!(s.exact("metadata.name"), None);
}

#[test]
fn unsupported_fields_are_refused() {
    let text = |kind, s| FieldSelector::parse(kind, s).unwrap_err().to_string();
    assert_eq!(text(&POD, "spec.foo=a"), "field label not supported: spec.foo");
    assert_eq!(
        text(&CONFIG_MAP, "data.x=1"),
        "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    assert!(text(&POD, "metadata.name").contains("can't understand"));
    assert!(FieldSelector::parse(&POD, r"metadata.name=a\x").is_err());
}
