use super::*;
use crate::pod::PodId;
use crate::pod::explain::{self, Standing};

fn told(namespace: &str, name: &str, source: Source, state: &str, waits: &[(&str, i64)]) -> Told {
    let since = |s: i64| Time::from_second(1_000_000 + s).unwrap();
    let waits = waits.iter().map(|(what, s)| explain::Wait { what: (*what).into(), since: since(*s) }).collect();
    let id = PodId { uid: format!("u-{name}"), namespace: namespace.into(), name: name.into() };
    Told { id, source, standing: Standing { state: state.into(), waits } }
}

fn now() -> Time {
    Time::from_second(1_000_100).unwrap()
}

fn ask(text: &str) -> Ask {
    Ask::read(Some(text)).unwrap()
}

#[test]
fn names() {
    assert_eq!(ask("web"), Ask { namespace: None, name: Some("web".into()) });
    assert_eq!(ask("shop/web"), Ask { namespace: Some("shop".into()), name: Some("web".into()) });
    for bad in ["", "/web", "shop/", "a/b/c", &"x".repeat(300)] {
        assert!(matches!(Ask::read(Some(bad)), Err(Error::Name(_))), "{bad}");
    }
    assert_eq!(Ask::read(None).unwrap(), Ask::default());
}

#[test]
fn one_pod_in_one_line() {
    let waits = [("container main: image web:1 is being pulled", 66), ("volume config is prepared", 98)];
    let all = reports(vec![told("shop", "web", Source::Api, "Pending", &waits)], true, now());
    let text = said(&ask("web"), &all, false).unwrap();
    assert_eq!(
        text,
        "shop/web (Pending): container main: image web:1 is being pulled, since 1970-01-12T13:47:46Z (34 s)\n\
         \x20 also: volume config is prepared, since 1970-01-12T13:48:18Z (2 s)\n"
    );
    let quiet = reports(vec![told("shop", "web", Source::Static, "Ready", &[])], true, now());
    assert_eq!(said(&ask("shop/web"), &quiet, false).unwrap(), "shop/web (Ready, static): waits for nothing\n");
}

#[test]
fn all_pods_one_line_each() {
    let all = vec![
        told("shop", "web", Source::Api, "Pending", &[("its sandbox is made", 97), ("volume a is prepared", 97)]),
        told("default", "old", Source::Gone, "Terminating", &[("terminating: preStop hook of main runs", 40)]),
        told("shop", "api", Source::Api, "Ready", &[]),
    ];
    let text = said(&Ask::default(), &reports(all, false, now()), false).unwrap();
    assert_eq!(
        text,
        "POD          STATE        FOR   WAITS FOR\n\
         default/old  Terminating  1 min  terminating: preStop hook of main runs\n"
            .replace("FOR   WAITS", "FOR    WAITS")
            + "shop/api     Ready        -      -\n\
               shop/web     Pending      3 s    its sandbox is made\n"
    );
    assert_eq!(said(&Ask::default(), &[], false).unwrap(), "POD  STATE  FOR  WAITS FOR\n");
}

#[test]
fn as_json() {
    let all = reports(vec![told("shop", "web", Source::Api, "Pending", &[("its sandbox is made", 97)])], true, now());
    let value: serde_json::Value = serde_json::from_str(&said(&ask("web"), &all, true).unwrap()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"pods": [{"namespace": "shop", "name": "web", "uid": "u-web", "source": "api", "state": "Pending",
            "waits": [{"for": "its sandbox is made", "since": "1970-01-12T13:48:17Z", "seconds": 3}]}]})
    );
}

#[test]
fn unknown_and_ambiguous_names_are_errors() {
    assert_eq!(said(&ask("shop/web"), &[], false).unwrap_err().to_string(), "there is no pod shop/web on this node");
    let two = vec![told("shop", "web", Source::Api, "Ready", &[]), told("test", "web", Source::Api, "Ready", &[])];
    let error = said(&ask("web"), &reports(two, true, now()), false).unwrap_err();
    assert_eq!(error.to_string(), "there are pods web in several namespaces, say which: shop/web, test/web");
    // One that ends and its successor of the same name are both meant.
    let mut second = told("shop", "web", Source::Api, "Ready", &[]);
    second.id.uid = "u-2".into();
    let same = reports(vec![told("shop", "web", Source::Gone, "Terminating", &[]), second], true, now());
    assert_eq!(said(&ask("web"), &same, false).unwrap().lines().count(), 2);
}

#[test]
fn what_a_pod_says_of_itself_cannot_fill_the_answer() {
    let long = "é".repeat(5000);
    let many: Vec<(&str, i64)> = vec![(&long, 0); 100];
    let all = |one| reports(vec![told("shop", "web", Source::Api, "Pending", &many)], one, now());
    assert_eq!((all(true)[0].waits.len(), all(false)[0].waits.len()), (MOST, 1));
    assert_eq!(all(false)[0].waits[0].what.chars().count(), SHORT + 1);
}
