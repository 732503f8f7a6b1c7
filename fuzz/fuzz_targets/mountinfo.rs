//! The table of mounts, in which names come from containers: what is to be unmounted lies in the folder, what is deeper first.
#![no_main]

use ferrolet::volume::fuzzing::below;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|table: &[u8]| {
    let folder = Path::new("/var/lib/kubelet/pods/a");
    let points = below(table, folder);
    for point in &points {
        assert!(point.starts_with(folder), "{}", point.display());
    }
    for (before, after) in points.iter().zip(points.iter().skip(1)) {
        assert!(before == after || !after.starts_with(before), "{} before {}", before.display(), after.display());
    }
});
