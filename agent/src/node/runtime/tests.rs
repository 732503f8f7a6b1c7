use super::*;
use ferrolet_cri::types::Condition;

#[test]
fn nothing_known_is_not_ready() {
    assert_eq!(Health::default().problems(), ["container runtime is down: its status is not known yet"]);
    let silent = RuntimeStatus { runtime_ready: Condition { ok: true, ..Condition::default() }, ..RuntimeStatus::default() };
    let problems = Health { status: Some(silent), ..Health::default() }.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("container runtime network not ready"), "{problems:?}");
}

#[test]
fn the_largest_images_are_listed_with_few_names() {
    let image = |id: &str, size, tags: usize| Image {
        id: id.into(),
        size_bytes: size,
        repo_digests: vec![format!("{id}@sha256:0")],
        repo_tags: (0..tags).map(|n| format!("{id}:{n}")).collect(),
        ..Image::default()
    };
    let listed = largest(vec![image("a", 1, 1), image("b", 9, 9), image("c", 5, 0)], Some(2));
    assert_eq!(listed.iter().map(|i| i.size_bytes).collect::<Vec<_>>(), [9, 5]);
    assert_eq!(listed[0].names, ["b@sha256:0", "b:0", "b:1", "b:2", "b:3"]);
    assert_eq!(largest(vec![image("a", 1, 1)], None).len(), 1);
}
