use super::*;
use proptest::prelude::*;

#[test]
fn lines_of_the_format() {
    let line = parse(b"2016-10-06T00:17:09.669794202Z stdout F log content 1\n").unwrap();
    assert_eq!(
        (line.time, line.stream, line.partial, line.content),
        ("2016-10-06T00:17:09.669794202Z", Stream::Stdout, false, &b"log content 1"[..])
    );
    let line = parse(b"t stderr P:x:y  two  spaces").unwrap();
    assert_eq!((line.stream, line.partial, line.content), (Stream::Stderr, true, &b" two  spaces"[..]));
    assert_eq!(parse(b"t stdout F \n").unwrap().content, b"");
    assert_eq!(parse(b"t stdout F\n").unwrap().content, b"");
    for bad in [&b""[..], b"t", b"t stdout", b"t stdin F x", b"t stdout X x", b" stdout F x", b"{\"log\": 1}", b"\xff stdout F x"]
    {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

fn show(options: Options, lines: &[&str]) -> String {
    let (mut show, mut out) = (Show::new(&options), Vec::new());
    for line in lines {
        if show.line(line.as_bytes(), &mut out) == More::No {
            break;
        }
    }
    String::from_utf8(out).unwrap()
}

const T1: &str = "2020-01-01T00:00:01Z";
const T2: &str = "2020-01-01T00:00:02.5Z";

#[test]
fn parts_are_joined_and_options_respected() {
    let lines = [
        format!("{T1} stdout P ab").as_str(),
        &format!("{T1} stdout F cd"),
        &format!("{T2} stderr F e"),
        "junk",
        &format!("{T2} stdout F"),
    ]
    .map(str::to_owned);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(show(Options::default(), &lines), "abcd\ne\n\n");
    let timestamps = Options { timestamps: true, ..Options::default() };
    assert_eq!(show(timestamps, &lines), format!("{T1} abcd\n{T2} e\n{T2} \n"));
    let since = Options { since: Some("2020-01-01T00:00:02Z".parse().unwrap()), ..Options::default() };
    assert_eq!(show(since, &lines), "e\n\n");
    let stderr = Options { streams: Streams::Stderr, ..Options::default() };
    assert_eq!(show(stderr, &lines), "e\n");
    for (limit, seen) in [(1, "a"), (2, "ab"), (5, "abcd\n"), (6, "abcd\ne"), (100, "abcd\ne\n\n")] {
        assert_eq!(show(Options { limit_bytes: Some(limit), ..Options::default() }, &lines), seen);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
        Show::new(&Options::default()).line(&bytes, &mut Vec::new());
    }

    /// Whatever a container writes, however the runtime cuts it, is what is shown.
    #[test]
    fn what_was_written_is_shown(pieces in prop::collection::vec(("[^\n]{0,20}", any::<bool>()), 0..20), limit in prop::option::of(1u64..200)) {
        let mut written = String::new();
        let mut file = Vec::new();
        for (content, partial) in &pieces {
            file.push(format!("{T1} stdout {} {content}\n", if *partial { 'P' } else { 'F' }));
            written.push_str(content);
            if !partial {
                written.push('\n');
            }
        }
        let options = Options { limit_bytes: limit, ..Options::default() };
        let (mut show, mut out) = (Show::new(&options), Vec::new());
        let mut more = More::Yes;
        for line in &file {
            if more == More::Yes {
                more = show.line(line.as_bytes(), &mut out);
            }
        }
        let wanted = &written.as_bytes()[..limit.map_or(written.len(), |limit| written.len().min(limit as usize))];
        prop_assert_eq!(&out[..], wanted);
    }
}
