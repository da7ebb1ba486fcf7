//! Lists of fields: `,` `;` or tab between them, quotes as in RFC 4180.
//!
//! Fields are told apart here and not by a CSV library, because of one wish: a quote that is never closed must cost
//! its own row and no other, where a library takes all that follows for one field.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::lines::{Line, Lines};
use super::{Item, ListError, MAX_LINE, Sink, device};

/// Where DevEUIs stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    delimiter: u8,
    index: usize,
    /// The row that shows it is the head, not a device.
    by_head: bool,
}

/// The column that a row shows, by its head or else by a DevEUI in it.
pub(super) fn column(row: &[u8]) -> Option<Column> {
    let find = |by_head: bool, shows: fn(&[u8]) -> bool| {
        DELIMITERS.into_iter().find_map(|delimiter| {
            let index = Fields::new(row, delimiter).position(shows)?;
            Some(Column { delimiter, index, by_head })
        })
    };
    find(true, is_head).or_else(|| find(false, |field| device(field).is_some()))
}

fn is_head(field: &[u8]) -> bool {
    let plain: Vec<u8> =
        field.iter().filter(|octet| octet.is_ascii_alphanumeric()).take(16).map(u8::to_ascii_lowercase).collect();
    HEADS.contains(&plain.as_slice())
}

pub(super) fn read(input: &mut impl BufRead, sink: &mut Sink<'_>) -> Result<(), ListError> {
    let mut rows = Rows { lines: Lines::new(input), again: VecDeque::new(), row: Vec::new() };
    let mut early = Vec::new();
    let column = loop {
        let Some(number) = rows.line(sink)? else {
            return if early.is_empty() { Ok(()) } else { Err(ListError::NoColumn) };
        };
        if says_nothing(&rows.row, None) {
            continue;
        }
        if let Some(column) = column(&rows.row) {
            if !column.by_head {
                // Without a head every row above was meant to be a device.
                early.into_iter().for_each(|reject| sink.put(reject));
            }
            if rows.complete(number, column.delimiter, sink)? && !column.by_head {
                sink.put(item(&rows.row, column, number));
            }
            break column;
        }
        let text = String::from_utf8_lossy(rows.row.trim_ascii());
        early.push(Item::reject(&text, number, "no field of the row is a DevEUI"));
        if early.len() > ROWS_BEFORE {
            return Err(ListError::NoColumn);
        }
    };
    while let Some(number) = rows.line(sink)? {
        if !says_nothing(&rows.row, Some(column.delimiter)) && rows.complete(number, column.delimiter, sink)? {
            sink.put(item(&rows.row, column, number));
        }
    }
    Ok(())
}

/// Whether a row is empty, a remark, or the delimiters alone that spreadsheets leave behind.
fn says_nothing(row: &[u8], delimiter: Option<u8>) -> bool {
    let row = row.trim_ascii();
    row.starts_with(b"#") || row.iter().all(|octet| Some(*octet) == delimiter || octet.is_ascii_whitespace())
}

fn item(row: &[u8], column: Column, number: u64) -> Item {
    match Fields::new(row, column.delimiter).nth(column.index) {
        Some(field) => Item::of(field.trim_ascii(), number),
        None => {
            let text = String::from_utf8_lossy(row.trim_ascii());
            Item::reject(&text, number, "the row has no field in the column of DevEUIs")
        }
    }
}

/// Rows of one line, or of several where a quoted field has line breaks.
struct Rows<'i, R> {
    lines: Lines<'i, R>,
    /// Lines that were taken for part of a row and are not.
    again: VecDeque<(u64, Vec<u8>)>,
    row: Vec<u8>,
}

impl<R: BufRead> Rows<'_, R> {
    /// Puts the next line into `row`, and tells its number. Lines that are too long are passed by.
    fn line(&mut self, sink: &mut Sink<'_>) -> io::Result<Option<u64>> {
        if let Some((number, line)) = self.again.pop_front() {
            self.row = line;
            return Ok(Some(number));
        }
        loop {
            match self.lines.next()? {
                None => return Ok(None),
                Some(Line::Long(reject)) => sink.put(reject),
                Some(Line::Whole { number, text }) => {
                    self.row.clear();
                    self.row.extend_from_slice(text);
                    return Ok(Some(number));
                }
            }
        }
    }

    /// Adds lines to `row` until its quotes are closed. Where they never are, the row is rejected, and the lines
    /// below it are rows again.
    fn complete(&mut self, number: u64, delimiter: u8, sink: &mut Sink<'_>) -> io::Result<bool> {
        if !self.row.contains(&b'"') || !is_open(&self.row, delimiter) {
            return Ok(true);
        }
        let first = std::mem::take(&mut self.row);
        let mut whole = first.clone();
        let mut below = VecDeque::new();
        while below.len() < MAX_SPAN && whole.len() <= MAX_LINE {
            let Some(number) = self.line(sink)? else { break };
            whole.extend_from_slice(&self.row);
            below.push_back((number, std::mem::take(&mut self.row)));
            if !is_open(&whole, delimiter) {
                self.row = whole;
                return Ok(true);
            }
        }
        below.append(&mut self.again);
        self.again = below;
        let text = String::from_utf8_lossy(first.trim_ascii());
        sink.put(Item::reject(&text, number, "the row has a quote that is not closed"));
        Ok(false)
    }
}

fn is_open(row: &[u8], delimiter: u8) -> bool {
    let mut fields = Fields::new(row, delimiter);
    fields.by_ref().for_each(drop);
    fields.open
}

/// The fields of a row, without their quotes; a quote within a field stays doubled, which no DevEUI has.
struct Fields<'r> {
    rest: Option<&'r [u8]>,
    delimiter: u8,
    /// The last field has a quote that is not closed.
    open: bool,
}

impl<'r> Fields<'r> {
    fn new(row: &'r [u8], delimiter: u8) -> Self {
        Self { rest: Some(row), delimiter, open: false }
    }

    /// Where the quote closes that stands before `text`.
    fn closing(text: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            at += text[at..].iter().position(|octet| *octet == b'"')?;
            if text.get(at + 1) != Some(&b'"') {
                return Some(at);
            }
            at += 2;
        }
    }
}

impl<'r> Iterator for Fields<'r> {
    type Item = &'r [u8];

    fn next(&mut self) -> Option<&'r [u8]> {
        let rest = self.rest.take()?;
        let (field, after) = match rest.strip_prefix(b"\"") {
            None => (None, rest),
            Some(inner) => match Self::closing(inner) {
                Some(end) => (Some(&inner[..end]), &inner[end + 1..]),
                None => {
                    self.open = true;
                    return Some(inner);
                }
            },
        };
        let end = after.iter().position(|octet| *octet == self.delimiter);
        self.rest = end.map(|end| &after[end + 1..]);
        Some(field.unwrap_or(&after[..end.unwrap_or(after.len())]))
    }
}

/// What may stand between fields, the rarest in ordinary text first.
const DELIMITERS: [u8; 3] = [b'\t', b';', b','];
/// Heads of the column, without case, blanks and marks: ChirpStack and The Things Stack among them.
const HEADS: [&[u8]; 4] = [b"deveui", b"deviceeui", b"idsdeveui", b"eui"];
/// Rows that may stand before the one that shows the column.
const ROWS_BEFORE: usize = 8;
/// Line breaks that a row may have: more are taken for a quote that was forgotten.
const MAX_SPAN: usize = 32;
