use super::*;

#[test]
fn mounts_below_are_unmounted_deepest_and_latest_first() {
    let table = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
        30 22 0:40 / /r/pods/u/volumes/a rw - tmpfs tmpfs rw\n\
        31 30 0:41 / /r/pods/u/volumes/a/b\\040c rw - tmpfs tmpfs rw\n\
        32 30 0:42 / /r/pods/u/volumes/a rw - tmpfs tmpfs rw\n\
        33 22 0:43 / /r/pods/u2/volumes/a rw - tmpfs tmpfs rw\n\
        short line\n";
    let found = below(table, Path::new("/r/pods/u"));
    let expected = ["/r/pods/u/volumes/a/b c", "/r/pods/u/volumes/a", "/r/pods/u/volumes/a"];
    assert_eq!(found, expected.map(PathBuf::from));
    assert_eq!(unescape(b"/a\\134b\\9\\01"), PathBuf::from("/a\\b\\9\\01"));
}
