//! All containers restarted together, decision by decision.

use super::tables::{at, container, exited, started, t, with};
use super::*;
use crate::pod::testing::desired;
use serde_json::json;

fn rules(values: &[i32]) -> serde_json::Value {
    json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": values}}])
}

fn pod() -> Desired {
    desired(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always"}],
        "containers": [
            {"name": "main", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules(&[42])},
            {"name": "b", "image": "i"}
        ]
    }))
}

fn of(name: &str, attempt: u32, round: u32, state: State) -> Container {
    Container { id: format!("{name}-{attempt}"), attempt, round, ..container(name, state) }
}

fn stopped(step: &Step) -> Vec<&str> {
    let stops = step.actions.iter().filter_map(|a| match a {
        Action::StopContainer { name, why: StopWhy::Together, deadline, .. } => {
            assert_eq!(*deadline, t(5), "no grace");
            Some(name.as_str())
        }
        _ => None,
    });
    stops.collect()
}

/// At a time when nothing is paced any more.
fn go(d: &Desired, containers: Vec<Container>) -> Step {
    at(d, &with(containers), &Verdicts::default(), 5)
}

#[test]
fn everything_ends_and_begins_anew_in_order() {
    let d = pod();
    let all = |side: State, b: State| {
        vec![of("i", 0, 0, exited(0)), of("side", 0, 0, side), of("main", 0, 0, exited(42)), of("b", 0, 0, b)]
    };
    let step = go(&d, all(State::Running, State::Running));
    assert_eq!((stopped(&step), started(&step)), (vec!["b"], vec![]), "main containers first");
    let step = go(&d, all(State::Running, exited(137)));
    assert_eq!((stopped(&step), started(&step)), (vec!["side"], vec![]));
    let step = go(&d, all(State::Created, exited(0)));
    assert_eq!((stopped(&step), started(&step)), (vec!["side"], vec![]), "also what never ran");
    let begin = all(exited(137), exited(137));
    let step = go(&d, begin.clone());
    assert_eq!(step.lifecycle, Lifecycle::Active);
    let sandbox_id = "s".to_owned();
    let first = Action::StartContainer { name: "i".into(), sandbox_id, attempt: 1, backoff: Duration::ZERO, round: 1 };
    assert_eq!(step.actions, [first]);

    // An agent that starts here knows from the runtime where the last one was.
    let mut next = begin;
    for (done, then) in [(of("i", 1, 1, exited(0)), "side"), (of("side", 1, 1, State::Running), "main")] {
        next.push(done);
        assert_eq!(started(&go(&d, next.clone())), [then]);
    }
    next.push(of("main", 1, 1, State::Running));
    let step = go(&d, next.clone());
    assert_eq!((started(&step), stopped(&step)), (vec!["b"], vec![]));
    next.push(of("b", 1, 1, State::Running));
    let step = go(&d, next.clone());
    // The last ended instance of each stays.
    assert_eq!(step.actions, [Action::RemoveContainer { name: "i".into(), id: "i-0".into() }]);
    // And once more.
    next.iter_mut().filter(|c| c.id == "main-1").for_each(|c| c.state = exited(42));
    let step = go(&d, next);
    assert_eq!((stopped(&step), started(&step)), (vec!["b"], vec![]));
}

#[test]
fn other_codes_and_the_order_of_rules() {
    let d = pod();
    let mains = |code: i32| {
        vec![
            of("i", 0, 0, exited(0)),
            of("side", 0, 0, State::Running),
            of("main", 0, 0, exited(code)),
            of("b", 0, 0, State::Running),
        ]
    };
    assert_eq!(go(&d, mains(1)).actions, []);
    let first = |first: serde_json::Value, second: serde_json::Value| {
        let rules = json!([first, second]);
        let d = desired(json!({"containers": [
            {"name": "main", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules}, {"name": "b", "image": "i"}]}));
        let step = go(&d, vec![of("main", 0, 0, exited(7)), of("b", 0, 0, State::Running)]);
        (stopped(&step).len(), started(&step).len())
    };
    let one = json!({"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}});
    let all = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [7]}});
    assert_eq!(first(one.clone(), all.clone()), (0, 1), "the first rule that fits counts");
    assert_eq!(first(all, one), (1, 0));
}

#[test]
fn init_containers_and_sidecars_may_ask_for_it() {
    let d = desired(json!({
        "restartPolicy": "Never",
        "initContainers": [
            {"name": "side", "image": "i", "restartPolicy": "Always", "restartPolicyRules": rules(&[3])},
            {"name": "i", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules(&[42])},
        ],
    }));
    let step = go(&d, vec![of("side", 0, 0, State::Running), of("i", 0, 0, exited(42))]);
    assert_eq!((stopped(&step), started(&step)), (vec!["side"], vec![]));
    let step = go(&d, vec![of("side", 0, 0, exited(137)), of("i", 0, 0, exited(42))]);
    assert_eq!(started(&step), ["side"]);
    let running = vec![of("side", 0, 0, exited(3)), of("i", 0, 0, exited(0)), of("main", 0, 0, State::Running)];
    assert_eq!(stopped(&go(&d, running)), ["main"]);
    assert_eq!(go(&d, vec![of("side", 0, 0, State::Running), of("i", 0, 0, exited(1))]).lifecycle.rank(), 1, "it failed");
}

#[test]
fn the_pace_the_crash_loop_and_the_sandbox() {
    let d = pod();
    let mut ended =
        vec![of("i", 0, 0, exited(0)), of("side", 0, 0, exited(137)), of("main", 0, 0, exited(42)), of("b", 0, 0, exited(0))];
    ended.iter_mut().for_each(|c| c.started_at = Some(t(4)));
    let step = at(&d, &with(ended.clone()), &Verdicts::default(), 4);
    assert_eq!((started(&step).len(), step.wake_at), (0, Some(t(5))));
    assert_eq!(
        started(&at(&d, &with(ended.clone()), &Verdicts::default(), 3)),
        ["i"],
        "a clock that jumped back holds up nothing"
    );
    ended[0].backoff = Duration::from_secs(40);
    let step = go(&d, ended.clone());
    assert!(
        matches!(&step.actions[..], [Action::StartContainer { backoff, .. }] if *backoff == Duration::from_secs(40)),
        "{step:?}"
    );
    // The sandbox died meanwhile: with the policy Never too there is another, as nothing of this round has run.
    let mut o = with(ended);
    o.sandboxes[0].ready = false;
    let step = at(&d, &o, &Verdicts::default(), 5);
    assert!(step.lifecycle.active() && step.actions.contains(&Action::RunSandbox { attempt: 1 }), "{step:?}");
}

#[test]
fn a_pod_that_ends_is_not_restarted_and_debuggers_are_left_alone() {
    let mut d = pod();
    let mut all = vec![of("main", 0, 0, exited(42)), of("b", 0, 0, State::Running), of("debug", 0, 0, State::Running)];
    d.containers.push(Spec { name: "debug".into(), role: Role::Ephemeral, ..d.containers[3].clone() });
    assert_eq!(stopped(&go(&d, all.clone())), ["b"]);
    all[1].state = exited(137);
    assert_eq!(started(&go(&d, all.clone())), ["i"]);
    d.deletion = Some(crate::pod::desired::Deletion { grace: Duration::ZERO });
    let step = go(&d, all);
    assert!(!step.lifecycle.active() && started(&step).is_empty() && stopped(&step).is_empty());
}
