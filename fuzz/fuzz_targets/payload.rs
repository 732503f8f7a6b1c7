//! Volumes of files: whatever keys and items say, readers see what was written and nothing else, and nothing lies outside.
//! The input is JSON: a list of steps, each the `data` and the `items` of one state of a ConfigMap volume.
#![no_main]

use ferrolet::volume::fuzzing;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath};
use libfuzzer_sys::fuzz_target;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

type Step = (BTreeMap<String, String>, Vec<KeyToPath>);

fuzz_target!(|text: &[u8]| {
    let Ok(steps) = serde_json::from_slice::<Vec<Step>>(text) else { return };
    let outer = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let volume = outer.path().join("volume");
    fs::create_dir(&volume).expect("a folder in it");
    let fd = fs::File::open(&volume).expect("the folder can be opened");
    for (data, items) in steps.into_iter().take(4) {
        let object = ConfigMap { data: Some(data), ..ConfigMap::default() };
        let Some(files) = fuzzing::write(fd.as_fd(), &object, &items) else { continue };
        let mut visible = BTreeSet::new();
        for (path, data) in &files {
            assert_eq!(&fs::read(volume.join(path)).expect("it can be read as a container does"), data, "{path:?}");
            visible.extend(path.split('/').next());
        }
        let names = names(&volume);
        let shown: BTreeSet<&str> = names.iter().map(String::as_str).filter(|n| !n.starts_with("..")).collect();
        assert_eq!(shown, visible);
    }
    assert_eq!(names(outer.path()), ["volume"]);
});

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder that can be read");
    entries.map(|e| e.expect("an entry").file_name().into_string().expect("names are UTF-8")).collect()
}
