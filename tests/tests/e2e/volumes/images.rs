//! Images as volumes, and mounts that are read-only with all that is mounted below: what newer runtimes can do.

use crate::security::with_user_namespaces;
use crate::shared::{Ns, contains, must_contain, pod, test};
use anyhow::{Result, bail};
use ferrolet_tests::images::{self, Image};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    vec![
        with_user_namespaces("volumes::images_and_recursive_read_only", newer_runtimes),
        test("volumes::what_an_old_runtime_cannot_do", an_old_runtime),
    ]
}

const DATA: &str = "ferrolet.dev/data:1";
const NOWHERE: &str = "127.0.0.1:1/none:1";

fn import(ns: &Ns) -> Result<()> {
    let file = ns.lab.dir.join("data.txt");
    std::fs::write(&file, "from an image")?;
    let archive = ns.lab.dir.join("data.tar");
    let files: &[(&str, &Path)] = &[("/deep/file", &file), ("/web", &ns.lab.bins.web)];
    images::write_archive(&Image { name: DATA, files, entrypoint: &["/web"], arguments: &[], user: "" }, &archive)?;
    ns.lab.nodes[0].containerd.import(&archive)
}

fn with_image(name: &str, reference: &str, part: &str) -> String {
    let mounts = &format!("volumeMounts: [{{name: image, mountPath: /image{part}}}]");
    let volume = format!("volumes: [{{name: image, image: {{reference: \"{reference}\", pullPolicy: IfNotPresent}}}}]");
    pod(name, "serve", mounts, &format!("terminationGracePeriodSeconds: 0\n{volume}")) + "---\n"
}

/// A folder of the host with a file system mounted in it; gone when dropped.
struct Nested(PathBuf);

impl Nested {
    fn new(path: PathBuf) -> Result<Nested> {
        std::fs::create_dir_all(path.join("sub"))?;
        mount(Some("tmpfs"), &path.join("sub"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(Nested(path))
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _ = umount2(&self.0.join("sub"), MntFlags::MNT_DETACH);
    }
}

fn with_nested(name: &str, nested: &Nested, mode: &str) -> String {
    let mounts = format!(
        "volumeMounts:\n- {{name: host, mountPath: /plain, readOnly: true}}\n\
         - {{name: host, mountPath: /whole, readOnly: true, recursiveReadOnly: {mode}}}"
    );
    let volume = format!("volumes: [{{name: host, hostPath: {{path: {}}}}}]", nested.0.display());
    pod(name, "serve", &mounts, &format!("terminationGracePeriodSeconds: 0\n{volume}")) + "---\n"
}

fn reason(p: &Value) -> &Value {
    &p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
}

fn newer_runtimes(ns: &mut Ns) -> Result<()> {
    import(ns)?;
    let nested = Nested::new(ns.lab.dir.join("nested"))?;
    ns.apply(
        &[with_image("image", DATA, ""), with_image("missing", NOWHERE, ""), with_nested("nested", &nested, "Enabled")].concat(),
    )?;
    ns.apply(&with_image("part", DATA, ", subPath: deep"))?;
    ns.ready("image")?;
    must_contain(&ns.kubectl(&["exec", "image", "--", "/web", "cat", "/image/deep/file"])?, "from an image")?;
    must_contain(&ns.refused(&["exec", "image", "--", "/web", "write", "/image/new", "x"])?, "Read-only file system")?;
    // That nothing in it can be run is the runtime's to see to.
    let ran = ns.kubectl(&["exec", "image", "--", "/image/web", "echo", "x"]).is_ok();
    println!("this runtime mounts images {}", if ran { "executable" } else { "with noexec" });
    let waits = |p: &Value| reason(p) == "ErrImagePull" || reason(p) == "ImagePullBackOff";
    ns.pod("missing", "its image volume cannot be pulled", waits)?;
    ns.event("missing", "Failed", &format!("Failed to pull image \"{NOWHERE}\""))?;
    ns.event("missing", "BackOff", &format!("Back-off pulling image \"{NOWHERE}\""))?;
    // A runtime that does not know the field would show the whole image there.
    if ns.lab.nodes[0].containerd.version().starts_with("2.1.") {
        ns.event("part", "Failed", "mounts of a part of an image need containerd 2.2")?;
    } else {
        ns.ready("part")?;
        must_contain(&ns.kubectl(&["exec", "part", "--", "/web", "cat", "/image/file"])?, "from an image")?;
    }
    let p = ns.ready("nested")?;
    let modes = p["status"]["containerStatuses"][0]["volumeMounts"].clone();
    if modes[0]["recursiveReadOnly"] != "Disabled" || modes[1]["recursiveReadOnly"] != "Enabled" {
        bail!("the status says {modes}");
    }
    ns.kubectl(&["exec", "nested", "--", "/web", "write", "/plain/sub/new", "x"])?;
    must_contain(&ns.refused(&["exec", "nested", "--", "/web", "write", "/whole/sub/new", "y"])?, "Read-only file system")?;
    // What is mounted must be gone before the folder is.
    ns.kubectl(&["delete", "pod", "nested"])?;
    Ok(())
}

fn an_old_runtime(ns: &mut Ns) -> Result<()> {
    import(ns)?;
    let nested = Nested::new(ns.lab.dir.join("nested-old"))?;
    ns.apply(
        &[with_image("image", DATA, ""), with_nested("enabled", &nested, "Enabled"), with_nested("if", &nested, "IfPossible")]
            .concat(),
    )?;
    for (name, text) in [("image", "image volumes need containerd 2.1"), ("enabled", "not supported by the runtime")] {
        let refused = |p: &Value| {
            let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError" && contains(&waiting["message"], text)
        };
        ns.pod(name, "refused", refused)?;
        ns.event(name, "Failed", text)?;
    }
    let p = ns.ready("if")?;
    if p["status"]["containerStatuses"][0]["volumeMounts"][1]["recursiveReadOnly"] != "Disabled" {
        bail!("{}", p["status"]);
    }
    ns.kubectl(&["delete", "pod", "if", "enabled"])?;
    Ok(())
}
