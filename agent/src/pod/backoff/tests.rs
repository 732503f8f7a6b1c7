use super::*;
use crate::pod::testing::{instance, t as at};

fn ended(created: i64, finished: i64, backoff: u64) -> Container {
    let state = State::Exited { code: 1, finished_at: at(finished), reason: "Error".into(), message: String::new() };
    Container {
        created_at: at(created),
        started_at: Some(at(created)),
        backoff: Duration::from_secs(backoff),
        ..instance("c", state)
    }
}

#[test]
fn doubles_from_ten_seconds_to_the_limit() {
    let b = Backoffs::default();
    let mut delay = 0;
    let mut seen = Vec::new();
    for _ in 0..8 {
        let r = restart(&ended(0, 1, delay), false, &b, at(1));
        assert_eq!(r.at, at(1 + delay as i64));
        seen.push(r.delay.as_secs());
        delay = r.next.as_secs();
    }
    assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn begins_anew_after_ten_minutes_or_a_change() {
    let b = Backoffs::default();
    let r = restart(&ended(0, 601, 160), false, &b, at(601));
    assert_eq!((r.at, r.next), (at(601), FIRST));
    let r = restart(&ended(0, 5, 160), true, &b, at(5));
    assert_eq!((r.at, r.next), (at(5), FIRST));
    let r = restart(&ended(0, 600, 160), false, &b, at(600));
    assert_eq!(r.at, at(760));
}

#[test]
fn a_reboot_is_no_crash() {
    let mut lost = ended(0, 5, 160);
    lost.state = State::Exited { code: 255, finished_at: at(5), reason: "Unknown".into(), message: String::new() };
    let r = restart(&lost, false, &Backoffs::default(), at(5));
    assert_eq!((r.at, r.delay, r.next), (at(5), Duration::ZERO, FIRST));
    lost.state = State::Exited { code: 255, finished_at: at(5), reason: "Error".into(), message: String::new() };
    assert_eq!(restart(&lost, false, &Backoffs::default(), at(5)).at, at(165));
}

#[test]
fn a_configured_limit_holds_from_the_first_delay() {
    let b = Backoffs { crash_max: Duration::from_secs(3), ..Default::default() };
    assert_eq!(restart(&ended(0, 1, 0), false, &b, at(1)).next, Duration::from_secs(3));
}

#[test]
fn a_clock_that_jumps_back_never_lengthens_a_delay() {
    let mut b = Backoffs::default();
    assert_eq!(restart(&ended(0, 1000, 10), false, &b, at(5)).at, at(5));
    assert_eq!(restart(&ended(995, 1000, 10), false, &b, at(5)).at, at(15));
    b.failed(Subject::Image("c".into()), at(5000), "ErrImagePull", "no");
    assert_eq!(b.blocked(&Subject::Image("c".into()), at(0)), Some(at(10)));
}

#[test]
fn failures_double_and_end_with_success() {
    let mut b = Backoffs::default();
    let s = Subject::Image("c".into());
    for expected in [10, 20, 40, 80, 160, 300, 300] {
        b.failed(s.clone(), at(0), "ErrImagePull", "no");
        assert_eq!(b.blocked(&s, at(0)), Some(at(expected)));
    }
    b.succeeded(&s);
    assert_eq!(b.blocked(&s, at(0)), None);
}

#[test]
fn a_failed_pull_is_looked_at_before_its_delay_is_over() {
    let mut b = Backoffs::default();
    let s = Subject::Image("c".into());
    for _ in 0..3 {
        b.not_pulled("c", at(0), ("RegistryUnavailable", "no".into()), (7, "i".into()));
    }
    assert_eq!(b.failures[&s].until, at(40));
    assert_eq!((b.blocked(&s, at(0)), b.tried_with("c", at(0))), (Some(at(10)), Some(7)));
    assert_eq!((b.blocked(&s, at(10)), b.tried_with("c", at(10))), (None, Some(7)));
    b.looked("c", at(10));
    assert_eq!(b.blocked(&s, at(11)), Some(at(20)));
    b.looked("c", at(35));
    assert_eq!((b.blocked(&s, at(36)), b.tried_with("c", at(40))), (Some(at(40)), None));
    b.succeeded(&s);
    assert_eq!((b.blocked(&s, at(36)), b.looks.len()), (None, 0));
}

#[test]
fn what_asks_nobody_is_not_delayed_longer_each_time() {
    let mut b = Backoffs::default();
    let s = Subject::Image("c".into());
    for _ in 0..5 {
        b.failed(s.clone(), at(0), "ErrImageNeverPull", "no");
    }
    assert_eq!(b.blocked(&s, at(0)), Some(at(10)));
}
