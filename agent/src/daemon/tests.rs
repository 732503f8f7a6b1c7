use super::*;
use futures::FutureExt;
use std::cell::Cell;

#[tokio::test]
async fn readiness_is_announced_once_when_the_api_has_taken_it() {
    let (sender, progress) = watch::channel(report::Progress::default());
    let said = Cell::new(0);
    let mut announcing = Box::pin(announce(progress, || said.set(said.get() + 1)));
    assert!(announcing.as_mut().now_or_never().is_none());
    sender.send_modify(|p| p.registered = true);
    assert!(announcing.as_mut().now_or_never().is_none());
    assert_eq!(said.get(), 0, "registered is not ready");
    for ready in [true, false, true] {
        sender.send_modify(|p| p.ready = ready);
        assert!(announcing.as_mut().now_or_never().is_none());
    }
    assert_eq!(said.get(), 1);
    drop(sender);
    assert!(announcing.as_mut().now_or_never().is_none(), "its end would end the process");
}

#[tokio::test]
async fn the_end_waits_for_statuses_but_not_for_ever() {
    let (bring, brought) = tokio::sync::oneshot::channel::<()>();
    let mut slow = Dispatcher(tokio::spawn(async move { brought.await.unwrap() }));
    assert!(!slow.flush(Duration::from_millis(50)).await);
    bring.send(()).unwrap();
    assert!(slow.flush(FLUSH).await);
}

#[tokio::test]
async fn a_task_that_ends_by_itself_is_named() {
    let mut supervisor = Supervisor::default();
    supervisor.watch("one", tokio::spawn(std::future::pending()));
    supervisor.watch("two", tokio::spawn(async {}));
    assert!(matches!(supervisor.first_end().await, Error::Ended("two")));
    supervisor.watch("three", tokio::spawn(async { std::panic::panic_any(()) }));
    assert!(matches!(supervisor.first_end().await, Error::Panicked("three")));
}
