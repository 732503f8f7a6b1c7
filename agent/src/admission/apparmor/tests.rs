use super::*;
use serde_json::{Value, json};

fn pod(annotation: &str, of_pod: Value, own: Value) -> Pod {
    let annotations = if annotation.is_empty() { json!({}) } else { json!({format!("{ANNOTATION}c"): annotation}) };
    let context = |profile: Value| if profile.is_null() { json!({}) } else { json!({"appArmorProfile": profile}) };
    serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": {"securityContext": context(of_pod),
        "containers": [{"name": "c", "image": "i", "securityContext": context(own)}]}}))
    .unwrap()
}

fn kind(kind: &str) -> Value {
    json!({"type": kind})
}

fn local(name: &str) -> Value {
    json!({"type": "Localhost", "localhostProfile": name})
}

fn found(pod: &Pod) -> Option<SecurityProfile> {
    let container = &pod.spec.as_ref().unwrap().containers[0];
    told(profile(pod, "c", container.security_context.as_ref()).as_ref()).unwrap()
}

#[test]
fn the_containers_own_then_its_annotation_then_the_pods() {
    let name = |n: &str| Some(SecurityProfile::Localhost(n.into()));
    assert_eq!(found(&pod("", Value::Null, Value::Null)), None);
    assert_eq!(found(&pod("", kind("RuntimeDefault"), Value::Null)), Some(SecurityProfile::RuntimeDefault));
    assert_eq!(found(&pod("localhost/a", kind("RuntimeDefault"), Value::Null)), name("a"));
    assert_eq!(found(&pod("unconfined", kind("RuntimeDefault"), Value::Null)), Some(SecurityProfile::Unconfined));
    assert_eq!(found(&pod("runtime/default", kind("Unconfined"), local("b"))), name("b"));
    // An annotation that says nothing known counts as none.
    assert_eq!(found(&pod("odd", kind("RuntimeDefault"), Value::Null)), Some(SecurityProfile::RuntimeDefault));
    let profile = AppArmorProfile { type_: "Localhost".into(), localhost_profile: None };
    assert_eq!(told(Some(&profile)).unwrap_err(), "missing localhost apparmor profile name");
    let odd = AppArmorProfile { type_: "Odd".into(), localhost_profile: None };
    assert_eq!(told(Some(&odd)).unwrap_err(), "unknown apparmor profile type: \"Odd\"");
}

#[test]
fn without_apparmor_only_what_is_unconfined_is_admitted() {
    let refusal = |p: &Pod, enabled| refusal(p, p.spec.as_ref().unwrap(), enabled);
    let off = Some("AppArmor is not enabled on the host".to_owned());
    for p in [
        pod("", kind("RuntimeDefault"), Value::Null),
        pod("", Value::Null, kind("RuntimeDefault")),
        pod("", kind("Unconfined"), local("a")),
        pod("runtime/default", Value::Null, Value::Null),
    ] {
        assert_eq!(refusal(&p, false), off);
        assert_eq!(refusal(&p, true), None);
    }
    for p in [
        pod("", Value::Null, Value::Null),
        pod("", kind("Unconfined"), kind("Unconfined")),
        pod("unconfined", Value::Null, Value::Null),
    ] {
        assert_eq!(refusal(&p, false), None);
    }
}

#[test]
fn a_profile_needs_a_name() {
    let said = |p: Pod| refusal(&p, p.spec.as_ref().unwrap(), true).unwrap_or_default();
    let start = "invalid empty AppArmor profile name: \"&AppArmorProfile{Type:Localhost,LocalhostProfile:";
    assert_eq!(said(pod("", Value::Null, kind("Localhost"))), format!("{start}nil,}}\""));
    assert_eq!(said(pod("", Value::Null, local(" "))), format!("{start}* ,}}\""));
    assert_eq!(said(pod("localhost/", Value::Null, Value::Null)), format!("{start}*,}}\""));
    let mut p = pod("", kind("Unconfined"), Value::Null);
    let debugging = json!([{"name": "d", "image": "i", "securityContext": {"appArmorProfile": {"type": "Localhost"}}}]);
    p.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(debugging).unwrap();
    assert!(said(p).starts_with(start));
}
