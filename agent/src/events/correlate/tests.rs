use super::*;
use k8s_openapi::api::core::v1 as api;

fn item(reason: &str, message: &str, at: i64) -> Item {
    let object = api::ObjectReference { name: Some("p".into()), namespace: Some("ns".into()), ..Default::default() };
    let at = jiff::Timestamp::from_second(1_000_000 + at).unwrap();
    Item { object, severity: Severity::Normal, reason: reason.into(), message: message.into(), at }
}

fn of(item: Item, change: impl FnOnce(&mut Item)) -> Item {
    let mut item = item;
    change(&mut item);
    item
}

#[test]
fn equal_events_are_one_with_a_count_however_long_ago() {
    let mut c = Correlator::default();
    let first = c.correlate(&item("A", "m", 0)).unwrap();
    let second = c.correlate(&item("A", "m", 7200)).unwrap();
    assert_eq!((first.count, second.count), (1, 2));
    assert_eq!((&second.name, second.first), (&first.name, first.first));
    let elsewhere = of(item("A", "m", 7200), |i| i.object.field_path = Some("spec.containers{a}".into()));
    assert_eq!(c.correlate(&elsewhere).unwrap().count, 1);
}

#[test]
fn ten_that_differ_in_the_message_are_combined() {
    let mut c = Correlator::default();
    let said: Vec<Verdict> = (0..12).map(|i| c.correlate(&item("A", &format!("m{i}"), i)).unwrap()).collect();
    assert!(said[..9].iter().all(|v| v.count == 1 && !v.message.starts_with(COMBINED)));
    assert_eq!((said[9].message.as_str(), said[9].count), ("(combined from similar events): m9", 1));
    assert_eq!((said[11].message.as_str(), said[11].count), ("(combined from similar events): m11", 3));
    assert_eq!(said[11].name, said[9].name);
    // Another reason is another matter, and so is the same one after the window.
    assert_eq!(c.correlate(&item("B", "m", 12)).unwrap().message, "m");
    assert_eq!(c.correlate(&item("A", "late", 700)).unwrap().message, "late");
}

#[test]
fn an_object_that_says_too_much_is_held_back_by_type() {
    let mut c = Correlator::default();
    let passed = (0..100).filter(|i| c.correlate(&item(&format!("R{i}"), "m", 0)).is_some()).count();
    assert_eq!(passed, 25);
    assert!(c.correlate(&item("R", "m", 299)).is_none());
    assert!(c.correlate(&item("R", "m", 301)).is_some());
    assert!(c.correlate(&item("R", "m", 302)).is_none());
    assert!(c.correlate(&of(item("R", "m", 302), |i| i.severity = Severity::Warning)).is_some());
    assert!(c.correlate(&of(item("R", "m", 302), |i| i.object.name = Some("q".into()))).is_some());
}

#[test]
fn repetition_counts_on_while_held_back() {
    let mut c = Correlator::default();
    for _ in 0..40 {
        c.correlate(&item("A", "m", 0));
    }
    assert_eq!(c.correlate(&item("A", "m", 400)).unwrap().count, 41);
}

#[test]
fn memory_is_bounded_and_the_latest_stay() {
    let mut c = Correlator::default();
    for i in 0..10_000 {
        c.correlate(&of(item("A", "m", i), |e| e.object.name = Some(format!("p{i}"))));
    }
    assert!(c.seen.entries.len() <= Recent::<Seen>::MAX && c.spam.entries.len() <= Recent::<Bucket>::MAX);
    assert_eq!(c.correlate(&of(item("A", "m", 10_000), |e| e.object.name = Some("p9999".into()))).unwrap().count, 2);
}

#[test]
fn names_fit_whatever_the_object_is_called() {
    let long = of(item("A", "m", 0), |i| i.object.name = Some("x".repeat(253)));
    assert!(Correlator::default().correlate(&long).unwrap().name.len() <= NAME_MAX);
    assert!(Correlator::default().correlate(&item("A", "m", 0)).unwrap().name.starts_with("p."));
}
