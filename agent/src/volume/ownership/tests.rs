use super::*;
use crate::volume::beneath::{make_folder, remove_tree};
use rustix::fs::CWD;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: files can be given away by root only");
    }
    root
}

fn opened(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, FOLDER, Mode::empty()).unwrap()
}

fn seen(path: &Path) -> (u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.gid(), meta.mode() & 0o7777)
}

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn all_becomes_the_groups_and_links_are_not_followed() {
    if !root() {
        return;
    }
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("a/b/c")).unwrap();
    for (name, mode) in [("f", 0o600), ("a/run", 0o4711), ("a/b/c/last", 0o444)] {
        std::fs::write(at(name), "x").unwrap();
        set(&at(name), mode);
    }
    set(&at("a/b"), 0o700);
    let kept = outside.path().join("kept");
    std::fs::write(&kept, "x").unwrap();
    set(&kept, 0o600);
    symlink(&kept, at("a/link")).unwrap();
    symlink(outside.path(), at("a/folder")).unwrap();
    rustix::fs::mknodat(CWD, at("a/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let before = seen(outside.path());
    let fd = opened(dir.path());
    assert_eq!(give(fd.as_fd(), 4321, Policy::OnRootMismatch).unwrap(), 10);
    assert_eq!(seen(dir.path()).0, 4321);
    assert_eq!(seen(&at("a/b")), (4321, 0o2770));
    assert_eq!([seen(&at("f")).1, seen(&at("a/run")).1, seen(&at("a/b/c/last")).1], [0o660, 0o4771, 0o664]);
    assert_eq!([seen(&at("a/link")).0, seen(&at("a/folder")).0, seen(&at("a/pipe")).0], [4321; 3]);
    assert_eq!((seen(&kept).1, seen(outside.path())), (0o600, before));
    assert_ne!(seen(&kept).0, 4321);
    // What is right at the root is taken to be right below, where that is asked for.
    set(&at("f"), 0o600);
    assert_eq!(give(fd.as_fd(), 4321, Policy::OnRootMismatch).unwrap(), 0);
    assert_eq!(seen(&at("f")).1, 0o600);
    assert_eq!(give(fd.as_fd(), 4321, Policy::Always).unwrap(), 10);
    assert_eq!(seen(&at("f")).1, 0o660);
}

#[test]
fn a_tree_of_any_depth_and_names_of_any_length() {
    if !root() {
        return;
    }
    const DEPTH: u64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    let mut fd = opened(dir.path());
    let top = fd.try_clone().unwrap();
    for _ in 0..DEPTH {
        fd = make_folder(fd.as_fd(), &name, 0o700).unwrap().0;
    }
    assert_eq!(give(top.as_fd(), 4321, Policy::Always).unwrap(), DEPTH + 1);
    assert_eq!(rustix::fs::fstat(&fd).unwrap().st_gid, 4321);
    drop(fd);
    remove_tree(top.as_fd(), &name).unwrap();
}
