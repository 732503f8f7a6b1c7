use super::*;
use std::os::unix::fs::symlink;

fn open(path: &Path) -> OwnedFd {
    open_root(path).unwrap().unwrap()
}

#[test]
fn a_tree_of_any_depth_and_width_goes() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    let mut at = make_folder(top.as_fd(), "pod", 0o755).unwrap().0;
    for i in 0..100 {
        make_folder(at.as_fd(), &format!("w{i}"), 0o755).unwrap();
    }
    // Deeper than a path can say.
    for i in 0..500 {
        let next = make_folder(at.as_fd(), "ten-letter", 0o755).unwrap().0;
        rustix::fs::openat(&next, format!("f{i}"), OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
        make_folder(next.as_fd(), ".removing-1", 0o700).unwrap();
        at = next;
    }
    drop(at);
    remove_tree(top.as_fd(), "pod").unwrap();
    assert!(!dir.path().join("pod").exists());
    remove_tree(top.as_fd(), "pod").unwrap();
}

#[test]
fn links_are_removed_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir_all(outside.join("kept")).unwrap();
    std::fs::create_dir_all(dir.path().join("pod/sub")).unwrap();
    for place in ["pod/link", "pod/sub/link", "top-link"] {
        symlink(&outside, dir.path().join(place)).unwrap();
    }
    let top = open(dir.path());
    remove_tree(top.as_fd(), "pod").unwrap();
    remove_tree(top.as_fd(), "top-link").unwrap();
    assert!(outside.join("kept").exists() && !dir.path().join("pod").exists());
    assert!(std::fs::symlink_metadata(dir.path().join("top-link")).is_err());
}

#[test]
fn folders_are_never_opened_through_links() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/etc", dir.path().join("link")).unwrap();
    let top = open(dir.path());
    assert!(open_folder(top.as_fd(), "link").is_err());
    assert!(make_folder(top.as_fd(), "link", 0o755).is_err());
    assert!(open_folder(top.as_fd(), "absent").unwrap().is_none());
    assert!(open_root(&dir.path().join("absent")).unwrap().is_none());
}

#[test]
fn modes_hold_against_the_mask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    make_folder(open(dir.path()).as_fd(), "open", 0o777).unwrap();
    let mode = std::fs::metadata(dir.path().join("open")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o777);
}

#[test]
fn the_sticky_bit_of_a_file_system_in_memory_stays() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    for (name, before, after) in [("disk", 0o700, 0o777), ("memory", 0o1777, 0o1777)] {
        let folder = make_folder(top.as_fd(), name, before).unwrap().0;
        open_to_pod(folder.as_fd(), None).unwrap();
        assert_eq!(rustix::fs::fstat(&folder).unwrap().st_mode & 0o7777, after, "{name}");
    }
}
