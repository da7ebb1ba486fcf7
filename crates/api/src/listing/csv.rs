//! Lists of fields: `,` `;` or tab between them, quotes as in RFC 4180.

use std::io::{BufRead, Read};

use csv::{ByteRecord, ReaderBuilder};
use dnsbroker_federation::DevEui;

use super::{Item, ListError, MAX_LINE};

/// Heads of the column, without case, blanks and marks: ChirpStack and The Things Stack among them.
const HEADS: [&str; 4] = ["deveui", "deviceeui", "idsdeveui", "eui"];
/// Rows that may stand before the one that shows the column.
const ROWS_BEFORE: u64 = 8;

/// Whether a field is the head of the column.
pub(super) fn is_head(field: &str) -> bool {
    let plain: String = field.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    HEADS.contains(&plain.as_str())
}

pub(super) fn read(input: &mut impl BufRead, each: &mut dyn FnMut(Item)) -> Result<(), ListError> {
    let (delimiter, start) = delimiter(input)?;
    let input = std::io::Cursor::new(start).chain(input);
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).comment(Some(b'#')).from_reader(input);
    let mut record = ByteRecord::new();
    let mut column = None;
    loop {
        let line = reader.position().line();
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            // Rows of which none shows a column are a list of something else; a head alone is an empty list.
            Ok(false) if column.is_none() && line > 1 => return Err(ListError::NoColumn),
            Ok(false) => return Ok(()),
            Err(error) => match error.into_kind() {
                csv::ErrorKind::Io(error) => return Err(error.into()),
                other => {
                    each(Item::reject("", line, format!("the row cannot be read: {other:?}")));
                    continue;
                }
            },
        }
        let line = record.position().map_or(line, csv::Position::line);
        if column.is_none() {
            if let Some(head) = record.iter().position(|field| is_head(&String::from_utf8_lossy(field))) {
                column = Some(head);
                continue;
            }
            column = record.iter().position(|field| parse(field).is_some());
        }
        match column {
            Some(column) => each(row(&record, column, line)),
            // Titles above the table.
            None if line <= ROWS_BEFORE => {}
            None => return Err(ListError::NoColumn),
        }
    }
}

fn parse(field: &[u8]) -> Option<DevEui> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

fn row(record: &ByteRecord, column: usize, line: u64) -> Item {
    match record.get(column) {
        None => Item::reject("", line, "the row has no field in the column of DevEUIs"),
        Some(field) => match parse(field) {
            Some(device) => Item::Device(device),
            None => Item::of(String::from_utf8_lossy(field).trim(), line),
        },
    }
}

/// The delimiter that the first line has most of, and that line.
fn delimiter(input: &mut impl BufRead) -> Result<(u8, Vec<u8>), ListError> {
    let mut start = Vec::new();
    input.take(MAX_LINE as u64).read_until(b'\n', &mut start)?;
    let count = |delimiter: u8| start.iter().filter(|octet| **octet == delimiter).count();
    let most = [b'\t', b';', b','].into_iter().max_by_key(|delimiter| count(*delimiter));
    Ok((most.unwrap_or(b','), start))
}
