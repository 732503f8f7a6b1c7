use crate::config::StaticPods as Settings;
use crate::static_pods::{StaticPods, Watched, spawn};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const LIMIT: Duration = Duration::from_secs(20);

fn manifest(name: &str, image: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n")
}

struct Watch {
    pods: Watched,
    _end: DropGuard,
}

impl Watch {
    /// The slow list is out of the way: only inotify tells.
    fn start(path: PathBuf) -> Watch {
        Watch::every(path, Duration::from_secs(3600))
    }

    fn every(path: PathBuf, file_check: Duration) -> Watch {
        let cancel = CancellationToken::new();
        let settings = Settings { path: Some(path), file_check, ..Settings::default() };
        let (pods, _) = spawn(&settings, "n", &cancel);
        Watch { pods, _end: cancel.drop_guard() }
    }

    async fn until(&mut self, what: &str, found: impl Fn(&StaticPods) -> bool) -> Arc<StaticPods> {
        let waited = tokio::time::timeout(LIMIT, self.pods.wait_for(|all| found(all))).await.map(|all| all.unwrap().clone());
        match waited {
            Ok(all) => all,
            Err(_) => panic!("never {what}: {:?}", images(&self.pods.borrow())),
        }
    }

    async fn shows(&mut self, wanted: &[(&str, &str)]) -> Arc<StaticPods> {
        let wanted: Vec<_> = wanted.iter().map(|(n, i)| ((*n).to_owned(), (*i).to_owned())).collect();
        self.until(&format!("{wanted:?}"), |all| all.synced && images(all) == wanted).await
    }
}

fn images(all: &StaticPods) -> Vec<(String, String)> {
    let image = |p: &k8s_openapi::api::core::v1::Pod| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let mut found: Vec<_> = all.pods.values().map(|p| (p.metadata.name.clone().unwrap(), image(p))).collect();
    found.sort();
    found
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn files_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut w = Watch::start(dir.path().to_owned());
    w.shows(&[]).await;
    write(&at("a.yaml"), &manifest("a", "1"));
    write(&at("b.json"), &manifest("b", "1"));
    let before = w.shows(&[("a-n", "1"), ("b-n", "1")]).await;
    // Replaced as a whole, by a name that is not looked at before.
    write(&at(".a.new"), &manifest("a", "2"));
    fs::rename(at(".a.new"), at("a.yaml")).unwrap();
    let after = w.shows(&[("a-n", "2"), ("b-n", "1")]).await;
    let b = |all: &StaticPods| all.named("default", "b-n").unwrap().clone();
    assert!(Arc::ptr_eq(&b(&before), &b(&after)), "the other one is left alone");
    // In place.
    write(&at("a.yaml"), &manifest("a", "3"));
    w.shows(&[("a-n", "3"), ("b-n", "1")]).await;
    fs::remove_file(at("b.json")).unwrap();
    w.shows(&[("a-n", "3")]).await;
    fs::rename(at("a.yaml"), at(".a.yaml")).unwrap();
    w.shows(&[]).await;
}

#[tokio::test]
async fn what_is_no_manifest_is_passed_over_and_a_broken_one_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    write(&at("folder/x.yaml"), &manifest("x", "1"));
    write(&at(".hidden.yaml"), &manifest("hidden", "1"));
    write(&at("broken.yaml"), "kind: [");
    write(&at("good.yaml"), &manifest("good", "1"));
    std::os::unix::fs::symlink("/nowhere", at("dangling.yaml")).unwrap();
    std::os::unix::fs::symlink(at("folder/x.yaml"), at("link.yaml")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(at("pipe")).status();
    assert!(status.unwrap().success());
    let mut w = Watch::start(dir.path().to_owned());
    let all = w.shows(&[("good-n", "1"), ("x-n", "1")]).await;
    assert!(all.broken);
    // One that runs goes on with what it had.
    write(&at("good.yaml"), "{}");
    write(&at("broken.yaml"), &manifest("mended", "1"));
    let all = w.shows(&[("good-n", "1"), ("mended-n", "1"), ("x-n", "1")]).await;
    assert!(all.broken && all.problems.contains_key(at("good.yaml").to_str().unwrap()));
    write(&at("good.yaml"), &manifest("good", "2"));
    let all = w.shows(&[("good-n", "2"), ("mended-n", "1"), ("x-n", "1")]).await;
    assert!(!all.broken);
    write(&at("good.yaml"), "{}");
    fs::remove_file(at("good.yaml")).unwrap();
    w.shows(&[("mended-n", "1"), ("x-n", "1")]).await;
}

#[tokio::test]
async fn a_file_is_read_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut w = Watch::start(dir.path().to_owned());
    w.shows(&[]).await;
    let mut file = fs::File::create(at("a.yaml")).unwrap();
    // A pod, but not the one that is meant.
    file.write_all(manifest("a", "1").as_bytes()).unwrap();
    write(&at("b.yaml"), &manifest("b", "1"));
    let all = w.until("b", |all| !all.pods.is_empty()).await;
    assert_eq!(images(&all), [("b-n".to_owned(), "1".to_owned())]);
    file.write_all(b"---\n").unwrap();
    drop(file);
    w.shows(&[("a-n", "1"), ("b-n", "1")]).await;
}

#[tokio::test]
async fn the_folder_comes_later_goes_and_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/kubernetes/manifests");
    let mut w = Watch::start(path.clone());
    w.shows(&[]).await;
    for round in ["1", "2"] {
        fs::create_dir_all(&path).unwrap();
        write(&path.join("a.yaml"), &manifest("a", round));
        w.shows(&[("a-n", round)]).await;
        fs::remove_dir_all(dir.path().join("etc")).unwrap();
        w.shows(&[]).await;
    }
    // Another folder takes its place.
    let other = dir.path().join("other");
    fs::create_dir_all(&other).unwrap();
    write(&other.join("a.yaml"), &manifest("a", "3"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::rename(&other, &path).unwrap();
    w.shows(&[("a-n", "3")]).await;
}

#[tokio::test]
async fn one_file_may_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pod.yaml");
    let mut w = Watch::start(path.clone());
    w.shows(&[]).await;
    write(&path, &manifest("a", "1"));
    write(&dir.path().join("other.yaml"), &manifest("b", "1"));
    w.shows(&[("a-n", "1")]).await;
    write(&path, &manifest("a", "2"));
    w.shows(&[("a-n", "2")]).await;
}

#[tokio::test]
async fn of_two_files_with_one_pod_the_last_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.yaml"), &manifest("web", "1"));
    write(&dir.path().join("b.yaml"), &manifest("web", "2"));
    let mut w = Watch::start(dir.path().to_owned());
    w.shows(&[("web-n", "2")]).await;
}

#[tokio::test]
async fn a_change_behind_a_link_is_seen_by_the_slow_list() {
    let (dir, behind) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let real = behind.path().join("real.yaml");
    write(&real, &manifest("a", "1"));
    std::os::unix::fs::symlink(&real, dir.path().join("a.yaml")).unwrap();
    let mut w = Watch::every(dir.path().to_owned(), Duration::from_millis(50));
    w.shows(&[("a-n", "1")]).await;
    write(&behind.path().join("next"), &manifest("a", "2"));
    fs::rename(behind.path().join("next"), &real).unwrap();
    w.shows(&[("a-n", "2")]).await;
}
