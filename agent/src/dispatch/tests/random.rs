//! The agent is killed at random points of the lives of several pods, again and again: between any two requests that it makes of the
//! runtime or of the API, within them before and after their effect, and at moments that have nothing to do with either. After each a
//! new agent goes on over the same disk, runtime and API.
//!
//! The points follow from a seed, which a failure prints; `FERROLET_SEED` in the environment gives it. What falls between two points
//! is up to the machine, so a seed makes a failure likely again, not certain.

mod shapes;

use super::ready;
use super::world::World;
use ferrolet_cri::fake::{Fault, Profile, Run};
use futures::StreamExt;
use serde_json::{Value, json};
use shapes::{SHAPES, Settled, Shape};
use std::collections::BTreeMap;
use std::time::Duration;

const WORLDS: u64 = 40;
const KILLS: usize = 25;
/// Worlds at a time.
const AT_ONCE: usize = 4;
/// An agent that has less to do than its point asks for is killed after this.
const IDLE: Duration = Duration::from_millis(120);

const SETTLED: Duration = Duration::from_secs(20);

/// Enough to scatter points (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// Where the agent's life ends.
#[derive(Debug)]
enum Point {
    Cri { after: u32, works: bool },
    Api { after: usize, works: bool },
    Time(Duration),
}

fn point(r: &mut Random) -> Point {
    let works = r.below(2) == 1;
    match r.below(10) {
        0..=5 => Point::Cri { after: u32::try_from(r.below(24)).unwrap(), works },
        6..=7 => Point::Api { after: r.below(5), works },
        _ => Point::Time(Duration::from_micros(r.next() % 30_000)),
    }
}

/// One pod's life so far.
struct Life {
    shape: &'static Shape,
    name: String,
    /// The name of its object in the API.
    key: String,
    uid: String,
    /// How many statuses it had when it was deleted.
    deleted: Option<usize>,
}

struct Story {
    world: World,
    random: Random,
    lives: Vec<Life>,
    statics: Vec<(String, Value)>,
    /// Points that were reached.
    hits: usize,
}

/// Says which seed it was when a test fails.
struct Seeded(u64);

impl Drop for Seeded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FERROLET_SEED={} (a world of its own: add FERROLET_WORLDS=1)", self.0);
        }
    }
}

impl Story {
    async fn begin(seed: u64) -> Story {
        let mut random = Random(seed);
        // One without events is slow to be understood, and few have it.
        let mut profiles = vec![Profile::containerd_2(); 4];
        profiles.extend(Profile::all());
        let mut world = World::start(profiles.swap_remove(random.below(profiles.len()))).await;
        world.stop_agent().await;
        (world.room, world.crash_max) = (200, Some(Duration::from_millis(30)));
        world.api.node(json!({"metadata": {"name": "n", "uid": "node-uid"}}));
        world.api.put("configmaps", "m", json!({"data": {"colour": "blue"}}));
        shapes::programs(&world.fake);
        Story { world, random, lives: Vec::new(), statics: Vec::new(), hits: 0 }
    }

    /// What the user does before the next agent's life ends.
    fn happens(&mut self) {
        for _ in 0..self.random.below(3) {
            let alive: Vec<usize> = (0..self.lives.len()).filter(|at| self.lives[*at].deleted.is_none()).collect();
            if alive.len() > 2 && (alive.len() > 5 || self.random.below(3) == 0) {
                let at = alive[self.random.below(alive.len())];
                self.delete(at);
            } else {
                let shape = &SHAPES[self.random.below(SHAPES.len())];
                self.create(shape);
            }
        }
    }

    fn create(&mut self, shape: &'static Shape) {
        let name = format!("{}{}", shape.name, self.lives.len());
        let (key, uid) = if shape.is_static {
            let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
                "spec": (shape.spec)()});
            self.statics.push((name.clone(), manifest));
            self.say_statics();
            let key = format!("{name}-n");
            let uid = self.world.static_uid(&key);
            (key, uid)
        } else {
            self.world.create_with(&name, (shape.spec)(), json!({crate::pod::health::ANNOTATION: shape.periods}));
            let uid = format!("uid-{name}");
            (name.clone(), uid)
        };
        self.lives.push(Life { shape, name, key, uid, deleted: None });
    }

    fn say_statics(&mut self) {
        let files: Vec<(&str, &Value)> = self.statics.iter().map(|(name, manifest)| (name.as_str(), manifest)).collect();
        self.world.manifests(&files);
    }

    fn delete(&mut self, at: usize) {
        let life = &mut self.lives[at];
        if life.deleted.is_some() {
            return;
        }
        life.deleted = Some(self.world.api.statuses(&life.key).len());
        let name = life.name.clone();
        if life.shape.is_static {
            self.statics.retain(|(known, _)| *known != name);
            self.say_statics();
        } else {
            self.world.delete(&name, 30);
        }
    }

    /// One agent's life.
    async fn live(&mut self) {
        let w = &mut self.world;
        w.fake.clear_calls();
        let point = point(&mut self.random);
        match point {
            Point::Cri { after, works } => {
                if after > 0 {
                    w.fake.inject_first("*", after, Fault::Delay(Duration::ZERO));
                }
                w.fake.inject_first("*", 1, if works { Fault::HangAfter } else { Fault::Hang });
            }
            Point::Api { after, works } => w.api.hold(after, works),
            Point::Time(_) => {}
        }
        w.start_mortal_agent();
        // Half the time it finds something new while it starts, else after a moment.
        if self.random.below(2) == 1 {
            tokio::time::sleep(Duration::from_micros(self.random.next() % 20_000)).await;
        }
        self.happens();
        let w = &mut self.world;
        match point {
            Point::Cri { after, works } => {
                let within = || (w.fake.call_count() > after as usize).then_some(());
                let hit = w.fake.wait(IDLE, within).await.is_some();
                self.hits += usize::from(hit);
                if works {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Point::Api { .. } => {
                let hit = tokio::time::timeout(IDLE, w.api.holds()).await.is_ok();
                self.hits += usize::from(hit);
            }
            Point::Time(long) => {
                tokio::time::sleep(long).await;
                self.hits += 1;
            }
        }
        assert!(!w.agent_ended(), "the agent ended by itself");
        // Whatever it still does while its threads end is heard by nobody.
        w.fake.clear_faults();
        w.fake.inject("*", Fault::Hang);
        w.api.let_go();
        w.kill_agent_whole().await;
        w.fake.clear_faults();
    }

    /// Nobody is killed any more: everything comes to where it was to come.
    async fn settle(&mut self) {
        self.world.start_mortal_agent();
        for life in self.lives.iter().filter(|life| life.deleted.is_none()) {
            let w = &self.world;
            let begun = std::time::Instant::now();
            while w.pod(&life.key).filter(|pod| life.settled(w, pod)).is_none() {
                if begun.elapsed() > SETTLED {
                    let (pod, standing) = (w.pod(&life.key), w.standing(&life.key).await);
                    let runs: Vec<Run> = w.fake.runs().into_iter().filter(|run| run.pod_uid == life.uid).collect();
                    panic!("{} does not settle: {pod:#?}; {standing:#?}; {runs:#?}", life.key);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    async fn end(&mut self) {
        (0..self.lives.len()).for_each(|at| self.delete(at));
        let w = &self.world;
        for life in &self.lives {
            w.until(&format!("{} gone", life.key), |w| w.pod(&life.key).is_none().then_some(())).await;
        }
        let empty = |w: &World| (w.fake.containers().is_empty() && w.fake.sandboxes().is_empty()).then_some(());
        w.until("nothing in the runtime", empty).await;
        let folders = |w: &World| {
            let pods = [w.root().join("pods"), w.logs()].map(|folder| entries(&folder));
            let cgroups = ["kubepods", "kubepods/besteffort", "kubepods/burstable"].map(|class| {
                let mut all = entries(&w.cgroups().join("memory").join(class));
                all.retain(|name| name.starts_with("pod"));
                all
            });
            pods.into_iter().chain(cgroups).flatten().collect::<Vec<_>>()
        };
        let begun = std::time::Instant::now();
        while !folders(w).is_empty() {
            let lives: Vec<_> = self.lives.iter().map(|l| (&l.key, &l.uid)).collect();
            assert!(begun.elapsed() < Duration::from_secs(10), "left on the disk: {:?} of {lives:?}", folders(w));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn check(&self) {
        let runs = self.world.fake.runs();
        for life in &self.lives {
            life.check_runs(&runs, self.world.fake.sandboxes_made(&life.uid));
            life.check_statuses(&self.world.api.statuses(&life.key));
        }
    }
}

fn entries(folder: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn rank(phase: &str) -> u8 {
    match phase {
        "Pending" => 0,
        "Running" => 1,
        "Succeeded" | "Failed" => 2,
        other => panic!("phase {other:?}"),
    }
}

fn containers(status: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"].into_iter().filter_map(|list| status[list].as_array()).flatten()
}

impl Life {
    fn settled(&self, w: &World, pod: &Value) -> bool {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        match self.shape.settled {
            Settled::Ready => ready(pod) && pod["status"]["startTime"].is_string(),
            Settled::Phase(wanted) => phase == wanted,
            Settled::Restarts(least) => {
                let runs = w.fake.runs().iter().filter(|run| run.pod_uid == self.uid).count();
                runs > least && pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(least as u64)
            }
        }
    }

    /// One at a time, numbered without a gap, as often as it should.
    fn check_runs(&self, runs: &[Run], sandboxes: usize) {
        let name = &self.key;
        assert!(sandboxes <= 1, "{name}: {sandboxes} sandboxes were made");
        let mut by_name: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
        for run in runs.iter().filter(|run| run.pod_uid == self.uid) {
            by_name.entry(&run.name).or_default().push(run);
        }
        for (container, runs) in by_name {
            for (at, run) in runs.iter().enumerate() {
                assert_eq!(run.restart_count, at.to_string(), "{name}/{container}: {runs:#?}");
                assert!(runs[..at].iter().all(|before| !before.overlaps(run)), "{name}/{container} ran twice: {runs:#?}");
            }
            if let Some(most) = self.shape.most_runs {
                assert!(runs.len() <= most, "{name}/{container} ran {} times: {runs:#?}", runs.len());
            }
            let told = runs.iter().any(|run| run.told);
            assert!(!told || self.deleted.is_some() || self.shape.is_told, "{name}/{container} was stopped: {runs:#?}");
        }
    }

    /// Nothing goes backwards.
    fn check_statuses(&self, all: &[Value]) {
        let name = &self.key;
        let mut before = &Value::Null;
        for (at, status) in all.iter().map(|pod| &pod["status"]).enumerate() {
            let alive = self.deleted.is_none_or(|deleted| at < deleted);
            let told = || format!("{name}: from {before:#} to {status:#}");
            if before.is_object() {
                let (from, to) = (before["phase"].as_str().unwrap(), status["phase"].as_str().unwrap());
                assert!(rank(from) < rank(to) || from == to, "phase of {}", told());
                assert_eq!(before["startTime"], status["startTime"], "start time of {}", told());
                if before["podIP"].is_string() {
                    assert_eq!(before["podIP"], status["podIP"], "address of {}", told());
                }
                self.check_conditions(before, status, alive, &told);
            }
            for c in containers(status) {
                let Some(old) = containers(before).find(|old| old["name"] == c["name"]) else { continue };
                assert!(old["restartCount"].as_i64() <= c["restartCount"].as_i64(), "restarts of {}", told());
                let same = old["containerID"] == c["containerID"];
                let (ran, runs) = (&old["state"]["running"], &c["state"]["running"]);
                assert!(!same || !ran.is_object() || !runs.is_object() || ran == runs, "start of {}", told());
                let steady = alive && self.shape.settled == Settled::Ready && ran.is_object() && c["name"] != "init";
                assert!(!steady || (same && runs.is_object()), "what ran of {}", told());
                let ended = old["state"]["terminated"].is_object();
                assert!(!(ended && same && runs.is_object()), "what had ended of {}", told());
            }
            before = status;
        }
    }

    fn check_conditions(&self, before: &Value, status: &Value, alive: bool, told: &impl Fn() -> String) {
        for c in status["conditions"].as_array().into_iter().flatten() {
            let old = before["conditions"].as_array().into_iter().flatten().find(|old| old["type"] == c["type"]);
            let Some(old) = old else { continue };
            let (from, to) = (old["lastTransitionTime"].as_str(), c["lastTransitionTime"].as_str());
            assert!(from <= to, "time of {} of {}", c["type"], told());
            let flipped = old["status"] == "True" && c["status"] != "True";
            assert!(!(alive && self.shape.settled == Settled::Ready && flipped), "{} of {}", c["type"], told());
        }
    }
}

/// How many of its points were reached.
async fn world(seed: u64) -> usize {
    let _seeded = Seeded(seed);
    let mut story = Story::begin(seed).await;
    for _ in 0..KILLS {
        story.live().await;
        story.check();
    }
    story.settle().await;
    story.check();
    story.end().await;
    story.check();
    story.world.kill_agent_whole().await;
    story.hits
}

fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_thousand_random_points_nothing_is_lost_or_done_twice() {
    let seed = given("FERROLET_SEED").unwrap_or_else(rand::random);
    let worlds = given("FERROLET_WORLDS").unwrap_or(WORLDS);
    let seeds = (0..worlds).map(|at| seed.wrapping_add(at.wrapping_mul(0x1_0000_0001)));
    let hits: Vec<usize> = futures::stream::iter(seeds).map(world).buffer_unordered(AT_ONCE).collect().await;
    let (hits, all) = (hits.iter().sum::<usize>(), hits.len() * KILLS);
    assert!(hits * 2 > all, "only {hits} of {all} points were reached");
}
