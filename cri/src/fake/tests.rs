//! The fake runtime passes what the real ones have to pass.

use super::*;
use crate::scenario::{self, Params};

fn params(dir: &Path, host_network: bool) -> Params {
    Params {
        image: "ferrolet.dev/web:1".into(),
        program: "/web".into(),
        absent_image: "registry.invalid/absent:1".into(),
        log_dir: dir.join("logs"),
        scratch_dir: dir.join("scratch"),
        host_network,
        cgroup_parent: String::new(),
    }
}

/// All scenarios at once on one runtime, so that they also must not disturb each other.
async fn all_scenarios(profile: Profile, host_network: bool) {
    let dir = tempfile::tempdir().unwrap();
    let params = params(dir.path(), host_network);
    let fake = Fake::start(profile.clone()).unwrap();
    fake.add_image(&params.image, ImageConfig { env: vec![("WEB_DRAIN_MS".into(), "10".into())], ..ImageConfig::default() });
    let client = fake.client().unwrap();
    let runs = scenario::all().into_iter().map(|(name, run)| {
        let (client, params) = (&client, &params);
        async move { run(client, params).await.err().map(|why| format!("{name}: {why}")) }
    });
    let failures: Vec<String> = futures::future::join_all(runs).await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} {}:\n{}", profile.name, profile.version, failures.join("\n"));
    assert!(fake.sandboxes().is_empty() && fake.containers().is_empty(), "something is left");
}

#[tokio::test]
async fn scenarios_as_containerd_1_6() {
    all_scenarios(Profile::containerd_1_6(), false).await;
}

#[tokio::test]
async fn scenarios_as_containerd_1_7() {
    all_scenarios(Profile::containerd_1_7(), false).await;
}

#[tokio::test]
async fn scenarios_as_containerd_2() {
    all_scenarios(Profile::containerd_2(), true).await;
}

#[tokio::test]
async fn scenarios_as_crio() {
    all_scenarios(Profile::crio(), false).await;
}

#[tokio::test]
async fn scenarios_with_all_there_is() {
    all_scenarios(Profile::newest(), false).await;
}
