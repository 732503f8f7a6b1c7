use super::*;
use crate::kinds::scale;

fn deployment() -> Value {
    let mut o = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "x:1"}]}}}});
    (DEPLOYMENT.defaults)(&mut o);
    (DEPLOYMENT.prepare)(Op::Create, None, &mut o, None);
    o
}

fn errors(o: &Value, old: Option<&Value>) -> Vec<String> {
    let op = if old.is_some() { Op::Update } else { Op::Create };
    (DEPLOYMENT.validate)(op, None, o, old).iter().map(ToString::to_string).collect()
}

#[test]
fn defaults() {
    let o = deployment();
    let spec = &o["spec"];
    assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}));
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    assert!(spec["template"]["spec"].get("enableServiceLinks").is_none());
    assert_eq!(o["metadata"]["generation"], 1);
    assert_eq!(errors(&o, None), Vec::<String>::new());
}

#[test]
fn invalid_deployments() {
    let change = |f: fn(&mut Value)| {
        let mut o = deployment();
        f(&mut o);
        errors(&o, None)
    };
    let has = |found: Vec<String>, text: &str| assert!(found.iter().any(|e| e.contains(text)), "{text}: {found:#?}");
    has(change(|o| o["spec"]["replicas"] = json!(-1)), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    has(change(|o| o["spec"]["selector"] = Value::Null), "spec.selector: Required value");
    has(
        change(|o| o["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"})),
        "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
    );
    has(
        change(|o| o["spec"]["template"]["spec"]["restartPolicy"] = json!("Never")),
        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
    );
    has(
        change(|o| o["spec"]["template"]["spec"]["containers"][0]["image"] = json!("")),
        "spec.template.spec.containers[0].image: Required value",
    );
    has(change(|o| o["spec"]["strategy"]["type"] = json!("Recreate")), "spec.strategy.rollingUpdate: Forbidden");
    has(
        change(|o| o["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 0, "maxUnavailable": 0})),
        "may not be 0 when `maxSurge` is 0",
    );
    has(change(|o| o["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = json!("x")), "a valid percent string");
    let old = deployment();
    let mut new = deployment();
    new["spec"]["selector"] = json!({"matchLabels": {"app": "db"}});
    new["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"});
    has(errors(&new, Some(&old)), "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable");
}

#[test]
fn generation_moves_with_spec_and_annotations_but_not_status() {
    let old = deployment();
    let generation = |sub, f: fn(&mut Value)| {
        let mut new = old.clone();
        f(&mut new);
        (DEPLOYMENT.prepare)(Op::Update, sub, &mut new, Some(&old));
        new["metadata"]["generation"].clone()
    };
    assert_eq!(generation(None, |o| o["spec"]["replicas"] = json!(2)), 2);
    assert_eq!(generation(None, |o| o["metadata"]["annotations"] = json!({"a": "b"})), 2);
    assert_eq!(generation(None, |o| o["metadata"]["labels"] = json!({"a": "b"})), 1);
    assert_eq!(generation(Some(Sub::Status), |o| o["status"] = json!({"replicas": 1})), 1);
    assert_eq!(generation(Some(Sub::Status), |o| o["spec"]["replicas"] = json!(7)), 1);
}

#[test]
fn scale_round_trip() {
    let mut o = deployment();
    o["metadata"]["resourceVersion"] = json!("7");
    let mut s = scale::of(&o);
    assert_eq!(s["spec"]["replicas"], 1);
    assert_eq!(s["status"]["selector"], "app=web");
    s["spec"]["replicas"] = json!(5);
    scale::apply(&mut o, &s);
    assert_eq!(o["spec"]["replicas"], 5);
}
