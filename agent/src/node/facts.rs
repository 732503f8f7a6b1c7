//! What the machine is: read from /proc, /sys and /etc. Files that are missing leave their fact empty or zero.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Facts that do not change while the machine is up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    /// Reserved bytes by page size, `hugepages-2Mi`.
    pub hugepages: BTreeMap<String, u64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    pub architecture: &'static str,
    /// The kernel has AppArmor, and it is on.
    pub apparmor: bool,
}

/// Where to read from; tests bring a tree of their own.
#[derive(Debug, Clone)]
pub struct Roots {
    pub proc: PathBuf,
    pub sys: PathBuf,
    pub etc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { proc: "/proc".into(), sys: "/sys".into(), etc: "/etc".into() }
    }
}

pub fn read(roots: &Roots) -> Machine {
    let meminfo = text(&roots.proc.join("meminfo"));
    let kib = |field: &str| meminfo_kib(&meminfo, field).unwrap_or(0) * 1024;
    let online = text(&roots.sys.join("devices/system/cpu/online"));
    let machine_id = text(&roots.etc.join("machine-id"));
    let uuid = text(&roots.sys.join("class/dmi/id/product_uuid"));
    Machine {
        cpus: count_cpus(&online)
            .filter(|n| *n > 0)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64)),
        memory_bytes: kib("MemTotal"),
        swap_bytes: kib("SwapTotal"),
        hugepages: hugepages(&roots.sys.join("kernel/mm/hugepages")),
        // Machines without firmware tables are told apart by their machine id.
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: text(&roots.proc.join("sys/kernel/random/boot_id")),
        kernel_version: text(&roots.proc.join("sys/kernel/osrelease")),
        os_image: os_image(&text(&roots.etc.join("os-release"))),
        architecture: architecture(),
        apparmor: roots.sys.join("kernel/security/apparmor").exists()
            && text(&roots.sys.join("module/apparmor/parameters/enabled")).starts_with('Y'),
    }
}

/// The file system that holds a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSystem {
    pub size_bytes: u64,
    pub used_bytes: u64,
    /// To those without privileges.
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// Looks at the nearest parent that exists: the folder may not have been made yet.
pub fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(FileSystem {
        size_bytes: bytes(stat.f_blocks),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        available_bytes: bytes(stat.f_bavail),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

pub(crate) fn meminfo_kib(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `0-3,6` is five.
fn count_cpus(online: &str) -> Option<u64> {
    let mut count = 0u64;
    for part in online.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        count += last.checked_sub(first)?.checked_add(1)?;
    }
    Some(count)
}

/// The folders that tell of each processor's heat, as containers would see them.
pub fn throttle_paths(sys: &Path) -> Vec<String> {
    let cpus = sys.join("devices/system/cpu");
    let names = std::fs::read_dir(&cpus).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.strip_prefix("cpu")?.parse().ok()).collect();
    numbers.sort_unstable();
    let there = numbers.into_iter().filter(|n| cpus.join(format!("cpu{n}/thermal_throttle")).exists());
    there.map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle")).collect()
}

fn hugepages(dir: &Path) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB")?.parse::<u64>().ok()) else {
            continue;
        };
        let pages: u64 = text(&entry.path().join("nr_hugepages")).parse().unwrap_or(0);
        let size = ferrolet_quantity::Quantity::from_bytes(kib * 1024);
        sizes.insert(format!("hugepages-{size}"), pages * kib * 1024);
    }
    sizes
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".to_owned())
}

/// Go's names, which the API uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests;
