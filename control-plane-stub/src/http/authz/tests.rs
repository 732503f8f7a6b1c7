use super::*;
use serde_json::json;

#[test]
fn references_of_a_pod() {
    let pod = json!({"spec": {
        "serviceAccountName": "web",
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "b"}}]}],
        "volumes": [{"secret": {"secretName": "c"}}, {"configMap": {"name": "d"}},
            {"projected": {"sources": [{"secret": {"name": "e"}}, {"configMap": {"name": "f"}}]}}],
    }});
    for secret in ["pull", "a", "c", "e"] {
        assert!(refers(&pod, "secrets", secret), "{secret}");
        assert!(!refers(&pod, "configmaps", secret), "{secret}");
    }
    for map in ["b", "d", "f"] {
        assert!(refers(&pod, "configmaps", map), "{map}");
    }
    assert!(refers(&pod, "serviceaccounts", "web"));
    assert!(!refers(&pod, "secrets", "other"));
}

#[test]
fn selectors_and_sentences() {
    let ask = Attributes { field_selector: "spec.nodeName=node-1,status.phase!=Failed".into(), ..Attributes::default() };
    assert_eq!(ask.selects("spec.nodeName"), Some("node-1"));
    let ask = Attributes { field_selector: "spec.nodeName==node-1".into(), ..Attributes::default() };
    assert_eq!(ask.selects("spec.nodeName"), Some("node-1"));
    let mut user = User::internal();
    user.name = "u".into();
    let ask = Attributes { verb: "list".into(), resource: "pods".into(), namespace: "default".into(), ..Attributes::default() };
    assert_eq!(ask.describe(&user), "User \"u\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"");
}
