//! The file in which a pod's [`Record`] survives the agent: `resources.json` in the pod's own folder, which goes with the pod.
//!
//! Written whole beside it and moved into its place, so that it is always one or the other. What cannot be read is as if it were
//! not there: then what the containers were started with counts.

use super::Record;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const NAME: &str = "resources.json";
/// A pod has some hundred containers at most.
const MAX: u64 = 1 << 20;

/// Makes the folder if it is not there. Blocks.
pub fn write(folder: &Path, record: &Record) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    let next = folder.join(format!("{NAME}.next"));
    let text = serde_json::to_vec(record)?;
    // Whatever lies there is not followed.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    let written = file.write_all(&text).and_then(|()| std::fs::rename(&next, folder.join(NAME)));
    if written.is_err() {
        // On a full disk it would take the room that others wait for.
        let _ = std::fs::remove_file(&next);
    }
    written
}

fn read(folder: &Path) -> io::Result<Option<Record>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(folder.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = Vec::new();
    file.take(MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX {
        return Err(io::Error::other(format!("more than {MAX} bytes")));
    }
    Ok(Some(serde_json::from_slice(&text)?))
}

/// The records of all pods, by uid. Blocks.
pub fn load(pods: &Path) -> BTreeMap<String, Record> {
    let Ok(folders) = std::fs::read_dir(pods) else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for folder in folders.flatten() {
        match read(&folder.path()) {
            Ok(Some(record)) => drop(all.insert(folder.file_name().to_string_lossy().into_owned(), record)),
            Ok(None) => {}
            Err(error) => {
                let path = folder.path().join(NAME);
                tracing::warn!(path = %path.display(), %error, "cannot read what a pod was granted");
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::resources::Resources;

    #[test]
    fn survives_and_bad_files_do_not_count() {
        let pods = tempfile::tempdir().unwrap();
        let mut record = Record { unsettled: true, since: Some(crate::pod::Time::from_second(7).unwrap()), ..Default::default() };
        record
            .actuated
            .insert("id".into(), Resources { requests: [("cpu".to_owned(), "1".to_owned())].into(), ..Default::default() });
        let real = crate::pod::resize::Real { cpu_limit_milli: Some(10), ..Default::default() };
        record.real.insert("id".into(), real);
        write(&pods.path().join("a"), &record).unwrap();
        write(&pods.path().join("a"), &record).unwrap();
        for (name, text) in [("b", "{"), ("c", "7")] {
            std::fs::create_dir(pods.path().join(name)).unwrap();
            std::fs::write(pods.path().join(name).join(NAME), text).unwrap();
        }
        std::fs::create_dir(pods.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", pods.path().join("d").join(NAME)).unwrap();
        std::fs::create_dir_all(pods.path().join("e").join(NAME)).unwrap();
        std::fs::create_dir(pods.path().join("f")).unwrap();
        assert_eq!(load(pods.path()), [("a".to_owned(), record)].into());
        assert!(load(&pods.path().join("none")).is_empty());
    }
}
