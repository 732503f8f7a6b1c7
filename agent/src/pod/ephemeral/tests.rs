use super::*;
use crate::pod::Time;
use crate::pod::desired::{RestartPolicy, Role};
use crate::pod::observed::State;
use crate::pod::testing::{desired, instance, pod};
use serde_json::{Value, json};
use std::sync::Arc;

fn debug(extra: Value) -> Value {
    let mut c = json!({"name": "debug", "image": "i", "targetContainerName": "main"});
    for (key, value) in extra.as_object().unwrap() {
        c[key] = value.clone();
    }
    json!({ "ephemeralContainers": [c] })
}

fn container(name: &str, state: State) -> crate::pod::observed::Container {
    crate::pod::observed::Container { id: format!("id-{name}"), created_at: Time::UNIX_EPOCH, ..instance(name, state) }
}

#[test]
fn it_is_read_like_the_others_and_never_restarts() {
    let d = desired(debug(json!({"command": ["x"], "tty": true, "stdin": true, "workingDir": "/tmp"})));
    let c = d.container("debug").unwrap();
    assert_eq!((c.role, c.restart), (Role::Ephemeral, RestartPolicy::Never));
    assert_eq!(c.ephemeral.as_ref().unwrap().target.as_deref(), Some("main"));
    assert_eq!((d.main().count(), d.inits().count(), d.ephemeral().count()), (1, 0, 1));
    let spec = d.spec_of("debug").unwrap();
    assert_eq!((spec.tty, spec.stdin, spec.working_dir.as_deref()), (Some(true), Some(true), Some("/tmp")));
    assert!(d.unsupported.is_empty() && d.passed_over.is_empty());
}

#[test]
fn a_name_that_cannot_be_used_refuses_it_alone() {
    for name in ["main", "../x", ""] {
        let d = desired(debug(json!({ "name": name })));
        assert_eq!((d.unsupported.len(), d.ephemeral().count()), (0, 0), "{name:?}");
        assert_eq!(d.passed_over[0].field, "spec.ephemeralContainers[0].name");
    }
}

#[test]
fn what_the_api_saw_run_has_run() {
    for (state, ran) in [
        (json!({"running": {}}), true),
        (json!({"terminated": {"exitCode": 0}}), true),
        (json!({"waiting": {"reason": "ErrImagePull"}}), false),
    ] {
        let mut p = api::Pod::clone(&pod(debug(json!({}))));
        let status = json!({"name": "debug", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        p.status = serde_json::from_value(json!({ "ephemeralContainerStatuses": [status] })).unwrap();
        let d = Desired::of(&Arc::new(p));
        assert_eq!(d.container("debug").unwrap().ephemeral.as_ref().unwrap().ran, ran, "{state}");
    }
}

#[test]
fn its_target_must_be_there_and_run() {
    let of = |d: &Desired, containers: Vec<_>| {
        let o = Observed { containers, ..Default::default() };
        target(d, d.container("debug").unwrap(), &o, "s")
    };
    let d = desired(debug(json!({})));
    assert_eq!(of(&d, vec![]).unwrap_err().to_string(), "unable to find target container main");
    assert_eq!(of(&d, vec![container("main", State::Created)]), Err(NoTarget::Down("main".into())));
    assert_eq!(of(&d, vec![container("main", State::Running)]), Ok(Some("id-main".into())));
    let elsewhere = crate::pod::observed::Container { sandbox_id: "old".into(), ..container("main", State::Running) };
    assert!(of(&d, vec![elsewhere]).is_err());
    let d = desired(debug(json!({ "targetContainerName": "" })));
    assert_eq!(of(&d, vec![]), Ok(None));
    let mut spec = debug(json!({}));
    spec["shareProcessNamespace"] = json!(true);
    let d = desired(spec);
    assert_eq!(of(&d, vec![]), Err(NoTarget::Missing("main".into())));
    assert_eq!(of(&d, vec![container("main", State::Created)]), Ok(None), "the pod's processes are shared anyway");
}
