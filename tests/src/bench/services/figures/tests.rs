use super::*;

#[test]
fn percentiles() {
    let all: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!([percentile(&all, 0.5), percentile(&all, 0.99), percentile(&all, 1.0)], [50.0, 99.0, 100.0]);
    assert_eq!([percentile(&[7.0], 0.99), percentile(&[], 0.5)], [7.0, 0.0]);
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0]), (-0.5, 0.5));
}

#[test]
fn columns_line_up() {
    let mut table = Table::new();
    table.row("a figure", "2 ms", "under 1 ms", false);
    table.note("b", "x");
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "figure   | measured | to reach   | reached");
    assert_eq!(lines[2], "a figure | 2 ms     | under 1 ms | NO");
    assert_eq!(lines[3], "b        | x        |            |");
}

#[test]
fn another_program_has_a_column_of_its_own() {
    let mut table = Table::new();
    table.against("other");
    table.row("a", "2 ms", "under 1 ms", true);
    table.note("b", "x");
    table.beside("a", "30 ms");
    table.beside("c", "y");
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "figure | measured | other | to reach   | reached");
    assert_eq!(lines[2], "a      | 2 ms     | 30 ms | under 1 ms | yes");
    assert_eq!(lines[3], "b      | x        |       |            |");
    assert_eq!(lines[4], "c      |          | y     |            |");
}
