//! Pulls: how many at once, and for whom.

mod access;

use super::auth::Source;
use super::*;
use ferrolet_cri::fake::{Fake, ImageConfig, Outcome, Profile};
use ferrolet_cri::types::AuthConfig;
use ferrolet_cri::types::SandboxMetadata;

const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    fake: Fake,
    images: Images,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn bench(parallel: usize, images: &[&str], took: Duration) -> Bench {
    let fake = Fake::start(Profile::containerd_2()).unwrap();
    for name in images {
        fake.add_to_registry(name, ImageConfig { pull_time: took, ..Default::default() });
    }
    let cancel = CancellationToken::new();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { parallel, policy: Policy::default(), root_dir: dir.path().to_owned() };
    let (images, _) = Images::spawn(fake.client().unwrap(), settings, cancel.clone());
    Bench { fake, images, cancel, _dir: dir }
}

impl Bench {
    fn ask(&self, image: &str, auth: Option<AuthConfig>) -> JoinHandle<Answer> {
        let (images, wanted) = (self.images.clone(), wanted(image, auth));
        tokio::spawn(async move { images.pull(wanted, &sandbox(), || {}).await })
    }

    fn running(&self) -> usize {
        self.fake.calls().iter().filter(|c| c.method == "PullImage" && c.outcome == Outcome::Running).count()
    }
}

fn wanted(image: &str, auth: Option<AuthConfig>) -> Wanted {
    let secret =
        |user: &str| PullSecret { uid: "u".into(), namespace: "ns".into(), name: "s".into(), credential_hash: user.to_owned() };
    let credential = auth.map(|config| Credential { source: Source::Secret(secret(&config.username)), config });
    Wanted { asked: image.into(), image: image.into(), credential }
}

fn sandbox() -> SandboxConfig {
    let metadata = SandboxMetadata { name: "p".into(), namespace: "ns".into(), uid: "u".into(), attempt: 0 };
    SandboxConfig { metadata, ..Default::default() }
}

/// The most pulls that ran at once while all were done.
async fn most(parallel: usize) -> usize {
    let names = ["a:1", "b:1", "c:1", "d:1"];
    let b = bench(parallel, &names, Duration::from_millis(150));
    let asked: Vec<_> = names.iter().map(|n| b.ask(n, None)).collect();
    let most = std::sync::Mutex::new(0);
    let done = || {
        let mut most = most.lock().unwrap();
        *most = b.running().max(*most);
        asked.iter().all(JoinHandle::is_finished).then_some(*most)
    };
    tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(most) = done() {
                return most;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn pulls_are_bounded() {
    assert_eq!(most(1).await, 1);
    assert_eq!(most(3).await, 3);
}

#[tokio::test]
async fn one_pull_for_all_and_the_next_only_after_it() {
    let b = bench(4, &["a:1"], Duration::from_millis(200));
    let asked: Vec<_> = (0..5).map(|_| b.ask("a:1", None)).collect();
    for each in asked {
        each.await.unwrap().unwrap();
    }
    assert_eq!(b.fake.count("PullImage"), 1);
    b.images.pull(wanted("a:1", None), &sandbox(), || {}).await.unwrap();
    assert_eq!(b.fake.count("PullImage"), 2);
}

#[tokio::test]
async fn other_credentials_are_another_pull() {
    let b = bench(4, &["a:1"], Duration::from_millis(200));
    let auth = |user: &str| Some(AuthConfig { username: user.into(), ..Default::default() });
    let asked = [b.ask("a:1", None), b.ask("a:1", auth("x")), b.ask("a:1", auth("y")), b.ask("a:1", auth("x"))];
    for each in asked {
        each.await.unwrap().unwrap();
    }
    assert_eq!(b.fake.count("PullImage"), 3);
}

#[tokio::test]
async fn who_asked_may_go_away_and_the_pull_goes_on() {
    let b = bench(1, &["a:1"], Duration::from_millis(200));
    let asked = b.ask("a:1", None);
    b.fake.wait_for_call(LIMIT, |c| c.method == "PullImage").await.unwrap();
    asked.abort();
    b.fake.wait_for_call(LIMIT, |c| c.method == "PullImage" && c.outcome == Outcome::Answered).await.unwrap();
}

#[tokio::test]
async fn a_failure_is_everybodys() {
    let b = bench(1, &[], Duration::ZERO);
    let asked = [b.ask("none:1", None), b.ask("none:1", None)];
    for each in asked {
        assert!(matches!(each.await.unwrap(), Err(PullError::Runtime(_))));
    }
}
