//! PodLogOptions from a query. Pure.

use jiff::Timestamp;
use std::time::Duration;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    /// Nothing older than this.
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub streams: Streams,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streams {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// Reads and checks a query; the error names the parameter.
pub fn parse(query: &str, now: Timestamp) -> Result<Options, String> {
    let mut options = Options::default();
    let (mut since_seconds, mut since_time) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = value.as_ref();
        match name.as_ref() {
            "follow" => options.follow = boolean("follow", value)?,
            "previous" => options.previous = boolean("previous", value)?,
            "timestamps" => options.timestamps = boolean("timestamps", value)?,
            "sinceSeconds" => since_seconds = Some(number("sinceSeconds", value, 1)?),
            "sinceTime" if !value.is_empty() => {
                let time = value.parse::<Timestamp>();
                since_time = Some(time.map_err(|_| format!("sinceTime: {value:?} is not an RFC 3339 time"))?);
            }
            "tailLines" => options.tail_lines = Some(number("tailLines", value, 0)?),
            // The old name, and its word for everything.
            "tail" if value != "all" => options.tail_lines = Some(number("tail", value, 0)?),
            "limitBytes" => options.limit_bytes = Some(number("limitBytes", value, 1)?),
            "stream" => {
                options.streams = match value {
                    "" | "All" => Streams::All,
                    "Stdout" => Streams::Stdout,
                    "Stderr" => Streams::Stderr,
                    other => return Err(format!("stream: {other:?} must be All, Stdout or Stderr")),
                }
            }
            _ => {}
        }
    }
    if options.tail_lines.is_some() && options.streams != Streams::All {
        return Err("tailLines: only possible for all streams together".to_owned());
    }
    options.since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => return Err("at most one of sinceTime and sinceSeconds may be given".to_owned()),
        (Some(seconds), None) => Some(now.checked_sub(Duration::from_secs(seconds)).unwrap_or(Timestamp::MIN)),
        (None, time) => time,
    };
    Ok(options)
}

fn boolean(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("{name}: {other:?} is not a boolean")),
    }
}

fn number(name: &str, value: &str, least: u64) -> Result<u64, String> {
    match value.parse::<u64>() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("{name}: {value:?} must be a whole number of at least {least}")),
    }
}

#[cfg(test)]
mod tests;
