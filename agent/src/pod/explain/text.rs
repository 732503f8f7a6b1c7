//! Words and durations for people.

use std::time::Duration;

/// The longest text that is passed on, in characters: some of it comes from containers and registries.
const LONGEST: usize = 1000;

/// A duration by its two largest units: `34 s`, `2 min 5 s`, `3 h 20 min`, `4 d 1 h`.
pub fn span(d: Duration) -> String {
    // What is left of a second counts as one: nothing is due in 0 s.
    let s = d.as_secs() + u64::from(d.subsec_nanos() > 0 && d.as_secs() < 60);
    let two = |a: u64, unit: &str, b: u64, small: &str| match b {
        0 => format!("{a} {unit}"),
        b => format!("{a} {unit} {b} {small}"),
    };
    match s {
        0..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s / 60 % 60, "min"),
        _ => two(s / 86_400, "d", s / 3600 % 24, "h"),
    }
}

/// One line that can do no harm on a terminal, and not too long.
pub fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(4 * LONGEST));
    for (n, c) in text.trim_end().chars().enumerate() {
        if n == LONGEST {
            out.push('…');
            break;
        }
        // What turns the direction of text around hides what is said.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        out.push(if c.is_control() || turns { ' ' } else { c });
    }
    out
}
