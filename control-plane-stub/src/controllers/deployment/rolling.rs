//! The arithmetic of a rollout: how large each ReplicaSet may be now. Never more pods than replicas + surge; nothing
//! available is taken away below replicas - maxUnavailable.

use k8s_openapi::api::apps::v1::{ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{View, available, counted, meta, revision, size};
use crate::controllers::meta::{Round, resolve};

/// Surge rounds up, unavailability down; both zero would stand still, so that one pod may then be missing.
pub fn bounds(rolling: Option<&RollingUpdateDeployment>, replicas: i32) -> (i32, i32) {
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = resolve(surge, replicas, Round::Up).unwrap_or(0).max(0);
    let unavailable = resolve(unavailable, replicas, Round::Down).unwrap_or(0).clamp(0, replicas.max(0));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// The size the new ReplicaSet may have now.
pub(crate) fn new_size(view: &View, current: i32) -> i32 {
    if current >= view.replicas {
        return view.replicas;
    }
    // Pods of a ReplicaSet that was made smaller count until they are gone.
    let all: i32 = view.all().map(|rs| size(rs).max(counted(rs))).sum();
    let room = view.replicas + view.max_surge - all;
    current + room.clamp(0, view.replicas - current)
}

/// New sizes of old ReplicaSets that may shrink now: first pods that are not available anyway, then as many available
/// ones as the rest can spare.
pub(crate) fn shrink_old<'a>(view: &View<'a>) -> Vec<(&'a ReplicaSet, i32)> {
    let all: i32 = view.all().map(size).sum();
    let min_available = view.replicas - view.max_unavailable;
    let new_missing = view.new.map_or(0, |rs| (size(rs) - surely_available(rs)).max(0));
    let mut budget = (all - min_available - new_missing).max(0);
    let mut sizes: Vec<(&ReplicaSet, i32)> = view.old.iter().map(|rs| (*rs, size(rs))).collect();
    for (rs, to) in &mut sizes {
        let unhealthy = (*to - available(rs)).max(0).min(budget);
        *to -= unhealthy;
        budget -= unhealthy;
    }
    let available_now: i32 = view.all().map(surely_available).sum();
    let mut spare = (available_now - min_available).max(0).min(budget);
    for (_, to) in &mut sizes {
        let cut = (*to).min(spare);
        *to -= cut;
        spare -= cut;
    }
    sizes.retain(|(rs, to)| *to != size(rs));
    sizes
}

/// A status that lags behind the spec may count pods that are on their way out, or gone: nothing is built on it.
fn surely_available(rs: &ReplicaSet) -> i32 {
    let observed = rs.status.as_ref().and_then(|s| s.observed_generation);
    if observed < rs.metadata.generation { 0 } else { available(rs).min(size(rs)) }
}

/// The Deployment's size was changed since its ReplicaSets were last scaled.
pub(crate) fn is_scaling(view: &View) -> bool {
    !view.recreate && view.active().any(|rs| annotation(rs, revision::DESIRED).is_some_and(|desired| desired != view.replicas))
}

fn annotation(rs: &ReplicaSet, key: &str) -> Option<i32> {
    meta::annotation(&rs.metadata, key)?.parse().ok()
}

/// Sizes after the Deployment was scaled. With one ReplicaSet that is simply the size; in the middle of a rollout each
/// gets its share, so that a rollout that goes wrong does not get more of the pods than it had.
pub(crate) fn proportional<'a>(view: &View<'a>) -> Vec<(&'a ReplicaSet, i32)> {
    let mut active: Vec<&ReplicaSet> = view.active().collect();
    let only = match active.as_slice() {
        [] => view.new.or(view.old.last().copied()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(rs) = only {
        return vec![(rs, view.replicas)];
    }
    if let Some(new) = view.new.filter(|rs| saturated(view, rs)) {
        return view.old.iter().filter(|rs| size(rs) > 0).map(|rs| (*rs, 0)).chain([(new, size(new))]).collect();
    }
    let allowed = if view.replicas > 0 { view.replicas + view.max_surge } else { 0 };
    let to_add = allowed - active.iter().map(|rs| size(rs)).sum::<i32>();
    // Growing favours the newest of the large ones, shrinking the oldest.
    active.sort_by_key(|rs| (std::cmp::Reverse(size(rs)), meta::created(&rs.metadata)));
    if to_add > 0 {
        active.sort_by_key(|rs| (std::cmp::Reverse(size(rs)), std::cmp::Reverse(meta::created(&rs.metadata))));
    }
    let mut left = to_add;
    let mut sizes: Vec<(&ReplicaSet, i32)> = vec![];
    for rs in active {
        let share = share(view, rs);
        let part = if to_add > 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) };
        left -= part;
        sizes.push((rs, size(rs) + part));
    }
    for (_, to) in &mut sizes {
        let part = left.max(-*to);
        *to += part;
        left -= part;
    }
    sizes
}

fn saturated(view: &View, rs: &ReplicaSet) -> bool {
    size(rs) == view.replicas && annotation(rs, revision::DESIRED) == Some(view.replicas) && available(rs) == view.replicas
}

/// How much a ReplicaSet grows or shrinks if it keeps its part of the whole.
fn share(view: &View, rs: &ReplicaSet) -> i32 {
    if view.replicas == 0 {
        return -size(rs);
    }
    let before = annotation(rs, revision::MAX)
        .filter(|n| *n > 0)
        .unwrap_or_else(|| view.deployment.status.as_ref().and_then(|s| s.replicas).filter(|n| *n > 0).unwrap_or(view.replicas));
    let scaled = i64::from(size(rs)) * i64::from(view.replicas + view.max_surge);
    let rounded = (2 * scaled + i64::from(before)) / (2 * i64::from(before));
    i32::try_from(rounded).unwrap_or(i32::MAX) - size(rs)
}
