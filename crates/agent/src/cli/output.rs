//! What commands print: results on stdout, as text or JSON; errors and progress on stderr.

use std::io::{ErrorKind, Write};

use dnsbroker_api::client::ClientError;
use serde::Serialize;

/// The one place that writes to stdout.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON, or text for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a result: the value as JSON, or the text.
    pub fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            match serde_json::to_string_pretty(value) {
                Ok(json) => self.line(&json),
                Err(error) => self.error(&error.into()),
            }
        } else {
            self.text(&text(value));
        }
    }

    /// Prints text and a line end.
    pub fn line(self, text: &str) {
        self.text(&format!("{text}\n"));
    }

    /// Prints text.
    pub fn text(self, text: &str) {
        self.octets(text.as_bytes());
    }

    /// Writes octets as they are.
    pub fn octets(self, octets: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        if let Err(error) = stdout.write_all(octets).and_then(|()| stdout.flush()) {
            // The reader went away, as `| head` does: there is nobody to print for.
            let status = if error.kind() == ErrorKind::BrokenPipe { 0 } else { 1 };
            std::process::exit(status);
        }
    }

    /// Tells a person something beside the result.
    pub fn note(self, text: &str) {
        // Where stderr is gone there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Prints an error: for programs the problem document, for people one line.
    pub fn error(self, error: &anyhow::Error) {
        let problem = error.downcast_ref::<ClientError>().and_then(|error| match error {
            ClientError::Problem(problem) => Some(problem),
            _ => None,
        });
        match problem {
            Some(problem) if self.json => self.note(&String::from_utf8_lossy(&problem.to_json())),
            _ => self.note(&format!("error: {error:#}")),
        }
    }
}

/// Rows in columns as wide as their widest cell.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["ID", "N"], &rows), "ID      N\na       1\nlonger  22\n");
    }
}
