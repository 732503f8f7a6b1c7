//! Durations as Go writes them (`1h30m`, `1.5s`, `300ms`), read exactly.
//!
//! Pure. The range is that of Go's `time.Duration`, 2^63 - 1 nanoseconds; anything finer than a nanosecond is cut off.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("duration {0:?} is not of the form 1h30m, 1.5s or 300ms")]
    Form(String),
    #[error("duration {text:?} has an unknown unit {unit:?}, expected h, m, s, ms, us or ns")]
    Unit { text: String, unit: String },
    #[error("duration {0:?} has no unit, expected h, m, s, ms, us or ns")]
    NoUnit(String),
    #[error("duration {0:?} is out of range")]
    Range(String),
    #[error("duration {0:?} must not be negative")]
    Negative(String),
}

/// Reads a duration that must not be negative.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let nanos = parse_nanos(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| DurationError::Negative(short(text)))
}

/// Nanoseconds, negative ones included.
pub fn parse_nanos(text: &str) -> Result<i64, DurationError> {
    let form = || DurationError::Form(short(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        None => return Err(form()),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(form());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (value, scale, after) = number(rest).ok_or_else(form)?;
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let unit_nanos = match unit {
            "" => return Err(DurationError::NoUnit(short(text))),
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000u128,
            _ => return Err(DurationError::Unit { text: short(text), unit: short(unit) }),
        };
        let part = value.checked_mul(unit_nanos).ok_or_else(|| DurationError::Range(short(text)))? / scale;
        total = total.checked_add(part).ok_or_else(|| DurationError::Range(short(text)))?;
        if total > i64::MAX as u128 {
            return Err(DurationError::Range(short(text)));
        }
        rest = next;
    }
    let nanos = i64::try_from(total).map_err(|_| DurationError::Range(short(text)))?;
    Ok(if negative { -nanos } else { nanos })
}

/// A decimal number as digits and the power of ten to divide by. Digits beyond what can matter are dropped.
fn number(text: &str) -> Option<(u128, u128, &str)> {
    const SIGNIFICANT: u128 = 1_000_000_000_000_000_000_000;
    let (mut value, mut scale, mut digits, mut fraction) = (0u128, 1u128, 0, false);
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        match c {
            '0'..='9' => {
                digits += 1;
                let digit = u128::from(c as u32 - '0' as u32);
                if fraction && scale >= SIGNIFICANT {
                    continue;
                }
                if value >= SIGNIFICANT {
                    // Any unit makes this out of range; saturate so that the caller notices.
                    value = u128::MAX / 10_000_000_000_000;
                    continue;
                }
                value = value * 10 + digit;
                if fraction {
                    scale *= 10;
                }
            }
            '.' if !fraction => fraction = true,
            _ => {
                end = at;
                break;
            }
        }
    }
    (digits > 0).then(|| (value, scale, &text[end..]))
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
