use super::*;
use std::os::unix::fs::PermissionsExt;

fn export<'a>(server: &'a str, path: &'a str, options: &'a [String]) -> Result<String> {
    source("v", &Export { server, path, options })
}

#[test]
fn what_the_program_is_given() {
    assert_eq!(export("nfs.example", "/a b", &[]).unwrap(), "nfs.example:/a b");
    assert_eq!(export("fd00::1", "/x", &[]).unwrap(), "[fd00::1]:/x");
    let options = ["nfsvers=4.1".to_owned(), "hard".to_owned()];
    let arguments = arguments("s:/x", Path::new("/target"), &options, true);
    assert_eq!(arguments, ["s:/x", "/target", "-o", "nfsvers=4.1,hard,ro"]);
    assert_eq!(super::arguments("s:/x", Path::new("/t"), &[], false), ["s:/x", "/t"]);
}

#[test]
fn nothing_that_could_be_taken_for_something_else() {
    for (server, path) in [("", "/x"), ("-o", "/x"), ("a b", "/x"), ("s,x", "/x"), ("s", "x"), ("s", ""), ("s", "/a\0b")] {
        assert!(matches!(export(server, path, &[]), Err(Error::Invalid { .. })), "{server:?} {path:?}");
    }
    for option in ["", "a,b", "-x"] {
        assert!(export("s", "/x", &[option.to_owned()]).is_err(), "{option:?}");
    }
}

fn program(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(PROGRAM);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (dir, path)
}

#[tokio::test]
async fn what_the_program_says_is_the_reason() {
    let (dir, path) = program("echo \"$1 is not there\" >&2; exit 32");
    let error = mount("v", &path, &["s:/x".to_owned(), "/t".to_owned()]).await.unwrap_err().to_string();
    let text = "MountVolume.SetUp failed for volume \"v\" : mount.nfs: exit status: 32: s:/x is not there";
    assert_eq!(error, text);
    let out = dir.path().join("out");
    let (_dir, path) = program(&format!("printf '%s|' \"$@\" > {}", out.display()));
    mount("v", &path, &arguments("s:/x", Path::new("/t"), &[], true)).await.unwrap();
    assert_eq!(std::fs::read_to_string(out).unwrap(), "s:/x|/t|-o|ro|");
    let folder = dir.path().to_string_lossy().into_owned();
    assert_eq!(find(&["/nowhere", &folder]), Some(dir.path().join(PROGRAM)));
    assert_eq!(find(&["/nowhere"]), None);
}
