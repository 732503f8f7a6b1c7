//! kube-proxy's chains in what `iptables-save` prints, and the input of `iptables-restore --noflush` that removes them.
//!
//! Pure. Only chains with names that kube-proxy gives are touched, and the jumps to them from the built-in chains. kubelet's are
//! left, and so is what a chain of somebody else leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Of its iptables mode, then those that only its ipvs mode has.
const CHAINS: [&str; 13] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// A chain for each service or endpoint; the last is that of older versions.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];
const KUBELETS: [&str; 4] = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-MARK-DROP"];

fn of_kube_proxy(chain: &str) -> bool {
    CHAINS.contains(&chain) || PREFIXES.iter().any(|prefix| chain.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Empty if there is nothing to remove.
    pub input: String,
    /// By table: how many chains go, and how many jumps to them.
    pub removed: Vec<(String, usize, usize)>,
    /// What stays, and why.
    pub left: Vec<String>,
    /// Tables that `iptables-save` says it cannot read.
    pub unreadable: Vec<String>,
}

#[derive(Default)]
struct Table<'a> {
    /// True for a built-in one.
    chains: BTreeMap<&'a str, bool>,
    /// As printed, with the chain each is in.
    rules: Vec<(&'a str, &'a str)>,
}

/// What to do about the output of `iptables-save`.
pub fn plan(saved: &str) -> Plan {
    let (mut tables, mut plan) = (Vec::<(&str, Table)>::new(), Plan::default());
    for line in saved.lines().map(str::trim_end) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push((name, Table::default()));
        } else if let Some(name) = incompatible(line) {
            plan.unreadable.push(name.to_owned());
        } else if let Some((_, table)) = tables.last_mut() {
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                table.chains.insert(words.next().unwrap_or_default(), words.next() != Some("-"));
            } else if let Some(rule) = line.strip_prefix("-A ") {
                table.rules.push((rule.split(' ').next().unwrap_or_default(), line));
            }
        }
    }
    for (name, table) in &tables {
        table.plan(name, &mut plan);
    }
    plan
}

/// `# Table `nat' is incompatible, use 'nft' tool.`
fn incompatible(line: &str) -> Option<&str> {
    line.strip_prefix("# Table `")?.split_once("' is incompatible").map(|(name, _)| name)
}

/// The chain that a rule jumps or goes to. Comments are quoted if they have blanks in them, so that no word of one is taken for it.
fn target(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let mut words = rule.split(' ').filter(|word| {
        let outside = !quoted && !word.starts_with('"');
        let quotes = word.matches('"').count() - word.matches("\\\"").count();
        quoted ^= quotes % 2 == 1;
        outside
    });
    words.by_ref().find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}

impl Table<'_> {
    fn plan(&self, name: &str, plan: &mut Plan) {
        let kept = self.kept(name, plan);
        let goes = |chain: &str| of_kube_proxy(chain) && self.chains.contains_key(chain) && !kept.contains(chain);
        let chains: Vec<&str> = self.chains.keys().copied().filter(|chain| goes(chain)).collect();
        let built_in = |chain: &str| self.chains.get(chain) == Some(&true);
        let leads = |(chain, rule): &&(&str, &str)| built_in(chain) && target(rule).is_some_and(goes);
        let jumps: Vec<&str> = self.rules.iter().filter(leads).map(|(_, rule)| *rule).collect();
        for chain in KUBELETS.iter().filter(|chain| self.chains.contains_key(**chain)) {
            plan.left.push(format!("chain {chain} of table {name} is kubelet's"));
        }
        if chains.is_empty() {
            return;
        }
        let out = &mut plan.input;
        // Writing to a string cannot fail. A chain that is named is emptied first, so that none of them refers to another.
        let _ = writeln!(out, "*{name}");
        for chain in &chains {
            let _ = writeln!(out, ":{chain} - [0:0]");
        }
        for rule in &jumps {
            let _ = writeln!(out, "-D {}", &rule["-A ".len()..]);
        }
        for chain in &chains {
            let _ = writeln!(out, "-X {chain}");
        }
        let _ = writeln!(out, "COMMIT");
        plan.removed.push((name.to_owned(), chains.len(), jumps.len()));
    }

    /// Those that chains of somebody else lead to, and all that these lead to.
    fn kept(&self, name: &str, plan: &mut Plan) -> BTreeSet<&str> {
        let mut kept = BTreeSet::new();
        for (chain, rule) in &self.rules {
            let others = self.chains.get(chain) == Some(&false) && !of_kube_proxy(chain);
            if let Some(to) = target(rule).filter(|to| others && of_kube_proxy(to))
                && kept.insert(to)
            {
                plan.left.push(format!("chain {to} of table {name}, since chain {chain} leads to it"));
            }
        }
        let mut before = 0;
        while before != kept.len() {
            before = kept.len();
            let further = self.rules.iter().filter(|(chain, _)| kept.contains(chain)).filter_map(|(_, rule)| target(rule));
            let further: Vec<&str> = further.filter(|to| of_kube_proxy(to)).collect();
            kept.extend(further);
        }
        kept
    }
}

#[cfg(test)]
mod tests;
