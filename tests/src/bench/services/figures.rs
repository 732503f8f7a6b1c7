//! Percentiles, and the table that is the bench's output. Pure but for printing.

use std::time::Duration;

pub struct Table {
    rows: Vec<[String; 4]>,
}

/// How a figure stands to what it is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Reached,
    Missed,
    /// There is nothing to reach.
    Plain,
}

impl From<bool> for Verdict {
    fn from(reached: bool) -> Verdict {
        if reached { Verdict::Reached } else { Verdict::Missed }
    }
}

impl Table {
    pub fn new() -> Table {
        Table { rows: Vec::new() }
    }

    pub fn row(&mut self, figure: impl Into<String>, measured: impl Into<String>, to_reach: &str, verdict: impl Into<Verdict>) {
        let verdict = match verdict.into() {
            Verdict::Reached => "yes",
            Verdict::Missed => "NO",
            Verdict::Plain => "",
        };
        let row = [figure.into(), measured.into(), to_reach.to_owned(), verdict.to_owned()];
        // At once: a whole run takes minutes.
        println!("  {}: {}", row[0], row[1]);
        self.rows.push(row);
    }

    /// A figure with nothing to reach.
    pub fn note(&mut self, figure: impl Into<String>, measured: impl Into<String>) {
        self.row(figure, measured, "", Verdict::Plain);
    }
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["figure", "measured", "to reach", "reached"].map(str::to_owned);
        let all: Vec<&[String; 4]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for (i, row) in all.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join(" | ").trim_end())?;
            if i == 0 {
                writeln!(f, "{}", widths.map(|w| "-".repeat(w)).join("-|-"))?;
            }
        }
        Ok(())
    }
}

/// The value that this part of all are not above; zero for none.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    sorted[((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1).min(last)]
}

pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(values: &[f64]) -> f64 {
    percentile(&sorted(values.to_vec()), 0.5)
}

pub fn milliseconds(all: &[Duration]) -> Vec<f64> {
    sorted(all.iter().map(|d| d.as_secs_f64() * 1e3).collect())
}

/// The middle half of the values, as parts of the median.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let all = sorted(values.to_vec());
    let middle = percentile(&all, 0.5);
    (percentile(&all, 0.25) / middle - 1.0, percentile(&all, 0.75) / middle - 1.0)
}

#[cfg(test)]
mod tests;
