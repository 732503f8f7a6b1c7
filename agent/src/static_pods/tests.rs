use super::*;

fn pod(uid: &str, name: &str) -> Arc<Pod> {
    let mut pod = Pod::default();
    pod.metadata.uid = Some(uid.into());
    pod.metadata.name = Some(name.into());
    Arc::new(pod)
}

fn found(pods: Vec<Arc<Pod>>, broken: bool) -> Found {
    Found { pods, broken, ..Found::default() }
}

#[test]
fn all_sources_are_waited_for_and_a_name_is_given_once() {
    assert!(StaticPods::of([]).synced);
    let all = StaticPods::of([Kind::File, Kind::Http]);
    assert!(!all.synced);
    let all = all.with(Kind::Http, found(vec![pod("1", "a"), pod("2", "b")], false));
    assert!(!all.synced && all.pods.len() == 2);
    let all = all.with(Kind::File, found(vec![pod("3", "a"), pod("4", "a")], true));
    assert!(all.synced && all.broken);
    assert_eq!(all.problems["/a"], "two static pods have this name or uid: one of the http source is ignored");
    assert_eq!(all.pods.keys().collect::<Vec<_>>(), ["2", "3"]);
    let all = all.with(Kind::File, found(vec![], false));
    assert!(!all.broken && all.problems.is_empty());
    assert_eq!(all.pods.keys().collect::<Vec<_>>(), ["1", "2"]);
}
