//! Lines of a container's log, a file that the container's own output shapes: never more is shown than the line has or the client asked for.
#![no_main]

use ferrolet::server::logs::line::{More, Show, parse};
use ferrolet::server::logs::options;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (query, log) = input;
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let Ok(options) = options::parse(query, now) else { return };
    let mut show = Show::new(&options);
    let mut out = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let before = out.len();
        let more = show.line(line, &mut out);
        if let Some(parsed) = parse(line) {
            assert!(parsed.content.len() < line.len());
        }
        assert!(out.len() - before <= line.len() + 1);
        if more == More::No {
            break;
        }
    }
    if let Some(limit) = options.limit_bytes {
        assert!(out.len() as u64 <= limit);
    }
});
