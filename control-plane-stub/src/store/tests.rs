use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const KEYS: &[&str] = &["core/pods/a/1", "core/pods/a/2", "core/pods/b/1", "core/nodes//n", "apps/deployments/a/1"];

#[derive(Clone, Debug)]
enum Step {
    Put { key: usize, value: u32, stale: bool },
    Delete { key: usize, stale: bool },
    Restart,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..KEYS.len(), any::<u32>(), prop::bool::weighted(0.1)).prop_map(|(key, value, stale)| Step::Put { key, value, stale }),
        3 => (0..KEYS.len(), prop::bool::weighted(0.1)).prop_map(|(key, stale)| Step::Delete { key, stale }),
        1 => Just(Step::Restart),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the store must be equal to: the state after every revision, and every change.
#[derive(Default)]
struct Model {
    states: Vec<BTreeMap<String, (u64, u32)>>,
    log: Vec<(u64, Change, String)>,
    compacted: u64,
}

impl Model {
    fn now(&self) -> BTreeMap<String, (u64, u32)> {
        self.states.last().cloned().unwrap_or_default()
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    fn at(&self, revision: u64) -> BTreeMap<String, (u64, u32)> {
        if revision == 0 { BTreeMap::new() } else { self.states[revision as usize - 1].clone() }
    }
}

fn keep_few() -> Keep {
    Keep { age: Duration::from_secs(3600), events: 12, in_memory: 4 }
}

fn shown(items: &[Item]) -> BTreeMap<String, (u64, u32)> {
    items.iter().map(|i| (i.key.to_string(), (i.revision, i.object["n"].as_u64().unwrap() as u32))).collect()
}

async fn step(store: &mut Store, path: &std::path::Path, model: &mut Model, step: &Step) {
    match step {
        Step::Put { key, value, stale } => {
            let key = KEYS[*key];
            let have = model.now().get(key).map(|(revision, _)| *revision);
            let expect = have.map_or(Expect::Absent, |r| Expect::Revision(if *stale { r + 1000 } else { r }));
            let result = store.put(key, expect, json!({"n": value})).await;
            if *stale && have.is_some() {
                assert!(matches!(result, Err(StoreError::Stale { .. })));
                return;
            }
            let item = result.unwrap();
            let revision = model.revision() + 1;
            assert_eq!(item.revision, revision);
            assert_eq!(item.object["metadata"]["resourceVersion"], revision.to_string());
            let mut state = model.now();
            state.insert(key.to_owned(), (revision, *value));
            model.states.push(state);
            model.log.push((revision, if have.is_some() { Change::Modified } else { Change::Added }, key.to_owned()));
        }
        Step::Delete { key, stale } => {
            let key = KEYS[*key];
            let have = model.now().get(key).map(|(revision, _)| *revision);
            let result = store.delete(key, have.unwrap_or(1) + if *stale { 1000 } else { 0 }).await;
            match (have, stale) {
                (None, _) => assert!(matches!(result, Err(StoreError::Missing { .. }))),
                (Some(_), true) => assert!(matches!(result, Err(StoreError::Stale { .. }))),
                (Some(_), false) => {
                    let revision = model.revision() + 1;
                    assert_eq!(result.unwrap().revision, revision);
                    let mut state = model.now();
                    state.remove(key);
                    model.states.push(state);
                    model.log.push((revision, Change::Deleted, key.to_owned()));
                }
            }
        }
        Step::Restart => {
            let old = std::mem::replace(store, reopened(path, None).await);
            drop(old);
            *store = reopened(path, Some(())).await;
        }
        Step::Compact => {
            model.compacted = store.compact().await.unwrap();
            assert_eq!(model.compacted, model.revision().saturating_sub(keep_few().events).max(model.compacted));
        }
    }
}

/// The writing thread of a dropped store still holds the file for a moment. `None`: a store of its own, to swap in meanwhile.
async fn reopened(path: &std::path::Path, same: Option<()>) -> Store {
    if same.is_none() {
        let spare = path.with_extension(format!("spare{}", rand::random::<u64>()));
        return Store::open(&spare, keep_few()).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(path, keep_few()) {
            Ok(store) => return store,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn check(store: &Store, model: &Model) {
    assert_eq!(store.revision(), model.revision());
    assert_eq!(shown(&store.list("", None, 0).items), model.now());
    for revision in 0..=model.revision() {
        let listed = store.list_at("core/pods/", revision, None, 0).await;
        if revision < model.compacted {
            if revision != model.revision() {
                assert!(matches!(listed, Err(StoreError::Compacted { .. })), "{revision} of {}", model.compacted);
            }
            continue;
        }
        let mut want = model.at(revision);
        want.retain(|key, _| key.starts_with("core/pods/"));
        assert_eq!(shown(&listed.unwrap().items), want);
        // In pages of one, the same.
        let (mut paged, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.list_at("core/pods/", revision, after.as_deref(), 1).await.unwrap();
            after = page.items.last().map(|i| i.key.to_string());
            paged.extend(page.items);
            if !page.more {
                break;
            }
        }
        assert_eq!(shown(&paged), want);
    }
    for from in 0..model.revision() {
        let mut watcher = store.watch("core/", from);
        let want: Vec<_> = model.log.iter().filter(|(r, _, key)| *r > from && key.starts_with("core/")).cloned().collect();
        let mut seen = Vec::new();
        while seen.len() < want.len() {
            match watcher.next().await {
                Ok(events) => seen.extend(events.iter().map(|e| (e.revision, e.change, e.key.to_string()))),
                Err(StoreError::Compacted { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if from >= model.compacted {
            assert_eq!(seen, want);
        } else {
            assert_eq!(seen, want[..seen.len()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_map_and_its_history(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store.redb");
            let mut store = Store::open(&path, keep_few()).unwrap();
            let mut model = Model::default();
            for s in &steps {
                step(&mut store, &path, &mut model, s).await;
            }
            check(&store, &model).await;
        });
    }
}

#[tokio::test]
async fn one_of_many_writers_wins_each_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), Keep::default()).unwrap();
    let first = store.put("k", Expect::Absent, json!({})).await.unwrap();
    let writers = (0..50).map(|n| store.put("k", Expect::Revision(first.revision), json!({"n": n})));
    let results = futures::future::join_all(writers).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert_eq!(store.revision(), 2);
    let many = (0..200).map(|n| {
        let store = store.clone();
        async move { store.put(&format!("k{n}"), Expect::Absent, json!({})).await }
    });
    assert!(futures::future::join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(store.revision(), 202);
}

#[tokio::test]
async fn a_watcher_waits_and_then_sees_each_change_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), keep_few()).unwrap();
    let mut watcher = store.watch("a/", 0);
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 30 {
            seen.extend(watcher.next().await.unwrap().into_iter().map(|e| e.revision));
        }
        seen
    });
    for n in 0..30 {
        store.put(&format!("a/{n}"), Expect::Absent, json!({})).await.unwrap();
        store.put(&format!("b/{n}"), Expect::Absent, json!({})).await.unwrap();
    }
    let seen = tokio::time::timeout(Duration::from_secs(20), follower).await.unwrap().unwrap();
    assert_eq!(seen, (0..30).map(|n| n * 2 + 1).collect::<Vec<u64>>());
}
