//! Tables to ruleset.
//!
//! Pure. `compile` makes the whole; `update` recompiles only the services named and gives the same result. A service's block
//! depends on nothing but the service, its slices and the policy; claims are settled afterwards.

use crate::model::{Family, Key, Proto, Service};
use crate::ruleset::{Backend, Block, Claim, Front, Mark, Owners, Policy, Ruleset};
use crate::select::select;
use crate::tables::{Tables, Touched};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub fn compile(tables: &Tables, policy: &Policy) -> Ruleset {
    let mut ruleset = Ruleset::new(policy.clone());
    let all: Touched = tables.services().map(|(k, _)| k.clone()).collect();
    update(&mut ruleset, tables, &all, &BTreeSet::new());
    ruleset
}

/// Brings the named services' blocks up to date, leaving out those set aside. Returns the services whose block changed: the
/// named ones, and those that gained or lost a claim by it.
pub fn update(ruleset: &mut Ruleset, tables: &Tables, touched: &Touched, set_aside: &BTreeSet<Key>) -> Touched {
    let mut affected = touched.clone();
    let wanted = |key: &Key, policy: &Policy| match tables.service(key) {
        Some(service) if !set_aside.contains(key) => block(tables, key, service, policy),
        _ => Block::default(),
    };
    let mut blocks = Vec::with_capacity(touched.len());
    // All of them before any is released: a loser's claim is only to be seen while it is contended.
    let before: Vec<_> = touched.iter().map(|key| claims_of(ruleset, key)).collect();
    for (key, before) in touched.iter().zip(before) {
        let new = wanted(key, &ruleset.policy);
        let after = new.claims();
        for claim in before.difference(&after) {
            affected.extend(release(ruleset, claim, key));
        }
        for claim in &after {
            affected.extend(take(ruleset, claim, key));
        }
        blocks.push((key.clone(), new));
    }
    for key in affected.difference(touched) {
        blocks.push((key.clone(), wanted(key, &ruleset.policy)));
    }
    let mut changed = Touched::new();
    for (key, new) in blocks {
        if install(ruleset, key.clone(), new) {
            changed.insert(key);
        }
    }
    changed
}

/// The claims a service has or contends for. A loser's block does not show its claims, so a contended one is looked for too.
fn claims_of(ruleset: &Ruleset, key: &Key) -> BTreeSet<Claim> {
    let mut claims = ruleset.blocks.get(key).map(|b| b.claims()).unwrap_or_default();
    if ruleset.contended > 0 {
        let also = ruleset.owners.iter().filter(|(_, o)| matches!(o, Owners::Many(all) if all.contains(key)));
        claims.extend(also.map(|(c, _)| *c));
    }
    claims
}

fn take(ruleset: &mut Ruleset, claim: &Claim, key: &Key) -> Vec<Key> {
    let Some(owners) = ruleset.owners.get_mut(claim) else {
        ruleset.owners.insert(*claim, Owners::One(key.clone()));
        return Vec::new();
    };
    match owners {
        Owners::One(one) if one == key => return Vec::new(),
        Owners::One(one) => {
            *owners = Owners::Many([one.clone(), key.clone()].into());
            ruleset.contended += 1;
        }
        Owners::Many(all) => {
            all.insert(key.clone());
        }
    }
    owners.all()
}

fn release(ruleset: &mut Ruleset, claim: &Claim, key: &Key) -> Vec<Key> {
    let Some(owners) = ruleset.owners.get_mut(claim) else { return Vec::new() };
    match owners {
        Owners::One(one) => {
            if one == key {
                ruleset.owners.remove(claim);
            }
            Vec::new()
        }
        Owners::Many(all) => {
            all.remove(key);
            let rest: Vec<Key> = all.iter().cloned().collect();
            if let [one] = rest.as_slice() {
                *owners = Owners::One(one.clone());
                ruleset.contended -= 1;
            }
            rest
        }
    }
}

/// Keeps of a block what the service won, and stores it if it differs.
fn install(ruleset: &mut Ruleset, key: Key, mut new: Block) -> bool {
    let won = |claim: &Claim| ruleset.owner(claim) == Some(&key);
    if ruleset.contended > 0 && !new.claims().iter().all(won) {
        new.fronts = new.fronts.into_iter().filter(|(f, _)| won(&f.claim())).collect();
        new.marks = new.marks.into_iter().filter(|m| m.claim().is_none_or(|c| won(&c))).collect();
    }
    if new.is_empty() {
        return ruleset.blocks.remove(&key).is_some();
    }
    if ruleset.blocks.get(&key).is_some_and(|old| **old == new) {
        return false;
    }
    ruleset.blocks.insert(key, Arc::new(new));
    true
}

fn block(tables: &Tables, key: &Key, service: &Service, policy: &Policy) -> Block {
    let mut parts = Parts::default();
    for family in policy.families.iter().copied() {
        let ips: Vec<_> = service.cluster_ips.iter().copied().filter(|ip| Family::of(ip) == family).collect();
        if ips.is_empty() {
            continue;
        }
        parts.marks.extend(ips.iter().map(|ip| Mark::ClusterIp(*ip)));
        let balanced = LoadBalanced::of(service, family, policy);
        for port in &service.ports {
            let selection = select(tables, key, port, family, &policy.zone);
            let pools = Pools { cluster: selection.cluster.into(), local: selection.local.into() };
            parts.marks.extend(pools.local.iter().chain(&selection.unplaced).map(|b| Mark::Hairpin(b.ip)));
            let inside = if service.internal_local { &pools.local } else { &pools.cluster };
            let (proto, number) = (port.proto, port.port);
            for ip in ips.iter().copied() {
                if !inside.is_empty() {
                    parts.fronts.push((Front::ClusterIp { ip, proto, port: number }, inside.clone()));
                } else if !pools.cluster.is_empty() {
                    parts.marks.insert(Mark::NoLocal { ip, proto, port: number });
                }
            }
            for ip in &balanced.ips {
                parts.external(*ip, proto, number, &pools, service.external_local);
            }
            for (ip, sources) in &balanced.restricted {
                parts.marks.insert(Mark::Ranged { ip: *ip, proto, port: number });
                let range = |source: &IpNet| Mark::Range { ip: *ip, proto, port: number, source: *source };
                parts.marks.extend(sources.iter().map(range));
            }
            if let Some(number) = port.node_port {
                parts.node_port(family, proto, number, &pools, service.external_local);
            }
        }
    }
    parts.finish(service.affinity)
}

/// A service's addresses from outside, and the sources that those with a restriction take.
struct LoadBalanced {
    ips: BTreeSet<IpAddr>,
    restricted: BTreeMap<IpAddr, Vec<IpNet>>,
}

impl LoadBalanced {
    fn of(service: &Service, family: Family, policy: &Policy) -> LoadBalanced {
        let here = |ip: &&IpAddr| Family::of(ip) == family;
        let balancer: BTreeSet<IpAddr> = service.load_balancer_ips.iter().filter(here).copied().collect();
        let ips = service.external_ips.iter().filter(here).copied().chain(balancer.iter().copied()).collect();
        let mut ranges: Vec<IpNet> = service.source_ranges.iter().filter(|r| Family::of(&r.addr()) == family).copied().collect();
        if ranges.iter().any(|r| r.prefix_len() == 0) {
            // Everybody.
            ranges.clear();
        }
        // A balancer's address may be one of this node's own: then what this node sends to it has it as its source too.
        let node_may = ranges.iter().any(|r| policy.node_ips.iter().any(|ip| r.contains(ip)));
        let sources = |ip: IpAddr| {
            let own = node_may.then(|| IpNet::from(ip));
            // The kernel refuses overlaps.
            IpNet::aggregate(&ranges.iter().copied().chain(own).collect())
        };
        let restricted = balancer.into_iter().filter(|_| !ranges.is_empty()).map(|ip| (ip, sources(ip))).collect();
        LoadBalanced { ips, restricted }
    }
}

struct Pools {
    cluster: Arc<[Backend]>,
    local: Arc<[Backend]>,
}

#[derive(Default)]
struct Parts {
    fronts: Vec<(Front, Arc<[Backend]>)>,
    marks: BTreeSet<Mark>,
}

impl Parts {
    fn node_port(&mut self, family: Family, proto: Proto, port: u16, pools: &Pools, local_only: bool) {
        if pools.cluster.is_empty() {
            self.marks.insert(Mark::Unserved { family, proto, port });
            return;
        }
        self.fronts.push((Front::NodePort { family, proto, port }, pools.cluster.clone()));
        if local_only {
            self.marks.insert(Mark::LocalOnly { family, proto, port });
            if !pools.local.is_empty() {
                self.fronts.push((Front::LocalNodePort { family, proto, port }, pools.local.clone()));
            }
        }
    }

    fn external(&mut self, ip: IpAddr, proto: Proto, port: u16, pools: &Pools, local_only: bool) {
        self.marks.insert(Mark::External { ip, proto, port });
        if pools.cluster.is_empty() {
            return;
        }
        self.fronts.push((Front::External { ip, proto, port }, pools.cluster.clone()));
        if local_only {
            self.marks.insert(Mark::LocalOnlyIp { ip, proto, port });
            if !pools.local.is_empty() {
                self.fronts.push((Front::LocalExternal { ip, proto, port }, pools.local.clone()));
            }
        }
    }

    fn finish(mut self, affinity: Option<u32>) -> Block {
        self.fronts.sort_by_key(|(f, _)| *f);
        self.fronts.dedup_by_key(|(f, _)| *f);
        let affinity = affinity.filter(|_| !self.fronts.is_empty());
        Block { fronts: self.fronts.into_boxed_slice(), marks: self.marks.into_iter().collect(), affinity }
    }
}

#[cfg(test)]
mod tests;
