use super::*;
use k8s_openapi::ByteString;
use proptest::prelude::*;

fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
    KeyToPath { key: key.into(), path: path.into(), mode }
}

fn config() -> ConfigMap {
    ConfigMap {
        data: Some(BTreeMap::from([("a".into(), "text".into()), ("b".into(), String::new())])),
        binary_data: Some(BTreeMap::from([("bin".into(), ByteString(vec![0, 255]))])),
        ..ConfigMap::default()
    }
}

fn files(items: &[KeyToPath], optional: bool) -> Result<Payload> {
    let object = config();
    Keys::config_map("cm", Some(&object)).files(&Mapping { volume: "v", items, default_mode: 0o640, optional })
}

#[test]
fn without_items_every_key_is_a_file() {
    let files = files(&[], false).unwrap();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "b", "bin"]);
    assert_eq!(files["bin"], File { data: vec![0, 255], mode: 0o640, uid: None });
}

#[test]
fn items_choose_name_and_mode() {
    let files = files(&[item("a", "dir/./sub/x", Some(0o400)), item("bin", "y", None)], false).unwrap();
    assert_eq!(files["dir/sub/x"], File { data: b"text".into(), mode: 0o400, uid: None });
    assert_eq!(files["y"].mode, 0o640);
    assert_eq!(files.len(), 2);
}

#[test]
fn a_missing_key_is_named_unless_optional() {
    let error = files(&[item("k", "x", None)], false).unwrap_err().to_string();
    assert!(error.ends_with("configmap \"cm\" references non-existent config key: k"), "{error}");
    assert!(files(&[item("k", "x", None)], true).unwrap().is_empty());
    let nothing = Keys::secret("s", None).files(&Mapping { volume: "v", items: &[], default_mode: 0, optional: true });
    assert!(nothing.unwrap().is_empty());
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    for path in ["/etc", "..", "a/../b", "a/..", "", ".", "..data", "..data/x", "a\0b", "//"] {
        assert!(matches!(checked("v", path), Err(Error::Path { .. })), "{path:?}");
    }
    assert_eq!(checked("v", "a//b/./c/").unwrap(), "a/b/c");
    assert_eq!(checked("v", "a..b/...x").unwrap(), "a..b/...x");
}

#[test]
fn a_file_and_a_folder_of_one_name_are_found() {
    let file = || File { data: Vec::new(), mode: 0, uid: None };
    let clash = Payload::from([("a".to_owned(), file()), ("a/b".to_owned(), file())]);
    assert_eq!(conflict(&clash), Some("a/b"));
    let fine = Payload::from([("a".to_owned(), file()), ("ab/c".to_owned(), file())]);
    assert_eq!(conflict(&fine), None);
}

proptest! {
    #[test]
    fn a_checked_path_stays_inside(path in "[a./]{0,12}") {
        if let Ok(path) = checked("v", &path) {
            prop_assert!(!path.starts_with("..") && !path.starts_with('/'));
            prop_assert!(path.split('/').all(|p| !p.is_empty() && p != "." && p != ".."));
        }
    }
}
