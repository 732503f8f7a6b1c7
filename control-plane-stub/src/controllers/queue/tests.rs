use proptest::prelude::*;

use super::*;

#[test]
fn a_key_is_worked_on_once_and_again_if_it_came_meanwhile() {
    let now = Instant::now();
    let mut q = Queue::default();
    q.add("a");
    q.add("a");
    assert_eq!(q.next(now), Some("a"));
    assert_eq!(q.next(now), None);
    q.add("a");
    assert_eq!(q.next(now), None, "still being worked on");
    q.done("a", Outcome::Done, now);
    assert_eq!(q.next(now), Some("a"));
    q.done("a", Outcome::Done, now);
    assert_eq!(q.next(now), None);
}

#[test]
fn failures_back_off_and_success_forgets() {
    let now = Instant::now();
    let mut q = Queue::default();
    q.add(1);
    let mut delays = vec![];
    for _ in 0..15 {
        let at = q.wake_at().unwrap_or(now);
        assert_eq!(q.next(at), Some(1));
        q.done(1, Outcome::Failed, now);
        delays.push(q.wake_at().unwrap() - now);
    }
    assert_eq!(&delays[..4], &[5, 10, 20, 40].map(Duration::from_millis));
    assert_eq!(delays[14], LAST_DELAY);
    assert_eq!(q.next(now), None);
    q.add(1);
    assert_eq!(q.next(now), Some(1), "an event overtakes the backoff");
    q.done(1, Outcome::Again(Duration::from_secs(1)), now);
    assert_eq!(q.wake_at(), Some(now + Duration::from_secs(1)));
    assert_eq!(q.next(now + Duration::from_secs(1)), Some(1));
    q.done(1, Outcome::Failed, now);
    assert_eq!(q.wake_at(), Some(now + FIRST_DELAY));
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled(ops in prop::collection::vec((0u8..4, 0u8..5), 0..200)) {
        let start = Instant::now();
        let mut q = Queue::default();
        let (mut wanted, mut working) = (BTreeSet::new(), BTreeSet::new());
        for (op, key) in ops {
            match op {
                0 => { q.add(key); wanted.insert(key); }
                1 => if let Some(k) = q.next(start) {
                    prop_assert!(working.insert(k), "handed out twice");
                    prop_assert!(wanted.remove(&k), "nobody asked");
                } else {
                    prop_assert!(wanted.iter().all(|k| working.contains(k)), "a key was kept back");
                },
                2 => if working.remove(&key) { q.done(key, Outcome::Done, start) },
                _ => if working.remove(&key) { q.done(key, Outcome::Again(Duration::ZERO), start); wanted.insert(key); },
            }
            prop_assert_eq!(q.working(), working.len());
        }
    }
}
