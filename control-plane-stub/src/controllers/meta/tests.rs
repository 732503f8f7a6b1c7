use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn selectors() {
    let with = |exprs: &[(&str, &str, &[&str])]| LabelSelector {
        match_labels: None,
        match_expressions: Some(
            exprs
                .iter()
                .map(|(k, op, v)| LabelSelectorRequirement {
                    key: k.to_string(),
                    operator: op.to_string(),
                    values: Some(v.iter().map(|s| s.to_string()).collect()),
                })
                .collect(),
        ),
    };
    let l = labels(&[("app", "web"), ("n", "5")]);
    let table: &[(&str, &str, &[&str], bool)] = &[
        ("app", "In", &["web", "db"], true),
        ("app", "In", &["db"], false),
        ("none", "In", &["db"], false),
        ("app", "NotIn", &["db"], true),
        ("none", "NotIn", &["db"], true),
        ("app", "NotIn", &["web"], false),
        ("app", "Exists", &[], true),
        ("none", "Exists", &[], false),
        ("none", "DoesNotExist", &[], true),
        ("n", "Gt", &["4"], true),
        ("n", "Gt", &["5"], false),
        ("n", "Lt", &["6"], true),
        ("app", "Lt", &["6"], false),
        ("app", "Odd", &["web"], false),
    ];
    for (k, op, v, want) in table {
        assert_eq!(selects(Some(&with(&[(k, op, v)])), Some(&l)), *want, "{k} {op} {v:?}");
    }
    assert!(!selects(None, Some(&l)));
    assert!(selects(Some(&LabelSelector::default()), None));
    assert!(!has_all(&Labels::new(), Some(&l)));
    assert!(has_all(&labels(&[("app", "web")]), Some(&l)) && !has_all(&labels(&[("app", "web")]), None));
}

#[test]
fn percents_round_as_told() {
    let p = |s: &str| IntOrString::String(s.into());
    assert_eq!(resolve(&p("25%"), 10, Round::Up), Some(3));
    assert_eq!(resolve(&p("25%"), 10, Round::Down), Some(2));
    assert_eq!(resolve(&p("100%"), 3, Round::Up), Some(3));
    assert_eq!(resolve(&IntOrString::Int(7), 3, Round::Up), Some(7));
    assert_eq!(resolve(&p("x"), 3, Round::Up), None);
}
