use super::*;
use crate::images::records::{Users, merged};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use std::os::unix::fs::PermissionsExt;

fn record(image: &str) -> Record {
    merged(None, image, "reg/a", Some(&Users::of(None)), ApiTime(crate::pod::Time::UNIX_EPOCH)).unwrap()
}

#[test]
fn the_layout_is_kubelets() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    assert!(folder.read::<Record>("sha256:1").unwrap().is_none());
    folder.each::<Record>(|_| panic!("nothing is there")).unwrap();
    folder.write(&Intent::of("busybox")).unwrap();
    folder.write(&record("sha256:1")).unwrap();
    let file = dir.path().join("image_manager/pulling/sha256-8d593747cd6d8d7a1b44a2d06b2c6a1f");
    let names: Vec<_> =
        std::fs::read_dir(file.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, [file_name("busybox")]);
    assert_eq!(names[0].len(), "sha256-".len() + 64);
    let mode = |path: &str| std::fs::metadata(dir.path().join("image_manager").join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("pulling"), mode("pulled"), mode(&format!("pulling/{}", names[0]))), (0o700, 0o700, 0o600));
    assert_eq!(folder.read::<Record>("sha256:1").unwrap(), Some(record("sha256:1")));
    assert!(folder.read::<Intent>("busybox").unwrap().is_some());
    folder.remove::<Intent>("busybox").unwrap();
    folder.remove::<Intent>("busybox").unwrap();
    assert!(folder.read::<Intent>("busybox").unwrap().is_none());
}

#[test]
fn what_cannot_be_read_is_said_and_what_is_unfinished_goes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    for image in ["sha256:1", "sha256:2"] {
        folder.write(&record(image)).unwrap();
    }
    let pulled = dir.path().join("image_manager/pulled");
    let second = pulled.join(file_name("sha256:2"));
    std::fs::write(&second, "{").unwrap();
    std::fs::write(pulled.join("sha256-x.tmp"), "half").unwrap();
    std::fs::write(pulled.join("mine.txt"), "not ours").unwrap();
    std::fs::create_dir(pulled.join("sha256-folder")).unwrap();
    assert!(folder.read::<Record>("sha256:2").is_err());
    let (mut good, mut bad) = (Vec::new(), 0);
    folder.each::<Record>(|r| if let Ok(r) = r { good.push(r.image_ref) } else { bad += 1 }).unwrap();
    assert_eq!((good, bad), (vec!["sha256:1".to_owned()], 2));
    assert!(!pulled.join("sha256-x.tmp").exists() && pulled.join("mine.txt").exists());
    std::fs::File::create(&second).unwrap().set_len(FILE_MAX + 1).unwrap();
    assert!(folder.read::<Record>("sha256:2").unwrap_err().to_string().contains("more than"));
    // A file that speaks of another image proves nothing.
    std::fs::copy(pulled.join(file_name("sha256:1")), &second).unwrap();
    assert!(folder.read::<Record>("sha256:2").unwrap().is_none());
}
