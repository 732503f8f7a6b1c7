use super::{Counts, read};
use serde_json::json;

fn spec(kind: &str, texts: &[&str], state: &str, message: &str) -> serde_json::Value {
    json!({"LeafNodeType": kind, "ContainerHierarchyTexts": texts, "LeafNodeText": "works", "State": state,
        "Failure": {"Message": message}})
}

#[test]
fn counts_by_group_and_names_what_failed() {
    let report = json!([{"SpecReports": [
        spec("It", &["[sig-node] Pods"], "passed", ""),
        spec("It", &["[sig-node] Probes", ""], "failed", "\n  first\nsecond"),
        spec("It", &["[sig-network] Services"], "timedout", ""),
        spec("It", &["[sig-network] Services"], "skipped", "needs two nodes"),
        spec("It", &["[sig-apps] Job"], "skipped", ""),
        spec("SynchronizedBeforeSuite", &[], "passed", ""),
    ]}]);
    let outcome = read(&report);
    let node = Counts { passed: 1, failed: 1, skipped: 0 };
    let network = Counts { passed: 0, failed: 1, skipped: 1 };
    assert_eq!(outcome.groups.into_iter().collect::<Vec<_>>(), [("sig-network".into(), network), ("sig-node".into(), node)]);
    let failed = [("[sig-node] Probes works".into(), "first".into()), ("[sig-network] Services works".into(), "timedout".into())];
    assert_eq!(outcome.failed, failed);
    assert_eq!(outcome.skipped, [("[sig-network] Services works".into(), "needs two nodes".into())]);
}
