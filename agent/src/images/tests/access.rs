//! Who may use what has been pulled, also when the agent is killed at it.

use super::super::auth::Source;
use super::super::*;
use super::sandbox;
use ferrolet_cri::fake::{Fake, Fault, ImageConfig, Profile};
use ferrolet_cri::types::AuthConfig;
use records::Users;
use std::path::Path;

const IMAGE: &str = "reg.local/private/web:1";

/// An agent's pulls over a fake runtime; dropping it is a crash.
struct World {
    images: Images,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl World {
    fn start(fake: &Fake, dir: &Path, policy: Policy) -> World {
        let settings = Settings { parallel: 4, policy, root_dir: dir.to_owned() };
        let (images, task) = Images::spawn(fake.client().unwrap(), settings, CancellationToken::new());
        World { images, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }

    async fn pull(&self, credential: Option<Credential>) -> Answer {
        let wanted = Wanted { asked: IMAGE.into(), image: IMAGE.into(), credential };
        self.images.pull(wanted, &sandbox(), || {}).await
    }

    /// Whether a pod with these credentials may use the image; `None`: nothing depends on them.
    async fn access(&self, id: &str, credentials: &[Credential]) -> Option<Access> {
        match self.images.known(IMAGE, id).await {
            Known::Free => None,
            Known::Unproven => Some(Access::Denied),
            Known::Asks(record) => Some(records::access(&record, IMAGE, credentials)),
        }
    }
}

fn credential(uid: &str, password: &str) -> Credential {
    Credential {
        config: AuthConfig { username: "u".into(), password: password.into(), ..Default::default() },
        source: Source::Secret(secret(uid, password)),
    }
}

fn secret(uid: &str, password: &str) -> PullSecret {
    let credential_hash = format!("hash of {password}");
    PullSecret { uid: uid.into(), namespace: "ns".into(), name: "s".into(), credential_hash }
}

fn private(fake: &Fake) {
    fake.add_to_registry(IMAGE, ImageConfig { credentials: Some(("u".into(), "right".into())), ..Default::default() });
}

fn folder(dir: &Path) -> Folder {
    Folder::new(dir)
}

fn intents(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    folder(dir).each::<Intent>(|i| all.push(i.unwrap().image)).unwrap();
    all
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn who_has_pulled_may_use_and_others_may_not() {
    let (fake, dir) = (Fake::start(Profile::containerd_2()).unwrap(), tempfile::tempdir().unwrap());
    private(&fake);
    let w = World::start(&fake, dir.path(), Policy::Preloaded);
    assert!(w.pull(Some(credential("1", "wrong"))).await.is_err());
    assert_eq!(intents(dir.path()), Vec::<String>::new(), "a failed pull leaves nothing");
    let id = w.pull(Some(credential("1", "right"))).await.unwrap().image.id;
    assert_eq!(intents(dir.path()), Vec::<String>::new());
    for w in [w, World::start(&fake, dir.path(), Policy::Always)] {
        assert_eq!(w.access(&id, &[credential("1", "right")]).await, Some(Access::Granted));
        assert_eq!(w.access(&id, &[]).await, Some(Access::Denied));
        assert_eq!(w.access(&id, &[credential("2", "wrong")]).await, Some(Access::Denied));
        let same = credential("2", "right");
        assert_eq!(w.access(&id, std::slice::from_ref(&same)).await, Some(Access::GrantedBy(secret("2", "right"))));
    }
    let w = World::start(&fake, dir.path(), Policy::Never);
    assert_eq!(w.access(&id, &[]).await, None);
    // One credential more is remembered, by the one that writes.
    w.images.grant(IMAGE, &id, secret("2", "right"));
    let record = || folder(dir.path()).read::<Record>(&id).unwrap().unwrap();
    until("remembered", || (record().credential_mapping["reg.local/private/web"].kubernetes_secrets.len() == 2).then_some(()))
        .await;
    // Nobody's pull makes it everybody's.
    fake.add_to_registry(IMAGE, ImageConfig::default());
    w.pull(None).await.unwrap();
    assert_eq!(record().credential_mapping["reg.local/private/web"], Users::of(None));
    let w = World::start(&fake, dir.path(), Policy::Preloaded);
    assert_eq!(w.access(&id, &[]).await, None);
}

#[tokio::test]
async fn what_was_always_there() {
    let fake = Fake::start(Profile::containerd_2()).unwrap();
    for (policy, expected) in [
        (Policy::Preloaded, None),
        (Policy::Never, None),
        (Policy::Always, Some(Access::Denied)),
        (Policy::Allowlisted(policy::Allowlist::parse(&["reg.local/*".into()]).unwrap()), None),
        (Policy::Allowlisted(policy::Allowlist::parse(&["other/*".into()]).unwrap()), Some(Access::Denied)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let w = World::start(&fake, dir.path(), policy.clone());
        assert_eq!(w.access("sha256:1", &[credential("1", "x")]).await, expected, "{policy:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    // A record that cannot be read proves nothing, whatever it was.
    folder(dir.path()).write(&Intent::of(IMAGE)).unwrap();
    let w = World::start(&fake, dir.path(), Policy::Preloaded);
    assert_eq!(w.access("sha256:1", &[]).await, Some(Access::Denied), "its pull had begun");
    for entry in std::fs::read_dir(dir.path().join("image_manager/pulling")).unwrap() {
        std::fs::write(entry.unwrap().path(), "{").unwrap();
    }
    assert_eq!(w.access("sha256:1", &[]).await, Some(Access::Denied));
}

/// An agent killed at any point of a pull: the image is never taken for one that was always there.
#[tokio::test]
async fn killed_while_it_pulls() {
    let (fake, dir) = (Fake::start(Profile::containerd_2()).unwrap(), tempfile::tempdir().unwrap());
    private(&fake);
    fake.inject_first("PullImage", 1, Fault::HangAfter);
    let w = World::start(&fake, dir.path(), Policy::Preloaded);
    let images = w.images.clone();
    let pull = tokio::spawn(async move {
        let wanted = Wanted { asked: IMAGE.into(), image: IMAGE.into(), credential: Some(credential("1", "right")) };
        images.pull(wanted, &sandbox(), || {}).await
    });
    let cri = fake.client().unwrap();
    let there = async || cri.image_status(&IMAGE.into()).await.unwrap().map(|i| i.id);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let id = loop {
        if let Some(id) = there().await {
            break id;
        }
        assert!(tokio::time::Instant::now() < end && !pull.is_finished(), "never pulled");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(intents(dir.path()), [IMAGE], "on the disk before the runtime was asked");
    drop(w);
    assert_eq!(pull.await.unwrap(), Err(PullError::Stopping));
    let w = World::start(&fake, dir.path(), Policy::Preloaded);
    assert_eq!(w.access(&id, &[]).await, Some(Access::Denied));
    until("the next agent has found it", || folder(dir.path()).read::<Record>(&id).unwrap()).await;
    until("and is done with it", || intents(dir.path()).is_empty().then_some(())).await;
    assert_eq!(w.access(&id, &[credential("1", "right")]).await, Some(Access::Denied), "nobody knows by what it came");
    w.pull(Some(credential("1", "right"))).await.unwrap();
    assert_eq!(w.access(&id, &[credential("1", "right")]).await, Some(Access::Granted));
}

#[tokio::test]
async fn nothing_is_pulled_that_cannot_be_recorded() {
    let (fake, dir) = (Fake::start(Profile::containerd_2()).unwrap(), tempfile::tempdir().unwrap());
    private(&fake);
    std::fs::write(dir.path().join("image_manager"), "in the way").unwrap();
    let w = World::start(&fake, dir.path(), Policy::Preloaded);
    let error = w.pull(Some(credential("1", "right"))).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("Failed to record image pull intent for container image {IMAGE:?}: ")), "{error}");
    assert_eq!(fake.count("PullImage"), 0);
}

#[tokio::test]
async fn records_of_images_that_are_gone_go_in_time() {
    let (fake, dir) = (Fake::start(Profile::containerd_2()).unwrap(), tempfile::tempdir().unwrap());
    fake.add_image("kept:1", ImageConfig::default());
    let id = fake.client().unwrap().image_status(&"kept:1".into()).await.unwrap().unwrap().id;
    let now = crate::pod::Time::now();
    let at = |seconds: i64| {
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::pod::Time::from_second(now.as_second() - seconds).unwrap())
    };
    let write = |image: &str, age: i64| {
        let record = records::merged(None, image, "kept", Some(&Users::of(None)), at(age)).unwrap();
        folder(dir.path()).write(&record).unwrap();
    };
    write(&id, 1000);
    write("sha256:gone", 1000);
    write("sha256:young", 1);
    // What an agent left of a pull has the next one look at once.
    folder(dir.path()).write(&Intent::of("never-came:1")).unwrap();
    let _w = World::start(&fake, dir.path(), Policy::Preloaded);
    let has = |image: &str| folder(dir.path()).read::<Record>(image).unwrap().is_some();
    until("gone", || (!has("sha256:gone")).then_some(())).await;
    assert!(has(&id) && has("sha256:young"));
    assert_eq!(intents(dir.path()), ["never-came:1"]);
}
