//! What `nft` lists of what we wrote, for the clusters of `tests/golden`. `FERROLET_NFT` names another `nft` than the host's.
//!
//! Made equal for all versions of `nft` and the kernel: the order of elements, one a line; priorities as numbers; the name of the
//! refusal that is the default; the digest in the name of the layout. A section that is the same in an empty cluster is left out, so
//! that a file shows what its objects add. So are chains, and the elements that lead to them, which only wait for a service with so
//! many endpoints.

#[path = "../golden/mod.rs"]
mod golden;

use super::*;
use golden::{CASES, case, compare};
use std::collections::BTreeSet;

#[test]
fn rulesets_are_listed_as_in_their_files() {
    if !lab::able() {
        return;
    }
    let mut empty = BTreeMap::new();
    for name in CASES {
        let case = case(name);
        let ns = Netns::new();
        let run = Running::start(&ns, case.config());
        run.send(Input::NodeAddresses(case.node.addresses.clone()));
        run.send(Input::NodeZone(case.node.zone.clone()));
        run.send(Input::ServiceCidrs(case.node.service_cidrs.clone()));
        run.list(case.services, case.endpoint_slices);
        for family in ["ip", "ip6"] {
            let nft = std::env::var("FERROLET_NFT").unwrap_or("nft".into());
            let all = in_use(sections(&ns.command(&nft, &["list", "table", family, "ferrolet"])));
            let same: &mut BTreeSet<String> = empty.entry(family).or_default();
            let shown: Vec<&str> = all.iter().filter(|s| !same.contains(*s)).map(String::as_str).collect();
            compare(&format!("{name}.{family}.nft"), &format!("table {family} ferrolet {{\n{}}}\n", shown.join("\n")));
            if name == "nothing" {
                same.extend(all);
            }
        }
    }
}

/// The sets, maps and chains of a listed table.
fn sections(listed: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut lines = listed.lines().map(str::trim).filter(|l| !l.is_empty()).skip(1);
    while let Some(head) = lines.next().filter(|l| *l != "}") {
        let mut text = format!("\t{}\n", layout(head));
        while let Some(line) = lines.next().filter(|l| *l != "}") {
            match line.strip_prefix("elements = {") {
                Some(first) => text += &elements(first, &mut lines),
                None => text += &format!("\t\t{}\n", same_in_all_versions(line)),
            }
        }
        sections.push(text + "\t}\n");
    }
    sections
}

/// Without what waits: a map of counts says which elements of its map of chains are used, and these which chains.
fn in_use(sections: Vec<String>) -> Vec<String> {
    let named = |name: &str| sections.iter().find(|s| s.starts_with(&format!("\tmap {name} {{"))).cloned().unwrap_or_default();
    let mut waiting = BTreeSet::new();
    let mut shown = Vec::new();
    for section in &sections {
        let counts =
            section.strip_prefix("\tmap ").and_then(|s| s.split_once("-picks {")).map(|(kind, _)| named(&format!("{kind}s")));
        let Some(counts) = counts else {
            shown.push(section.clone());
            continue;
        };
        let (head, elements) = section.split_once("\t\telements = {\n").unwrap_or((section, ""));
        let split = |e: &'_ str| e.trim().trim_end_matches(',').split_once(" : goto ").map(|(a, b)| (a.to_owned(), b.to_owned()));
        let unused = |e: &str| split(e).filter(|(code, _)| !counts.contains(&format!(" : {code}")));
        waiting.extend(elements.lines().filter_map(unused).map(|(_, chain)| chain));
        let used: Vec<&str> = elements.lines().filter(|e| split(e).is_some() && unused(e).is_none()).collect();
        shown.push(match used.last() {
            None => format!("{}\t}}\n", head.trim_end_matches("\t}\n")),
            Some(_) => format!("{head}\t\telements = {{\n{}\n\t\t}}\n\t}}\n", used.join("\n").trim_end_matches(',')),
        });
    }
    let name = |s: &str| s.strip_prefix("\tchain ").and_then(|s| s.split_once(" {")).map(|(name, _)| name.to_owned());
    let waits = |s: &String| name(s).is_some_and(|n| waiting.contains(&n));
    // One that waits is shown where another leads to it.
    let chains: String = shown.iter().filter(|s| !waits(s) && name(s).is_some()).cloned().collect();
    let leads = |s: &String| name(s).is_some_and(|n| chains.contains(&format!("goto {n}\n")));
    shown.iter().filter(|s| !waits(s) || leads(s)).cloned().collect()
}

/// The elements in order, one a line.
fn elements<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut all = first.to_string();
    while !all.ends_with('}') {
        all.push(' ');
        all += lines.next().unwrap();
    }
    let mut elements: Vec<&str> = all.trim_end_matches('}').split(',').map(str::trim).collect();
    elements.sort_unstable();
    format!("\t\telements = {{\n\t\t\t{}\n\t\t}}\n", elements.join(",\n\t\t\t"))
}

fn layout(head: &str) -> String {
    match head.split_once("layout-") {
        Some((before, _)) => format!("{before}layout-(digest) {{"),
        None => head.to_string(),
    }
}

fn same_in_all_versions(line: &str) -> String {
    let mut line = line.to_string();
    for (name, number) in [("dstnat + 10", "-90"), ("dstnat", "-100"), ("srcnat", "100"), ("filter - 10", "-10")] {
        line = line.replace(&format!("priority {name};"), &format!("priority {number};"));
    }
    line.replace("reject with icmp port-unreachable", "reject").replace("reject with icmpv6 port-unreachable", "reject")
}
