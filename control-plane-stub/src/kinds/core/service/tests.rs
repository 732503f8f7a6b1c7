use super::families::settle;
use super::*;
use crate::kinds::Op;
use crate::ranges::Family::{self, V4, V6};
use proptest::prelude::*;
use serde_json::json;

fn service(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn prepared(new: Value, old: Option<&Value>) -> Value {
    let mut new = new;
    (SERVICE.defaults)(&mut new);
    (SERVICE.prepare)(if old.is_some() { Op::Update } else { Op::Create }, None, &mut new, old);
    new
}

fn problems(new: &Value, old: Option<&Value>) -> Vec<String> {
    let op = if old.is_some() { Op::Update } else { Op::Create };
    (SERVICE.validate)(op, None, new, old).iter().map(ToString::to_string).collect()
}

/// What a create or an update comes to before addresses are given out: the Service, or what is wrong with it.
fn write(new: Value, old: Option<&Value>, cluster: &[Family]) -> Result<Value, Vec<String>> {
    let mut new = prepared(new, old);
    let wrong = problems(&new, old);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let wrong = settle(&mut new, old, cluster);
    if wrong.is_empty() { Ok(new) } else { Err(wrong.iter().map(ToString::to_string).collect()) }
}

fn settled(spec: Value, cluster: &[Family]) -> (Value, Value) {
    let made = write(service(spec), None, cluster).unwrap();
    (made["spec"]["ipFamilyPolicy"].clone(), made["spec"]["ipFamilies"].clone())
}

#[track_caller]
fn refused(new: Value, old: Option<&Value>, cluster: &[Family], text: &str) {
    let found = write(new, old, cluster).unwrap_err();
    assert!(found.iter().any(|e| e.contains(text)), "{text}: {found:#?}");
}

#[test]
fn new_services_get_the_families_they_ask_for() {
    let four = json!(["IPv4"]);
    let both = json!(["IPv4", "IPv6"]);
    let turned = json!(["IPv6", "IPv4"]);
    let dual = &[V4, V6];
    for (spec, cluster, policy, families) in [
        (json!({}), &[V4][..], "SingleStack", &four),
        (json!({}), dual, "SingleStack", &four),
        (json!({}), &[V6, V4], "SingleStack", &json!(["IPv6"])),
        (json!({"ipFamilies": ["IPv6"]}), dual, "SingleStack", &json!(["IPv6"])),
        (json!({"clusterIP": "fd00::5"}), dual, "SingleStack", &json!(["IPv6"])),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), dual, "PreferDualStack", &both),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), &[V4], "PreferDualStack", &four),
        (json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}), dual, "PreferDualStack", &turned),
        (json!({"ipFamilyPolicy": "RequireDualStack"}), &[V6, V4], "RequireDualStack", &turned),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00::5", "clusterIPs": ["fd00::5", "10.0.0.5"]}),
            dual,
            "RequireDualStack",
            &turned,
        ),
        (json!({"clusterIP": "None", "selector": {"a": "b"}}), dual, "SingleStack", &four),
        (
            json!({"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack", "selector": {"a": "b"}}),
            dual,
            "PreferDualStack",
            &both,
        ),
        // Whoever writes the endpoints of such a Service may have both families, whatever the cluster has.
        (json!({"clusterIP": "None"}), &[V4], "RequireDualStack", &both),
        (json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack"}), dual, "SingleStack", &four),
    ] {
        let shown = spec.to_string();
        assert_eq!(settled(spec, cluster), (json!(policy), families.clone()), "{shown}");
    }
    let external = write(service(json!({"type": "ExternalName", "externalName": "a.example"})), None, dual).unwrap();
    assert!(external["spec"].get("ipFamilies").is_none() && external["spec"].get("ipFamilyPolicy").is_none());
}

#[test]
fn families_that_cannot_be() {
    let create = |spec: Value, cluster: &[Family], text: &str| refused(service(spec), None, cluster, text);
    let dual = &[V4, V6];
    create(
        json!({"ipFamilyPolicy": "RequireDualStack"}),
        &[V4],
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
    );
    create(json!({"ipFamilies": ["IPv6"]}), &[V4], "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster");
    create(
        json!({"clusterIP": "fd00::5"}),
        &[V4],
        "spec.clusterIPs[0]: Invalid value: [\"fd00::5\"]: IPv6 is not configured on this cluster",
    );
    create(
        json!({"ipFamilies": ["IPv4", "IPv6"]}),
        dual,
        "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
    );
    create(
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}),
        dual,
        "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
    );
    create(json!({"ipFamilies": ["IPv4", "IPv4"]}), dual, "spec.ipFamilies[1]: Duplicate value: \"IPv4\"");
    create(json!({"ipFamilies": ["IPv5"]}), dual, "spec.ipFamilies[0]: Unsupported value: \"IPv5\"");
    create(
        json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"]}),
        dual,
        "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
    );
    create(
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
        dual,
        "may specify no more than one IP for each IP family",
    );
    create(json!({"clusterIP": "None", "clusterIPs": ["None", "10.0.0.2"]}), dual, "'None' must be the first and only value");
    create(json!({"clusterIPs": ["10.0.0.2"]}), dual, "must be empty when `clusterIP` is not specified");
    create(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}), dual, "first value must match `clusterIP`");
    create(
        json!({"type": "ExternalName", "externalName": "a.example", "ipFamilyPolicy": "SingleStack"}),
        dual,
        "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
    );
}

#[test]
fn a_second_family_comes_and_goes() {
    let dual = &[V4, V6];
    let single = prepared(
        service(
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
        ),
        None,
    );
    let change = |old: &Value, spec: Value| {
        let mut new = old.clone();
        json_patch::merge(&mut new["spec"], &spec);
        new
    };
    let wider = write(change(&single, json!({"ipFamilyPolicy": "PreferDualStack"})), Some(&single), dual).unwrap();
    assert_eq!(wider["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    refused(
        change(&single, json!({"ipFamilyPolicy": "RequireDualStack"})),
        Some(&single),
        &[V4],
        "not configured for dual-stack",
    );
    // The second address may be named, the first may not change.
    let named = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.0.0.1", "fd00::9"]});
    assert_eq!(write(change(&single, named), Some(&single), dual).unwrap()["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    refused(
        change(&single, json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]})),
        Some(&single),
        dual,
        "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set",
    );
    refused(
        change(&single, json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"})),
        Some(&single),
        dual,
        "may not change once set",
    );

    let both = change(&wider, json!({"clusterIPs": ["10.0.0.1", "fd00::1"]}));
    let back = write(change(&both, json!({"ipFamilyPolicy": "SingleStack"})), Some(&both), dual).unwrap();
    assert_eq!((&back["spec"]["clusterIPs"], &back["spec"]["ipFamilies"]), (&json!(["10.0.0.1"]), &json!(["IPv4"])));
    refused(
        change(&both, json!({"clusterIPs": ["10.0.0.1"]})),
        Some(&both),
        dual,
        "must be set to 'SingleStack' when releasing the secondary clusterIP",
    );
    // A manifest without any of it, sent again, changes nothing.
    let again = write(service(json!({})), Some(&both), dual).unwrap();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(again["spec"][field], both["spec"][field], "{field}");
    }
    // What only prefers two families keeps what it has when the cluster changes.
    assert_eq!(write(both.clone(), Some(&both), &[V4]).unwrap()["spec"], both["spec"]);
    let alone = change(&single, json!({"ipFamilyPolicy": "PreferDualStack"}));
    assert_eq!(write(alone.clone(), Some(&alone), dual).unwrap()["spec"], alone["spec"]);
    // Headless services may turn their families.
    let headless = prepared(
        service(
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "selector": {"a": "b"}}),
        ),
        None,
    );
    let turned = write(change(&headless, json!({"ipFamilies": ["IPv6"]})), Some(&headless), dual).unwrap();
    assert_eq!(turned["spec"]["ipFamilies"], json!(["IPv6"]));
    refused(change(&headless, json!({"clusterIP": "10.0.0.9"})), Some(&headless), dual, "may not change once set");
    // To a name and back.
    let name = write(change(&both, json!({"type": "ExternalName", "externalName": "a.example"})), Some(&both), dual).unwrap();
    assert!(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].iter().all(|f| name["spec"].get(f).is_none()), "{name}");
    let returned = write(change(&name, json!({"type": "ClusterIP", "externalName": null})), Some(&name), dual).unwrap();
    assert_eq!(returned["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn load_balancers() {
    let made = prepared(
        service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": [" 10.0.0.0/8"]})),
        None,
    );
    assert_eq!(made["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(problems(&made, None), Vec::<String>::new());
    let status = |ingress: Value| {
        let mut new = made.clone();
        new["status"] = json!({"loadBalancer": {"ingress": ingress}});
        (SERVICE.defaults)(&mut new);
        (SERVICE.prepare)(Op::Update, Some(Sub::Status), &mut new, Some(&made));
        let wrong = (SERVICE.validate)(Op::Update, Some(Sub::Status), &new, Some(&made));
        (new, wrong.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (written, wrong) =
        status(json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1", "ipMode": "Proxy"}, {"hostname": "lb.example"}]));
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(
        written["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "2001:db8::1", "ipMode": "Proxy"}, {"hostname": "lb.example"}])
    );
    let (_, wrong) =
        status(json!([{"ip": "one"}, {"ipMode": "VIP"}, {"ip": "192.0.2.1", "ipMode": "NAT"}, {"hostname": "192.0.2.1"}]));
    for text in [
        "status.loadBalancer.ingress[0].ip: Invalid value: \"one\"",
        "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
        "status.loadBalancer.ingress[2].ipMode: Unsupported value: \"NAT\": supported values: \"Proxy\", \"VIP\"",
        "status.loadBalancer.ingress[3].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
    ] {
        assert!(wrong.iter().any(|e| e.contains(text)), "{text}: {wrong:#?}");
    }
    // Another type has no load balancer: its status goes, what was allocated for it too.
    let mut old = written;
    old["spec"]["healthCheckNodePort"] = json!(30100);
    old["spec"]["ports"][0]["nodePort"] = json!(30101);
    let mut inner = old.clone();
    inner["spec"]["type"] = json!("ClusterIP");
    inner["spec"]["loadBalancerSourceRanges"] = json!([]);
    let inner = prepared(inner, Some(&old));
    assert_eq!(problems(&inner, Some(&old)), Vec::<String>::new());
    assert_eq!(inner["status"], json!({"loadBalancer": {}}));
    for gone in [
        "/spec/healthCheckNodePort",
        "/spec/externalTrafficPolicy",
        "/spec/allocateLoadBalancerNodePorts",
        "/spec/ports/0/nodePort",
    ] {
        assert!(inner.pointer(gone).is_none(), "{gone}: {inner}");
    }
    // The health check's port is kept where it is left out, and cannot be changed.
    let mut moved = old.clone();
    moved["spec"]["healthCheckNodePort"] = json!(30102);
    let found = problems(&prepared(moved.clone(), Some(&old)), Some(&old));
    assert_eq!(found, ["spec.healthCheckNodePort: Forbidden: field is immutable"]);
    moved["spec"].as_object_mut().unwrap().remove("healthCheckNodePort");
    assert_eq!(prepared(moved, Some(&old))["spec"]["healthCheckNodePort"], 30100);
}

#[test]
fn fields_of_load_balancers_and_affinity_are_checked() {
    let create = |spec: Value, text: &str| refused(service(spec), None, &[V4], text);
    create(
        json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
        "spec.LoadBalancerSourceRanges: Forbidden: may only be used when",
    );
    create(
        json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}),
        "spec.LoadBalancerSourceRanges[0]: Invalid value",
    );
    create(
        json!({"healthCheckNodePort": 30000}),
        "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
    );
    create(json!({"allocateLoadBalancerNodePorts": false}), "spec.allocateLoadBalancerNodePorts: Forbidden");
    create(json!({"type": "LoadBalancer", "loadBalancerClass": "a/b/c"}), "spec.loadBalancerClass: Invalid value");
    create(json!({"externalIPs": ["127.0.0.1"]}), "may not be in the loopback range");
    create(json!({"externalIPs": ["host"]}), "spec.externalIPs[0]: Invalid value: \"host\": must be a valid IP address");
    create(json!({"externalTrafficPolicy": "Local"}), "may only be set for externally-accessible services");
    create(json!({"internalTrafficPolicy": "Near"}), "spec.internalTrafficPolicy: Unsupported value: \"Near\"");
    create(
        json!({"trafficDistribution": "PreferFar"}),
        "supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
    );
    let affinity =
        |seconds: i64| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    create(affinity(0), "must be greater than 0 and less than 86400");
    create(affinity(86401), "must be greater than 0 and less than 86400");
    let annotated = |text: &str| {
        let mut new = service(json!({"type": "LoadBalancer"}));
        new["metadata"]["annotations"] = json!({"service.beta.kubernetes.io/load-balancer-source-ranges": text});
        new
    };
    assert!(write(annotated("10.0.0.0/8, fd00::/8"), None, &[V4]).is_ok());
    refused(annotated("10.0.0.0/8,x"), None, &[V4], "load-balancer-source-ranges]: Invalid value: \"x\"");
    let sctp =
        write(service(json!({"externalIPs": ["192.0.2.9"], "ports": [{"port": 9, "protocol": "SCTP"}]})), None, &[V4]).unwrap();
    assert_eq!(
        (&sctp["spec"]["externalTrafficPolicy"], &sctp["spec"]["internalTrafficPolicy"]),
        (&json!("Cluster"), &json!("Cluster"))
    );
    let sticky = write(service(json!({"sessionAffinity": "ClientIP"})), None, &[V4]).unwrap();
    assert_eq!(sticky["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
}

fn specs() -> impl Strategy<Value = Value> {
    let policy = prop::option::of(prop::sample::select(vec!["SingleStack", "PreferDualStack", "RequireDualStack"]));
    let families = prop::sample::select(vec![vec![], vec!["IPv4"], vec!["IPv6"], vec!["IPv4", "IPv6"], vec!["IPv6", "IPv4"]]);
    let ips = prop::sample::select(vec![vec![], vec!["None"], vec!["10.0.0.1"], vec!["fd00::1"], vec!["10.0.0.1", "fd00::1"]]);
    (policy, families, ips, any::<bool>()).prop_map(|(policy, families, ips, selects)| {
        let mut spec = json!({});
        if let Some(policy) = policy {
            spec["ipFamilyPolicy"] = json!(policy);
        }
        if !families.is_empty() {
            spec["ipFamilies"] = json!(families);
        }
        if let Some(first) = ips.first() {
            spec["clusterIP"] = json!(first);
            spec["clusterIPs"] = json!(ips);
        }
        if selects {
            spec["selector"] = json!({"a": "b"});
        }
        spec
    })
}

proptest! {
    /// Whatever is asked for: what is accepted fits the policy and the cluster, keeps the order asked for, and the same
    /// write once more changes nothing.
    #[test]
    fn what_is_settled_fits(spec in specs(), cluster in prop::sample::select(vec![vec![V4], vec![V6], vec![V4, V6], vec![V6, V4]])) {
        if let Ok(made) = write(service(spec.clone()), None, &cluster) {
            let families: Vec<Family> = list(&made["spec"], "ipFamilies").iter().map(|f| Family::parse(f.as_str().unwrap()).unwrap()).collect();
            let free = str(&made["spec"], "clusterIP") == "None" && made["spec"].get("selector").is_none();
            match str(&made["spec"], "ipFamilyPolicy") {
                "SingleStack" => prop_assert_eq!(families.len(), 1),
                "PreferDualStack" => prop_assert_eq!(families.len(), if free { 2 } else { cluster.len() }),
                _ => prop_assert_eq!(families.len(), 2),
            }
            prop_assert!(free || families.iter().all(|f| cluster.contains(f)));
            let asked = list(&spec, "ipFamilies");
            prop_assert_eq!(&list(&made["spec"], "ipFamilies")[..asked.len()], asked);
            // As it is once addresses were given out.
            let mut stored = made.clone();
            if str(&stored["spec"], "clusterIP") != "None" {
                let of = |f: &Family| match f { V4 => "10.0.0.1", V6 => "fd00::1" };
                let ips: Vec<&str> = families.iter().map(of).collect();
                stored["spec"]["clusterIP"] = json!(ips[0]);
                stored["spec"]["clusterIPs"] = json!(ips);
            }
            prop_assert_eq!(&write(stored.clone(), Some(&stored), &cluster).unwrap()["spec"], &stored["spec"]);
            // The request itself sent again: the API refuses it where it named one of what are two by now.
            let whole = |field: &str| [0, list(&stored["spec"], field).len()].contains(&list(&spec, field).len());
            let again = write(service(spec.clone()), Some(&stored), &cluster);
            if whole("ipFamilies") && whole("clusterIPs") {
                prop_assert_eq!(&again.unwrap()["spec"], &stored["spec"]);
            } else {
                prop_assert!(again.unwrap_err()[0].contains("'SingleStack'"));
            }
        }
    }
}
