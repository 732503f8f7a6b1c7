//! Memory that nobody uses any more, back to the system.

/// To be called when much was freed: the objects of a whole list, what was written of them. The allocator of glibc keeps most
/// of that, which for 100,000 endpoints is three times what the tables themselves take. Some milliseconds of work.
pub fn give_back() {
    // SAFETY: takes no pointers, and may be called at any time from any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
