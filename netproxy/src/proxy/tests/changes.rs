use super::*;

#[tokio::test]
async fn changes_are_counted_and_timed_from_when_the_cluster_changed() {
    let mut s = setup(Fake::default());
    s.list(1).await;
    let changed = |pod, at: &str| {
        let mut slice = slice(1, pod);
        slice.metadata.annotations.last_change = Some(at.to_owned());
        Input::Slice(Key::new("ns", "s1"), Some(slice))
    };
    let now = jiff::Timestamp::now().to_string();
    s.inputs.send(changed(2, &now)).await.unwrap();
    s.until("the first change", |stats| stats.endpoint_changes == 1 && stats.programming.count == 1).await;
    s.inputs.send(changed(2, &now)).await.unwrap();
    s.inputs.send(changed(3, "2020-01-01T00:00:00Z")).await.unwrap();
    s.inputs.send(changed(4, "some day")).await.unwrap();
    s.inputs.send(Input::Service(Key::new("ns", "s1"), None)).await.unwrap();
    s.until("the others", |stats| stats.service_changes == 1 && stats.service_changes_pending == 0).await;
    let stats = s.handle.stats();
    assert_eq!((stats.endpoint_changes, stats.endpoint_changes_pending), (3, 0), "an equal slice is no change");
    assert_eq!(stats.programming.count, 1, "not what is older than this process, nor what is no time");
    assert!(stats.last_queued.is_some());
}

#[test]
fn bounds_of_the_programming_latency() {
    let bounds: Vec<f64> = stats::Programming::bounds().collect();
    assert_eq!((bounds.len(), bounds[0], bounds[2], bounds[79]), (80, 0.25, 1.0, 300.0));
    assert!(bounds.is_sorted_by(|a, b| a < b));
    let mut programming = stats::Programming::default();
    for seconds in [0.1, 0.25, 61.0, 1000.0] {
        programming.observe(Duration::from_secs_f64(seconds));
    }
    assert_eq!((programming.counts.iter().sum::<u64>(), programming.count), (3, 4));
    assert_eq!(programming.counts[0], 2);
}
