//! Every state that the plan can bring a pod into is explained, and none where there is nothing to wait for.

use super::*;
use crate::pod::explain::{self, Standing, UnderWay};
use crate::pod::stage::{Progress, Stage};
use k8s_openapi::api::core::v1 as api;

/// What would be said right after this step, with all that it plans under way.
fn standing(m: &Model, step: &Step) -> Standing {
    let progress = Progress { stage: Stage::Begun, since: m.now };
    let under_way: Vec<UnderWay<'_>> =
        step.actions.iter().map(|action| UnderWay { action, since: m.now, progress: progress.clone() }).collect();
    explain::explain(&explain::Inputs {
        desired: &m.desired,
        lifecycle: &step.lifecycle,
        entered: m.now,
        begun: m.now,
        observed: &m.observed,
        verdicts: &m.verdicts,
        probes: &ferrolet_probes::Verdicts::default(),
        backoffs: &m.backoffs,
        under_way: &under_way,
        status: &api::PodStatus::default(),
        runtime: None,
        unsure: None,
        report: None,
        now: m.now,
    })
}

/// Running as it should, or ended for good.
fn as_it_should_be(m: &Model, step: &Step) -> bool {
    let o = &m.observed;
    match &step.lifecycle {
        Lifecycle::Active => {
            let Some(sandbox) = o.sandboxes.iter().filter(|s| s.ready).max_by_key(|s| s.attempt) else { return false };
            let round = Round::of(&m.desired, o);
            let others = |c: &&Container| c.live() && c.sandbox_id != sandbox.id;
            let up = |c: &Spec| {
                let fine = |n: &Container| {
                    let verdict = m.verdicts.of(n);
                    let same = n.hash.as_ref().is_none_or(|h| *h == c.hash);
                    let healthy = verdict.is_none_or(|v| v.liveness != Some(false));
                    n.running() && healthy && same
                        || c.role == Role::Main && n.exit_code().is_some() && !runs_again(c, n, o, &m.verdicts)
                };
                let earlier = || {
                    let newest = o.newest(&c.name).filter(|n| round.has(n));
                    c.restart == RestartPolicy::OnFailure
                        && newest.is_some_and(|n| n.exit_code() == Some(0) && !runs_again(c, n, o, &m.verdicts))
                };
                let here = o.newest_in(&c.name, &sandbox.id).filter(|n| round.has(n));
                here.map_or_else(|| c.role == Role::Main && earlier(), fine)
            };
            // While none has started here the init containers have to run first.
            let begun = m.desired.main().any(|c| o.newest_in(&c.name, &sandbox.id).is_some_and(|n| round.has(n)));
            let looked = |c: &Spec| o.newest(&c.name).is_some_and(|n| n.state != State::Created);
            let twins = o.live().any(|n| o.newest_in(&n.name, &sandbox.id).is_none_or(|newest| newest.id != n.id));
            let serving = m.desired.containers.iter().filter(|c| matches!(c.role, Role::Main | Role::Sidecar));
            begun && !twins && o.live().find(others).is_none() && { serving }.all(up) && m.desired.ephemeral().all(looked)
        }
        Lifecycle::Terminating { .. } | Lifecycle::Finished { .. } => false,
        Lifecycle::Terminated { why } => {
            let gone = o.live().next().is_none() && !o.sandboxes.iter().any(|s| s.ready);
            // Why the node failed it stays said.
            !matches!(why, Why::Failed { .. })
                && gone
                && m.desired.deletion.is_none()
                && o.local.volumes_removed
                && o.local.cgroup_removed
        }
    }
}

fn check(m: &Model) -> Result<(), TestCaseError> {
    let step = m.plan();
    let said = standing(m, &step);
    let settled = as_it_should_be(m, &step);
    if settled && m.backoffs.failures.is_empty() {
        prop_assert!(said.waits.is_empty(), "nothing is to be waited for: {said:#?} {step:#?} {m:#?}");
    }
    if !settled {
        prop_assert!(!said.waits.is_empty(), "nothing is said: {step:#?} {m:#?}");
    }
    for wait in &said.waits {
        prop_assert!(!wait.what.is_empty() && !wait.what.contains('\n') && wait.since <= m.now, "{wait:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_state_is_explained(shape in shape(), seed in any::<u64>(), before in 0usize..60, after in 0usize..30) {
        let mut m = Model::new(&shape, seed);
        check(&m)?;
        for _ in 0..before {
            m.chaos();
            m.step()?;
            check(&m)?;
        }
        if seed % 3 == 0 {
            m.delete(30);
        }
        for _ in 0..after {
            m.chaos();
            m.step()?;
            check(&m)?;
        }
        m.calm()?;
        check(&m)?;
    }
}
