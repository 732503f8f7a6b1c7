//! What the lab needs on the host, installed by apt; and newer Debian packages unpacked into the lab's cache.
//!
//! Nothing on the host is replaced: packages that Debian stable has are installed with apt, newer ones (kubectl,
//! containerd 2.x, nft 1.1) are only unpacked below the cache folder. A second run needs no network.

use crate::sys::{run, sh};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest kubectl that the lab accepts.
const KUBECTL_MINOR: u32 = 32;
/// Program, and the Debian or Ubuntu package that has it.
const NEEDED: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("cc", "build-essential"),
    ("c++", "build-essential"),
    ("dpkg-deb", "dpkg"),
];
const CNI_DIR: &str = "/usr/lib/cni";

/// Where downloads are kept: `FERROLET_LAB_CACHE`, or `/var/cache/ferrolet-lab`.
pub fn cache() -> PathBuf {
    std::env::var_os("FERROLET_LAB_CACHE").map_or_else(|| PathBuf::from("/var/cache/ferrolet-lab"), PathBuf::from)
}

/// The programs the lab runs, found or fetched.
#[derive(Debug, Clone)]
pub struct Tools {
    pub kubectl: PathBuf,
    pub runtime: Runtime,
    pub cni_dir: PathBuf,
}

/// One containerd: the host's, or a newer one unpacked in the cache.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub containerd: PathBuf,
    pub ctr: PathBuf,
    /// Put in front of PATH, where containerd looks for its shim.
    pub path: Option<PathBuf>,
    /// Instead of the host's runc.
    pub runc: Option<PathBuf>,
    pub version: String,
}

/// Says what is missing, installs it, and returns where everything is.
pub fn prepare() -> Result<Tools> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and cgroups: run it as root");
    }
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| which(program).is_none()).map(|(_, package)| *package).collect();
    if !Path::new(CNI_DIR).join("ptp").exists() {
        missing.push("containernetworking-plugins");
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    let runtime = Runtime::of(which("containerd").context("containerd was installed but is not in PATH")?, which("ctr"), None)?;
    Ok(Tools { kubectl: kubectl()?, runtime, cni_dir: CNI_DIR.into() })
}

/// Installs packages with apt, after saying so.
pub fn install(packages: &[&str]) -> Result<()> {
    println!("installing with apt: {}", packages.join(" "));
    let apt = |args: &[&str]| run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    // Some packages start their service when they are installed; the lab runs its own.
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(packages);
    if apt(&args).is_err() {
        apt(&["update"]).context("cannot read the package lists")?;
        apt(&args).with_context(|| format!("cannot install {}", packages.join(" ")))?;
    }
    Ok(())
}

pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|dir| Path::new(dir).join(program)).find(|p| p.is_file())
}

impl Runtime {
    fn of(containerd: PathBuf, ctr: Option<PathBuf>, path: Option<PathBuf>) -> Result<Runtime> {
        let version = run(Command::new(&containerd).arg("--version"))?;
        let version = version.split_whitespace().nth(2).unwrap_or("unknown").trim_start_matches('v').to_owned();
        let ctr = ctr.context("containerd's ctr is not there")?;
        Ok(Runtime { containerd, ctr, path, runc: None, version })
    }

    /// containerd 2.x from Debian's newest suite, unpacked in the cache.
    pub fn newest() -> Result<Runtime> {
        let root = unpacked(&["containerd"], "usr/bin/containerd")?;
        let bin = root.join("usr/bin");
        Runtime::of(bin.join("containerd"), Some(bin.join("ctr")), Some(bin))
    }

    /// The same with Debian's newest runc, which can give pods user namespaces.
    pub fn with_user_namespaces() -> Result<Runtime> {
        Ok(Runtime { runc: Some(newest_runc()?), ..Runtime::newest()? })
    }
}

fn kubectl() -> Result<PathBuf> {
    let minor = |path: &Path| -> Option<u32> {
        let text = run(Command::new(path).args(["version", "--client", "-o", "json"])).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        value["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
    };
    if let Some(path) = which("kubectl").filter(|p| minor(p).is_some_and(|m| m >= KUBECTL_MINOR)) {
        return Ok(path);
    }
    let path = unpacked(&["kubectl"], "usr/bin/kubectl")?.join("usr/bin/kubectl");
    if minor(&path).is_none_or(|m| m < KUBECTL_MINOR) {
        bail!("{} is older than 1.{KUBECTL_MINOR}", path.display());
    }
    Ok(path)
}

/// A command line for the `nft` of Debian's newest suite, which needs a newer libc than this host may have.
pub fn newest_nft() -> Result<Vec<String>> {
    let root = with_libraries("debian-nft", &["nftables"])?;
    let (libraries, loader) = loader(&root)?;
    let nft = root.join("usr/sbin/nft");
    let words = [loader.as_path(), Path::new("--library-path"), &libraries, &nft];
    Ok(words.iter().map(|w| w.display().to_string()).collect())
}

/// The `runc` of Debian's newest suite. It starts itself again, so it is made to find the loader and libraries by itself.
fn newest_runc() -> Result<PathBuf> {
    let root = with_libraries("debian-runc", &["runc", "patchelf"])?;
    let runc = root.join("runc");
    if !runc.exists() {
        let (libraries, loader) = loader(&root)?;
        let half = root.join("runc.half");
        std::fs::copy(root.join("usr/sbin/runc"), &half).context("cannot copy runc")?;
        let mut patch = Command::new(&loader);
        patch.arg("--library-path").arg(&libraries).arg(root.join("usr/bin/patchelf"));
        patch.arg("--set-interpreter").arg(&loader).args(["--force-rpath", "--set-rpath"]).arg(&libraries).arg(&half);
        run(&mut patch)?;
        std::fs::rename(&half, &runc).context("cannot rename runc")?;
    }
    run(Command::new(&runc).arg("--version"))?;
    Ok(runc)
}

/// The folder in which packages of Debian's newest suite lie unpacked with all libraries they need.
pub(crate) fn with_libraries(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let root = cache().join(name);
    if !root.exists() {
        println!("fetching into {}: {} and the libraries they need", root.display(), packages.join(" "));
        let apt = Apt::new(&format!("apt-{name}"))?;
        // With the empty list of installed packages apt brings every library.
        let mut args = vec!["install", "-y", "--download-only", "--no-install-recommends"];
        args.extend(packages);
        apt.get(&args)?;
        let half = apt.dir.join("unpacked");
        for file in std::fs::read_dir(apt.dir.join("archives"))?.flatten().map(|e| e.path()) {
            if file.extension().is_some_and(|e| e == "deb") {
                sh("dpkg-deb", &["-x", &file.to_string_lossy(), &half.to_string_lossy()])?;
            }
        }
        std::fs::rename(&half, &root).with_context(|| format!("cannot make {}", root.display()))?;
        apt.remove()?;
    }
    Ok(root)
}

/// The libraries in such a folder, and the loader that belongs to them.
fn loader(root: &Path) -> Result<(PathBuf, PathBuf)> {
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let entries = std::fs::read_dir(&libraries).with_context(|| format!("no {}", libraries.display()))?;
    let mut loaders = entries.flatten().map(|e| e.path());
    let loader = loaders.find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ld-linux")));
    let loader = loader.with_context(|| format!("no loader in {}", libraries.display()))?;
    Ok((libraries, loader))
}

/// apt for Debian's newest suite, with all its state in a folder of the cache.
struct Apt {
    dir: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Reads the suite's lists.
    fn new(name: &str) -> Result<Apt> {
        let dir = cache().join(name);
        for sub in ["lists/partial", "sources", "archives/partial"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        if !Path::new(keyring).exists() {
            install(&["debian-archive-keyring"])?;
        }
        let source = format!("Types: deb\nURIs: {}\nSuites: sid\nComponents: main\nSigned-By: {keyring}\n", debian_mirror());
        std::fs::write(dir.join("sources/newest.sources"), source)?;
        // An empty status: the host's own packages must not take part in the choice of versions.
        std::fs::write(dir.join("status"), "")?;
        let options = vec![
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={}", dir.join("sources").display()),
            format!("Dir::State::Lists={}", dir.join("lists").display()),
            format!("Dir::State::status={}", dir.join("status").display()),
            format!("Dir::Cache={}", dir.display()),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = Apt { dir, options };
        apt.get(&["update"]).context("cannot read the lists of Debian's newest suite; set FERROLET_DEBIAN_MIRROR to a mirror")?;
        Ok(apt)
    }

    /// apt-get in the folder of the archives.
    fn get(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("apt-get");
        command.args(self.options.iter().flat_map(|o| ["-o", o])).current_dir(self.dir.join("archives"));
        run(command.args(args))
    }

    fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

/// The folder in which packages of Debian's newest suite lie unpacked; fetched if `probe` is not there yet.
fn unpacked(packages: &[&str], probe: &str) -> Result<PathBuf> {
    let root = cache().join("debian");
    if root.join(probe).exists() {
        return Ok(root);
    }
    println!("fetching into {}: {}", root.display(), packages.join(" "));
    std::fs::create_dir_all(&root)?;
    let apt = Apt::new("apt")?;
    let mut args = vec!["download"];
    args.extend(packages);
    apt.get(&args)?;
    let debs = apt.dir.join("archives");
    for package in packages {
        let name = format!("{package}_");
        let file = std::fs::read_dir(&debs)?.flatten().map(|e| e.path());
        let mut found: Vec<_> = file.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name))).collect();
        found.sort();
        let file = found.pop().with_context(|| format!("apt-get download brought no {package}"))?;
        sh("dpkg-deb", &["-x", &file.to_string_lossy(), &root.to_string_lossy()])?;
    }
    apt.remove()?;
    if !root.join(probe).exists() {
        bail!("{} did not bring {probe}", packages.join(" "));
    }
    Ok(root)
}

/// `FERROLET_DEBIAN_MIRROR`, or the mirror that this host uses itself if it is a Debian, or Debian's main one.
fn debian_mirror() -> String {
    if let Ok(mirror) = std::env::var("FERROLET_DEBIAN_MIRROR") {
        return mirror;
    }
    let mut files: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
    files.extend(std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path()));
    let text: String = files.iter().filter_map(|f| std::fs::read_to_string(f).ok()).collect::<Vec<_>>().join("\n");
    let words = text.lines().filter(|l| !l.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut urls = words.filter(|w| w.starts_with("http") && w.trim_end_matches('/').ends_with("/debian"));
    urls.next().unwrap_or("http://ftp.debian.org/debian").to_owned()
}
