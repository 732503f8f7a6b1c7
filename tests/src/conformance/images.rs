//! The images that Kubernetes' end-to-end specs name, made on the spot: one layer of busybox, a few programs of Debian's and
//! agnhost, which most of them share, under the names and with the entry points of the published ones.
//!
//! What is inside is not what is published, but does what the specs ask of it.

use crate::images::{Image, write_archive_over};
use crate::setup;
use crate::sys::run;
use anyhow::{Context, Result};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shell, network and name service tools that agnhost's published image has besides busybox.
const PACKAGES: [&str; 7] = ["busybox-static", "libc-bin", "bash", "curl", "netcat-openbsd", "bind9-dnsutils", "iproute2"];
/// Programs of those packages that busybox would have too, and where they lie.
const PREFERRED: [(&str, &str); 8] = [
    // busybox's own shell would take its own programs, whatever lies in PATH.
    ("sh", "bash"),
    ("nc", "nc.openbsd"),
    ("bash", "bash"),
    ("curl", "curl"),
    ("dig", "dig"),
    ("nslookup", "nslookup"),
    ("ip", "../sbin/ip"),
    ("ss", "ss"),
];

/// Name, entry point, arguments and user.
type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);
const ROWS: [Row; 12] = [
    ("registry.k8s.io/e2e-test-images/agnhost:2.63.0", &["/agnhost"], &["pause"], ""),
    ("registry.k8s.io/e2e-test-images/agnhost:2.55", &["/agnhost"], &["pause"], ""),
    ("registry.k8s.io/e2e-test-images/nginx:1.15-4", &["/agnhost"], NETEXEC, ""),
    ("registry.k8s.io/e2e-test-images/nginx:1.27-0", &["/agnhost"], NETEXEC, ""),
    ("registry.k8s.io/e2e-test-images/nautilus:1.8", &["/agnhost"], &["test-webserver"], ""),
    ("registry.k8s.io/e2e-test-images/kitten:1.8", &["/agnhost"], &["test-webserver"], ""),
    ("registry.k8s.io/e2e-test-images/nonewprivs:1.4", &[], &["nnp"], ""),
    ("registry.k8s.io/e2e-test-images/nonroot:1.5", &["/agnhost"], &["pause"], "1234"),
    ("registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0", &[], &["bash"], ""),
    ("registry.k8s.io/pause:3.10.2", &["/pause"], &[], ""),
    ("registry.k8s.io/pause:3.10.1", &["/pause"], &[], ""),
    ("registry.k8s.io/pause:3.10", &["/pause"], &[], ""),
];
/// These have only busybox, whose own words some specs look for.
const BUSYBOX: [Row; 2] = [
    ("registry.k8s.io/e2e-test-images/busybox:1.37.0-1", &[], &["sh"], ""),
    ("registry.k8s.io/e2e-test-images/ipc-utils:1.4", &[], &["sh"], ""),
];
const NETEXEC: &[&str] = &["netexec", "--http-port=80"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n\
    user-defined-in-image:x:1000:1000::/home:/bin/sh\n";
const GROUP: &str =
    "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n";
/// Says as whom it runs; its file has the set-user-ID bit.
const NNP: &str =
    "#include <stdio.h>\n#include <unistd.h>\nint main(void){printf(\"Effective uid: %d\\n\",(int)geteuid());return 0;}\n";

/// Writes the archives of them all into a folder.
pub fn write(programs: &Path, pause: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let unpacked = setup::with_libraries("debian-agnhost", &PACKAGES)?;
    let root = dir.join("image-root");
    fill(&root, &unpacked, programs, pause)?;
    let agnhost = pack(&root, &ROWS, dir.join("agnhost-images.tar"))?;
    for folder in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777))?;
    users(&root)?;
    busybox(&root, &unpacked, &[])?;
    Ok(vec![agnhost, pack(&root, &BUSYBOX, dir.join("busybox-images.tar"))?])
}

/// The folder as the one layer of these images; the folder is gone then.
fn pack(root: &Path, rows: &[Row], archive: PathBuf) -> Result<PathBuf> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.follow_symlinks(false);
    layer.append_dir_all(".", root).context("cannot pack the images' layer")?;
    let image = |row: &Row| Image { name: row.0, files: &[], entrypoint: row.1, arguments: row.2, user: row.3 };
    write_archive_over(&layer.into_inner()?, &rows.iter().map(image).collect::<Vec<_>>(), &archive)?;
    std::fs::remove_dir_all(root)?;
    Ok(archive)
}

fn users(root: &Path) -> Result<()> {
    std::fs::write(root.join("etc/passwd"), PASSWD)?;
    std::fs::write(root.join("etc/group"), GROUP)?;
    Ok(())
}

fn fill(root: &Path, unpacked: &Path, programs: &Path, pause: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(unpacked).arg(root))?;
    if root.join("bin").is_symlink() {
        // A folder of its own for busybox, so that its names do not meet those of the packages.
        std::fs::remove_file(root.join("bin"))?;
    }
    for folder in ["bin", "etc", "tmp", "uploads", "root", "home", "var/registry", "usr/bin"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for open in ["tmp", "uploads"] {
        std::fs::set_permissions(root.join(open), std::fs::Permissions::from_mode(0o1777))?;
    }
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin"), ("agnhost-2", "agnhost")] {
        let link = root.join(link);
        if link.symlink_metadata().is_err() {
            symlink(target, link)?;
        }
    }
    users(root)?;
    std::fs::copy(programs.join("agnhost"), root.join("agnhost")).context("there is no agnhost in FERROLET_KUBE_BIN_DIR")?;
    std::fs::copy(pause, root.join("pause"))?;
    busybox(root, unpacked, &PREFERRED)?;
    localhost(root)?;
    let (source, nnp) = (root.join("tmp/nnp.c"), root.join("bin/nnp"));
    std::fs::write(&source, NNP)?;
    run(Command::new("cc").arg("-static").arg("-o").arg(&nnp).arg(&source))?;
    std::fs::remove_file(source)?;
    std::fs::set_permissions(nnp, std::fs::Permissions::from_mode(0o4755))?;
    Ok(())
}

/// busybox under each of its names, but where a package has the better program. It is Debian's newest: an older one's shell
/// hides variables whose names no shell could use, which specs look for.
fn busybox(root: &Path, unpacked: &Path, preferred: &[(&str, &str)]) -> Result<()> {
    let file = root.join("bin/busybox");
    std::fs::copy(unpacked.join("usr/bin/busybox"), &file).context("cannot copy busybox")?;
    for name in run(Command::new(&file).arg("--list"))?.split_whitespace().filter(|name| *name != "busybox") {
        if !preferred.iter().any(|(preferred, _)| *preferred == name) {
            symlink("busybox", root.join("bin").join(name))?;
        }
    }
    for (name, program) in preferred {
        symlink(format!("../usr/bin/{program}"), root.join("bin").join(name))?;
    }
    Ok(())
}

/// The certificate and key for localhost that agnhost serves with where a spec asks for TLS.
fn localhost(root: &Path) -> Result<()> {
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    make.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"]);
    run(make.arg(root.join("localhost.key")).arg("-out").arg(root.join("localhost.crt")))?;
    // For whoever the container runs as.
    std::fs::set_permissions(root.join("localhost.key"), std::fs::Permissions::from_mode(0o644))?;
    Ok(())
}
