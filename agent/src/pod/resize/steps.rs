//! The writes of one resize, in their order. Pure.

use super::Amounts;

/// One running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub id: String,
    pub has: Amounts,
    pub wants: Amounts,
}

/// The pod's cgroup in the kernel's terms; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pod {
    pub memory: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_shares: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    PodMemory(u64),
    PodQuota(i64),
    PodShares(u64),
    /// All of a container's amounts as they are to be after this step.
    Container {
        name: String,
        id: String,
        amounts: Amounts,
    },
}

/// A limit that `wants` does not have stays as it is: none can be taken away.
pub fn steps(has: Pod, wants: Pod, containers: &[Container]) -> Vec<Step> {
    let mut out = Vec::new();
    let (grows, shrinks) = limit(has.memory, wants.memory);
    out.extend(grows.map(Step::PodMemory));
    let memory = |a: &Amounts| (a.memory_limit, a.memory_request);
    out.extend(
        ordered(containers, memory)
            .map(|c| c.step(Amounts { cpu_request: c.has.cpu_request, cpu_limit: c.has.cpu_limit, ..c.wants })),
    );
    out.extend(shrinks.map(Step::PodMemory));

    let (grows, shrinks) = limit(has.cpu_quota, wants.cpu_quota);
    out.extend(grows.map(Step::PodQuota));
    let shares = Some(Step::PodShares(wants.cpu_shares));
    out.extend(shares.clone().filter(|_| wants.cpu_shares > has.cpu_shares));
    let cpu = |a: &Amounts| (a.cpu_limit, a.cpu_request);
    // Memory is as wanted by now.
    out.extend(ordered(containers, cpu).map(|c| c.step(c.wants)));
    out.extend(shares.filter(|_| wants.cpu_shares < has.cpu_shares));
    out.extend(shrinks.map(Step::PodQuota));
    out
}

impl Container {
    fn step(&self, amounts: Amounts) -> Step {
        Step::Container { name: self.name.clone(), id: self.id.clone(), amounts }
    }
}

/// The new limit before the containers' own, or after them.
fn limit<T: Ord + Copy>(has: Option<T>, wants: Option<T>) -> (Option<T>, Option<T>) {
    match (has, wants) {
        (Some(has), Some(wants)) if wants > has => (Some(wants), None),
        (Some(has), Some(wants)) if wants == has => (None, None),
        (_, wants) => (None, wants),
    }
}

/// Those for which this changes: what shrinks before what grows. No limit is more than any.
fn ordered(containers: &[Container], of: impl Fn(&Amounts) -> (i64, i64)) -> impl Iterator<Item = &Container> {
    let key = |a: &Amounts| {
        let (limit, request) = of(a);
        (if limit == 0 { i64::MAX } else { limit }, request)
    };
    let shrinks = containers.iter().filter(|c| key(&c.wants) < key(&c.has)).collect::<Vec<_>>();
    let grows = containers.iter().filter(|c| key(&c.wants) > key(&c.has)).collect::<Vec<_>>();
    shrinks.into_iter().chain(grows)
}

/// Memory limits that would fall below what is used, in kubelet's words. `used` is the pod's and each container's, in their order.
pub fn too_small(has: Pod, wants: Pod, containers: &[Container], used: (Option<u64>, &[Option<u64>])) -> Option<String> {
    let mut wrong = Vec::new();
    if let Some(limit) = wants.memory.filter(|limit| has.memory.is_none_or(|has| *limit < has)) {
        match used.0 {
            None => wrong.push("missing pod memory usage".to_owned()),
            Some(used) if used >= limit => {
                wrong.push(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"));
            }
            Some(_) => {}
        }
    }
    for (c, used) in containers.iter().zip(used.1) {
        let (had, limit) = (c.has.memory_limit, c.wants.memory_limit);
        if limit == 0 || (had != 0 && limit >= had) {
            continue;
        }
        match used {
            None => wrong.push(format!("missing container {:?} memory usage", c.name)),
            Some(used) if *used >= limit.unsigned_abs() => {
                let name = &c.name;
                wrong.push(format!("attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"));
            }
            Some(_) => {}
        }
    }
    match wrong.as_slice() {
        [] => None,
        [one] => Some(format!("cannot decrease memory limits: {one}")),
        all => Some(format!("cannot decrease memory limits: [{}]", all.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts(cpu: i64, memory: i64) -> Amounts {
        Amounts { cpu_request: cpu, cpu_limit: cpu, memory_request: memory, memory_limit: memory }
    }

    fn container(name: &str, has: Amounts, wants: Amounts) -> Container {
        Container { name: name.into(), id: format!("id-{name}"), has, wants }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        let name = |s: &Step| match s {
            Step::PodMemory(to) => format!("pod memory {to}"),
            Step::PodQuota(to) => format!("pod quota {to}"),
            Step::PodShares(to) => format!("pod shares {to}"),
            Step::Container { name, amounts, .. } => format!("{name} {}/{}", amounts.cpu_limit, amounts.memory_limit),
        };
        steps.iter().map(name).collect()
    }

    #[test]
    fn the_order_is_kubelets() {
        let pod = |memory, quota, shares| Pod { memory, cpu_quota: quota, cpu_shares: shares };
        let (small, big) = (pod(Some(10), Some(1000), 10), pod(Some(20), Some(2000), 20));
        let grows = container("a", amounts(1, 10), amounts(2, 20));
        let shrinks = container("b", amounts(2, 20), amounts(1, 10));
        let up = steps(small, big, std::slice::from_ref(&grows));
        assert_eq!(names(&up), ["pod memory 20", "a 1/20", "pod quota 2000", "pod shares 20", "a 2/20"]);
        let down = steps(big, small, std::slice::from_ref(&shrinks));
        assert_eq!(names(&down), ["b 2/10", "pod memory 10", "b 1/10", "pod shares 10", "pod quota 1000"]);
        let both = steps(big, big, &[grows.clone(), shrinks]);
        assert_eq!(names(&both), ["b 2/10", "a 1/20", "b 1/10", "a 2/20"]);
        let first = steps(pod(None, None, 10), big, &[grows]);
        assert_eq!(
            names(&first),
            ["a 1/20", "pod memory 20", "pod shares 20", "a 2/20", "pod quota 2000"],
            "a limit where none was"
        );
        assert!(steps(big, pod(None, None, 20), &[]).is_empty(), "none is taken away");
    }

    #[test]
    fn requests_alone_change_too() {
        let c = container("a", amounts(1, 10), Amounts { memory_request: 5, cpu_request: 0, ..amounts(1, 10) });
        assert_eq!(names(&steps(Pod::default(), Pod::default(), &[c])), ["a 1/10", "a 1/10"]);
    }

    #[test]
    fn memory_in_use_is_not_cut_off() {
        let pod = |memory| Pod { memory: Some(memory), ..Pod::default() };
        let c = container("a", amounts(1, 20), amounts(1, 10));
        let ask = |used: u64| too_small(pod(20), pod(10), std::slice::from_ref(&c), (Some(used), &[Some(used)]));
        assert_eq!(ask(9), None);
        assert_eq!(
            ask(10).unwrap(),
            "cannot decrease memory limits: [attempting to set pod memory limit (10) below current usage (10), \
             attempting to set container \"a\" memory limit (10) below current usage (10)]"
        );
        assert_eq!(too_small(pod(10), pod(20), &[], (None, &[])), None, "nothing shrinks");
        assert_eq!(
            too_small(pod(20), pod(10), &[], (None, &[])).unwrap(),
            "cannot decrease memory limits: missing pod memory usage"
        );
    }

    prop_compose! {
        fn resize()(rows in proptest::collection::vec((1..50i64, 1..50i64, 1..50i64, 1..50i64), 1..5), slack in 0..20i64, more in 0..20i64)
            -> (Pod, Pod, Vec<Container>) {
            let all: Vec<Container> = rows.iter().enumerate()
                .map(|(i, (c0, m0, c1, m1))| container(&format!("c{i}"), amounts(*c0, *m0), amounts(*c1, *m1))).collect();
            let sum = |of: &dyn Fn(&Container) -> i64| all.iter().map(of).sum::<i64>();
            let pod = |cpu: i64, memory: i64| Pod { memory: Some(memory.unsigned_abs()), cpu_quota: Some(cpu), cpu_shares: cpu.unsigned_abs() };
            let has = pod(sum(&|c| c.has.cpu_limit) + slack, sum(&|c| c.has.memory_limit) + slack);
            let wants = pod(sum(&|c| c.wants.cpu_limit) + more, sum(&|c| c.wants.memory_limit) + more);
            (has, wants, all)
        }
    }

    proptest! {
        #[test]
        fn containers_together_never_exceed_the_pod_and_end_where_they_should((has, wants, all) in resize(), cut in 0..40usize) {
            let (mut pod, mut now) = (has, all.clone());
            // An agent that is killed halfway looks at what is there and goes on.
            for limit in [cut, usize::MAX] {
                for step in steps(pod, wants, &now.clone()).into_iter().take(limit) {
                    match step {
                        Step::PodMemory(to) => pod.memory = Some(to),
                        Step::PodQuota(to) => pod.cpu_quota = Some(to),
                        Step::PodShares(to) => pod.cpu_shares = to,
                        Step::Container { id, amounts, .. } => now.iter_mut().filter(|c| c.id == id).for_each(|c| c.has = amounts),
                    }
                    let memory: i64 = now.iter().map(|c| c.has.memory_limit).sum();
                    let cpu: i64 = now.iter().map(|c| c.has.cpu_limit).sum();
                    prop_assert!(memory.unsigned_abs() <= pod.memory.unwrap(), "memory {memory} in {pod:?}");
                    prop_assert!(cpu <= pod.cpu_quota.unwrap(), "cpu {cpu} in {pod:?}");
                }
            }
            prop_assert_eq!(pod, wants);
            prop_assert!(now.iter().all(|c| c.has == c.wants));
            prop_assert!(steps(pod, wants, &now).is_empty());
        }
    }
}
