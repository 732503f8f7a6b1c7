//! EndpointSlices in every order and shape.

use super::*;

fn web() -> Value {
    service("web", &["10.96.0.1"], json!({}))
}

#[track_caller]
fn meets(slices: &[Value], wanted: &str) {
    // In whichever order they come.
    for turn in 0..slices.len().max(1) {
        let mut objects = slices.to_vec();
        objects.rotate_left(turn);
        objects.insert(turn.min(objects.len()), web());
        assert_eq!(cluster(&objects).meets("pod", "10.96.0.1:80"), wanted, "turn {turn}");
    }
}

#[test]
fn slices_add_up() {
    meets(
        &[slice("a", "web", &["10.244.1.1"]), slice("b", "web", &["10.244.1.2"]), slice("c", "other", &["10.244.1.3"])],
        "10.244.1.1:8080 10.244.1.2:8080",
    );
    meets(&[], "reject");
}

#[test]
fn an_endpoint_in_two_slices_counts_once() {
    let both =
        |one: &str, two: &str, wanted: &str| meets(&[slice("a", "web", &[one]), slice("b", "web", &[two, "10.244.1.9"])], wanted);
    both("10.244.1.1", "10.244.1.1", "10.244.1.1:8080 10.244.1.9:8080");
    // It moves, and one of the slices is older.
    both("10.244.1.1", "10.244.1.1 starting", "10.244.1.1:8080 10.244.1.9:8080");
    both("10.244.1.1 starting", "10.244.1.1 starting", "10.244.1.9:8080");
    // A pod that ends, and the next one that has its address already: the living one counts.
    both("10.244.1.1 leaving", "10.244.1.1", "10.244.1.1:8080 10.244.1.9:8080");
    both("10.244.1.1 published-leaving", "10.244.1.1 starting", "10.244.1.9:8080");
    meets(&[slice("a", "web", &["10.244.1.1 leaving"]), slice("b", "web", &["10.244.1.1 starting"])], "reject");
    meets(&[slice("a", "web", &["10.244.1.1 leaving"]), slice("b", "web", &["10.244.1.1 leaving"])], "10.244.1.1:8080");
    meets(&[slice("a", "web", &["10.244.1.1 leaving", "10.244.1.1"])], "10.244.1.1:8080");
}

#[test]
fn the_living_one_says_where_it_is() {
    let s = service("web", &["10.96.0.1"], json!({"internalTrafficPolicy": "Local"}));
    let c = cluster(&[s.clone(), slice("a", "web", &["10.244.1.1 here leaving"]), slice("b", "web", &["10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.1:80", "drop")]);
    let c = cluster(&[s, slice("a", "web", &["10.244.1.1 leaving"]), slice("b", "web", &["10.244.1.1 here"])]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080")]);
}

#[test]
fn a_target_port_by_name_differs_between_slices() {
    let old = with(slice("b", "web", &["10.244.1.2"]), "/ports", json!([{"name": "web", "port": 80}]));
    meets(&[slice("a", "web", &["10.244.1.1"]), old], "10.244.1.1:8080 10.244.1.2:80");
    // The same address on two ports is two endpoints.
    let again = with(slice("b", "web", &["10.244.1.1"]), "/ports", json!([{"name": "web", "port": 80}]));
    meets(&[slice("a", "web", &["10.244.1.1"]), again], "10.244.1.1:80 10.244.1.1:8080");
}

#[test]
fn slices_without_ports_or_with_odd_ones() {
    for ports in [
        json!([]),
        json!(null),
        json!([{"name": "web", "port": null}]),
        json!([{"name": "web", "port": 0}]),
        json!([{"name": "other", "port": 8080}]),
        json!([{"name": "web", "port": 8080, "protocol": "UDP"}]),
    ] {
        meets(&[with(slice("a", "web", &["10.244.1.1"]), "/ports", ports)], "reject");
    }
    // An unnamed port is that of a service with one unnamed port.
    let s = service("web", &["10.96.0.1"], json!({"ports": [{"port": 80}]}));
    let c = cluster(&[s, with(slice("a", "web", &["10.244.1.1"]), "/ports", json!([{"name": "", "port": 8080}]))]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080")]);
}

#[test]
fn what_is_wrong_is_left_out_and_the_rest_used() {
    let mut s = slice("a", "web", &["10.244.1.1", "10.244.1.2"]);
    let endpoints = s["endpoints"].as_array_mut().unwrap();
    for addresses in [json!([]), json!(["fd00:244::1"]), json!(["web.example"]), json!(["127.0.0.1"]), json!(["0.0.0.0"])] {
        endpoints.insert(1, json!({"addresses": addresses}));
    }
    let c = cluster(&[web(), s.clone()]);
    assert_eq!(c.faults.len(), 4, "{:?}", c.faults);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080 10.244.1.2:8080")]);
    s["ports"] = json!([{"name": "bad", "port": 70_000}, {"name": "web", "port": 8080}]);
    cluster(&[web(), s]).check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080 10.244.1.2:8080")]);
}

#[test]
fn slices_that_are_not_for_proxies() {
    let labelled = |label: &str, value: &str| {
        let mut s = slice("a", "web", &["10.244.1.1"]);
        s["metadata"]["labels"][label] = json!(value);
        s
    };
    meets(&[labelled("service.kubernetes.io/headless", "")], "reject");
    meets(&[labelled("kubernetes.io/service-name", "")], "reject");
    meets(&[with(slice("a", "web", &["10.244.1.1"]), "/addressType", json!("FQDN"))], "reject");
    meets(&[with(slice("a", "web", &["10.244.1.1"]), "/addressType", json!("IPv5"))], "reject");
    let mut elsewhere = slice("a", "web", &["10.244.1.1"]);
    elsewhere["metadata"]["namespace"] = json!("other");
    meets(&[elsewhere], "reject");
}

#[test]
fn a_slice_may_change_its_service_and_go() {
    let mut c = cluster(&[web(), service("two", &["10.96.0.2"], json!({})), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080"), ("pod", "10.96.0.2:80", "reject")]);
    c.apply(&slice("a", "two", &["10.244.1.1"]));
    c.check(&[("pod", "10.96.0.1:80", "reject"), ("pod", "10.96.0.2:80", "10.244.1.1:8080")]);
}

#[test]
fn a_thousand_endpoints_in_a_slice() {
    let addresses: Vec<String> = (0..1000).map(|n| format!("10.244.{}.{}", 1 + n / 250, 1 + n % 250)).collect();
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let c = cluster(&[web(), slice("a", "web", &texts)]);
    let rules = c.rules();
    let (_, block) = rules.blocks().next().unwrap();
    assert_eq!(block.fronts[0].1.len(), 1000);
    assert!(c.meets("pod", "10.96.0.1:80").contains(" 10.244.1.1:8080 "));
    // Ten of them, all full, half of them twice.
    let more: Vec<Value> = (0..10).map(|n| slice(&format!("s{n}"), "web", &texts[n * 50..])).collect();
    let c = cluster(&[vec![web()], more].concat());
    assert_eq!(c.rules().blocks().next().unwrap().1.fronts[0].1.len(), 1000);
}
