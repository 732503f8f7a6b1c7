use super::*;

struct Fixed(Result<ExecOutcome, ExecError>);

impl Exec for Fixed {
    fn exec(&self, _: &str, _: &[String], _: Duration) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        let answer = self.0.clone();
        Box::pin(async move { answer })
    }
}

async fn outcome(answer: Result<ExecOutcome, ExecError>) -> Outcome {
    let exec: Arc<dyn Exec> = Arc::new(Fixed(answer));
    probe(&exec, "id", &["a".into(), "b".into()], Duration::from_secs(90)).await
}

#[tokio::test]
async fn the_exit_code_decides() {
    assert_eq!(outcome(Ok(ExecOutcome::default())).await, Outcome::Success);
    let failed = ExecOutcome { exit_code: 3, stdout: vec![b'x'; 20_000], stderr: b"e".into() };
    assert_eq!(outcome(Ok(failed)).await, Outcome::Failure("x".repeat(MAX_OUTPUT)));
    let late = Outcome::Failure("command timed out: \"a b\" timed out after 1m30s".into());
    assert_eq!(outcome(Err(ExecError::TimedOut(Duration::from_secs(90)))).await, late);
    assert_eq!(outcome(Err(ExecError::Failed("gone".into()))).await, Outcome::Error("gone".into()));
}

#[test]
fn durations_read_as_operators_know_them() {
    let human = |ms| super::super::human(Duration::from_millis(ms));
    assert_eq!([1000, 90_000, 3_605_000, 200, 1500].map(human), ["1s", "1m30s", "1h0m5s", "200ms", "1.5s"]);
}
