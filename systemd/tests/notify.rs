//! The protocol on a real datagram socket, in a process of its own (the environment is the process's).

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

#[test]
fn says_ready_with_a_status_line() {
    let dir = std::env::temp_dir().join(format!("ferrolet-notify-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // SAFETY: the only test in this process; no other thread reads the environment.
    unsafe { std::env::set_var("NOTIFY_SOCKET", &path) };
    ferrolet_systemd::ready("node is Ready");
    ferrolet_systemd::stopping();
    let mut buffer = [0; 200];
    let mut next = || {
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(next().trim(), "READY=1\nSTATUS=node is Ready");
    assert_eq!(next().trim(), "STOPPING=1");
    std::fs::remove_dir_all(dir).unwrap();
}
