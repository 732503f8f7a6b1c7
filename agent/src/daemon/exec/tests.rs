use super::*;
use ferrolet_cri::fake::{Fake, Fault, Profile};

async fn ask(fake: &Fake) -> ExecError {
    let exec = CriExec { cri: fake.client().unwrap() };
    exec.exec("c1", &["/true".to_owned()], Duration::from_millis(100)).await.unwrap_err()
}

#[tokio::test]
async fn a_silent_runtime_is_asked_whether_it_is_there() {
    let fake = Fake::start(Profile::newest()).unwrap();
    fake.inject("ExecSync", Fault::error(cri::Code::DeadlineExceeded, "timeout 100ms exceeded"));
    assert_eq!(ask(&fake).await, ExecError::TimedOut(Duration::from_millis(100)));
    fake.clear_faults();
    fake.inject("ExecSync", Fault::Hang);
    assert_eq!(ask(&fake).await, ExecError::TimedOut(Duration::from_millis(100)), "all else it answers");
    fake.inject("Version", Fault::Hang);
    assert_eq!(ask(&fake).await, ExecError::Failed("the container runtime does not answer".into()));
    fake.clear_faults();
    let gone = ask(&fake).await;
    assert!(matches!(&gone, ExecError::Failed(why) if why.contains("c1")), "{gone:?}");
}
