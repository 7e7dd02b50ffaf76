//! Printing: tables for people, one document a line for programs.

use crate::failure::Outcome;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// One JSON document on its line.
pub(crate) fn json_line<T: Serialize>(document: &T) -> Outcome {
    let text = serde_json::to_string(document).map_err(crate::failure::Failure::error)?;
    line(&text)
}

/// One line on stdout. A reader that has gone away (`| head`) ends the program quietly.
pub(crate) fn line(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(crate::failure::Failure::silent(0))
        }
        other => Ok(other?),
    }
}

/// Prints [`rows`].
pub(crate) fn table(head: &[&str], body: &[Vec<String>]) -> Outcome {
    rows(head, body).iter().try_for_each(|text| line(text))
}

/// Columns as wide as their widest cell; the last one is as long as it is.
pub(crate) fn rows(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|at| {
            let cells = all().filter_map(|row| row.get(at));
            cells
                .map(|cell| clean(cell).chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    all().map(|row| format_row(row, &widths)).collect()
}

/// One row of a table that grows.
pub(crate) fn row(cells: &[String], widths: &[usize]) -> Outcome {
    line(&format_row(cells, widths))
}

fn format_row(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (at, cell) in cells.iter().enumerate() {
        let width = widths.get(at).copied().unwrap_or(0);
        let cell = clean(cell);
        text.push_str(&format!("{cell:<width$}  "));
    }
    text.trim_end().to_owned()
}

/// Records come from anybody: control characters must not reach a terminal.
pub(crate) fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// A line on stderr that is written over and over, if there is a terminal.
#[derive(Debug)]
pub(crate) struct Bar {
    shown: bool,
    on: bool,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self {
            shown: false,
            on: std::io::stderr().is_terminal(),
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, done: usize, of: usize, note: &str) {
        if !self.on {
            return;
        }
        const WIDTH: usize = 24;
        let filled = (done * WIDTH).checked_div(of).unwrap_or(0).min(WIDTH);
        let bar = format!("{}{}", "#".repeat(filled), "-".repeat(WIDTH - filled));
        let note: String = clean(note).chars().take(40).collect();
        eprint!("\r\x1b[K[{bar}] {done}/{of} {note}");
        self.shown = true;
    }

    /// Takes it away, so that other lines can be written.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
            self.shown = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_aligned_and_clean() {
        let cells = ["a\x1b[2J".to_owned(), "b".to_owned()];
        assert_eq!(format_row(&cells, &[6, 1]), "a\u{fffd}[2J   b");
    }
}
