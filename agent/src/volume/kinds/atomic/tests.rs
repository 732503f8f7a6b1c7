use super::*;
use crate::volume::beneath::open_root;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn file(data: &str, mode: u32) -> File {
    File { data: data.as_bytes().to_vec(), mode, uid: None }
}

fn payload(files: &[(&str, &str)]) -> Payload {
    files.iter().map(|(path, data)| ((*path).to_owned(), file(data, 0o644))).collect()
}

fn put(dir: &Path, payload: &Payload) -> bool {
    write(open_root(dir).unwrap().unwrap().as_fd(), payload, None).unwrap()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_layout_is_the_one_applications_watch() {
    let dir = tempfile::tempdir().unwrap();
    assert!(put(dir.path(), &payload(&[("a", "1"), ("sub/b", "2"), ("sub/c", "3")])));
    assert_eq!(std::fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
    assert_eq!(std::fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
    assert_eq!(std::fs::read_link(dir.path().join("sub")).unwrap(), Path::new("..data/sub"));
    let live = std::fs::read_link(dir.path().join("..data")).unwrap();
    assert!(live.to_string_lossy().starts_with("..20"), "{live:?}");
    assert_eq!(names_in(dir.path()).len(), 4);
}

#[test]
fn the_same_again_touches_nothing_and_changes_switch() {
    let dir = tempfile::tempdir().unwrap();
    let first = payload(&[("a", "1"), ("gone", "x"), ("sub/b", "2")]);
    put(dir.path(), &first);
    let inode = || std::fs::metadata(dir.path().join("a")).unwrap().ino();
    let before = inode();
    assert!(!put(dir.path(), &first));
    assert_eq!(inode(), before);
    for changed in [
        payload(&[("a", "2"), ("sub/b", "2")]),
        payload(&[("a", "2"), ("sub/b", "2"), ("new", "")]),
        payload(&[("a", "2"), ("sub", "now a file")]),
        Payload::from([("a".to_owned(), file("2", 0o600))]),
        Payload::new(),
    ] {
        assert!(put(dir.path(), &changed));
        assert!(!put(dir.path(), &changed));
        let visible: BTreeSet<&str> = changed.keys().map(|p| p.split('/').next().unwrap()).collect();
        assert_eq!(names_in(dir.path()).len(), visible.len() + 2, "{:?}", names_in(dir.path()));
        for (path, file) in &changed {
            assert_eq!(std::fs::read(dir.path().join(path)).unwrap(), file.data);
            assert_eq!(std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777, file.mode);
        }
    }
}

#[test]
fn whatever_a_crash_left_is_tidied() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = payload(&[("a", "1"), ("b", "2")]);
    put(dir.path(), &wanted);
    // Died before the switch; died after it and before the links; a link of a removed key; a foreign file in the way.
    std::fs::create_dir(dir.path().join("..2020_01_01_00_00_00.1")).unwrap();
    std::fs::write(dir.path().join("..2020_01_01_00_00_00.1/a"), "old").unwrap();
    symlink("..2020_01_01_00_00_00.1", dir.path().join("..data_tmp")).unwrap();
    std::fs::remove_file(dir.path().join("b")).unwrap();
    symlink("..data/old", dir.path().join("old")).unwrap();
    std::fs::remove_file(dir.path().join("a")).unwrap();
    std::fs::create_dir_all(dir.path().join("a/in/the/way")).unwrap();
    assert!(!put(dir.path(), &wanted));
    assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(dir.path().join("b")).unwrap(), "2");
    assert_eq!(names_in(dir.path()).len(), 4);
}

#[test]
fn a_data_link_that_leads_away_is_replaced_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("a"), "secret").unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("..data")).unwrap();
    assert!(put(dir.path(), &payload(&[("a", "1")])));
    assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(outside.path().join("a")).unwrap(), "secret");
    let volume = open_root(dir.path()).unwrap().unwrap();
    assert_eq!(read(volume.as_fd(), "a").unwrap().unwrap().0, b"1");
    assert_eq!(read(volume.as_fd(), "absent").unwrap(), None);
}

#[test]
fn the_pods_group_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let gid = std::fs::metadata(dir.path()).unwrap().gid();
    let volume = open_root(dir.path()).unwrap().unwrap();
    let secret = Payload::from([("t".to_owned(), file("x", 0o600))]);
    assert!(write(volume.as_fd(), &secret, Some(gid)).unwrap());
    assert!(!write(volume.as_fd(), &secret, Some(gid)).unwrap());
    assert_eq!(std::fs::metadata(dir.path().join("t")).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_reader_never_sees_half_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let version = |n: u32| payload(&[("a", &n.to_string()), ("sub/b", &n.to_string())]);
    put(dir.path(), &version(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                // Through the open folder, so that both files are of the moment it was opened.
                let data = std::fs::read_link(dir.path().join("..data")).unwrap();
                let read = |name: &str| std::fs::read_to_string(dir.path().join(&data).join(name));
                // An update may have removed this version meanwhile: then there is nothing to compare.
                if let (Ok(a), Ok(b)) = (read("a"), read("sub/b")) {
                    assert_eq!(a, b);
                    seen.insert(a);
                }
                // What is visible is always there.
                std::fs::read_link(dir.path().join("a")).unwrap();
            }
            seen.len()
        });
        for n in 1..300 {
            assert!(put(dir.path(), &version(n)));
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
