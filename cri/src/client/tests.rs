//! The client against every kind of fault.

use super::*;
use crate::error::{Class, Code};
use crate::fake::{Fake, Fault, ImageConfig, Outcome, Profile, Program};
use crate::types::*;
use futures::StreamExt;
use std::time::Instant;

const SOON: Duration = Duration::from_secs(10);

fn quick() -> Options {
    let short = Duration::from_millis(300);
    let deadlines = Deadlines {
        query: short,
        mutate: short,
        sandbox: short,
        stop_margin: short,
        exec_margin: short,
        pull: short,
        long: short,
    };
    Options { deadlines, ..Options::default() }
}

fn sandbox(name: &str) -> SandboxConfig {
    let metadata = SandboxMetadata { name: name.into(), namespace: "ns".into(), uid: format!("uid-{name}"), attempt: 0 };
    SandboxConfig { metadata, ..Default::default() }
}

fn container(name: &str, args: &[&str]) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        image: ImageSpec::new("web"),
        command: vec!["/web".into()],
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..Default::default()
    }
}

/// A runtime with one sandbox and one running container.
async fn running(profile: Profile, options: Options) -> (Fake, Client, String, String) {
    let fake = Fake::start(profile).unwrap();
    fake.add_image("web", ImageConfig::default());
    let client = fake.client_with(options).unwrap();
    let config = sandbox("a");
    let pod = client.run_pod_sandbox(&config, "").await.unwrap();
    let id = client.create_container(&pod, &container("c", &["sleep", "1000"]), &config).await.unwrap();
    client.start_container(&id).await.unwrap();
    (fake, client, pod, id)
}

#[tokio::test]
async fn every_code_keeps_its_class_and_names_method_and_object() {
    let fake = Fake::start(Profile::newest()).unwrap();
    let client = fake.client().unwrap();
    for (code, class) in [
        (Code::NotFound, Class::Gone),
        (Code::Unknown, Class::Transient),
        (Code::Unavailable, Class::Transient),
        (Code::DeadlineExceeded, Class::Transient),
        (Code::ResourceExhausted, Class::Transient),
        (Code::FailedPrecondition, Class::Transient),
        (Code::InvalidArgument, Class::Permanent),
        (Code::PermissionDenied, Class::Permanent),
    ] {
        fake.inject_first("StartContainer", 1, Fault::error(code, "because"));
        let error = client.start_container("abc").await.unwrap_err();
        assert_eq!((error.code(), error.class()), (code, class));
        assert_eq!(error.to_string(), format!("StartContainer abc: because ({code:?})"));
    }
    fake.inject_first("StartContainer", 1, Fault::error(Code::Unimplemented, "no"));
    let error = client.start_container("abc").await.unwrap_err();
    assert_eq!((error.class(), error.is_unimplemented()), (Class::Permanent, true));
}

#[tokio::test]
async fn the_first_calls_fail_and_then_it_works() {
    let fake = Fake::start(Profile::newest()).unwrap();
    let client = fake.client().unwrap();
    fake.inject_first("Version", 2, Fault::error(Code::Unavailable, "starting"));
    assert!(client.version().await.is_err());
    assert!(client.version().await.is_err());
    assert!(client.version().await.is_ok());
    assert_eq!(fake.count("Version"), 3);
}

#[tokio::test]
async fn a_hang_ends_at_the_deadline_and_is_cancelled_on_the_wire() {
    let (fake, client, pod, id) = running(Profile::containerd_1_6(), quick()).await;
    for method in ["Status", "ContainerStatus", "RemoveContainer", "StopPodSandbox", "ExecSync", "StopContainer", "PullImage"] {
        fake.inject_first(method, 1, Fault::Hang);
        let begin = Instant::now();
        let error = match method {
            "Status" => client.status(false).await.unwrap_err(),
            "ContainerStatus" => client.container_status(&id, false).await.unwrap_err(),
            "RemoveContainer" => client.remove_container(&id).await.unwrap_err(),
            "StopPodSandbox" => client.stop_pod_sandbox(&pod).await.unwrap_err(),
            "ExecSync" => client.exec_sync(&id, &["/web".into()], Duration::from_millis(100)).await.unwrap_err(),
            "StopContainer" => client.stop_container(&id, Duration::from_millis(100)).await.unwrap_err(),
            _ => client.pull_image(&"web".into(), None, &sandbox("a")).await.unwrap_err(),
        };
        assert!(matches!(error, Error::Deadline { .. }), "{method}: {error}");
        assert_eq!((error.method(), error.class()), (method, Class::Transient));
        assert!(begin.elapsed() < SOON);
        let ended = fake.wait_for_call(SOON, |call| call.method == method && call.outcome == Outcome::Cancelled).await;
        assert!(ended.is_some(), "{method} still runs in the server");
    }
    // And nothing of it spoils what comes after.
    assert_eq!(client.container_status(&id, false).await.unwrap().state, ContainerState::Running);
}

#[tokio::test]
async fn one_hung_call_does_not_delay_others() {
    let (fake, client, _, id) = running(Profile::newest(), Options::default()).await;
    fake.inject_first("StopContainer", 1, Fault::Hang);
    let stop = client.stop_container(&id, Duration::ZERO);
    let others = async {
        fake.wait_for_call(SOON, |call| call.method == "StopContainer").await.unwrap();
        for _ in 0..50 {
            client.container_status(&id, false).await.unwrap();
        }
    };
    tokio::select! {
        _ = stop => panic!("the hung call ended"),
        done = tokio::time::timeout(SOON, others) => done.unwrap(),
    }
}

#[tokio::test]
async fn dropping_the_future_of_a_call_cancels_it() {
    let (fake, client, _, id) = running(Profile::newest(), Options::default()).await;
    fake.inject_first("RemoveContainer", 1, Fault::Hang);
    let call = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.remove_container(&id).await }
    });
    fake.wait_for_call(SOON, |call| call.method == "RemoveContainer").await.unwrap();
    call.abort();
    let _ = call.await;
    let ended = |call: &crate::fake::CallRecord| call.method == "RemoveContainer" && call.outcome == Outcome::Cancelled;
    fake.wait_for_call(SOON, ended).await.unwrap();
    client.remove_container(&id).await.unwrap();
    assert!(fake.containers().is_empty());
}

#[tokio::test]
async fn a_delay_within_the_deadline_is_waited_for() {
    let (fake, client, _, id) = running(Profile::newest(), Options::default()).await;
    fake.inject_first("ContainerStatus", 1, Fault::Delay(Duration::from_millis(200)));
    let begin = Instant::now();
    client.container_status(&id, false).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn what_took_effect_without_an_answer_is_found_by_looking_again() {
    let fake = Fake::start(Profile::newest()).unwrap();
    let client = fake.client_with(quick()).unwrap();
    fake.inject_first("RunPodSandbox", 1, Fault::HangAfter);
    let config = sandbox("a");
    let error = client.run_pod_sandbox(&config, "").await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    let found = client.list_pod_sandbox(&SandboxFilter::default()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata, config.metadata);
    fake.inject_first("RemovePodSandbox", 1, Fault::ErrorAfter(Code::Unavailable, "the answer was lost".into()));
    assert!(client.remove_pod_sandbox(&found[0].id).await.is_err());
    client.remove_pod_sandbox(&found[0].id).await.unwrap();
}

#[tokio::test]
async fn an_empty_answer_is_an_error_that_names_the_field() {
    let fake = Fake::start(Profile::newest()).unwrap();
    let client = fake.client().unwrap();
    fake.inject("*", Fault::Empty);
    let say = |error: Error| (error.class(), error.to_string());
    let bad = "bad answer of the container runtime";
    let expect = |method: &str, field: &str| (Class::Transient, format!("{method}: {bad}: {field}"));
    assert_eq!(say(client.version().await.unwrap_err()), expect("Version", "runtime_name: is empty"));
    assert_eq!(say(client.status(false).await.unwrap_err()), expect("Status", "status: is missing"));
    assert_eq!(say(client.container_status("x", false).await.unwrap_err()), expect("ContainerStatus", "status: is missing"));
    assert_eq!(say(client.pod_sandbox_status("x").await.unwrap_err()), expect("PodSandboxStatus", "status: is missing"));
    assert_eq!(say(client.container_stats("x").await.unwrap_err()), expect("ContainerStats", "stats: is missing"));
    let error = client.run_pod_sandbox(&sandbox("a"), "").await.unwrap_err();
    assert_eq!(say(error), expect("RunPodSandbox", "pod_sandbox_id: is empty"));
    assert_eq!(client.image_status(&"x".into()).await.unwrap(), None);
    assert_eq!(client.runtime_config().await.unwrap(), None);
    assert!(client.list_containers(&ContainerFilter::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_runtime_is_transient_and_names_the_socket_and_its_start_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("later.sock");
    let client = Client::connect(socket.to_str().unwrap(), Options::default()).unwrap();
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
    let text = error.to_string();
    assert!(text.contains("later.sock") && text.contains("No such file"), "{text}");
    let _fake = Fake::start_at(Profile::newest(), &socket).unwrap();
    assert_eq!(client.version().await.unwrap().runtime_name, "newest");
}

#[tokio::test]
async fn a_restart_of_the_runtime_breaks_what_is_under_way_and_nothing_else() {
    let (fake, client, _, id) = running(Profile::newest(), Options::default()).await;
    fake.inject_first("StopContainer", 1, Fault::Hang);
    let stop = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.stop_container(&id, Duration::ZERO).await }
    });
    fake.wait_for_call(SOON, |call| call.method == "StopContainer").await.unwrap();
    fake.stop_server().await;
    let error = tokio::time::timeout(SOON, stop).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(client.container_status(&id, false).await.unwrap_err().class(), Class::Transient);
    fake.start_server().unwrap();
    // Its containers ran on.
    assert_eq!(client.container_status(&id, false).await.unwrap().state, ContainerState::Running);
}

#[tokio::test]
async fn what_a_runtime_lacks_is_asked_for_once() {
    let fake = Fake::start(Profile::containerd_1_6()).unwrap();
    let client = fake.client().unwrap();
    assert_eq!(client.features(), Features::ALL);
    for _ in 0..3 {
        assert_eq!(client.runtime_config().await.unwrap(), None);
        assert!(client.get_container_events().await.unwrap_err().is_unimplemented());
        assert!(client.list_containers(&ContainerFilter::default()).await.unwrap().is_empty());
        assert!(client.list_pod_sandbox_metrics().await.unwrap_err().is_unimplemented());
    }
    for method in ["RuntimeConfig", "GetContainerEvents", "StreamContainers", "ListPodSandboxMetrics"] {
        assert_eq!(fake.count(method), 1, "{method}");
    }
    assert_eq!(fake.count("ListContainers"), 3);
    let features = client.features();
    assert!(!features.events && !features.runtime_config && !features.streaming_lists && !features.metrics);
    assert!(features.sandbox_stats);
}

#[tokio::test]
async fn a_restart_with_the_same_version_keeps_what_is_known_and_an_upgrade_does_not() {
    let fake = Fake::start(Profile::containerd_1_6()).unwrap();
    let client = fake.client().unwrap();
    assert_eq!(client.runtime_config().await.unwrap(), None);
    fake.restart_server().await.unwrap();
    client.status(false).await.unwrap();
    assert_eq!(client.runtime_config().await.unwrap(), None);
    assert_eq!(client.runtime_config().await.unwrap(), None);
    let asked = fake.count("RuntimeConfig");
    fake.restart_server().await.unwrap();
    client.status(false).await.unwrap();
    assert_eq!(client.runtime_config().await.unwrap(), None);
    assert_eq!(fake.count("RuntimeConfig"), asked, "it was asked again although the version is the same");

    fake.set_profile(Profile::containerd_2());
    fake.restart_server().await.unwrap();
    client.status(false).await.unwrap();
    assert_eq!(client.runtime_config().await.unwrap(), Some(CgroupDriver::Cgroupfs));
    assert!(client.get_container_events().await.is_ok());
}

#[tokio::test]
async fn streamed_lists_are_whole() {
    let fake = Fake::start(Profile::newest()).unwrap();
    fake.add_image("web", ImageConfig::default());
    let client = fake.client().unwrap();
    for n in 0..7 {
        client.run_pod_sandbox(&sandbox(&format!("p{n}")), "").await.unwrap();
    }
    assert_eq!(client.list_pod_sandbox(&SandboxFilter::default()).await.unwrap().len(), 7);
    assert_eq!(client.list_pod_sandbox_stats(&SandboxStatsFilter::default()).await.unwrap().len(), 7);
    assert_eq!((fake.count("StreamPodSandboxes"), fake.count("ListPodSandbox")), (1, 0));
    let unary = fake.client_with(Options { streaming_lists: false, ..Options::default() }).unwrap();
    assert_eq!(unary.list_pod_sandbox(&SandboxFilter::default()).await.unwrap().len(), 7);
    assert_eq!(fake.count("ListPodSandbox"), 1);
}

#[tokio::test]
async fn events_open_on_a_quiet_runtime_and_end_when_it_does() {
    let fake = Fake::start(Profile::containerd_2()).unwrap();
    fake.add_image("web", ImageConfig::default());
    let client = fake.client_with(quick()).unwrap();
    // Not one event comes before the stream counts as open, nor for longer than any deadline.
    let mut events = client.get_container_events().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), events.next()).await.is_err());
    let pod = client.run_pod_sandbox(&sandbox("a"), "").await.unwrap();
    let event = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.container_id, event.kind), (pod.clone(), ContainerEventKind::Created));
    assert_eq!(event.sandbox_status.unwrap().state, SandboxState::Ready);

    fake.lose_events(true);
    client.stop_pod_sandbox(&pod).await.unwrap();
    fake.lose_events(false);
    client.remove_pod_sandbox(&pod).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&ContainerEventKind::Deleted) {
        kinds.push(tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap().unwrap().kind);
    }
    assert_eq!(kinds, [ContainerEventKind::Started, ContainerEventKind::Deleted]);

    fake.stop_server().await;
    let broken = tokio::time::timeout(SOON, events.next()).await.unwrap();
    assert!(matches!(broken, Some(Err(Error::Unreachable { .. })) | None), "{broken:?}");
    assert!(events.next().await.is_none());
    fake.start_server().unwrap();
    client.get_container_events().await.unwrap();
}

#[tokio::test]
async fn events_that_are_refused_for_now_are_not_forgotten_for_ever() {
    let fake = Fake::start(Profile::containerd_2()).unwrap();
    let client = fake.client().unwrap();
    fake.inject_first("GetContainerEvents", 1, Fault::error(Code::Unavailable, "starting"));
    assert_eq!(client.get_container_events().await.unwrap_err().class(), Class::Transient);
    assert!(client.features().events);
    assert!(client.get_container_events().await.is_ok());
}

#[tokio::test]
async fn a_large_output_comes_through() {
    let (fake, client, _, id) = running(Profile::newest(), Options::default()).await;
    let text = "x".repeat(16 << 20);
    fake.script(&["flood"], Program::ends(0, &text, &text));
    let output = client.exec_sync(&id, &["flood".into()], SOON * 6).await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (16 << 20, 16 << 20));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_not_a_runtime_that_hangs() {
    let (fake, client, _, id) = running(Profile::newest(), quick()).await;
    fake.inject_first("ExecSync", 1, Fault::error(Code::DeadlineExceeded, "timeout 1s exceeded"));
    let error = client.exec_sync(&id, &["/web".into()], Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, Error::ExecTimeout { .. }), "{error:?}");
    fake.inject_first("ExecSync", 1, Fault::Hang);
    let error = client.exec_sync(&id, &["/web".into()], Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
}

#[tokio::test]
async fn the_grace_is_whole_seconds_and_never_less_than_asked_for() {
    let (fake, client, _, id) = running(Profile::newest(), Options::default()).await;
    client.stop_container(&id, Duration::from_millis(1200)).await.unwrap();
    assert_eq!(fake.calls().last().unwrap().ids, [id, "2".to_owned()]);
    assert_eq!(calls::seconds(Duration::ZERO), 0);
    assert_eq!(calls::seconds(Duration::MAX), i64::MAX);
}

#[tokio::test]
async fn credentials_are_never_told() {
    let fake = Fake::start(Profile::newest()).unwrap();
    fake.add_to_registry("private", ImageConfig { credentials: Some(("u".into(), "right".into())), ..Default::default() });
    let client = fake.client().unwrap();
    let wrong = AuthConfig { username: "u".into(), password: "hunter2-wrong".into(), ..Default::default() };
    let error = client.pull_image(&"private".into(), Some(&wrong), &sandbox("a")).await.unwrap_err();
    let text = format!("{error} {error:?} {wrong:?}");
    assert!(text.contains("[redacted]") && !text.contains("hunter2"), "{text}");
    let right = AuthConfig { password: "right".into(), ..wrong };
    let reference = client.pull_image(&"private".into(), Some(&right), &sandbox("a")).await.unwrap();
    assert_eq!(client.image_status(&"private".into()).await.unwrap().unwrap().id, reference);

    let mut config = container("c", &[]);
    config.env = vec![EnvVar::new("TOKEN", "hunter2")];
    let wire = crate::convert::to::container_config(&config).unwrap();
    let auth = crate::convert::to::auth(&right);
    assert!(!format!("{config:?} {wire:?} {auth:?}").contains("hunter2") && !format!("{auth:?}").contains("right"));
    let output = ExecOutput { stdout: b"hunter2".to_vec(), stderr: b"hunter2".to_vec(), exit_code: 0 };
    assert!(!format!("{output:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_not_sent() {
    let fake = Fake::start(Profile::newest()).unwrap();
    let client = fake.client().unwrap();
    let mut nameless = sandbox("a");
    nameless.metadata.uid.clear();
    let error = client.run_pod_sandbox(&nameless, "").await.unwrap_err();
    assert_eq!(error.to_string(), "RunPodSandbox: config.metadata.uid: must not be empty");
    let mut config = container("c", &[]);
    config.env = vec![EnvVar::new("A", "fine"), EnvVar::new("B=", "secret")];
    let error = client.create_container("x", &config, &sandbox("a")).await.unwrap_err();
    assert!(error.to_string().starts_with("CreateContainer: config.envs[1]") && !error.to_string().contains("secret"), "{error}");
    config.env.clear();
    config.stop_signal = Some("SIGNONE".into());
    let error = client.create_container("x", &config, &sandbox("a")).await.unwrap_err();
    assert_eq!(error.to_string(), "CreateContainer: config.stop_signal: there is no signal \"SIGNONE\"");
    assert_eq!(error.class(), Class::Permanent);
    assert!(client.remove_container("").await.is_err());
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn another_socket_for_images_is_used_for_images_only() {
    let (runtime, images) = (Fake::start(Profile::newest()).unwrap(), Fake::start(Profile::newest()).unwrap());
    let options = Options { image_endpoint: Some(images.endpoint()), ..Options::default() };
    let client = runtime.client_with(options).unwrap();
    client.list_images().await.unwrap();
    client.version().await.unwrap();
    assert_eq!((runtime.calls().len(), images.calls().len()), (1, 1));
    images.stop_server().await;
    let error = client.list_images().await.unwrap_err();
    assert!(error.to_string().contains(images.endpoint().trim_start_matches("unix://")), "{error}");
}
