//! Percentiles, and the table that is the bench's output. Pure but for printing.

use std::time::Duration;

pub struct Table {
    /// Figure, measured, what another program has of it, to reach, reached.
    rows: Vec<[String; 5]>,
    /// The other program, where there is one.
    other: Option<&'static str>,
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
        Table { rows: Vec::new(), other: None }
    }

    pub fn row(&mut self, figure: impl Into<String>, measured: impl Into<String>, to_reach: &str, verdict: impl Into<Verdict>) {
        let verdict = match verdict.into() {
            Verdict::Reached => "yes",
            Verdict::Missed => "NO",
            Verdict::Plain => "",
        };
        let row = [figure.into(), measured.into(), String::new(), to_reach.to_owned(), verdict.to_owned()];
        // At once: a whole run takes minutes.
        println!("  {}: {}", row[0], row[1]);
        self.rows.push(row);
    }

    /// There is a column for another program from now on.
    pub fn against(&mut self, other: &'static str) {
        self.other = Some(other);
    }

    /// What the other program has of a figure that is there.
    pub fn beside(&mut self, figure: &str, measured: impl Into<String>) {
        let measured = measured.into();
        println!("  {figure}, {}: {measured}", self.other.unwrap_or("the other"));
        match self.rows.iter_mut().find(|row| row[0] == figure) {
            Some(row) => row[2] = measured,
            None => self.rows.push([figure.to_owned(), String::new(), measured, String::new(), String::new()]),
        }
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
        let head = ["figure", "measured", self.other.unwrap_or_default(), "to reach", "reached"].map(str::to_owned);
        let columns: &[usize] = if self.other.is_some() { &[0, 1, 2, 3, 4] } else { &[0, 1, 3, 4] };
        let all: Vec<&[String; 5]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = columns.iter().map(|c| width(*c)).collect();
        for (i, row) in all.iter().enumerate() {
            let cells: Vec<String> = columns.iter().zip(&widths).map(|(c, width)| format!("{:<width$}", row[*c])).collect();
            writeln!(f, "{}", cells.join(" | ").trim_end())?;
            if i == 0 {
                writeln!(f, "{}", widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().join("-|-"))?;
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
