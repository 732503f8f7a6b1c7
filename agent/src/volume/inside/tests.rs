use super::*;
use std::io::Read;
use std::os::unix::fs::symlink;

fn read(root: &Path, path: &str) -> std::result::Result<String, String> {
    let mut text = String::new();
    let mut file = open(root, path).map_err(|e| std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default())?;
    file.read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

#[test]
fn links_stay_inside_and_only_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("volume");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(dir.path().join("secret"), "outside").unwrap();
    std::fs::write(root.join("sub/a"), "inside").unwrap();
    symlink("/sub/a", root.join("absolute")).unwrap();
    symlink("../../../sub/a", root.join("up")).unwrap();
    symlink("sub", root.join("folder")).unwrap();
    for path in ["sub/a", "/sub/a", "./sub//a", "absolute", "up", "folder/a", "../../sub/a"] {
        assert_eq!(read(&root, path).as_deref(), Ok("inside"), "{path}");
    }
    symlink(dir.path().join("secret"), root.join("out")).unwrap();
    symlink("../secret", root.join("out2")).unwrap();
    symlink("/proc/self/root/etc/passwd", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    for path in ["out", "out2", "magic", "loop", "../secret", "none", "sub/a/b", "nul\0", ""] {
        assert!(read(&root, path).is_err(), "{path}");
    }
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    for path in ["pipe", "socket", "sub", "."] {
        assert_eq!(read(&root, path), Err("not a regular file".into()), "{path}");
    }
}
