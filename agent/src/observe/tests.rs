use super::*;
use ferrolet_cri::fake::{Fake, ImageConfig, Profile};
use ferrolet_cri::types::{ContainerConfig, ImageSpec, SandboxConfig, SandboxMetadata};

fn id() -> PodId {
    PodId { uid: "u".into(), namespace: "ns".into(), name: "p".into() }
}

fn sandbox_config() -> SandboxConfig {
    use crate::pod::labels::{POD_NAME, POD_NAMESPACE, POD_UID};
    let labels = [(POD_UID, "u"), (POD_NAMESPACE, "ns"), (POD_NAME, "p")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    SandboxConfig {
        metadata: SandboxMetadata { name: "p".into(), namespace: "ns".into(), uid: "u".into(), attempt: 0 },
        labels: labels.into(),
        ..Default::default()
    }
}

async fn wait(handle: &mut Handle, what: impl Fn(&RuntimeSnapshot) -> bool) -> Arc<RuntimeSnapshot> {
    let found = tokio::time::timeout(Duration::from_secs(20), handle.snapshot.wait_for(|s| what(s))).await;
    found.expect("in time").expect("the observer lives").clone()
}

#[tokio::test]
async fn changes_are_seen_with_and_without_events() {
    for profile in [Profile::containerd_1_6(), Profile::containerd_2()] {
        let fake = Fake::start(profile).unwrap();
        fake.add_image("web:1", ImageConfig::default());
        let cri = fake.client().unwrap();
        let cancel = CancellationToken::new();
        let (mut handle, _task) = spawn(cri.clone(), cancel.clone());
        wait(&mut handle, |s| s.synced).await;
        let config = sandbox_config();
        let sandbox = cri.run_pod_sandbox(&config, "").await.unwrap();
        let container = ContainerConfig {
            name: "c".into(),
            image: ImageSpec::new("web:1"),
            labels: config.labels.clone(),
            ..Default::default()
        };
        let created = cri.create_container(&sandbox, &container, &config).await.unwrap();
        cri.start_container(&created).await.unwrap();
        let running = |s: &RuntimeSnapshot| s.pods.get("u").is_some_and(|p| p.containers.iter().any(Container::running));
        wait(&mut handle, running).await;
        cri.stop_pod_sandbox(&sandbox).await.unwrap();
        cri.remove_pod_sandbox(&sandbox).await.unwrap();
        wait(&mut handle, |s| s.pods.is_empty()).await;
        cancel.cancel();
    }
}

#[tokio::test]
async fn a_refresh_is_published_before_it_returns_and_asks_only_for_what_changed() {
    let fake = Fake::start(Profile::containerd_1_6()).unwrap();
    let cri = fake.client().unwrap();
    let (handle, _task) = spawn(cri.clone(), CancellationToken::new());
    cri.run_pod_sandbox(&sandbox_config(), "").await.unwrap();
    let pod = handle.refresh(&id()).await.unwrap();
    assert_eq!(pod.sandboxes.len(), 1);
    assert!(Arc::ptr_eq(&pod, &handle.snapshot.borrow().pods["u"]));
    let asked = fake.count("PodSandboxStatus");
    let again = handle.refresh(&id()).await.unwrap();
    assert!(Arc::ptr_eq(&pod, &again));
    assert_eq!(fake.count("PodSandboxStatus"), asked);
}

#[tokio::test]
async fn a_runtime_that_is_gone_leaves_the_last_snapshot_marked_stale() {
    let fake = Fake::start(Profile::containerd_1_6()).unwrap();
    let cri = fake.client().unwrap();
    cri.run_pod_sandbox(&sandbox_config(), "").await.unwrap();
    let (mut handle, _task) = spawn(cri, CancellationToken::new());
    wait(&mut handle, |s| s.synced && s.pods.len() == 1).await;
    fake.stop_server().await;
    let stale = wait(&mut handle, |s| s.stale.is_some()).await;
    assert_eq!(stale.pods.len(), 1);
    fake.start_server().unwrap();
    wait(&mut handle, |s| s.stale.is_none()).await;
}

#[test]
fn an_older_look_never_hides_a_newer_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (results, _inbox) = mpsc::channel(1);
        let (publish, snapshot) = watch::channel(Arc::<RuntimeSnapshot>::default());
        let cri = Client::connect("unix:///nowhere", Default::default()).unwrap();
        let shared = Arc::new(Shared { cri, looks: AtomicU64::new(1), results });
        let handle = Handle { snapshot: snapshot.clone(), shared };
        let mut task = Task {
            handle,
            publish,
            numbers: BTreeMap::new(),
            looking: BTreeMap::new(),
            behind: BTreeSet::new(),
            jobs: JoinSet::new(),
        };
        let sandbox = Sandbox {
            id: "s".into(),
            attempt: 0,
            ready: true,
            created_at: crate::pod::Time::UNIX_EPOCH,
            host_network: false,
            ips: vec![],
        };
        let pod = |full: bool| PodRuntime {
            id: id(),
            sandboxes: full.then(|| sandbox.clone()).into_iter().collect(),
            containers: vec![],
            is_static: false,
        };
        let look =
            |number, full| Look::Pod { number, uid: "u".into(), pod: Arc::new(pod(full)), published: oneshot::channel().0 };
        let has = || snapshot.borrow().pods.contains_key("u");
        task.apply(look(5, true));
        // A list that began before the pod was made.
        task.apply(Look::Full { number: 4, result: Ok(vec![]) });
        assert!(has());
        task.apply(look(6, false));
        assert!(!has());
        // A list that began before the pod was removed.
        task.apply(Look::Full { number: 3, result: Ok(vec![pod(true)]) });
        assert!(!has());
        task.apply(Look::Full { number: 7, result: Ok(vec![pod(true)]) });
        assert!(has());
    });
}

#[test]
fn what_has_ended_does_not_come_back_to_life() {
    let container = |id: &str, state: State| Container {
        id: id.into(),
        sandbox_id: "s".into(),
        name: "c".into(),
        attempt: 0,
        state,
        created_at: crate::pod::Time::UNIX_EPOCH,
        started_at: None,
        image: String::new(),
        image_id: String::new(),
        hash: None,
        backoff: Duration::ZERO,
        round: 0,
        user: None,
        stop_signal: None,
        resources: None,
    };
    let ended =
        || State::Exited { code: 1, finished_at: crate::pod::Time::UNIX_EPOCH, reason: "Error".into(), message: String::new() };
    let pod = |containers| Arc::new(PodRuntime { id: id(), sandboxes: vec![], containers, is_static: false });
    let mut next = RuntimeSnapshot::default();
    assert!(put(&mut next, "u".into(), pod(vec![container("a", State::Running)])));
    assert!(put(&mut next, "u".into(), pod(vec![container("a", ended())])));
    let known = next.pods["u"].clone();
    for state in [State::Running, State::Created, State::Unknown] {
        assert!(!put(&mut next, "u".into(), pod(vec![container("a", state)])));
        assert!(Arc::ptr_eq(&known, &next.pods["u"]));
    }
    // What else that look says counts.
    assert!(put(&mut next, "u".into(), pod(vec![container("a", State::Running), container("b", State::Running)])));
    let states: Vec<_> = next.pods["u"].containers.iter().map(|c| c.state.clone()).collect();
    assert_eq!(states, [ended(), State::Running]);
    assert!(put(&mut next, "u".into(), pod(vec![container("b", State::Running)])));
    assert_eq!(next.pods["u"].containers.len(), 1);
}

#[test]
fn an_image_is_called_as_the_runtime_calls_it() {
    let of = |image: &str, asked: &str| {
        build::image_name(cri::ImageSpec { image: image.into(), user_specified_image: asked.into(), ..Default::default() })
    };
    assert_eq!(of("docker.io/library/web:1", "web:1"), "docker.io/library/web:1");
    let id = format!("sha256:{}", "a".repeat(64));
    assert_eq!((of(&id, "web:1"), of(&id, ""), of("", "web:1")), ("web:1".into(), id.clone(), "web:1".into()));
}
