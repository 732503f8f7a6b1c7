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

/// Swaps a name between two things until told to stop, as a container may while mounts are made.
struct Swapper(Option<std::thread::JoinHandle<u64>>, std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Swapper {
    fn start(folder: &Path, one: &str, other: &str) -> Swapper {
        use std::sync::atomic::{AtomicBool, Ordering};
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (folder, one, other, told) = (folder.to_owned(), one.to_owned(), other.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            let dir = rustix::fs::openat(CWD, &folder, PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let mut swaps = 0;
            while !told.load(Ordering::SeqCst) {
                rustix::fs::renameat_with(&dir, one.as_str(), &dir, other.as_str(), rustix::fs::RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        Swapper(Some(thread), stop)
    }

    fn end(mut self) -> u64 {
        self.1.store(true, std::sync::atomic::Ordering::SeqCst);
        self.0.take().unwrap().join().unwrap()
    }
}

#[test]
fn names_that_are_swapped_under_way_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outside.path().join("deep")).unwrap();
    std::fs::write(outside.path().join("deep/secret"), "host").unwrap();
    for target in [outside.path().to_path_buf(), PathBuf::from(format!("../../../..{}", outside.path().display()))] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/deep")).unwrap();
        std::fs::write(root.join("a/deep/secret"), "own").unwrap();
        let own = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(root.join("a/deep/secret")).unwrap());
        symlink(target, root.join("b")).unwrap();
        let swapper = Swapper::start(&root, "a", "b");
        let (mut found, mut refused) = (0, 0);
        let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
        while std::time::Instant::now() < until || found == 0 || refused == 0 {
            match open("v", &root, "a/deep/secret") {
                Ok(fd) => {
                    assert_eq!(rustix::fs::fstat(&fd).unwrap().st_ino, own);
                    found += 1;
                }
                Err(_) => refused += 1,
            }
            // Also where folders are to be made.
            let _ = open("v", &root, "a/made/here");
        }
        assert!(swapper.end() > 10);
    }
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["deep"]);
    assert_eq!(std::fs::read_dir(outside.path().join("deep")).unwrap().count(), 1);
}

#[test]
fn pipes_sockets_long_names_and_deep_paths() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap();
    // Nobody is at the other end: this must not wait.
    assert!(open_path(&root, "pipe").is_ok() && open_path(&root, "sock").is_ok());
    let long = "n".repeat(255);
    assert_eq!(open_path(&root, &long).unwrap(), root.join(&long));
    assert!(open_path(&root, &"n".repeat(256)).is_err());
    let deep = vec!["d"; 500].join("/");
    assert!(open_path(&root, &deep).is_ok());
    let names = vec![long.as_str(); 15].join("/");
    assert!(open_path(&root, &names).is_ok());
    assert!(open_path(&root, &vec![long.as_str(); 17].join("/")).is_err(), "longer than any path");
    let around = "../".repeat(30) + "etc";
    assert!(open_path(&root, &around).is_err());
    // A link to itself, and one to a link, end.
    symlink("loop", root.join("loop")).unwrap();
    assert!(open_path(&root, "loop").is_err() && open_path(&root, "loop/x").is_err());
}
