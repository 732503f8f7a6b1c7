//! Ready, serving and terminating endpoints (KEP-1669), publishNotReadyAddresses.

use super::*;

fn meets(endpoints: &[&str]) -> String {
    cluster(&[service("web", &["10.96.0.1"], json!({})), slice("a", "web", endpoints)]).meets("pod", "10.96.0.1:80")
}

#[test]
fn ready_ones_are_used() {
    assert_eq!(meets(&["10.244.1.1", "10.244.1.2 starting", "10.244.1.3 leaving", "10.244.1.4 dead"]), "10.244.1.1:8080");
}

#[test]
fn without_a_ready_one_those_that_serve_while_they_terminate() {
    assert_eq!(meets(&["10.244.1.2 starting", "10.244.1.3 leaving", "10.244.1.4 dead"]), "10.244.1.3:8080");
    assert_eq!(meets(&["10.244.1.2 starting", "10.244.1.4 dead"]), "reject");
}

#[test]
fn conditions_that_are_not_given_mean_ready() {
    let mut s = slice("a", "web", &["10.244.1.1"]);
    for conditions in [json!(null), json!({}), json!({"ready": null, "serving": null, "terminating": null})] {
        s["endpoints"][0]["conditions"] = conditions;
        let c = cluster(&[service("web", &["10.96.0.1"], json!({})), s.clone()]);
        c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080")]);
    }
    // Serving is ready unless it is given: an old controller knows nothing of it.
    s["endpoints"][0]["conditions"] = json!({"ready": false, "terminating": true});
    let c = cluster(&[service("web", &["10.96.0.1"], json!({})), s]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080")]);
}

#[test]
fn addresses_published_before_they_are_ready_count_as_ready() {
    assert_eq!(meets(&["10.244.1.1 published", "10.244.1.2"]), "10.244.1.1:8080 10.244.1.2:8080");
    assert_eq!(meets(&["10.244.1.1 published-leaving", "10.244.1.2 leaving"]), "10.244.1.1:8080");
}

#[test]
fn the_fallback_ends_with_the_first_ready_one() {
    let mut c = cluster(&[service("web", &["10.96.0.1"], json!({})), slice("a", "web", &["10.244.1.1 leaving"])]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080")]);
    c.apply(&slice("a", "web", &["10.244.1.1 leaving", "10.244.1.2"]));
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.2:8080")]);
    c.apply(&slice("a", "web", &[]));
    c.check(&[("pod", "10.96.0.1:80", "reject")]);
}
