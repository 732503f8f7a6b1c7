use super::*;
use crate::model::{Family, Proto, ServicePort, SlicePort};
use crate::select::select;
use crate::tables::{Tables, Touched};
use crate::testing::pod;
use proptest::collection::vec;
use proptest::prelude::*;

const PODS: u8 = 4;
const SLICES: u8 = 3;

fn uid(n: u8) -> Uid {
    format!("uid-{n}").as_str().into()
}

fn service() -> Key {
    Key::new("ns", "web")
}

fn slice_key(n: u8) -> Key {
    Key::new("ns", &format!("web-{n}"))
}

fn conditions(serving: bool, terminating: bool) -> Conditions {
    Conditions { ready: serving && !terminating, serving, terminating }
}

fn said(terminating: bool, ready: Option<bool>) -> Said {
    Said { terminating, ready }
}

fn word(terminating: bool, ready: Option<bool>, n: u8) -> PodWord {
    PodWord { terminating, ready, ips: vec![pod(Family::V4, n)], told: false }
}

/// The API's slices, what the agent says, and the endpoints that count.
struct World {
    overlay: Overlay,
    /// As the API has them: this node's pods and their conditions.
    api: BTreeMap<u8, Vec<(u8, Conditions)>>,
    tables: Tables,
    words: Words,
    begun: Instant,
    now: Instant,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let (overlay, tables) = (Overlay::default(), Tables::default());
        World { overlay, api: BTreeMap::new(), tables, words: Words::new(), begun: now, now }
    }

    fn set(&mut self, n: u8, pods: Option<Vec<(u8, Conditions)>>) {
        let key = slice_key(n);
        let Some(pods) = pods else {
            self.api.remove(&n);
            self.overlay.forget(&key);
            self.tables.set_slice(key, None, &mut Touched::new());
            return;
        };
        let endpoint = |(n, c): &(u8, Conditions)| Endpoint {
            ready: c.ready,
            serving: c.serving,
            terminating: c.terminating,
            local: true,
            ..crate::testing::endpoint(pod(Family::V4, *n))
        };
        let ports = [SlicePort { name: "".into(), proto: Proto::Tcp, port: 80 }];
        let mut slice =
            Slice { service: service(), family: Family::V4, ports: ports.into(), endpoints: pods.iter().map(endpoint).collect() };
        self.overlay.see(&key, &mut slice, pods.iter().enumerate().map(|(at, (n, _))| (at, uid(*n))));
        self.tables.set_slice(key, Some(slice), &mut Touched::new());
        self.api.insert(n, pods);
    }

    fn apply(&mut self, slices: BTreeSet<Key>) {
        for key in slices {
            let mut slice = self.tables.slice(&key).unwrap().clone();
            self.overlay.apply(&key, &mut slice);
            self.tables.set_slice(key, Some(slice), &mut Touched::new());
        }
    }

    fn publish(&mut self, on: bool) {
        let changed = self.overlay.publishes(&service(), on);
        self.apply(changed);
    }

    fn say(&mut self, n: u8, word: PodWord) {
        self.words.insert(uid(n), word);
        self.advance();
    }

    /// As the proxy does: whenever something is due by then.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.overlay.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.advance();
        }
        self.now = end;
    }

    fn advance(&mut self) {
        let changed = self.overlay.advance(&self.words, self.now);
        self.apply(changed);
    }

    /// The conditions that count of a pod's endpoint in a slice.
    fn counts(&self, slice: u8, n: u8) -> Conditions {
        let at = self.api[&slice].iter().position(|(p, _)| *p == n).unwrap();
        Conditions::of(&self.tables.slice(&slice_key(slice)).unwrap().endpoints[at])
    }

    fn local(&self) -> Vec<IpAddr> {
        let port = ServicePort { name: "".into(), proto: Proto::Tcp, port: 80, node_port: None };
        select(&self.tables, &service(), &port, Family::V4, "").local.into_iter().map(|b| b.ip).collect()
    }
}

#[test]
fn what_counts() {
    let api = conditions;
    let odd = Conditions { ready: true, serving: false, terminating: true };
    let cases = [
        // Nothing said: the API's word, even where its parts do not fit together.
        (api(true, false), said(false, None), api(true, false)),
        (odd, said(false, None), odd),
        (odd, said(true, None), api(false, true)),
        // It ends: out at once, and still the last resort.
        (api(true, false), said(true, None), api(true, true)),
        (api(true, false), said(true, Some(false)), api(false, true)),
        (api(false, false), said(true, None), api(false, true)),
        // While it ends readiness is only taken away.
        (api(false, true), said(false, Some(true)), api(false, true)),
        (api(false, false), said(true, Some(true)), api(false, true)),
        // Readiness, sooner.
        (api(true, false), said(false, Some(false)), api(false, false)),
        (api(false, false), said(false, Some(true)), api(true, false)),
        // They agree.
        (api(true, false), said(false, Some(true)), api(true, false)),
        (api(false, true), said(true, Some(false)), api(false, true)),
    ];
    for (from, said, to) in cases {
        assert_eq!(effective(from, said), to, "{from:?} {said:?}");
    }
}

#[test]
fn ready_counts_for_its_time_only() {
    let mut w = World::new();
    w.set(0, Some(vec![(1, conditions(false, false))]));
    w.say(1, word(false, Some(true), 1));
    assert!(w.counts(0, 1).ready);
    w.pass(READY_FOR - Duration::from_millis(1));
    assert!(w.counts(0, 1).ready);
    w.pass(Duration::from_millis(1));
    assert!(!w.counts(0, 1).ready, "the API does not agree");
    // And it is the API's from now on.
    w.set(0, Some(vec![(1, conditions(true, false))]));
    assert!(w.counts(0, 1).ready);
    w.set(0, Some(vec![(1, conditions(false, false))]));
    assert!(!w.counts(0, 1).ready);
}

#[test]
fn ready_counts_only_at_an_address_it_has() {
    let mut w = World::new();
    w.set(0, Some(vec![(1, conditions(false, false)), (2, conditions(true, false))]));
    w.say(1, word(false, Some(true), 9));
    // The slice still has the address of a sandbox that is gone.
    w.say(2, word(false, Some(true), 9));
    assert!(!w.counts(0, 1).ready && !w.counts(0, 2).ready);
}

#[test]
fn not_ready_counts_until_the_api_had_its_time_to_agree() {
    let mut w = World::new();
    w.set(0, Some(vec![(1, conditions(true, false))]));
    let mut said = word(false, Some(false), 1);
    w.say(1, said.clone());
    // The API server is away: it cannot agree.
    w.pass(Duration::from_secs(3600));
    assert_eq!(w.counts(0, 1), conditions(false, false));
    said.told = true;
    w.say(1, said);
    w.pass(NOT_READY_FOR - Duration::from_millis(1));
    assert!(!w.counts(0, 1).ready);
    w.pass(Duration::from_millis(1));
    assert!(w.counts(0, 1).ready, "the API goes on disagreeing");
}

#[test]
fn an_older_state_on_its_way_changes_nothing() {
    let mut w = World::new();
    w.set(0, Some(vec![(1, conditions(true, false))]));
    // Not ready, ready, not ready, faster than the API: it shows each of them late.
    w.say(1, word(false, Some(false), 1));
    w.say(1, word(false, Some(true), 1));
    w.say(1, word(false, Some(false), 1));
    for serving in [false, true, false] {
        w.set(0, Some(vec![(1, conditions(serving, false))]));
        assert!(!w.counts(0, 1).ready);
    }
}

#[test]
fn a_gone_pod_stays_out_while_slices_have_it() {
    let mut w = World::new();
    w.set(0, Some(vec![(1, conditions(true, false)), (2, conditions(true, false))]));
    w.say(1, word(true, None, 1));
    w.words.clear();
    w.advance();
    assert_eq!(w.counts(0, 1), conditions(false, true));
    assert_eq!(w.local(), [pod(Family::V4, 2)]);
    w.set(0, Some(vec![(2, conditions(true, false))]));
    w.pass(Duration::ZERO);
    w.advance();
    assert!(w.overlay.is_empty());
    // One that stays listed is forgotten in the end.
    w.say(2, word(true, None, 2));
    w.words.clear();
    w.advance();
    w.pass(GONE_FOR);
    assert!(w.overlay.is_empty());
    assert!(w.counts(0, 2).ready);
}

#[test]
fn addresses_published_before_they_are_ready_are_left_to_the_api() {
    let mut w = World::new();
    let all_ready = Conditions { ready: true, serving: true, terminating: true };
    w.set(0, Some(vec![(1, all_ready)]));
    w.publish(true);
    w.say(1, word(true, Some(false), 1));
    assert_eq!(w.counts(0, 1), all_ready);
    w.publish(false);
    assert_eq!(w.counts(0, 1), conditions(false, true));
    w.publish(true);
    assert_eq!(w.counts(0, 1), all_ready);
    let changed = w.overlay.publish_only(BTreeSet::new());
    w.apply(changed);
    assert_eq!(w.counts(0, 1), conditions(false, true));
}

#[test]
fn early_readiness_does_not_void_hints() {
    use crate::model::Hints;
    let hints = Some(Arc::new(Hints { zones: ["a".into()].into(), ..Hints::default() }));
    let endpoint = |n, ready, hints| Endpoint {
        ip: pod(Family::V4, n),
        ready,
        serving: ready,
        terminating: false,
        local: true,
        placed: true,
        hints,
    };
    let endpoints = [endpoint(1, false, None), endpoint(2, true, hints)];
    let mut slice = Slice { service: service(), family: Family::V4, ports: [].into(), endpoints: endpoints.into() };
    let mut overlay = Overlay::default();
    overlay.see(&slice_key(0), &mut slice, [(0, uid(1)), (1, uid(2))]);
    let words = Words::from([(uid(1), word(false, Some(true), 1)), (uid(2), word(true, None, 2))]);
    overlay.advance(&words, Instant::now());
    overlay.apply(&slice_key(0), &mut slice);
    assert!(!slice.endpoints[0].ready, "it has no hints yet");
    assert!(slice.endpoints[1].terminating);
}

#[derive(Debug, Clone)]
enum Op {
    /// Pods of a slice with what the API says of them; `None`: the slice is gone.
    Slice(u8, Option<Vec<(u8, bool, bool)>>),
    Say {
        pod: u8,
        terminating: bool,
        ready: Option<bool>,
        told: bool,
    },
    Gone(u8),
    Publish(bool),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let endpoint = (0..PODS, any::<bool>(), any::<bool>());
    prop_oneof![
        4 => (0..SLICES, prop::option::weighted(0.8, vec(endpoint, 0..5))).prop_map(|(n, s)| Op::Slice(n, s)),
        4 => (0..PODS, any::<bool>(), any::<Option<bool>>(), any::<bool>())
            .prop_map(|(pod, terminating, ready, told)| Op::Say { pod, terminating, ready, told }),
        1 => (0..PODS).prop_map(Op::Gone),
        1 => any::<bool>().prop_map(Op::Publish),
        2 => (0..40_000u64).prop_map(Op::Pass),
    ]
}

/// Pods that the agent had and has no more: their uids do not come back.
type Ended = BTreeSet<u8>;

fn run(w: &mut World, ended: &mut Ended, op: Op) {
    match op {
        Op::Slice(n, pods) => {
            let of = |(n, serving, terminating): (u8, bool, bool)| (n, conditions(serving, terminating));
            w.set(n, pods.map(|all| all.into_iter().map(of).collect()));
        }
        Op::Say { pod, terminating, ready, told } if !ended.contains(&pod) => {
            // A pod's end is not taken back.
            let terminating = terminating || w.words.get(&uid(pod)).is_some_and(|w| w.terminating);
            w.say(pod, PodWord { told, ..word(terminating, ready, pod) });
        }
        Op::Say { .. } => {}
        Op::Gone(n) => {
            if w.words.remove(&uid(n)).is_some() {
                ended.insert(n);
            }
            w.advance();
        }
        Op::Publish(on) => w.publish(on),
        Op::Pass(ms) => w.pass(Duration::from_millis(ms)),
    }
}

proptest! {
    #[test]
    fn quiet_and_agreed_it_is_as_the_api_says(ops in vec(op(), 0..40)) {
        let (mut w, mut ended) = (World::new(), Ended::new());
        for op in ops {
            run(&mut w, &mut ended, op);
        }
        // Now the API comes to say the same.
        for n in 0..SLICES {
            let Some(pods) = w.api.get(&n).cloned() else { continue };
            let agreed = |(n, c): (u8, Conditions)| {
                let said = w.words.get(&uid(n));
                let serving = said.and_then(|s| s.ready).unwrap_or(c.serving);
                (n, conditions(serving, said.map_or(c.terminating, |s| s.terminating)))
            };
            let pods = pods.into_iter().filter(|(n, _)| !ended.contains(n)).map(agreed).collect();
            w.set(n, Some(pods));
        }
        w.pass(Duration::ZERO);
        for (n, pods) in &w.api {
            for (pod, c) in pods {
                // One pod can be in a slice twice, said to be two things: only the first is looked at.
                if pods.iter().filter(|(p, _)| p == pod).count() == 1 {
                    prop_assert_eq!(w.counts(*n, *pod), *c);
                }
            }
        }
    }

    #[test]
    fn in_the_end_the_api_counts_unless_the_pod_is_ended_or_the_api_not_told(ops in vec(op(), 0..40)) {
        let (mut w, mut ended) = (World::new(), Ended::new());
        for op in ops {
            run(&mut w, &mut ended, op);
        }
        w.pass(NOT_READY_FOR.max(GONE_FOR).max(READY_FOR));
        for (n, pods) in &w.api {
            for (pod, c) in pods {
                let said = w.words.get(&uid(*pod));
                let stands = said.is_some_and(|s| s.terminating || (s.ready == Some(false) && !s.told));
                if !stands && pods.iter().filter(|(p, _)| p == pod).count() == 1 {
                    prop_assert_eq!(w.counts(*n, *pod), *c);
                }
            }
        }
    }

    #[test]
    fn no_entry_outlives_its_pod(ops in vec(op(), 0..60)) {
        let (mut w, mut ended) = (World::new(), Ended::new());
        for op in ops {
            run(&mut w, &mut ended, op);
            prop_assert!(w.overlay.len() <= w.words.len() + ended.len());
        }
        w.words.clear();
        w.advance();
        w.pass(GONE_FOR);
        prop_assert!(w.overlay.is_empty());
        prop_assert_eq!(w.overlay.due(), None);
        for n in 0..SLICES {
            w.set(n, None);
        }
        prop_assert!(w.overlay.slices.is_empty() && w.overlay.by_pod.is_empty());
    }

    #[test]
    fn no_traffic_to_a_pod_known_to_end_while_another_is_ready(ops in vec(op(), 0..40)) {
        let (mut w, mut ended) = (World::new(), Ended::new());
        let mut published = false;
        for op in ops {
            if let Op::Publish(on) = op {
                published = on;
            }
            run(&mut w, &mut ended, op);
            if published {
                continue;
            }
            let known_to_end = |n: u8| w.words.get(&uid(n)).is_some_and(|s| s.terminating);
            // Without the overlay's help: ready by the API and by everything the agent ever said.
            let sure = |n: u8, c: &Conditions| {
                c.ready && !ended.contains(&n) && w.words.get(&uid(n)).is_none_or(|s| !s.terminating && s.ready != Some(false))
            };
            let a_ready_one = w.api.values().flatten().any(|(n, c)| sure(*n, c));
            let local = w.local();
            let to_ending = (0..PODS).filter(|n| known_to_end(*n) && local.contains(&pod(Family::V4, *n))).count();
            prop_assert!(!(a_ready_one && to_ending > 0), "{:?} after {:?}", local, w.now - w.begun);
        }
    }
}
