//! The agent's own memory: few heaps, and back to the system what a burst of work left behind.
//!
//! Two thirds of what an idle agent would hold are pages of its program that only its start or a pod's start needed, and
//! what the allocator keeps of the buffers of that time. Both are given back once the runtime has been at rest for a while.
//! Not on the path of anything: what is needed again comes from the page cache, some microseconds for 64 KiB.

use crate::observe::RuntimeSnapshot;
use nix::libc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// No change of any container for so long is rest.
const REST: Duration = Duration::from_secs(5);
/// Where there is never rest, so often.
const AT_LEAST: Duration = Duration::from_secs(60);

/// Two heaps, not eight for each processor: a heap that a thread was given for a burst keeps its pages. To be called before
/// there are threads.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers; no other thread runs yet that could allocate meanwhile.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Set, these stay: by itself the allocator raises both with the largest buffer it has seen, and keeps as much.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}

/// Gives back after each burst of changes in the runtime, the agent's own start included.
pub fn spawn(mut runtime: watch::Receiver<Arc<RuntimeSnapshot>>, cancel: CancellationToken) -> JoinHandle<()> {
    let work = async move {
        let mut seen = shape(&runtime.borrow_and_update());
        loop {
            let _ = timeout(AT_LEAST, rest(&mut runtime, &mut seen)).await;
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return std::future::pending().await;
            }
            if change(&mut runtime, &mut seen).await.is_none() {
                return std::future::pending().await;
            }
        }
    };
    tokio::spawn(async move {
        cancel.run_until_cancelled_owned(work).await;
    })
}

/// Until nothing has changed for a while; also when there is nothing any more that could.
async fn rest(runtime: &mut watch::Receiver<Arc<RuntimeSnapshot>>, seen: &mut Shape) {
    while let Ok(Some(())) = timeout(REST, change(runtime, seen)).await {}
}

/// The next change of a pod in the runtime; looks that found nothing new are none.
async fn change(runtime: &mut watch::Receiver<Arc<RuntimeSnapshot>>, seen: &mut Shape) -> Option<()> {
    loop {
        runtime.changed().await.ok()?;
        let new = shape(&runtime.borrow_and_update());
        if *seen != new {
            *seen = new;
            return Some(());
        }
    }
}

/// Where the snapshot's pods lie in memory: the observer keeps those that are as they were.
type Shape = Vec<usize>;

fn shape(snapshot: &RuntimeSnapshot) -> Shape {
    snapshot.pods.values().map(|pod| Arc::as_ptr(pod).addr()).collect()
}

/// Some milliseconds of work.
fn give_back() {
    ferrolet_netproxy::memory::give_back();
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for (start, end) in unchanged_files(&maps) {
        // SAFETY: mappings of this process that the kernel has just named: of files, not writable, and without one page that
        // differs from its file. What is read there next is read from the file again, byte for byte the same.
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED);
        }
    }
}

/// Start and end of each mapping of a file that cannot be written and holds no page of its own, from /proc/PID/smaps
/// (proc_pid_smaps(5)). Pages of its own has what the dynamic linker relocated before it made it read-only.
fn unchanged_files(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if first == "Anonymous:" {
            let own = words.next();
            found.extend(candidate.take().filter(|_| own == Some("0")));
        } else if !first.ends_with(':') {
            let (permissions, path) = (words.next().unwrap_or_default(), words.nth(3).unwrap_or_default());
            let fixed = permissions.starts_with('r') && !permissions.contains('w') && permissions.ends_with('p');
            candidate = range(first).filter(|_| fixed && path.starts_with('/'));
        }
    }
    found
}

fn range(word: &str) -> Option<(usize, usize)> {
    let (start, end) = word.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::PodRuntime;
    use crate::pod::PodId;
    use futures::FutureExt;

    const SMAPS: &str = "\
55d0c1000000-55d0c1591000 r--p 00000000 fe:00 5309751                    /usr/bin/ferrolet
Size:               5700 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
55d0c1591000-55d0c29e0000 r-xp 00591000 fe:00 5309751                    /usr/bin/ferrolet
Anonymous:             0 kB
55d0c29e0000-55d0c2a80000 r--p 019e0000 fe:00 5309751                    /usr/bin/ferrolet
Anonymous:           644 kB
55d0c2a80000-55d0c2a85000 rw-p 01a80000 fe:00 5309751                    /usr/bin/ferrolet
Anonymous:             0 kB
55d0c3000000-55d0c3100000 rw-p 00000000 00:00 0                          [heap]
Anonymous:           980 kB
7f1543b06000-7f1543b08000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f1543b30000-7f1543c86000 r-xp 00026000 fe:00 326279                     /usr/lib/x86_64-linux-gnu/libc.so.6
Anonymous:             0 kB
7f1543d00000-7f1543d01000 r--s 00000000 fe:00 326280                     /var/cache/some file (deleted)
Anonymous:             0 kB
7ffed2190000-7ffed2192000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_pages_of_files_are_given_back() {
        let expected = [(0x55d0c1000000, 0x55d0c1591000), (0x55d0c1591000, 0x55d0c29e0000), (0x7f1543b30000, 0x7f1543c86000)];
        assert_eq!(unchanged_files(SMAPS), expected);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        for smaps in
            ["", "x-y r-xp 0 0 0 /x\nAnonymous: 0 kB", "2-1 r-xp 0 0 0 /x\nAnonymous: 0 kB", "1-2 r-xp 0 0 0 /x\nAnonymous:"]
        {
            assert_eq!(unchanged_files(smaps), [], "{smaps}");
        }
    }

    #[test]
    fn this_process_goes_on_with_less() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("RssFile:")).unwrap();
            line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        give_back();
        assert!(resident() < before, "{} of {before} KiB", resident());
    }

    #[tokio::test]
    async fn a_look_that_finds_nothing_new_is_no_change() {
        let (publish, mut runtime) = watch::channel(Arc::<RuntimeSnapshot>::default());
        let mut seen = shape(&runtime.borrow_and_update());
        let add = |uid: &str| {
            let mut next = RuntimeSnapshot::clone(&publish.borrow());
            let id = PodId { namespace: "ns".into(), name: "pod".into(), uid: uid.into() };
            next.pods.insert(uid.into(), Arc::new(PodRuntime { id, sandboxes: vec![], containers: vec![], is_static: false }));
            publish.send_replace(Arc::new(next));
        };
        for uid in ["1", "2", "1"] {
            add(uid);
            assert_eq!(change(&mut runtime, &mut seen).now_or_never(), Some(Some(())));
            let same = RuntimeSnapshot::clone(&publish.borrow());
            publish.send_replace(Arc::new(same));
            assert_eq!(change(&mut runtime, &mut seen).now_or_never(), None);
        }
        drop(publish);
        assert_eq!(change(&mut runtime, &mut seen).await, None);
    }
}
