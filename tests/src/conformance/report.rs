//! What a run of the specs showed, from ginkgo's JSON report. Pure but for printing.

use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// By the group that a spec's name begins with: `sig-node`.
    pub groups: BTreeMap<String, Counts>,
    /// Names with the first line of why.
    pub failed: Vec<(String, String)>,
    /// The same of specs that ran, and then said that they cannot run here.
    pub skipped: Vec<(String, String)>,
}

/// Specs that the filters left out are not in it.
pub fn read(report: &Value) -> Outcome {
    let mut outcome = Outcome::default();
    let suites = report.as_array().map(Vec::as_slice).unwrap_or_default();
    for spec in suites.iter().flat_map(|suite| suite["SpecReports"].as_array().map(Vec::as_slice).unwrap_or_default()) {
        let (state, message) = (spec["State"].as_str().unwrap_or_default(), &spec["Failure"]["Message"]);
        let why = first_line(message.as_str().unwrap_or_default());
        let name = name(spec);
        // Besides the specs there are the suite's own steps, which count only when they fail.
        let is_spec = spec["LeafNodeType"] == "It";
        let counts = outcome.groups.entry(group(&name)).or_default();
        match state {
            "passed" if is_spec => counts.passed += 1,
            "skipped" if is_spec && !why.is_empty() => {
                counts.skipped += 1;
                outcome.skipped.push((name, why));
            }
            "" | "passed" | "skipped" | "pending" => {}
            _ => {
                counts.failed += 1;
                let why = if why.is_empty() { state.to_owned() } else { why };
                outcome.failed.push((name, why));
            }
        }
    }
    outcome.groups.retain(|_, counts| *counts != Counts::default());
    outcome
}

fn name(spec: &Value) -> String {
    let texts = spec["ContainerHierarchyTexts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words: Vec<&str> =
        texts.iter().chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).filter(|t| !t.is_empty()).collect();
    if words.is_empty() { spec["LeafNodeType"].as_str().unwrap_or("?").to_owned() } else { words.join(" ") }
}

/// What stands in the first brackets.
fn group(name: &str) -> String {
    let inner = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    inner.map_or("others", |(group, _)| group).to_owned()
}

fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(240).collect()
}

impl Outcome {
    pub fn print(&self) {
        println!("\n{:<24} {:>7} {:>7} {:>8}", "group", "passed", "failed", "skipped");
        for (group, counts) in &self.groups {
            println!("{group:<24} {:>7} {:>7} {:>8}", counts.passed, counts.failed, counts.skipped);
        }
        for (title, list) in [("failed", &self.failed), ("skipped by themselves", &self.skipped)] {
            if !list.is_empty() {
                println!("\n{title}:");
            }
            list.iter().for_each(|(name, why)| println!("- {name}\n    {why}"));
        }
    }
}

#[cfg(test)]
mod tests;
