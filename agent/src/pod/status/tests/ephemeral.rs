//! Ephemeral containers.

use super::*;

/// The only ephemeral container.
fn debugger(s: &api::PodStatus) -> &api::ContainerStatus {
    &s.ephemeral_container_statuses.as_ref().unwrap()[0]
}

#[test]
fn an_ephemeral_container_counts_for_nothing() {
    let of = |looked: &str, spec: Value| {
        let mut w = World::new(spec);
        look(&mut w, "main", "running");
        look(&mut w, "debug", looked);
        w.status()
    };
    let plain = of("none", json!({}));
    for looked in LOOKS {
        let s = of(looked, json!({"ephemeralContainers": [{"name": "debug", "image": "img:1"}]}));
        let d = debugger(&s);
        assert_eq!((d.ready, d.started, d.restart_count), (false, None, i32::from(looked == "crashloop")), "{looked}");
        let rest = api::PodStatus { ephemeral_container_statuses: None, ..s.clone() };
        assert_eq!(rest, plain, "{looked}");
    }
}

#[test]
fn an_ephemeral_container_that_the_runtime_forgot_has_ended() {
    let mut w = World::new(json!({"ephemeralContainers": [{"name": "debug", "image": "img:1"}]}));
    look(&mut w, "debug", "running");
    let id = debugger(&w.next()).container_id.clone();
    let running = w.prev.clone();
    w.observed.containers.clear();
    w.observed.stale = true;
    assert!(debugger(&w.status()).state.as_ref().unwrap().terminated.is_none(), "nothing is known");
    w.observed.stale = false;
    let s = w.next();
    let t = debugger(&s).state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((t.reason.as_deref(), t.exit_code), (Some("ContainerStatusUnknown"), 137));
    assert_eq!((debugger(&s).container_id.clone(), debugger(&s).restart_count), (id, 0));
    w.prev = running;
    look(&mut w, "debug", "running");
    w.observed.containers[0].state = State::Unknown;
    assert_eq!(debugger(&w.status()).restart_count, 0);
}

#[test]
fn an_ephemeral_container_says_what_it_waits_for() {
    let waits = |w: &World| {
        let s = w.status();
        let w = debugger(&s).state.as_ref().unwrap().waiting.clone().unwrap();
        (w.reason.unwrap(), w.message.unwrap_or_default())
    };
    let mut w = World::new(json!({"ephemeralContainers": [{"name": "debug", "image": "img:1", "targetContainerName": "main"}]}));
    assert_eq!(waits(&w).0, "ContainerCreating", "its image comes first");
    w.backoffs.failed(Subject::Image("debug".into()), w.now, "ErrImagePull", "no such image");
    assert_eq!(waits(&w), ("ErrImagePull".into(), "no such image".into()));
    w.backoffs = Backoffs::default();
    w.observed.local.images.insert("debug".into(), 0);
    assert_eq!(waits(&w), ("CreateContainerConfigError".into(), "unable to find target container main".into()));
    look(&mut w, "main", "failed");
    assert_eq!(waits(&w), ("CreateContainerError".into(), "target container main is not running".into()));
    w.observed.containers[0].state = State::Running;
    assert_eq!(waits(&w).0, "ContainerCreating");
    w.backoffs.failed(Subject::Start("debug".into()), w.now, "CreateContainerError", "refused");
    assert_eq!(waits(&w), ("CreateContainerError".into(), "refused".into()));
}
