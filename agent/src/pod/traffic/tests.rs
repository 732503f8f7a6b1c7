use super::*;
use ferrolet_netproxy::board;
use serde_json::json;

fn status(ready: bool) -> api::PodStatus {
    let ready = if ready { "True" } else { "False" };
    let status = json!({"podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}], "conditions": [{"type": "Ready", "status": ready}]});
    serde_json::from_value(status).unwrap()
}

fn begin(known: &api::PodStatus) -> (Traffic, board::Reader) {
    let (own_pods, reader) = board::channel();
    (Traffic::new(own_pods, Some("u".into()), known), reader)
}

fn said(reader: &mut board::Reader) -> Option<PodWord> {
    reader.read().words.get("u").cloned()
}

#[test]
fn a_new_agent_says_nothing_until_it_knows_better() {
    for known in [true, false] {
        let (mut t, mut reader) = begin(&status(known));
        t.update(false, &status(known));
        t.taken(&status(known));
        assert_eq!(said(&mut reader), None);
        t.update(false, &status(!known));
        let word = said(&mut reader).unwrap();
        assert_eq!((word.ready, word.terminating, word.told), (Some(!known), false, false));
        assert_eq!(word.ips, ["10.244.1.5".parse::<std::net::IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
    }
}

#[test]
fn the_api_is_told_when_it_took_the_same() {
    let (mut t, mut reader) = begin(&status(true));
    t.update(false, &status(false));
    // One from before is still on its way.
    t.taken(&status(true));
    assert!(!said(&mut reader).unwrap().told);
    t.taken(&status(false));
    assert!(said(&mut reader).unwrap().told);
    t.update(false, &status(true));
    let word = said(&mut reader).unwrap();
    assert_eq!((word.ready, word.told), (Some(true), false));
}

#[test]
fn a_pod_without_an_address_is_nobodys_endpoint() {
    let (mut t, mut reader) = begin(&api::PodStatus::default());
    t.update(true, &api::PodStatus::default());
    assert_eq!(said(&mut reader), None);
    assert!(t.leaving().is_none());
}

#[test]
fn what_ended_is_forgotten() {
    let (mut t, mut reader) = begin(&status(true));
    t.update(true, &status(true));
    let word = said(&mut reader).unwrap();
    assert_eq!((word.ready, word.terminating), (None, true));
    t.gone();
    assert_eq!(said(&mut reader), None);
}

#[tokio::test]
async fn the_end_waits_for_the_rules_but_not_for_ever() {
    let (mut t, _reader) = begin(&status(true));
    assert!(t.leaving().is_none());
    let begun = Instant::now();
    t.update(true, &status(true));
    let leaving = t.leaving().unwrap();
    assert!(!leaving.clone().wait().await);
    assert!(begun.elapsed() >= LIMIT);
    // A later change, and a later container, do not start the wait anew.
    t.update(true, &status(false));
    let begun = Instant::now();
    assert!(!t.leaving().unwrap().wait().await);
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn the_end_goes_on_when_the_rules_follow() {
    let (mut t, mut reader) = begin(&status(true));
    t.update(true, &status(true));
    let waiting = tokio::spawn(t.leaving().unwrap().wait());
    reader.changed().await;
    let change = reader.read().change;
    reader.installed(change);
    assert!(waiting.await.unwrap());
    // What has changed since is not waited for.
    t.update(true, &status(false));
    assert!(t.leaving().unwrap().wait().await);
}

#[test]
fn the_word_follows_the_object_that_stands_for_the_pod() {
    let (own_pods, mut reader) = board::channel();
    let mut t = Traffic::new(own_pods, None, &status(false));
    t.update(false, &status(true));
    assert!(reader.read().words.is_empty(), "no endpoint can name it");
    t.known_as(Some("u".into()));
    t.taken(&status(true));
    let word = said(&mut reader).unwrap();
    assert_eq!((word.ready, word.told), (Some(true), true));
    // The next object has been told nothing yet.
    t.known_as(Some("v".into()));
    assert_eq!(said(&mut reader), None);
    let word = reader.read().words.get("v").cloned().unwrap();
    assert_eq!((word.ready, word.told), (Some(true), false));
    t.update(true, &status(true));
    assert!(reader.read().words.get("v").is_some_and(|word| word.terminating));
    t.known_as(None);
    assert!(reader.read().words.is_empty());
}

#[test]
fn nothing_leads_to_a_pod_that_the_api_does_not_have() {
    let (own_pods, _reader) = board::channel();
    let mut t = Traffic::new(own_pods, None, &status(true));
    t.update(true, &status(true));
    assert!(t.leaving().is_none());
    t.gone();
}
