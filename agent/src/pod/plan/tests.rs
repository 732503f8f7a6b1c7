//! The plan against a model runtime: random failures, crashes, lost sandboxes, restarts of the agent and deletions at
//! every step; and tables for the single decisions.

mod explained;
mod model;
mod reported;
mod restarts;
mod rounds;
mod tables;

use super::*;
use model::{Model, Shape};
use proptest::prelude::*;

fn shape() -> impl Strategy<Value = Shape> {
    let inits = proptest::collection::vec(any::<bool>(), 0..4);
    let ephemeral = proptest::collection::vec(any::<bool>(), 0..3);
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    let all = prop_oneof![Just(0u8), any::<u8>()];
    let deadline = prop_oneof![4 => Just(None), 1 => Just(Some(200))];
    (inits, 1usize..4, ephemeral, policy, all, deadline).prop_map(|(sidecars, mains, ephemeral, policy, all, deadline)| Shape {
        sidecars,
        mains,
        ephemeral,
        policy,
        all,
        deadline,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happened, once the world is calm a pod that is wanted comes to rest, as it should be.
    #[test]
    fn comes_to_rest(shape in shape(), seed in any::<u64>(), chaos in 0usize..60) {
        let mut m = Model::new(&shape, seed);
        for _ in 0..chaos {
            m.chaos();
            m.step()?;
        }
        m.calm()?;
        prop_assert!(m.at_rest() && m.no_twins(), "{m:#?}");
    }

    /// A deletion at any point leaves nothing behind, and nothing starts after it.
    #[test]
    fn a_deleted_pod_leaves_nothing(shape in shape(), seed in any::<u64>(), before in 0usize..40, after in 0usize..40) {
        let mut m = Model::new(&shape, seed);
        for _ in 0..before {
            m.chaos();
            m.step()?;
        }
        m.delete(30);
        for _ in 0..after {
            m.chaos();
            m.step()?;
        }
        m.calm()?;
        prop_assert!(matches!(m.lifecycle, Lifecycle::Finished { .. }), "{m:#?}");
        prop_assert!(m.observed.nothing_in_runtime(), "{m:#?}");
    }

    /// The order in which the runtime lists things changes nothing.
    #[test]
    fn order_of_lists_does_not_matter(shape in shape(), seed in any::<u64>(), chaos in 0usize..40) {
        let mut m = Model::new(&shape, seed);
        for _ in 0..chaos {
            m.chaos();
            m.step()?;
        }
        let plain = m.plan();
        m.observed.containers.reverse();
        m.observed.sandboxes.reverse();
        let turned = m.plan();
        let sorted = |s: Step| {
            let mut a: Vec<String> = s.actions.iter().map(|a| format!("{a:?}")).collect();
            a.sort();
            (s.lifecycle, a, s.wake_at)
        };
        prop_assert_eq!(sorted(plain), sorted(turned));
    }
}

#[test]
fn keys_separate_what_may_run_at_once() {
    let stop = |deadline: i64| Action::StopContainer {
        name: "c".into(),
        id: "1".into(),
        deadline: Time::from_second(deadline).unwrap(),
        why: StopWhy::PodEnds,
        restarts: false,
        follows: Vec::new(),
    };
    assert_eq!(stop(1).hastens(&stop(2)), Time::from_second(1).ok());
    assert!(stop(2).hastens(&stop(2)).is_none() && stop(3).hastens(&stop(2)).is_none());
    assert!(!stop(1).supersedes(&stop(2)), "what is under way goes on, for less time");
    assert!(Action::RemoveVolumes.supersedes(&Action::PrepareVolumes));
    assert!(!Action::RunSandbox { attempt: 1 }.supersedes(&Action::RunSandbox { attempt: 1 }));
}
