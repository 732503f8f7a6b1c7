//! What all pods together may use, and what is kept for the node's own cgroups: node allocatable, enforced. Pure.

use super::container::page_size_of;
use super::plan::{Driver, Limits, cpu_shares, directory};
use super::{Error, Result};
use ferrolet_quantity::Quantity;
use std::collections::BTreeMap;
use std::path::PathBuf;

type Amounts = BTreeMap<String, Quantity>;

/// What the node has: as in its capacity, and `pid` for all tasks that the kernel allows.
/// Hard eviction keeps its part free by eviction, not by this limit.
pub fn pods(capacity: &Amounts, reserved: impl Fn(&str) -> Quantity) -> Limits {
    let left = capacity.iter().map(|(name, amount)| {
        let left = *amount - reserved(name);
        (name.clone(), if left.is_negative() { Quantity::ZERO } else { left })
    });
    let left: Amounts = left.collect();
    let hugetlb = left.iter().filter_map(|(name, amount)| Some((page_size_of(name)?, bytes(amount)?)));
    Limits { hugetlb: hugetlb.collect(), ..of(&left) }
}

/// What a cgroup of the node's own may use: what is reserved for it. With `protected` its memory is never taken back.
pub fn reserved(amounts: &Amounts, cpu_only: bool, protected: bool) -> Limits {
    let all = of(amounts);
    if cpu_only {
        return Limits { cpu_shares: all.cpu_shares, ..Limits::default() };
    }
    Limits { memory_min: all.memory_bytes.filter(|_| protected), ..all }
}

fn of(amounts: &Amounts) -> Limits {
    Limits {
        cpu_shares: amounts.get("cpu").map(|cpu| cpu_shares(cpu.milli())),
        // None at all is no limit that a cgroup could live with.
        memory_bytes: amounts.get("memory").and_then(bytes).filter(|b| *b > 0),
        pids: amounts.get("pid").and_then(bytes).filter(|n| *n > 0),
        ..Limits::default()
    }
}

fn bytes(amount: &Quantity) -> Option<u64> {
    u64::try_from(amount.units()).ok()
}

/// Where a cgroup of the node's own lies. With the systemd driver the last part of the name is a slice, which says where it lies.
pub(super) fn place(driver: Driver, name: &str) -> Result<PathBuf> {
    let parts: Vec<String> = name.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let bad = |p: &String| p == "." || p == ".." || p.contains('\0');
    if !name.starts_with('/') || parts.is_empty() || parts.iter().any(bad) {
        return Err(Error::Reserved(name.to_owned()));
    }
    match driver {
        Driver::Cgroupfs => Ok(parts.iter().collect()),
        Driver::Systemd => {
            let slice = parts.last().map(|last| last.trim_end_matches(".slice")).unwrap_or_default();
            let levels: Vec<String> = slice.split('-').map(str::to_owned).collect();
            match levels.iter().all(|level| !level.is_empty()) {
                true => Ok(directory(driver, &levels)),
                false => Err(Error::Reserved(name.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(list: &[(&str, &str)]) -> Amounts {
        list.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
    }

    #[test]
    fn pods_get_what_is_not_reserved() {
        let capacity = amounts(&[("cpu", "4"), ("memory", "8Gi"), ("pid", "32768"), ("pods", "110"), ("hugepages-2Mi", "64Mi")]);
        let all = pods(&capacity, |_| Quantity::ZERO);
        let wanted = Limits {
            cpu_shares: Some(4096),
            memory_bytes: Some(8 << 30),
            pids: Some(32768),
            hugetlb: [(2 << 20, 64 << 20)].into(),
            ..Limits::default()
        };
        assert_eq!(all, wanted);
        let kept = amounts(&[("cpu", "500m"), ("memory", "1Gi"), ("pid", "768")]);
        let less = pods(&capacity, |name| kept.get(name).copied().unwrap_or(Quantity::ZERO));
        let wanted = Limits { cpu_shares: Some(3584), memory_bytes: Some(7 << 30), pids: Some(32000), ..wanted };
        assert_eq!(less, wanted);
        let nothing = pods(&capacity, |_| "1Ti".parse().unwrap());
        assert_eq!((nothing.cpu_shares, nothing.memory_bytes, nothing.pids), (Some(2), None, None));
    }

    #[test]
    fn the_nodes_own_get_what_is_reserved() {
        let kept = amounts(&[("cpu", "250m"), ("memory", "1Gi"), ("pid", "1000"), ("ephemeral-storage", "1Gi")]);
        let wanted = Limits { cpu_shares: Some(256), memory_bytes: Some(1 << 30), pids: Some(1000), ..Limits::default() };
        assert_eq!(reserved(&kept, false, false), wanted);
        assert_eq!(reserved(&kept, false, true), Limits { memory_min: Some(1 << 30), ..wanted });
        assert_eq!(reserved(&kept, true, true), Limits { cpu_shares: Some(256), ..Limits::default() });
        assert_eq!(reserved(&Amounts::new(), false, true), Limits::default());
    }

    #[test]
    fn their_names_say_where_they_lie() {
        let at = |driver, name: &str| place(driver, name).ok().map(|p| p.display().to_string());
        assert_eq!(at(Driver::Cgroupfs, "/system.slice/x").as_deref(), Some("system.slice/x"));
        assert_eq!(at(Driver::Systemd, "/system.slice").as_deref(), Some("system.slice"));
        assert_eq!(at(Driver::Systemd, "/kube-lets.slice").as_deref(), Some("kube.slice/kube-lets.slice"));
        assert_eq!(at(Driver::Systemd, "/kube.slice/kube-lets.slice").as_deref(), Some("kube.slice/kube-lets.slice"));
        for name in ["", "/", "x", "/a/../b", "/.", "/-.slice"] {
            assert!(at(Driver::Systemd, name).is_none(), "{name}");
        }
        assert!(at(Driver::Cgroupfs, "/a/../b").is_none());
    }
}
