use super::*;
use crate::userns::UNIT;
use rustix::fs::{Mode, OFlags};
use std::path::Path;

fn pods(dir: &Path) -> OwnedFd {
    rustix::fs::openat(rustix::fs::CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn block_of(dir: &Path, uid: &str, range: &Range) -> Result<Block> {
    block(&pods(dir), uid, range, 0)
}

#[test]
fn a_pod_keeps_its_block_until_its_folder_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let range = Range::new(UNIT, u64::from(UNIT) * 2, UNIT, 2).unwrap();
    let a = block_of(dir.path(), "a", &range).unwrap();
    let b = block_of(dir.path(), "b", &range).unwrap();
    assert_ne!(a.first, b.first);
    // Asked again, also by another agent: nothing is kept in memory.
    assert_eq!(block_of(dir.path(), "a", &range).unwrap(), a);
    let text = std::fs::read_to_string(dir.path().join("a/userns")).unwrap();
    assert_eq!(text, a.to_file());
    let full = block_of(dir.path(), "c", &range).unwrap_err();
    assert!(matches!(full, Error::UserNamespace { source: crate::userns::Error::Full, .. }));
    std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    assert_eq!(block_of(dir.path(), "c", &range).unwrap().first, a.first);
}

#[test]
fn records_that_cannot_be_read_stop_the_choice() {
    let dir = tempfile::tempdir().unwrap();
    let range = Range::whole(UNIT, 110).unwrap();
    std::fs::create_dir_all(dir.path().join("odd")).unwrap();
    std::fs::write(dir.path().join("odd/userns"), "{").unwrap();
    let said = block_of(dir.path(), "new", &range).unwrap_err();
    assert!(matches!(&said, Error::UserNamespace { uid, .. } if uid == "odd"), "{said}");
    assert!(block_of(dir.path(), "odd", &range).is_err());
    // A link leads nowhere, and what is no pod's folder says nothing.
    std::fs::remove_file(dir.path().join("odd/userns")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("odd/userns")).unwrap();
    assert!(matches!(block_of(dir.path(), "odd", &range), Err(Error::Io { .. })));
    std::fs::remove_dir_all(dir.path().join("odd")).unwrap();
    std::fs::create_dir_all(dir.path().join("no pod")).unwrap();
    std::fs::write(dir.path().join("no pod/userns"), "{").unwrap();
    // An empty file was never written to.
    std::fs::create_dir_all(dir.path().join("new")).unwrap();
    std::fs::write(dir.path().join("new/userns"), "").unwrap();
    assert!(block_of(dir.path(), "new", &range).is_ok());
}

#[test]
fn a_running_pods_block_stands_whatever_is_configured_now() {
    let dir = tempfile::tempdir().unwrap();
    let before = block_of(dir.path(), "a", &Range::new(UNIT, u64::from(UNIT), UNIT, 1).unwrap()).unwrap();
    let other = Range::new(UNIT * 2, u64::from(UNIT) * 4, UNIT * 2, 2).unwrap();
    assert_eq!(block_of(dir.path(), "a", &other).unwrap(), before);
}

#[test]
fn many_at_once_each_get_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let range = Range::new(UNIT, u64::from(UNIT) * 32, UNIT, 32).unwrap();
    let ask = |n: u32| block(&pods(dir.path()), &format!("p{n}"), &range, n % 3).unwrap().first;
    let mut found: Vec<u32> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..32).map(|n| scope.spawn(move || ask(n))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 32);
}
