//! What of the node is kept from pods: `systemReserved`, `kubeReserved`, `reservedSystemCPUs`, and on whom that is enforced.
//!
//! Pure.

use super::fields::Fields;
use ferrolet_quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};

type Amounts = BTreeMap<String, Quantity>;

/// No kernel has more CPUs than this, so a list of CPUs stays small whatever it says.
const CPUS_MAX: u32 = 8192;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// `systemReserved` and `kubeReserved`, with what `reservedSystemCPUs` makes of them.
    pub system: Amounts,
    pub kube: Amounts,
    /// `reservedSystemCPUs`
    pub cpus: BTreeSet<u32>,
    pub enforce: Enforce,
}

/// `enforceNodeAllocatable`: whose cgroups are limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforce {
    /// All pods together get what is not reserved, else the whole node.
    pub pods: bool,
    pub system: Option<Existing>,
    pub kube: Option<Existing>,
}

/// A cgroup of others, `systemReservedCgroup` or `kubeReservedCgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    pub name: String,
    /// Its weight alone: `system-reserved-compressible`, `kube-reserved-compressible`.
    pub cpu_only: bool,
}

impl Default for Reserved {
    fn default() -> Self {
        let enforce = Enforce { pods: true, system: None, kube: None };
        Reserved { system: Amounts::new(), kube: Amounts::new(), cpus: BTreeSet::new(), enforce }
    }
}

impl Reserved {
    /// Both together.
    pub fn of(&self, resource: &str) -> Quantity {
        let own = |amounts: &Amounts| amounts.get(resource).copied().unwrap_or(Quantity::ZERO);
        own(&self.system) + own(&self.kube)
    }
}

pub(super) fn apply(reserved: &mut Reserved, fields: &mut Fields<'_>) {
    reserved.system = amounts("systemReserved", fields);
    reserved.kube = amounts("kubeReserved", fields);
    let system = fields.text("systemReservedCgroup");
    let kube = fields.text("kubeReservedCgroup");
    if let Some(text) = fields.text("reservedSystemCPUs") {
        if system.is_some() || kube.is_some() {
            fields.problem("reservedSystemCPUs", "cannot be set beside systemReservedCgroup or kubeReservedCgroup");
        }
        match cpus(&text) {
            Ok(found) => {
                reserved.kube.remove("cpu");
                reserved.system.insert("cpu".into(), Quantity::from_units(found.len() as i64));
                reserved.cpus = found;
            }
            Err(why) => fields.problem("reservedSystemCPUs", why),
        }
    }
    reserved.enforce = enforce(system, kube, fields);
}

fn amounts(name: &str, fields: &mut Fields<'_>) -> Amounts {
    let mut found = Amounts::new();
    for (resource, text) in fields.string_map(name).unwrap_or_default() {
        let path = format!("{name}.{resource}");
        if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid") {
            fields.problem(&path, "cannot be reserved, expected cpu, memory, ephemeral-storage or pid");
            continue;
        }
        match text.parse::<Quantity>() {
            Ok(amount) if amount.is_negative() => fields.problem(&path, format!("quantity {text:?} must not be negative")),
            Ok(amount) => drop(found.insert(resource, amount)),
            Err(error) => fields.problem(&path, error.to_string()),
        }
    }
    found
}

fn enforce(system: Option<String>, kube: Option<String>, fields: &mut Fields<'_>) -> Enforce {
    const LIST: &str = "enforceNodeAllocatable";
    let names = match fields.present(LIST) {
        true => fields.strings(LIST).unwrap_or_default(),
        false => vec!["pods".to_owned()],
    };
    let mut out = Enforce { pods: false, system: None, kube: None };
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let at = format!("{LIST}[{index}]");
        if !seen.insert(name.as_str()) {
            fields.problem(&at, format!("{name:?} is there twice"));
            continue;
        }
        let cpu_only = name.ends_with("-compressible");
        let (place, cgroup, field) = match name.as_str() {
            "pods" => {
                out.pods = true;
                continue;
            }
            "none" if names.len() == 1 => continue,
            "none" => {
                fields.problem(&at, "none cannot be set beside others");
                continue;
            }
            "system-reserved" | "system-reserved-compressible" => (&mut out.system, &system, "systemReservedCgroup"),
            "kube-reserved" | "kube-reserved-compressible" => (&mut out.kube, &kube, "kubeReservedCgroup"),
            _ => {
                let valid =
                    "pods, system-reserved, system-reserved-compressible, kube-reserved, kube-reserved-compressible or none";
                fields.problem(&at, format!("{name:?} must be {valid}"));
                continue;
            }
        };
        if place.is_some() {
            fields.problem(&at, format!("{name:?} cannot be set beside the other of its kind"));
        }
        match cgroup {
            Some(cgroup) if is_place(cgroup) => *place = Some(Existing { name: cgroup.clone(), cpu_only }),
            Some(cgroup) => fields.problem(field, format!("{cgroup:?} must be the absolute path of a cgroup below the root")),
            None => fields.problem(field, format!("required with {name:?} in {LIST}")),
        }
    }
    out
}

/// An absolute path that names something, and nothing above it.
fn is_place(path: &str) -> bool {
    let mut parts = path.split('/').filter(|p| !p.is_empty()).peekable();
    path.starts_with('/') && parts.peek().is_some() && parts.all(|p| p != "." && p != ".." && !p.contains('\0'))
}

/// A list of CPUs as the kernel writes it: `0,2-4`.
fn cpus(text: &str) -> Result<BTreeSet<u32>, String> {
    let number = |n: &str| match n.parse::<u32>() {
        Ok(cpu) if cpu < CPUS_MAX => Ok(cpu),
        _ => Err(format!("{text:?} is not a list of CPUs like 0,2-4")),
    };
    let mut found = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} ends before it begins"));
        }
        found.extend(first..=last);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
