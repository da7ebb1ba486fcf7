//! Lists of devices as members have them: plain lines, the lines of IoTRoam's `getdb.py`, CSV, JSON, JSON lines.
//!
//! A list is read as a stream in bounded memory. One bad row never spoils the rest: it becomes a [`Reject`] that says
//! where it stands, what was there and why it is none. Only a list that cannot be read at all is an error.
//!
//! | format | a row |
//! |---|---|
//! | `plain` | a DevEUI, and what follows it on the line is ignored: so are `getdb.py`'s `<DevEUI> 60 IN A <address>` |
//! | `csv` | fields by `,` `;` or tab; the column is found by its head, else by its content |
//! | `json` | an array, or objects with arrays inside, of DevEUIs or of objects with a DevEUI |
//! | `ndjson` | one JSON value a line |

mod csv;
mod json;
mod lines;

use std::fmt;
use std::io::{self, BufRead, Read};
use std::str::FromStr;

use dnsbroker_federation::DevEui;

use crate::message::Reject;

/// Octets of one line at most.
pub const MAX_LINE: usize = 64 * 1024;
/// Characters of a rejected row that are shown.
const SHOWN: usize = 80;

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A DevEUI at the start of each line.
    Plain,
    /// Fields.
    Csv,
    /// One JSON document.
    Json,
    /// A JSON value a line.
    Ndjson,
}

/// A text that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is none of plain, getdb, csv, json, ndjson")]
pub struct FormatError;

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "plain" | "getdb" => Ok(Self::Plain),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            _ => Err(FormatError),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
        })
    }
}

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It broke off.
    #[error("the list broke off")]
    Io(#[from] io::Error),
    /// It is compressed, or of an encoding that is not UTF-8.
    #[error("the list is {0}: give it as UTF-8 text")]
    NotText(&'static str),
    /// A JSON document that is damaged. What stood before it was read.
    #[error("the list is no JSON")]
    Json(#[source] serde_json::Error),
    /// A CSV file without a column of DevEUIs.
    #[error("the list has no column of DevEUIs: name one dev_eui in the first line, or use another format")]
    NoColumn,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A device.
    Device(DevEui),
    /// A row that holds none.
    Reject(Reject),
}

impl Item {
    /// The device in a text, or why it is none.
    fn of(text: &str, line: u64) -> Self {
        match text.parse() {
            Ok(device) => Self::Device(device),
            Err(error) => Self::reject(text, line, format!("DevEUI {error}")),
        }
    }

    fn reject(text: &str, line: u64, reason: impl Into<String>) -> Self {
        let mut shown: String = text.chars().flat_map(char::escape_debug).take(SHOWN).collect();
        if shown.len() < text.len() && shown.chars().count() == SHOWN {
            shown.push('…');
        }
        Self::Reject(Reject { line, text: shown, reason: reason.into() })
    }
}

/// Octets that are looked at to tell the format.
const LOOK: u64 = 64 * 1024;

/// Reads a list. Without a format it is told from the first octets.
pub fn read(mut input: impl BufRead, format: Option<Format>, each: &mut dyn FnMut(Item)) -> Result<Format, ListError> {
    let mut start = Vec::new();
    input.by_ref().take(LOOK).read_to_end(&mut start)?;
    if let Some(what) = not_text(&start) {
        return Err(ListError::NotText(what));
    }
    if start.starts_with(b"\xef\xbb\xbf") {
        start.drain(..3);
    }
    let format = format.unwrap_or_else(|| detect(&start));
    let mut input = io::Cursor::new(start).chain(input);
    match format {
        Format::Plain => lines::plain(&mut input, each)?,
        Format::Ndjson => lines::ndjson(&mut input, each)?,
        Format::Csv => csv::read(&mut input, each)?,
        Format::Json => json::read(&mut input, each)?,
    }
    Ok(format)
}

/// What octets are, if they are no UTF-8 text.
fn not_text(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x1f, 0x8b, ..] => Some("compressed with gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("compressed with zstd"),
        [b'P', b'K', 3, 4, ..] => Some("a ZIP archive or a spreadsheet"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("in UTF-16"),
        _ if start.contains(&0) => Some("binary"),
        _ => None,
    }
}

/// Tells the format from the first line that says something.
fn detect(start: &[u8]) -> Format {
    let text = start.trim_ascii_start();
    match text.first() {
        Some(b'[') => return Format::Json,
        Some(b'{') => {
            let (line, rest) = text.split_at(text.iter().position(|octet| *octet == b'\n').unwrap_or(text.len()));
            let whole = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
            return if whole && rest.trim_ascii().starts_with(b"{") { Format::Ndjson } else { Format::Json };
        }
        _ => {}
    }
    let line = text.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii).find(|line| !lines::is_comment(line));
    match line {
        Some(line) if line.iter().any(|octet| b",;\t".contains(octet)) => Format::Csv,
        // The head of a column that stands alone.
        Some(line) if csv::is_head(&String::from_utf8_lossy(line)) => Format::Csv,
        _ => Format::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Format, Vec<String>, Vec<(u64, String)>) {
        let (mut devices, mut rejects) = (Vec::new(), Vec::new());
        let format = read(text.as_bytes(), None, &mut |item| match item {
            Item::Device(device) => devices.push(device.to_string()),
            Item::Reject(reject) => rejects.push((reject.line, reject.text)),
        });
        (format.expect("reads"), devices, rejects)
    }

    const TWO: [&str; 2] = ["0004a30b001c0530", "70b3d57ed0000001"];

    fn assert_two(text: &str, format: Format) {
        let (found, devices, rejects) = parse(text);
        assert_eq!((found, devices, rejects), (format, TWO.map(str::to_owned).to_vec(), vec![]), "{text}");
    }

    #[test]
    fn every_form_is_told_and_read() {
        assert_two("0004a30b001c0530\n70b3d57ed0000001\n", Format::Plain);
        assert_two("# ours\n\n00-04-A3-0B-00-1C-05-30 # roof\r\n70:b3:d5:7e:d0:00:00:01", Format::Plain);
        assert_two("0004a30b001c0530 60 IN A 192.0.2.1\n70b3d57ed0000001 60 IN A 192.0.2.1\n", Format::Plain);
        assert_two("dev_eui\n0004A30B001C0530\n70b3d57ed0000001\n", Format::Csv);
        assert_two("name,dev_eui\nroof,0004a30b001c0530\n\"a, b\",70b3d57ed0000001\n", Format::Csv);
        assert_two("id;ids.dev_eui;x\n1;0004a30b001c0530;\n2;70b3d57ed0000001;\n", Format::Csv);
        assert_two("roof\t0004a30b001c0530\ncellar\t70b3d57ed0000001\n", Format::Csv);
        assert_two("[\"0004a30b001c0530\",\n\"70b3d57ed0000001\"]", Format::Json);
        assert_two("[{\"devEui\":\"0004a30b001c0530\"},{\"ids\":{\"dev_eui\":\"70B3D57ED0000001\",\"x\":[1]}}]", Format::Json);
        assert_two("{\"totalCount\":2,\"result\":[{\"devEui\":\"0004a30b001c0530\",\"name\":\"a\"},{\"devEui\":\"70b3d57ed0000001\"}]}", Format::Json);
        assert_two("{\"dev_eui\":\"0004a30b001c0530\"}\n{\"dev_eui\":\"70b3d57ed0000001\"}\n", Format::Ndjson);
        assert_two("\u{feff}0004a30b001c0530\n70b3d57ed0000001\n", Format::Plain);
    }

    #[test]
    fn a_bad_row_is_named_and_the_rest_is_read() {
        let (_, devices, rejects) = parse("0004a30b001c0530\n0004a30b001c05\n70b3d57ed0000001\n");
        assert_eq!(devices, TWO);
        assert_eq!(rejects, [(2, "0004a30b001c05".to_owned())]);
        let (_, devices, rejects) = parse("dev_eui;n\n0004a30b001c0530;1\nzz;2\n70b3d57ed0000001;3\n");
        assert_eq!((devices.len(), rejects), (2, vec![(3, "zz".to_owned())]));
        let (_, devices, rejects) = parse("[\"0004a30b001c0530\",\n7,\n{\"name\":\"x\"},\"70b3d57ed0000001\"]");
        assert_eq!(devices, TWO);
        assert_eq!(rejects.iter().map(|reject| reject.0).collect::<Vec<_>>(), [2, 3]);
        let (_, devices, rejects) = parse("{\"dev_eui\":\"0004a30b001c0530\"}\n{oops\n{\"dev_eui\":\"70b3d57ed0000001\"}\n");
        assert_eq!((devices.len(), rejects), (2, vec![(2, "{oops".to_owned())]));
    }

    #[test]
    fn a_long_line_is_one_reject() {
        let long = "x".repeat(MAX_LINE + 10);
        let (_, devices, rejects) = parse(&format!("0004a30b001c0530\n{long}\n70b3d57ed0000001\n"));
        assert_eq!(devices, TWO);
        assert_eq!(rejects.len(), 1);
        assert_eq!(rejects[0].0, 2);
        assert!(rejects[0].1.chars().count() <= SHOWN + 1);
    }

    #[test]
    fn what_is_no_text_is_said_to_be_so() {
        for (octets, what) in [(&b"\x1f\x8b\x08"[..], "gzip"), (b"\xff\xfe0\0", "UTF-16"), (b"PK\x03\x04", "ZIP"), (b"00\0", "binary")] {
            let error = read(octets, None, &mut |_| {}).expect_err("is refused");
            assert!(error.to_string().contains(what), "{error}");
        }
        assert!(matches!(read(&b"[\"00"[..], None, &mut |_| {}), Err(ListError::Json(_))));
        let hopeless = read(&b"a,b\nc,d\n"[..], None, &mut |_| {});
        assert!(matches!(hopeless, Err(ListError::NoColumn)));
    }

    #[test]
    fn an_empty_list_is_an_empty_list() {
        for text in ["", "\n\n", "# nothing\n", "[]", "dev_eui\n"] {
            let (_, devices, rejects) = parse(text);
            assert_eq!((devices.len(), rejects.len()), (0, 0), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_and_rows_are_never_more_than_words(text in "\\PC{0,300}") {
            let mut items = 0;
            let result = read(text.as_bytes(), None, &mut |_| items += 1);
            proptest::prop_assert!(result.is_err() || items <= text.len() + 1);
        }

        #[test]
        fn devices_come_out_as_they_went_in(devices: Vec<u64>, form in 0..4) {
            let devices: Vec<DevEui> = devices.into_iter().filter_map(|value| DevEui::from_u64(value).ok()).collect();
            let text: String = match form {
                0 => devices.iter().map(|device| format!("{device}\n")).collect(),
                1 => std::iter::once("dev_eui;x\n".to_owned()).chain(devices.iter().map(|device| format!("{device};1\n"))).collect(),
                2 => serde_json::to_string(&devices).expect("JSON"),
                _ => devices.iter().map(|device| format!("{{\"devEui\":\"{device}\"}}\n")).collect(),
            };
            let mut found = Vec::new();
            read(text.as_bytes(), (form == 3).then_some(Format::Ndjson), &mut |item| match item {
                Item::Device(device) => found.push(device),
                Item::Reject(reject) => panic!("{reject:?}"),
            }).expect("reads");
            proptest::prop_assert_eq!(found, devices);
        }
    }
}
