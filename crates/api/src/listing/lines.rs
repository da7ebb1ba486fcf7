//! Lists of lines: a DevEUI, or a JSON value, on each.

use std::io::{self, BufRead, Read};

use super::{Item, ListError, MAX_LINE, json};

/// Whether a line says nothing: empty, or a remark as in shell, zone files or C.
pub(super) fn is_comment(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") || line.starts_with(b"//")
}

/// Takes the first word of each line.
pub(super) fn plain(input: &mut impl BufRead, each: &mut dyn FnMut(Item)) -> Result<(), ListError> {
    lines(input, |number, line| {
        let line = match line {
            Ok(line) => line.trim(),
            Err(reject) => return each(reject),
        };
        if is_comment(line.as_bytes()) {
            return;
        }
        let word = line.split_ascii_whitespace().next().unwrap_or_default();
        match Item::of(word, number) {
            // "00 04 a3 ..." is one DevEUI of eight words.
            Item::Reject(first) => match Item::of(line, number) {
                Item::Device(device) => each(Item::Device(device)),
                Item::Reject(_) => each(Item::Reject(first)),
            },
            device => each(device),
        }
    })?;
    Ok(())
}

/// Takes each line as a JSON value.
pub(super) fn ndjson(input: &mut impl BufRead, each: &mut dyn FnMut(Item)) -> Result<(), ListError> {
    lines(input, |number, line| {
        let line = match line {
            Ok(line) => line.trim(),
            Err(reject) => return each(reject),
        };
        if !line.is_empty() {
            json::value(line, number, each);
        }
    })?;
    Ok(())
}

/// Goes through lines of bounded length; a longer one, or one that is no UTF-8, is rejected and skipped.
fn lines(input: &mut impl BufRead, mut each: impl FnMut(u64, Result<&str, Item>)) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(256);
    let mut number = 0;
    loop {
        buffer.clear();
        number += 1;
        // One more than allowed, to tell a line that is too long.
        input.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut buffer)?;
        if buffer.is_empty() {
            return Ok(());
        }
        if buffer.len() > MAX_LINE && buffer.last() != Some(&b'\n') {
            let text = String::from_utf8_lossy(&buffer[..256]).into_owned();
            each(number, Err(Item::reject(&text, number, format!("the line is longer than {MAX_LINE} octets"))));
            skip_line(input)?;
            continue;
        }
        match std::str::from_utf8(&buffer) {
            Ok(line) => each(number, Ok(line)),
            Err(_) => {
                let text = String::from_utf8_lossy(&buffer).into_owned();
                each(number, Err(Item::reject(text.trim(), number, "the line is not UTF-8")));
            }
        }
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
