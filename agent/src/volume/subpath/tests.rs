use super::*;
use std::os::unix::fs::symlink;

fn open_path(root: &Path, sub: &str) -> Result<PathBuf> {
    open("v", root, sub).map(|fd| path_of(fd.as_fd()))
}

#[test]
fn paths_and_links_inside_are_found_and_folders_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("..2020")).unwrap();
    std::fs::write(root.join("..2020/key"), "x").unwrap();
    symlink("..2020", root.join("..data")).unwrap();
    symlink("..data/key", root.join("key")).unwrap();
    assert_eq!(open_path(&root, "key").unwrap(), root.join("..2020/key"));
    assert_eq!(open_path(&root, "new/deep").unwrap(), root.join("new/deep"));
}

#[test]
fn nothing_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("absolute")).unwrap();
    symlink("../..", dir.path().join("up")).unwrap();
    symlink("/proc/self/root", dir.path().join("magic")).unwrap();
    for sub in ["absolute", "absolute/x", "up/etc", "magic/etc", "../x", "/etc", ""] {
        assert!(open_path(dir.path(), sub).is_err(), "{sub}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
