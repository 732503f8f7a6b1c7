use super::*;

#[test]
fn queries() {
    let now: Timestamp = "2020-01-01T00:01:00Z".parse().unwrap();
    let options = parse("follow=true&tailLines=5&sinceSeconds=60&timestamps=1&limitBytes=9&previous=false&other=1", now).unwrap();
    assert!(options.follow && options.timestamps && !options.previous);
    assert_eq!((options.tail_lines, options.limit_bytes), (Some(5), Some(9)));
    assert_eq!(options.since.unwrap().to_string(), "2020-01-01T00:00:00Z");
    let time = parse("sinceTime=2020-01-01T01%3A00%3A00%2B01%3A00&tail=all", now).unwrap();
    assert_eq!(time.since.unwrap().to_string(), "2020-01-01T00:00:00Z");
    for (query, named) in [
        ("tailLines=-1", "tailLines: \"-1\""),
        ("limitBytes=0", "limitBytes: \"0\""),
        ("sinceSeconds=0", "sinceSeconds: \"0\""),
        ("sinceTime=yesterday", "sinceTime: \"yesterday\""),
        ("follow=maybe", "follow: \"maybe\""),
        ("sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z", "at most one"),
        ("stream=Stdin", "stream: \"Stdin\""),
        ("stream=Stdout&tailLines=1", "tailLines: only"),
    ] {
        let error = parse(query, now).unwrap_err();
        assert!(error.starts_with(named), "{query}: {error}");
    }
}
