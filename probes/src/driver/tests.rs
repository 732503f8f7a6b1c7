use super::*;
use crate::check::{ExecError, ExecOutcome};
use futures::future::BoxFuture;
use std::sync::Mutex;

type Answers = dyn Fn(&str, usize) -> Answer + Send + Sync;

/// Answers by a script and notes when it was asked (on the paused clock).
struct Script {
    epoch: Instant,
    calls: Mutex<Vec<(String, Duration)>>,
    running: Mutex<(usize, usize)>,
    answer: Box<Answers>,
}

#[derive(Clone, Copy)]
enum Answer {
    Code(i32),
    After(Duration, i32),
    /// Until its timeout.
    Hang,
    /// Nothing is ever said of it.
    Silent,
    Broken,
    Panic,
}

impl Script {
    fn new(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Arc<Script> {
        let (calls, running) = (Mutex::default(), Mutex::default());
        Arc::new(Script { epoch: Instant::now(), calls, running, answer: Box::new(answer) })
    }
    fn times(&self, id: &str) -> Vec<u64> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(c, _)| c == id).map(|(_, t)| t.as_secs()).collect()
    }
}

impl Exec for Script {
    fn exec(&self, id: &str, _: &[String], timeout: Duration) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        let n = {
            let mut calls = self.calls.lock().unwrap();
            calls.push((id.to_owned(), self.epoch.elapsed()));
            calls.iter().filter(|(c, _)| c == id).count() - 1
        };
        let answer = (self.answer)(id, n);
        Box::pin(async move {
            {
                let mut running = self.running.lock().unwrap();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            let code = |exit_code| Ok(ExecOutcome { exit_code, stdout: b"out ".into(), stderr: b"err".into() });
            let result = match answer {
                Answer::Code(c) => code(c),
                Answer::After(d, c) => {
                    tokio::time::sleep(d).await;
                    code(c)
                }
                Answer::Hang => {
                    tokio::time::sleep(timeout).await;
                    Err(ExecError::TimedOut(timeout))
                }
                Answer::Silent => std::future::pending().await,
                Answer::Broken => Err(ExecError::Failed(format!("no container {timeout:?}"))),
                Answer::Panic => panic!("on purpose"),
            };
            self.running.lock().unwrap().0 -= 1;
            result
        })
    }
}

fn probe(container: &str, id: &str, kind: Kind, period: u64, thresholds: (u32, u32)) -> Probe {
    Probe {
        container: container.into(),
        container_id: id.into(),
        kind,
        spec: Spec {
            check: Check::Exec { command: vec!["true".into()] },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(period),
            timeout: Duration::from_secs(1),
            success_threshold: thresholds.0,
            failure_threshold: thresholds.1,
        },
        started_at: SystemTime::now() + Duration::from_secs(1),
    }
}

fn start(script: &Arc<Script>, limits: Limits) -> (Driver, mpsc::Receiver<ProbeEvent>, CancellationToken) {
    let cancel = CancellationToken::new();
    let (driver, events, _task) = Driver::spawn(script.clone(), limits, cancel.clone());
    (driver, events, cancel)
}

async fn wait(rx: &mut watch::Receiver<Arc<Verdicts>>, container: &str, kind: Kind, state: State) -> Verdict {
    let key = (container.to_owned(), kind);
    let found = rx.wait_for(|v| v.get(&key).is_some_and(|v| v.state == state));
    let verdicts = tokio::time::timeout(Duration::from_secs(3600), found).await.expect("verdict in time").expect("driver runs");
    verdicts[&key].clone()
}

#[tokio::test(start_paused = true)]
async fn readiness_flips_at_its_thresholds_and_says_why() {
    let script = Script::new(|_, n| Answer::Code(i32::from(!(2..5).contains(&n))));
    let (driver, mut events, _cancel) = start(&script, Limits::default());
    driver.set("u", vec![probe("c", "c1", Kind::Readiness, 10, (2, 3))], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    let first = rx.borrow_and_update()[&("c".to_owned(), Kind::Readiness)].clone();
    assert_eq!((first.state, first.container_id.as_str()), (State::Failure, "c1"));
    wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    assert_eq!(script.times("c1"), [0, 10, 20, 30]);
    let down = wait(&mut rx, "c", Kind::Readiness, State::Failure).await;
    assert_eq!(script.times("c1").last(), Some(&70));
    assert_eq!(down.message, "out err");
    let event = events.recv().await.unwrap();
    assert_eq!((event.outcome, event.message.as_str()), (EventKind::Failure, "Readiness probe failed: out err"));
}

#[tokio::test(start_paused = true)]
async fn initial_delay_and_startup_hold_the_others_back() {
    let script = Script::new(|_, n| Answer::Code(i32::from(n < 2)));
    let (driver, _events, _cancel) = start(&script, Limits::default());
    let mut startup = probe("c", "c1", Kind::Startup, 5, (1, 10));
    startup.spec.initial_delay = Duration::from_secs(7);
    startup.started_at = SystemTime::now();
    let ready = probe("c", "c1", Kind::Readiness, 10, (1, 3));
    driver.set("u", vec![ready, startup], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    assert_eq!(rx.borrow_and_update()[&("c".to_owned(), Kind::Startup)].state, State::Unknown);
    wait(&mut rx, "c", Kind::Startup, State::Success).await;
    let times = script.times("c1");
    assert!(times[0] >= 6 && times.len() <= 4, "{times:?}");
    wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    // Three startup checks (two failed), then readiness at once.
    let times = script.times("c1");
    assert_eq!(times.len(), 4, "{times:?}");
    assert_eq!(times[3], times[2]);
    // The startup probe is over.
    tokio::time::sleep(Duration::from_secs(105)).await;
    assert_eq!(script.times("c1").len(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_is_probed_no_more_until_the_container_is_another() {
    let script = Script::new(|id, _| Answer::Code(i32::from(id == "old")));
    let (driver, _events, _cancel) = start(&script, Limits::default());
    driver.set("u", vec![probe("c", "old", Kind::Liveness, 10, (1, 3))], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    assert_eq!(rx.borrow_and_update()[&("c".to_owned(), Kind::Liveness)].state, State::Success);
    wait(&mut rx, "c", Kind::Liveness, State::Failure).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    // The first comes as soon as it may, and is not held against a container that has just begun.
    assert_eq!(script.times("old"), [0, 10, 20, 30]);
    driver.set("u", vec![probe("c", "new", Kind::Liveness, 10, (1, 3))], InitialVerdicts::new()).await;
    let verdict = wait(&mut rx, "c", Kind::Liveness, State::Success).await;
    assert_eq!(verdict.container_id, "new");
}

#[tokio::test(start_paused = true)]
async fn results_of_a_replaced_container_count_for_nothing() {
    let script = Script::new(|id, _| if id == "old" { Answer::After(Duration::from_millis(900), 0) } else { Answer::Code(1) });
    let (driver, _events, _cancel) = start(&script, Limits::default());
    driver.set("u", vec![probe("c", "old", Kind::Readiness, 10, (1, 1))], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(script.times("old"), [0]);
    driver.set("u", vec![probe("c", "new", Kind::Readiness, 10, (1, 1))], InitialVerdicts::new()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let verdict = rx.borrow_and_update()[&("c".to_owned(), Kind::Readiness)].clone();
    assert_eq!((verdict.container_id.as_str(), verdict.state), ("new", State::Failure));
}

#[tokio::test(start_paused = true)]
async fn the_same_set_again_changes_nothing() {
    let script = Script::new(|_, _| Answer::Code(0));
    let (driver, _events, _cancel) = start(&script, Limits::default());
    let set = vec![probe("c", "c1", Kind::Readiness, 10, (1, 1))];
    driver.set("u", set.clone(), InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    rx.borrow_and_update();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        driver.set("u", set.clone(), InitialVerdicts::new()).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(script.times("c1"), [0, 10, 20, 30]);
    assert!(!rx.has_changed().unwrap(), "readers sleep while nothing changes");
    driver.remove("u").await;
    assert!(rx.changed().await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.times("c1").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn hung_checks_delay_nobody_and_end() {
    let script = Script::new(|id, _| if id.starts_with("hung") { Answer::Hang } else { Answer::Code(0) });
    let (driver, mut events, _cancel) = start(&script, Limits::default());
    for i in 0..20 {
        let id = format!("hung{i}");
        driver.set(&id, vec![probe("c", &id, Kind::Liveness, 10, (1, 2))], InitialVerdicts::new()).await;
    }
    driver.set("fine", vec![probe("c", "fine", Kind::Readiness, 1, (1, 1))], InitialVerdicts::new()).await;
    let mut hung = driver.verdicts("hung7").await;
    wait(&mut hung, "c", Kind::Liveness, State::Failure).await;
    // The failure that counts second comes two periods after the first check, which is forgiven, plus the timeout.
    let fine = script.times("fine");
    assert_eq!(fine, (0..fine.len() as u64).collect::<Vec<_>>());
    assert!((21..=23).contains(&(fine.len() as u64)), "{fine:?}");
    let event = events.recv().await.unwrap();
    assert_eq!(event.message, "Liveness probe failed: command timed out: \"true\" timed out after 1s");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_says_nothing_says_nothing_of_the_container() {
    let script = Script::new(|_, n| match n {
        0..3 => Answer::Silent,
        3 => Answer::Code(0),
        _ => Answer::Code(1),
    });
    let (driver, mut events, _cancel) = start(&script, Limits::default());
    driver.set("u", vec![probe("c", "c1", Kind::Liveness, 10, (1, 1))], InitialVerdicts::new()).await;
    let rx = driver.verdicts("u").await;
    let event = events.recv().await.unwrap();
    assert_eq!(rx.borrow()[&("c".to_owned(), Kind::Liveness)].state, State::Success);
    assert_eq!(event.message, "Liveness probe errored and resulted in unknown state: nobody says what became of \"true\"");
    let mut rx = driver.verdicts("u").await;
    wait(&mut rx, "c", Kind::Liveness, State::Failure).await;
}

#[tokio::test(start_paused = true)]
async fn another_period_keeps_the_verdicts_and_what_was_decided() {
    let script = Script::new(|id, _| if id == "c2" { Answer::Hang } else { Answer::Code(0) });
    let (driver, _events, _cancel) = start(&script, Limits::default());
    let all = |period| [Kind::Startup, Kind::Readiness].map(|k| probe("c", "c1", k, period, (1, 3))).to_vec();
    driver.set("u", all(10), InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    assert_eq!(script.times("c1"), [0, 0]);
    driver.set("u", all(2), InitialVerdicts::new()).await;
    // Driver and test take turns: the answer comes after the new set.
    let now = driver.verdicts("u").await.borrow().clone();
    assert!(now.len() == 2 && now.values().all(|v| v.state == State::Success), "{now:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The startup probe is over, the other goes on at its new pace.
    assert_eq!(script.times("c1"), [0, 0, 0, 2, 4]);
    // Of another container nothing is known.
    let other = all(2).into_iter().map(|p| Probe { container_id: "c2".into(), ..p }).collect();
    rx.borrow_and_update();
    driver.set("u", other, InitialVerdicts::new()).await;
    rx.changed().await.unwrap();
    let now = rx.borrow_and_update().clone();
    assert!(now.values().all(|v| v.container_id == "c2" && v.state != State::Success), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn commands_give_way_to_starts_for_a_tenth_of_their_period() {
    let script = Script::new(|id, n| Answer::Code(i32::from(id == "unready" && n == 0)));
    let (driver, _events, _cancel) = start(&script, Limits::default());
    let first = driver.precede();
    let mut all = Vec::new();
    for (id, kind, period) in [("long", Kind::Liveness, 60), ("short", Kind::Liveness, 5), ("unready", Kind::Readiness, 5)] {
        driver.set(id, vec![probe("c", id, kind, period, (1, 1))], InitialVerdicts::new()).await;
        all.push(driver.verdicts(id).await);
    }
    let at = |id: &str, n: usize| {
        let calls = script.calls.lock().unwrap();
        calls.iter().filter(|(c, _)| c == id).nth(n).map(|(_, t)| t.as_millis())
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((at("long", 0), at("short", 0)), (None, None));
    assert!(at("unready", 0).is_some_and(|t| t < 50), "it is part of a start: {:?}", at("unready", 0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let times = (at("long", 0).unwrap(), at("short", 0).unwrap());
    assert!((1000..1050).contains(&times.0) && (500..550).contains(&times.1), "{times:?}");
    // The next one is where it was to be, and goes when the start is over: not between two of its steps.
    tokio::time::sleep(Duration::from_millis(3000)).await;
    let second = driver.precede();
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = driver.precede();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(at("short", 1), None);
    drop(third);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let next = at("short", 1).unwrap();
    assert!((5300..5450).contains(&next), "{next}");
}

#[tokio::test(start_paused = true)]
async fn few_commands_begin_at_once_and_slow_ones_hold_nobody_up() {
    let script = Script::new(|_, _| Answer::After(Duration::from_millis(900), 0));
    let (driver, _events, _cancel) = start(&script, Limits { begins: 2, ..Limits::default() });
    for i in 0..20 {
        let id = format!("c{i}");
        driver.set(&id, vec![probe("c", &id, Kind::Liveness, 10, (1, 1))], InitialVerdicts::new()).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut begun: Vec<u64> = script.calls.lock().unwrap().iter().map(|(_, t)| t.as_millis() as u64 / 100).collect();
    begun.sort_unstable();
    assert_eq!(begun, (0..20).map(|n| n / 2).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_allowed() {
    let script = Script::new(|_, _| Answer::After(Duration::from_millis(200), 0));
    let (driver, _events, _cancel) = start(&script, Limits { exec: 3, ..Limits::default() });
    for i in 0..12 {
        let id = format!("c{i}");
        driver.set(&id, vec![probe("c", &id, Kind::Readiness, 60, (1, 1))], InitialVerdicts::new()).await;
    }
    for i in 0..12 {
        let mut rx = driver.verdicts(&format!("c{i}")).await;
        wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    }
    assert_eq!(script.running.lock().unwrap().1, 3);
}

#[tokio::test(start_paused = true)]
async fn hung_checks_do_not_use_up_the_slots() {
    let script = Script::new(|id, _| if id.starts_with("hung") { Answer::Hang } else { Answer::Code(0) });
    let (driver, _events, _cancel) = start(&script, Limits { exec: 2, ..Limits::default() });
    for i in 0..10 {
        let id = format!("hung{i}");
        let mut hung = probe("c", &id, Kind::Liveness, 600, (1, 1));
        hung.spec.timeout = Duration::from_secs(600);
        driver.set(&id, vec![hung], InitialVerdicts::new()).await;
    }
    driver.set("fine", vec![probe("c", "fine", Kind::Readiness, 10, (1, 1))], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("fine").await;
    wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    assert!(script.epoch.elapsed() < Duration::from_secs(6), "{:?}", script.epoch.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_checked_is_tried_thrice_and_not_counted() {
    let script = Script::new(|_, n| match n {
        0 => Answer::Code(0),
        1..4 => Answer::Broken,
        4 => Answer::Panic,
        _ => Answer::Code(0),
    });
    let (driver, mut events, _cancel) = start(&script, Limits::default());
    driver.set("u", vec![probe("c", "c1", Kind::Readiness, 10, (1, 1))], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    wait(&mut rx, "c", Kind::Readiness, State::Success).await;
    rx.borrow_and_update();
    let event = events.recv().await.unwrap();
    assert_eq!(event.message, "Readiness probe errored and resulted in unknown state: no container 1s");
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(script.times("c1"), [0, 10, 10, 10, 20, 30]);
    assert!(!rx.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn after_an_agents_restart_nothing_flips_and_first_checks_spread() {
    let script = Script::new(|_, _| Answer::Code(0));
    let (driver, _events, _cancel) = start(&script, Limits::default());
    for i in 0..30 {
        let id = format!("c{i}");
        let mut ready = probe("c", &id, Kind::Readiness, 30, (1, 1));
        let mut startup = probe("c", &id, Kind::Startup, 30, (1, 1));
        ready.started_at = SystemTime::now() - Duration::from_secs(3600);
        startup.started_at = ready.started_at;
        let known = [Kind::Readiness, Kind::Startup].map(|k| ((id.clone(), k), State::Success));
        driver.set(&id, vec![ready, startup], InitialVerdicts::from(known)).await;
        let rx = driver.verdicts(&id).await;
        assert!(rx.borrow().values().all(|v| v.state == State::Success));
    }
    // One that is not ready yet is looked at soon, even if its turn comes every ten minutes.
    let mut late = probe("c", "unready", Kind::Readiness, 600, (1, 1));
    late.started_at = SystemTime::now() - Duration::from_secs(3600);
    driver.set("unready", vec![late], InitialVerdicts::new()).await;
    wait(&mut driver.verdicts("unready").await, "c", Kind::Readiness, State::Success).await;
    assert!(script.epoch.elapsed() < Duration::from_secs(2), "{:?}", script.epoch.elapsed());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let firsts: BTreeSet<u64> = (0..30).map(|i| script.times(&format!("c{i}"))[0]).collect();
    assert!(firsts.len() > 12, "spread over the period: {firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_it_ends_and_closes_the_verdicts() {
    let script = Script::new(|_, _| Answer::Hang);
    let cancel = CancellationToken::new();
    let (driver, _events, task) = Driver::spawn(script.clone(), Limits::default(), cancel.clone());
    driver.set("u", vec![probe("c", "c1", Kind::Liveness, 10, (1, 1))], InitialVerdicts::new()).await;
    let mut rx = driver.verdicts("u").await;
    cancel.cancel();
    task.await.unwrap();
    rx.borrow_and_update();
    assert!(rx.changed().await.is_err());
    driver.set("u", Vec::new(), InitialVerdicts::new()).await;
    assert!(driver.verdicts("v").await.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn checks_are_counted_over_all_containers_of_a_name() {
    let script = Script::new(|id, n| match (id, n) {
        ("broken", _) => Answer::Broken,
        (_, 0) => Answer::After(Duration::from_millis(30), 0),
        (_, n) => Answer::Code(i32::from(n == 1)),
    });
    let (driver, _events, _cancel) = start(&script, Limits::default());
    assert_eq!(driver.tallies().await, []);
    driver.set("u", vec![probe("c", "c1", Kind::Readiness, 10, (1, 3))], InitialVerdicts::new()).await;
    driver.set("v", vec![probe("c", "broken", Kind::Readiness, 10, (1, 3))], InitialVerdicts::new()).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(script.times("c1").len(), 3);
    let all = driver.tallies().await;
    assert_eq!(all.len(), 1, "a check that cannot be made is none: {all:?}");
    let tally = all[0].tally;
    assert_eq!((tally.successful, tally.failed), (2, 1));
    assert_eq!(tally.within.iter().sum::<u32>(), 2);
    assert!(tally.seconds >= 0.03 && tally.within[3] == 1, "{tally:?}");
    driver.set("u", vec![probe("c", "c2", Kind::Readiness, 10, (1, 3))], InitialVerdicts::new()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(driver.tallies().await[0].tally.successful, 3, "the next container of the name");
    driver.remove("u").await;
    assert_eq!(driver.tallies().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_comes_up_within_its_first_period_is_not_ended_for_having_been_asked_at_once() {
    let script = Script::new(|_, n| Answer::Code(i32::from(n == 0)));
    let (driver, mut events, _cancel) = start(&script, Limits::default());
    driver.set("u", vec![probe("c", "c1", Kind::Liveness, 10, (1, 1))], InitialVerdicts::new()).await;
    let rx = driver.verdicts("u").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rx.borrow()[&("c".to_owned(), Kind::Liveness)].state, State::Success);
    assert!(events.try_recv().is_err(), "nothing is said of it");
}
