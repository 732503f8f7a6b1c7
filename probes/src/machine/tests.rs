use super::*;
use crate::spec::Check;
use proptest::prelude::*;

fn spec(delay: u64, period: u64, success: u32, failure: u32) -> Spec {
    Spec {
        check: Check::Tcp { host: "127.0.0.1".into(), port: 1 },
        initial_delay: Duration::from_secs(delay),
        period: Duration::from_secs(period),
        timeout: Duration::from_secs(1),
        success_threshold: success,
        failure_threshold: failure,
    }
}

fn secs(s: u64) -> Time {
    Duration::from_secs(s)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Startup), Just(Kind::Readiness), Just(Kind::Liveness)]
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![4 => Just(Reading::Success), 4 => Just(Reading::Failure), 1 => Just(Reading::Unknown)]
}

/// The oracle: looks at the whole history each time, and knows no counters.
fn model(kind: Kind, history: &[Reading], success: usize, failure: usize) -> (State, bool) {
    let mut state = State::initial(kind);
    let counted: Vec<Reading> = history.iter().copied().filter(|r| *r != Reading::Unknown).collect();
    for end in 1..=counted.len() {
        let tail = |n: usize, r: Reading| end >= n && counted[end - n..end].iter().all(|x| *x == r);
        if tail(success, Reading::Success) {
            state = State::Success;
        } else if tail(failure, Reading::Failure) {
            state = State::Failure;
        } else {
            continue;
        }
        if kind == Kind::Startup || (kind == Kind::Liveness && state == State::Failure) {
            return (state, true);
        }
    }
    (state, false)
}

proptest! {
    #[test]
    fn verdicts_agree_with_the_whole_history(
        kind in kind(),
        readings in prop::collection::vec(reading(), 0..40),
        success in 1u32..4,
        failure in 1u32..5,
    ) {
        let mut machine = Machine::new(kind, &spec(0, 10, success, failure), secs(100), secs(0), None, false);
        let mut history = Vec::new();
        for reading in readings {
            let Some(due) = machine.next_deadline() else { break };
            prop_assert!(machine.begin(due));
            let before = machine.state();
            history.push(reading);
            let changed = machine.on_result(due, reading);
            let (state, held) = model(kind, &history, success as usize, failure as usize);
            prop_assert_eq!(machine.state(), state);
            prop_assert_eq!(changed, (before != state).then_some(state));
            prop_assert_eq!(machine.next_deadline().is_none(), held);
        }
    }

    #[test]
    fn nothing_is_due_early_and_checks_keep_their_period(
        kind in kind(),
        delay in 0u64..60,
        period in 1u64..30,
        not_before in 0u64..200,
        gate in 0u64..200,
        takes in prop::collection::vec(0u64..90, 1..20),
    ) {
        let started = secs(50);
        let gated = kind != Kind::Startup;
        let mut machine = Machine::new(kind, &spec(delay, period, 1, 1000), started, secs(not_before), None, gated);
        let mut earliest = secs(50 + delay).max(secs(not_before));
        if gated {
            prop_assert_eq!(machine.next_deadline(), None);
            prop_assert!(!machine.begin(secs(10_000)));
            machine.open_gate(secs(gate));
            earliest = earliest.max(secs(gate));
        }
        prop_assert_eq!(machine.next_deadline(), Some(earliest));
        if let Some(early) = earliest.checked_sub(Duration::from_nanos(1)) {
            prop_assert!(!machine.begin(early));
        }
        let mut planned = earliest;
        for take in takes {
            prop_assert!(machine.begin(planned));
            prop_assert!(!machine.begin(planned), "one check at a time");
            let end = planned + secs(take);
            machine.on_result(end, Reading::Failure);
            let next = machine.next_deadline().expect("threshold is far away");
            prop_assert_eq!(next, (planned + secs(period)).max(end));
            planned = next;
        }
    }
}

#[test]
fn a_result_nobody_waits_for_is_nothing() {
    let mut machine = Machine::new(Kind::Liveness, &spec(0, 10, 1, 1), secs(0), secs(0), None, false);
    assert_eq!(machine.on_result(secs(1), Reading::Failure), None);
    assert_eq!(machine.state(), State::Success);
}

#[test]
fn carried_verdicts_hold_until_a_threshold_says_otherwise() {
    let mut ready = Machine::new(Kind::Readiness, &spec(0, 10, 1, 2), secs(0), secs(5), Some(State::Success), false);
    assert_eq!(ready.state(), State::Success);
    assert_eq!(ready.next_deadline(), Some(secs(5)));
    assert!(ready.begin(secs(5)));
    assert_eq!(ready.on_result(secs(5), Reading::Failure), None);
    assert!(ready.begin(secs(15)));
    assert_eq!(ready.on_result(secs(15), Reading::Failure), Some(State::Failure));

    let started = Machine::new(Kind::Startup, &spec(0, 10, 1, 2), secs(0), secs(0), Some(State::Success), false);
    assert_eq!(started.next_deadline(), None);
}

#[test]
fn zero_settings_do_not_spin() {
    let mut machine = Machine::new(Kind::Readiness, &spec(0, 0, 0, 0), secs(0), secs(0), None, false);
    assert!(machine.begin(secs(0)));
    assert_eq!(machine.on_result(secs(0), Reading::Success), Some(State::Success));
    assert!(machine.next_deadline().unwrap() > secs(0));
}

#[test]
fn a_container_has_its_first_period_to_come_up() {
    for kind in [Kind::Startup, Kind::Liveness] {
        let machine = Machine::new(kind, &spec(5, 10, 1, 1), secs(100), secs(0), None, false);
        assert!(machine.forgives(secs(105)) && machine.forgives(secs(114)));
        assert!(!machine.forgives(secs(115)));
    }
    assert!(!Machine::new(Kind::Readiness, &spec(5, 10, 1, 1), secs(100), secs(0), None, false).forgives(secs(105)));
}
