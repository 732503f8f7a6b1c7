//! One line of a log file in the CRI format, `TIME STREAM TAGS CONTENT`, and the choice of what of it is shown. Pure.

use super::Options;
use super::options::Streams;
use jiff::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    pub stream: Stream,
    /// The container's line goes on in the next one.
    pub partial: bool,
    /// Without the line end.
    pub content: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// `None` for a line that is not in the format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (time, rest) = word(line)?;
    let time = std::str::from_utf8(time).ok().filter(|time| !time.is_empty())?;
    let (stream, rest) = word(rest)?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // An empty line ends right after its tags.
    let (tags, content) = word(rest).unwrap_or((rest, b""));
    // Further tags may follow a colon.
    let first = tags.split(|byte| *byte == b':').next()?;
    let partial = match first {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, content })
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether there is more to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    Yes,
    /// `limitBytes` is used up.
    No,
}

/// Turns lines of the file into what the client sees.
#[derive(Debug)]
pub struct Show {
    timestamps: bool,
    since: Option<Timestamp>,
    streams: Streams,
    left: Option<u64>,
    at_line_start: bool,
}

impl Show {
    pub fn new(options: &Options) -> Self {
        Show {
            timestamps: options.timestamps,
            since: options.since,
            streams: options.streams,
            left: options.limit_bytes,
            at_line_start: true,
        }
    }

    /// Adds what is to be seen of a line. Lines that are not in the format are left out.
    pub fn line(&mut self, raw: &[u8], out: &mut Vec<u8>) -> More {
        let Some(line) = parse(raw) else { return More::Yes };
        let wanted = match self.streams {
            Streams::All => true,
            Streams::Stdout => line.stream == Stream::Stdout,
            Streams::Stderr => line.stream == Stream::Stderr,
        };
        let old = self.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time < since));
        if !wanted || old {
            return More::Yes;
        }
        let begin = out.len();
        if self.timestamps && self.at_line_start {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
        self.at_line_start = !line.partial;
        let Some(left) = &mut self.left else { return More::Yes };
        let added = (out.len() - begin) as u64;
        if added < *left {
            *left -= added;
            return More::Yes;
        }
        out.truncate(begin + *left as usize);
        *left = 0;
        More::No
    }
}

#[cfg(test)]
mod tests;
