//! The sandbox process of the lab's pods: holds the namespaces, reaps orphans, ends on SIGTERM or SIGINT.

use std::ffi::c_int;

unsafe extern "C" {
    fn signal(signum: c_int, handler: usize) -> usize;
    fn pause() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

extern "C" fn end(_: c_int) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { _exit(0) }
}

extern "C" fn reap(_: c_int) {
    // SAFETY: waitpid is async-signal-safe and a null status is allowed.
    unsafe { while waitpid(-1, std::ptr::null_mut(), WNOHANG) > 0 {} }
}

fn main() {
    // SAFETY: plain libc calls with handlers that only use async-signal-safe functions.
    unsafe {
        signal(SIGINT, end as *const () as usize);
        signal(SIGTERM, end as *const () as usize);
        signal(SIGCHLD, reap as *const () as usize);
        loop {
            pause();
        }
    }
}
