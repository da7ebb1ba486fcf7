//! Lists of lines: a DevEUI, or a JSON value, on each.

use std::io::{self, BufRead, Read};

use super::{Item, ListError, MAX_LINE, Sink, json};

/// Whether a line says nothing: empty, or a remark as in shell, zone files or C.
pub(super) fn is_comment(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") || line.starts_with(b"//")
}

/// What stands before the first white space.
pub(super) fn first_word(line: &[u8]) -> &[u8] {
    line.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

/// Takes the first word of each line.
pub(super) fn plain(input: &mut impl BufRead, sink: &mut Sink<'_>) -> Result<(), ListError> {
    let mut lines = Lines::new(input);
    while let Some(line) = lines.next()? {
        match line {
            Line::Whole { number, text } => {
                let text = text.trim_ascii();
                if !is_comment(text) {
                    sink.put(Item::of(first_word(text), number));
                }
            }
            Line::Long(reject) => sink.put(reject),
        }
    }
    Ok(())
}

/// Takes each line as a JSON value.
pub(super) fn ndjson(input: &mut impl BufRead, sink: &mut Sink<'_>) -> Result<(), ListError> {
    let mut lines = Lines::new(input);
    while let Some(line) = lines.next()? {
        match line {
            Line::Whole { number, text } => {
                let text = text.trim_ascii();
                if !text.is_empty() {
                    json::line(text, number, sink);
                }
            }
            Line::Long(reject) => sink.put(reject),
        }
    }
    Ok(())
}

/// A line.
pub(super) enum Line<'l> {
    /// With its end, if it has one.
    Whole { number: u64, text: &'l [u8] },
    /// Longer than [`MAX_LINE`], and skipped.
    Long(Item),
}

/// The lines of an input, in memory that does not grow with theirs.
pub(super) struct Lines<'i, R> {
    input: &'i mut R,
    buffer: Vec<u8>,
    number: u64,
}

impl<'i, R: BufRead> Lines<'i, R> {
    pub(super) fn new(input: &'i mut R) -> Self {
        Self { input, buffer: Vec::with_capacity(256), number: 0 }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        self.number += 1;
        // One more than allowed, to tell a line that is too long.
        self.input.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.buffer)?;
        let (number, text) = (self.number, self.buffer.as_slice());
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() <= MAX_LINE || text.ends_with(b"\n") {
            return Ok(Some(Line::Whole { number, text }));
        }
        skip_line(self.input)?;
        let reason = format!("the line is longer than {MAX_LINE} octets");
        Ok(Some(Line::Long(Item::reject(&String::from_utf8_lossy(&text[..256]), number, reason))))
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|octet| *octet == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        input.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}
