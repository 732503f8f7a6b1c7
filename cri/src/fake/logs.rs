//! Log files in the format of the interface: `TIME STREAM F TEXT`.

use std::io::Write;
use std::path::Path;

/// Appends what a process printed. A log that cannot be written loses the output, not the container.
pub(super) fn append(path: &Path, now: i64, stdout: &[u8], stderr: &[u8]) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    for (stream, output) in [("stdout", stdout), ("stderr", stderr)] {
        for line in output.split_inclusive(|byte| *byte == b'\n') {
            let (tag, text) = match line.strip_suffix(b"\n") {
                Some(text) => ("F", text),
                None => ("P", line),
            };
            write!(file, "{} {stream} {tag} ", rfc3339(now))?;
            file.write_all(text)?;
            file.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Days to a date by the civil calendar, counted in eras of 400 years that begin in March.
fn rfc3339(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let since = days + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_794_139_199_500_000_000), "2026-11-08T11:59:59.500000000Z");
    }

    #[test]
    fn whole_and_partial_lines_are_marked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/0.log");
        append(&path, 0, b"one\ntwo", b"bad\n").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let tails: Vec<&str> = text.lines().map(|line| &line[31..]).collect();
        assert_eq!(tails, ["stdout F one", "stdout P two", "stderr F bad"]);
    }
}
