use super::*;
use proptest::prelude::*;

fn at(seconds: i64) -> Time {
    Time::from_second(1_000_000 + seconds).unwrap()
}

fn deadline(l: &Lifecycle) -> Option<Time> {
    match l {
        Lifecycle::Terminating { deadline, .. } => Some(*deadline),
        _ => None,
    }
}

proptest! {
    #[test]
    fn only_forward_and_only_shorter(steps in proptest::collection::vec((0i64..100, 0u64..100), 1..20)) {
        let mut life = Lifecycle::Active;
        for (now, grace) in steps {
            let before = life.clone();
            life = life.terminate(at(now), Duration::from_secs(grace), Why::Deleted);
            prop_assert!(life.rank() >= before.rank());
            if let (Some(a), Some(b)) = (deadline(&before), deadline(&life)) {
                prop_assert!(b <= a);
            }
        }
    }
}

#[test]
fn terminated_stays() {
    let life = Lifecycle::Terminated { why: Why::Completed };
    assert_eq!(life.clone().terminate(at(0), Duration::ZERO, Why::Deleted), life);
}
