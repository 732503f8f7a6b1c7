//! Prometheus' text format, with the time of each value.

use jiff::Timestamp;
use std::fmt::Write as _;

/// A page under construction. Families that have no value are left out.
pub(super) struct Page {
    text: String,
    at: i64,
}

impl Page {
    pub(super) fn new(at: Timestamp) -> Page {
        Page { text: String::new(), at: at.as_millisecond() }
    }

    pub(super) fn family<'a, L: AsRef<[(&'a str, &'a str)]>>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, Option<f64>)>,
    ) {
        let mut headed = false;
        for (labels, value) in values {
            let Some(value) = value else { continue };
            if !headed {
                headed = true;
                // Writing to a string cannot fail.
                let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            self.text.push_str(name);
            self.labels(labels.as_ref());
            let _ = writeln!(self.text, " {value} {}", self.at);
        }
    }

    fn labels(&mut self, labels: &[(&str, &str)]) {
        for (i, (name, value)) in labels.iter().enumerate() {
            self.text.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }

    pub(super) fn done(self) -> String {
        self.text
    }
}

pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_escaped_labels_and_a_time() {
        let mut page = Page::new(Timestamp::from_millisecond(1500).unwrap());
        page.family("a_bytes", "gauge", "What.", [([("x", "q\"\\\n")], Some(1.5)), ([("x", "none")], None)]);
        page.family("b_total", "counter", "Not there.", [([("x", "none")], None)]);
        page.family("c_total", "counter", "Bare.", [([], Some(3.0))]);
        let wanted = "# HELP a_bytes What.\n# TYPE a_bytes gauge\na_bytes{x=\"q\\\"\\\\\\n\"} 1.5 1500\n# HELP c_total Bare.\n# TYPE c_total counter\nc_total 3 1500\n";
        assert_eq!(page.done(), wanted);
    }
}
