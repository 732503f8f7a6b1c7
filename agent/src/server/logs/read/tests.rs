use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Living(Arc<AtomicBool>);

impl Alive for Living {
    async fn alive(&mut self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
    alive: Arc<AtomicBool>,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Log { path: dir.path().join("0.log"), _dir: dir, alive: Arc::new(AtomicBool::new(true)) }
    }

    fn write(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(&self, content: &str) {
        self.write(&format!("2020-01-01T00:00:00Z stdout F {content}\n"));
    }

    fn read(&self, options: Options) -> Shown {
        let (out, shown) = mpsc::channel(4);
        tokio::spawn(run(self.path.clone(), options, Living(self.alive.clone()), out));
        Shown { shown, seen: String::new() }
    }
}

struct Shown {
    shown: mpsc::Receiver<io::Result<Bytes>>,
    seen: String,
}

impl Shown {
    async fn until(&mut self, text: &str) {
        while self.seen != text {
            let next = tokio::time::timeout(Duration::from_secs(10), self.shown.recv())
                .await
                .unwrap_or_else(|_| panic!("{:?}", self.seen));
            self.seen.push_str(std::str::from_utf8(&next.expect(&self.seen).unwrap()).unwrap());
        }
    }

    async fn all(mut self) -> String {
        while let Some(next) = tokio::time::timeout(Duration::from_secs(10), self.shown.recv()).await.unwrap() {
            self.seen.push_str(std::str::from_utf8(&next.unwrap()).unwrap());
        }
        self.seen
    }
}

fn follow() -> Options {
    Options { follow: true, ..Options::default() }
}

#[tokio::test]
async fn the_whole_file_and_its_tail() {
    let log = Log::new();
    assert_eq!(log.read(Options::default()).all().await, "", "a log that was never written is empty");
    for n in 0..3000 {
        log.line(&n.to_string());
    }
    log.write("2020-01-01T00:00:00Z stdout F cut off");
    let all = log.read(Options::default()).all().await;
    assert_eq!(all.lines().count(), 3001);
    let tail = |lines| log.read(Options { tail_lines: Some(lines), ..Options::default() });
    assert_eq!(tail(3).all().await, "2998\n2999\ncut off\n");
    assert_eq!(tail(0).all().await, "");
    assert_eq!(tail(100_000).all().await.lines().count(), 3001);
}

#[tokio::test]
async fn following_goes_over_rotation_and_ends_with_the_container() {
    let log = Log::new();
    log.line("a");
    let mut shown = log.read(Options { tail_lines: Some(1), ..follow() });
    shown.until("a\n").await;
    log.line("b");
    log.write("2020-01-01T00:00:00Z stdout P half \n");
    shown.until("a\nb\nhalf ").await;
    std::fs::rename(&log.path, log.path.with_extension("old")).unwrap();
    log.line("whole");
    shown.until("a\nb\nhalf whole\n").await;
    log.alive.store(false, Ordering::SeqCst);
    log.line("last");
    assert_eq!(shown.all().await, "a\nb\nhalf whole\nlast\n");
}

#[tokio::test]
async fn following_waits_for_a_file_that_comes_later() {
    let log = Log::new();
    let mut shown = log.read(follow());
    log.line("a");
    shown.until("a\n").await;
    log.alive.store(false, Ordering::SeqCst);
    shown.all().await;
}

#[tokio::test]
async fn a_limit_ends_the_stream_even_when_following() {
    let log = Log::new();
    log.line("abc");
    assert_eq!(log.read(Options { limit_bytes: Some(2), ..follow() }).all().await, "ab");
}

#[tokio::test]
async fn a_client_that_went_away_ends_the_reading() {
    let log = Log::new();
    let (out, shown) = mpsc::channel(1);
    let task = tokio::spawn(run(log.path.clone(), follow(), Living(log.alive.clone()), out));
    drop(shown);
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_tail_is_the_last_lines(lengths in prop::collection::vec(0usize..9000, 0..30), wanted in 0u64..40, ended in any::<bool>()) {
        let mut text: String = lengths.iter().map(|n| "x".repeat(*n) + "\n").collect();
        if !ended {
            text.push('y');
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), &text).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = runtime.block_on(async {
            tail(&mut File::open(dir.path().join("f")).await.unwrap(), wanted).await.unwrap()
        });
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let expected: usize = lines[lines.len().saturating_sub(wanted as usize)..].iter().map(|line| line.len()).sum();
        prop_assert_eq!(text.len() - start as usize, expected);
    }
}
