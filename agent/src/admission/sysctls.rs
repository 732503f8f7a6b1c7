//! Which kernel settings a pod may ask for. Pure.
//!
//! Allowed are those that the kernel keeps apart for each pod and that touch no other pod, and what the administrator adds in
//! `allowedUnsafeSysctls`. Facts from kubelet's `pkg/kubelet/sysctl` and `component-helpers/node/util/sysctl`.

use k8s_openapi::api::core::v1::PodSpec;

/// The kernel namespace that holds a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

impl Namespace {
    fn name(self) -> &'static str {
        match self {
            Namespace::Ipc => "IPC",
            Namespace::Net => "Net",
        }
    }

    fn of(name: &str) -> Option<Namespace> {
        const IPC: [&str; 10] = [
            "kernel.sem",
            "kernel.shm",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
            "kernel.msg",
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
        ];
        match name {
            name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some(Namespace::Ipc),
            name if name.starts_with("net.") => Some(Namespace::Net),
            _ => None,
        }
    }
}

/// Safe settings with the kernel that first kept them apart by namespace.
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// One name, or with a star at its end all that begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    name: String,
    prefix: bool,
    namespace: Namespace,
}

/// What pods of this node may set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist(Vec<Pattern>);

impl Allowlist {
    /// `release` is the kernel's, such as `6.12.43+deb13-amd64`. What is wrong with `more` has been told before.
    pub fn new(release: &str, more: &[String]) -> Allowlist {
        let kernel = version(release);
        let safe = SAFE.iter().filter(|(_, since)| *since <= kernel).map(|(name, _)| parse(name));
        Allowlist(safe.chain(more.iter().map(|text| parse(text))).filter_map(Result::ok).collect())
    }

    /// The first setting of the pod that is not allowed, and why.
    pub(super) fn refusal(&self, spec: &PodSpec) -> Option<String> {
        let wanted = spec.security_context.as_ref().and_then(|s| s.sysctls.as_deref()).unwrap_or_default();
        wanted.iter().find_map(|sysctl| self.forbidden(&sysctl.name, spec))
    }

    fn forbidden(&self, name: &str, spec: &PodSpec) -> Option<String> {
        let name = dotted(name);
        let whole = self.0.iter().find(|p| !p.prefix && p.name == name);
        let found = whole.or_else(|| self.0.iter().find(|p| p.prefix && name.starts_with(&p.name)));
        let Some(pattern) = found else { return Some(format!("{name:?} not allowlisted")) };
        let of_host = match pattern.namespace {
            Namespace::Ipc => spec.host_ipc,
            Namespace::Net => spec.host_network,
        };
        (of_host == Some(true)).then(|| format!("{name:?} not allowed with host {} enabled", pattern.namespace.name()))
    }
}

/// Why this cannot be an entry of `allowedUnsafeSysctls`.
pub fn problem(pattern: &str) -> Option<String> {
    parse(pattern).err()
}

fn parse(text: &str) -> Result<Pattern, String> {
    if text.len() > 253 || !well_formed(text) {
        let form = "at most 253 characters of segments of lower case letters, digits, '-' and '_' between dots or slashes, with '*' at the end only";
        return Err(format!("sysctl {text:?} must have {form}"));
    }
    let name = dotted(text);
    let (name, prefix) = match name.strip_suffix('*') {
        Some(start) => (start.to_owned(), true),
        None => (name, false),
    };
    match Namespace::of(&name) {
        Some(namespace) => Ok(Pattern { name, prefix, namespace }),
        None => Err(format!("the sysctls {name:?} are not known to be namespaced")),
    }
}

fn well_formed(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let middle = |s: &str| s.bytes().all(|b| inner(b) || matches!(b, b'-' | b'_'));
    let starts = |s: &str| s.bytes().next().is_some_and(inner);
    let mut segments: Vec<&str> = text.split(['.', '/']).collect();
    let Some(last) = segments.pop() else { return false };
    let last = match last.strip_suffix('*') {
        Some(start) => start.is_empty() || starts(start) && middle(start),
        None => starts(last) && middle(last) && last.bytes().last().is_some_and(inner),
    };
    last && segments.iter().all(|s| starts(s) && middle(s) && s.bytes().last().is_some_and(inner))
}

/// With slashes as separators, dots belong to the names between them: `net/ipv4/conf/eno2.100/rp_filter`.
fn dotted(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|at| name[at..].starts_with('.')) {
        return name.to_owned();
    }
    let swapped = name.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    });
    swapped.collect()
}

/// Major and minor; zero where there is no number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests;
