//! The format of files that hold environment variables (`fileKeyRef`), a small part of what a POSIX shell reads:
//! `NAME='value'`, where the value may go over several lines, blank lines and lines that begin with `#`. Pure: reads from what
//! it is given.
//!
//! The file is a container's and may hold anything, of any size: it is read line by line, and no more of it is kept than one line
//! and one value. Errors name the line, never what stands there, which may be secret.

use std::io::{BufRead, Read};

/// The longest line, its end included; kubelet reads no longer one either.
const LINE: u64 = 64 << 10;
/// The longest text that Linux hands to a process in one piece.
pub const VALUE: usize = 128 << 10;
/// No more of a file is looked at, so that none keeps the agent busy for ever.
pub const FILE: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("line {line}: {why}")]
    Format { line: u64, why: &'static str },
    #[error("no such variable in its first {FILE} bytes, and no more are read")]
    TooBig,
    #[error("read: {0}")]
    Read(#[from] std::io::Error),
    /// What was to be read could not be opened safely.
    #[error("{0}")]
    Open(String),
}

/// The value of the first variable of that name. `None`: there is none, or there is white space between `=` and the value, which
/// means an empty value. What follows the variable is not looked at.
pub fn find(input: impl Read, key: &str) -> Result<Option<String>, FileError> {
    let mut lines = Lines { input: std::io::BufReader::new(input.take(FILE + 1)), read: 0, number: 0, line: Vec::new() };
    while lines.next()? {
        let format = |line, why| Err(FileError::Format { line, why });
        let start = lines.number;
        let line = blank_trimmed(&lines.line);
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let Some(at) = line.iter().position(|b| *b == b'=') else { return format(start, "missing '='") };
        let (name, value) = (&line[..at], &line[at + 1..]);
        match name.last() {
            None => return format(start, "empty variable name"),
            Some(b' ' | b'\t') => return format(start, "whitespace before '=' is not allowed"),
            Some(_) => {}
        }
        let wanted = name == key.as_bytes();
        if matches!(value.first(), Some(b' ' | b'\t')) {
            if wanted {
                return Ok(None);
            }
            continue;
        }
        let Some(rest) = value.strip_prefix(b"'") else { return format(start, "value must be enclosed in single quotes") };
        let mut rest = rest.to_vec();
        let mut text = Vec::new();
        loop {
            let closing = rest.iter().position(|b| *b == b'\'');
            if wanted {
                text.extend_from_slice(&rest[..closing.unwrap_or(rest.len())]);
            }
            if text.len() > VALUE {
                return format(start, "value is longer than any process can be given");
            }
            if let Some(at) = closing {
                let after = blank_trimmed(&rest[at + 1..]);
                if !after.is_empty() && after[0] != b'#' {
                    return format(lines.number, "unexpected content after closing quote");
                }
                break;
            }
            if wanted {
                text.push(b'\n');
            }
            if !lines.next()? {
                return format(start, "unclosed single quote");
            }
            std::mem::swap(&mut rest, &mut lines.line);
        }
        if wanted {
            return match String::from_utf8(text) {
                Ok(text) => Ok(Some(text).filter(|t| !t.is_empty())),
                Err(_) => format(start, "value is not UTF-8 text"),
            };
        }
    }
    Ok(None)
}

/// Without the spaces and tabs in front.
fn blank_trimmed(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    &line[start..]
}

struct Lines<R> {
    input: R,
    read: u64,
    number: u64,
    /// The current one, without its end.
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// False at the end of the file.
    fn next(&mut self) -> Result<bool, FileError> {
        self.line.clear();
        let n = (&mut self.input).take(LINE).read_until(b'\n', &mut self.line)? as u64;
        self.read += n;
        if self.read > FILE {
            return Err(FileError::TooBig);
        }
        if n == 0 {
            return Ok(false);
        }
        self.number += 1;
        let ended = self.line.pop_if(|b| *b == b'\n').is_some();
        if !ended && n == LINE {
            return Err(FileError::Format { line: self.number, why: "the line is too long" });
        }
        self.line.pop_if(|b| *b == b'\r');
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
