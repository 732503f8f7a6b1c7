use super::*;
use nix::sys::stat::Mode;
use std::fs;

fn config(user: &str) -> String {
    format!(r#"{{"auths": {{"reg.io": {{"username": "{user}"}}}}}}"#)
}

fn user(config: &DockerConfig) -> &str {
    config.0.get("reg.io").map_or("", |l| l.username.as_str())
}

#[test]
fn the_first_that_can_be_read_is_the_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["root", "here", "home/.docker"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    let mut places = Places::new(&at("root"), Some(&at("here")), Some(&at("home")));
    // Whatever this host has of its own.
    places.0.retain(|(path, _)| path.starts_with(dir.path()));
    assert_eq!(places.read(), (DockerConfig::default(), vec![]));
    // From the last to the first.
    let legacy = |user: &str| format!(r#"{{"reg.io": {{"username": "{user}"}}}}"#);
    for (path, text, expected) in [
        ("home/.dockercfg", legacy("7"), "7"),
        ("here/.dockercfg", legacy("6"), "6"),
        ("root/.dockercfg", legacy("5"), "5"),
        ("home/.docker/config.json", config("4"), "4"),
        ("here/config.json", config("3"), "3"),
        ("root/config.json", config("2"), "2"),
    ] {
        fs::write(at(path), text).unwrap();
        let (found, problems) = places.read();
        assert_eq!((user(&found), problems), (expected, vec![]));
    }
    fs::write(at("root/config.json"), "hunter2").unwrap();
    let (found, problems) = places.read();
    assert_eq!((user(&found), problems.len()), ("3", 1), "the next one");
    assert!(problems[0].contains("root/config.json: not the JSON") && !problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn nobody_waits_for_what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("config.json");
    let places = Places(vec![(at.clone(), DockerConfig::json)]);
    nix::unistd::mkfifo(&at, Mode::S_IRWXU).unwrap();
    assert!(places.read().1[0].contains("not a regular file"));
    fs::remove_file(&at).unwrap();
    fs::create_dir(&at).unwrap();
    assert!(places.read().1[0].contains("not a regular file"));
    fs::remove_dir(&at).unwrap();
    fs::write(&at, vec![b' '; (MAX + 1) as usize]).unwrap();
    assert!(places.read().1[0].contains("larger than 1 MiB"));
}
