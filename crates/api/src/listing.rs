//! Lists of devices as members have them: plain lines, the lines of IoTRoam's `getdb.py`, CSV, JSON, JSON lines.
//!
//! A list is read as a stream in bounded memory. One bad row never spoils the rest: it becomes a [`Reject`] that says
//! where it stands, what was there and why it is none. Only a list that cannot be read at all is an error, and so is
//! one in which no list of devices can be found: an import of the full list must not take a service's error message
//! for "no devices".
//!
//! | format | a row | its number |
//! |---|---|---|
//! | `plain` | a DevEUI, and what follows it on the line is ignored: so are `getdb.py`'s `<DevEUI> 60 IN A <address>` | line |
//! | `csv` | fields by `,` `;` or tab; the column is found by its head, else by its content | line |
//! | `json` | an element of an array of DevEUIs, or of objects that have one | place among the elements |
//! | `ndjson` | one JSON value a line | line |
//!
//! A DevEUI is taken in each form that [`DevEui`] reads, and as PostgreSQL writes a `bytea`: `\x0004a30b001c0530`.

mod csv;
mod json;
mod lines;

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::str::FromStr;

use dnsbroker_federation::DevEui;

use crate::message::Reject;

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A DevEUI at the start of each line.
    Plain,
    /// Fields.
    Csv,
    /// JSON.
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
    /// A JSON document that wants more memory than any list needs.
    #[error("the list is no JSON for this reader: it has {0}")]
    Bound(&'static str),
    /// A JSON document in which nothing is a list of devices, such as the error message of a service.
    #[error("the list has no devices: give an array, or an object with one under {}", json::LISTS.join(", "))]
    NoList,
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
    fn of(text: &[u8], line: u64) -> Self {
        match device(text) {
            Some(device) => Self::Device(device),
            None => Self::why(&String::from_utf8_lossy(text), line),
        }
    }

    /// The reject of a text that is known to be no DevEUI.
    fn why(text: &str, line: u64) -> Self {
        let reason = text.parse::<DevEui>().err().map_or_else(String::new, |error| format!("DevEUI {error}"));
        Self::reject(text, line, reason)
    }

    fn reject(text: &str, line: u64, reason: impl Into<String>) -> Self {
        // Control characters are not let through to terminals and logs.
        let escaped = |char: char| match char {
            '"' | '\'' | '\\' => char.to_string(),
            char => char.escape_debug().to_string(),
        };
        let mut text: String = text.chars().take(SHOWN + 1).map(escaped).collect();
        let mut places = text.char_indices().skip(SHOWN - 1);
        if let (Some((cut, _)), Some(_)) = (places.next(), places.next()) {
            text.truncate(cut);
            text.push('…');
        }
        Self::Reject(Reject { line, text, reason: reason.into() })
    }
}

/// The DevEUI that a text is.
fn device(text: &[u8]) -> Option<DevEui> {
    let text = text.trim_ascii();
    // PostgreSQL's `bytea`; COPY doubles the backslash.
    let digits = text.strip_prefix(b"\\\\x").or_else(|| text.strip_prefix(b"\\x")).unwrap_or(text);
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The format that was given or told.
    pub format: Format,
    /// Devices, repeated ones too.
    pub devices: u64,
    /// Rows that hold none.
    pub rejected: u64,
}

/// Where rows go, and how many went there.
struct Sink<'e> {
    each: &'e mut dyn FnMut(Item),
    devices: u64,
    rejected: u64,
}

impl Sink<'_> {
    fn put(&mut self, item: Item) {
        match item {
            Item::Device(_) => self.devices += 1,
            Item::Reject(_) => self.rejected += 1,
        }
        (self.each)(item);
    }
}

/// Reads a list to its end. Without a format it is told from the first octets.
pub fn read(mut input: impl BufRead, format: Option<Format>, each: &mut dyn FnMut(Item)) -> Result<Summary, ListError> {
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
    let mut sink = Sink { each, devices: 0, rejected: 0 };
    match format {
        Format::Plain => lines::plain(&mut input, &mut sink)?,
        Format::Ndjson => lines::ndjson(&mut input, &mut sink)?,
        Format::Csv => csv::read(&mut input, &mut sink)?,
        Format::Json => json::read(&mut input, &mut sink)?,
    }
    Ok(Summary { format, devices: sink.devices, rejected: sink.rejected })
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

/// Tells the format from the first line that shows one.
fn detect(start: &[u8]) -> Format {
    let text = start.trim_ascii_start();
    match text.first() {
        Some(b'[') => return Format::Json,
        Some(b'{') => {
            let (line, rest) = text.split_at(text.iter().position(|octet| *octet == b'\n').unwrap_or(text.len()));
            let a_value_a_line = line.trim_ascii_end().ends_with(b"}") && rest.trim_ascii_start().starts_with(b"{");
            return if a_value_a_line { Format::Ndjson } else { Format::Json };
        }
        _ => {}
    }
    let rows = || text.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii).filter(|line| !lines::is_comment(line));
    rows().take(LINES).find_map(of_line).unwrap_or_else(|| {
        // Nothing there is a DevEUI; whoever reads the rejects knows best what they are shown as.
        let fields = rows().next().is_some_and(|line| line.iter().any(|octet| b",;\t".contains(octet)));
        if fields { Format::Csv } else { Format::Plain }
    })
}

/// The format of which a line is, if it has a DevEUI or the head of a column.
fn of_line(line: &[u8]) -> Option<Format> {
    if device(lines::first_word(line)).is_some() {
        return Some(Format::Plain);
    }
    csv::column(line).is_some().then_some(Format::Csv)
}

/// Octets of one line or string at most.
pub const MAX_LINE: usize = 64 * 1024;
/// Characters of a rejected row that are shown.
const SHOWN: usize = 80;
/// Octets that are looked at to tell the format.
const LOOK: u64 = 64 * 1024;
/// Lines that are looked at to tell the format.
const LINES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Format, Vec<String>, Vec<(u64, String)>) {
        let (mut devices, mut rejects) = (Vec::new(), Vec::new());
        let format = read(text.as_bytes(), None, &mut |item| match item {
            Item::Device(device) => devices.push(device.to_string()),
            Item::Reject(reject) => rejects.push((reject.line, reject.text)),
        });
        let summary = format.expect("reads");
        assert_eq!((summary.devices, summary.rejected), (devices.len() as u64, rejects.len() as u64));
        (summary.format, devices, rejects)
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
        assert_two(
            "[{\"devEui\":\"0004a30b001c0530\"},{\"ids\":{\"dev_eui\":\"70B3D57ED0000001\",\"x\":[1]}}]",
            Format::Json,
        );
        assert_two(
            "{\"totalCount\":2,\"result\":[{\"devEui\":\"0004a30b001c0530\",\"name\":\"a\"},{\"devEui\":\"70b3d57ed0000001\"}]}",
            Format::Json,
        );
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
        let (_, devices, rejects) =
            parse("{\"dev_eui\":\"0004a30b001c0530\"}\n{oops\n{\"dev_eui\":\"70b3d57ed0000001\"}\n");
        assert_eq!((devices.len(), rejects), (2, vec![(2, "{oops".to_owned())]));
    }

    #[test]
    fn forms_that_programs_write_are_told_from_each_other() {
        // A remark with a comma makes no CSV, and a title above the table no plain list.
        assert_two("0004a30b001c0530 # roof, north; old\n70b3d57ed0000001\n", Format::Plain);
        assert_two(
            "# by us, for you\nDevices of 2026\n\nname;Device EUI\nroof;0004a30b001c0530\n;70b3d57ed0000001\n;\n",
            Format::Csv,
        );
        assert_two("roof;a,b;0004a30b001c0530\ncellar;c,d;70b3d57ed0000001\n", Format::Csv);
        // PostgreSQL: psql -c 'COPY (SELECT dev_eui FROM device) TO STDOUT', and the same WITH CSV HEADER.
        assert_two("\\\\x0004a30b001c0530\n\\\\x70b3d57ed0000001\n", Format::Plain);
        assert_two("dev_eui,name\n\\x0004a30b001c0530,roof\n\\x70b3d57ed0000001,\n", Format::Csv);
        assert_two(
            "{\n\"end_devices\":[{\"ids\":{\"device_id\":\"a\",\"dev_eui\":\"0004A30B001C0530\"},\"locations\":[{}]}]}\n{\n\"end_devices\":[{\"ids\":{\"dev_eui\":\"70B3D57ED0000001\"}}]}",
            Format::Json,
        );
        assert_two(
            "{\"result\":{\"ids\":{\"dev_eui\":\"0004A30B001C0530\"}}}\n\n{\"result\":{\"ids\":{\"dev_eui\":\"70B3D57ED0000001\"}}}\n",
            Format::Ndjson,
        );
        assert_two(
            "{\"device\":{\"devEui\":\"0004a30b001c0530\",\"tags\":[\"x\"]},\"lastSeenAt\":null}\n\"70b3d57ed0000001\"",
            Format::Json,
        );
    }

    #[test]
    fn an_error_message_is_no_empty_list() {
        for text in [
            "{\"code\":16,\"message\":\"unauthenticated\",\"details\":[]}",
            "{\"error\":\"down\",\"data\":\"try later\"}",
            "{}",
            "null",
            "{\"result\":{}}",
        ] {
            let error = read(text.as_bytes(), Some(Format::Json), &mut |_| {}).expect_err(text);
            assert!(matches!(error, ListError::NoList), "{text}: {error}");
        }
        for text in ["a,b", "name;id\n1;2\n", "<html>,\n"] {
            let error = read(text.as_bytes(), None, &mut |_| {}).expect_err(text);
            assert!(matches!(error, ListError::NoColumn), "{text}: {error}");
        }
        assert_eq!(parse("{\"totalCount\":0,\"result\":null}"), (Format::Json, vec![], vec![]));
        let hopeless = read(&b"<html>\n<body>\n"[..], None, &mut |_| {}).expect("reads");
        assert_eq!(hopeless, Summary { format: Format::Plain, devices: 0, rejected: 2 });
    }

    #[test]
    fn a_row_with_two_devices_is_none() {
        let (_, devices, rejects) =
            parse("[{\"devEui\":\"0004a30b001c0530\",\"ids\":{\"dev_eui\":\"70b3d57ed0000001\"}}]");
        assert_eq!((devices, rejects), (vec![], vec![(1, TWO.join(" "))]));
        // What stands elsewhere in the object is not about this device.
        assert_two(
            "[{\"relay\":{\"dev_eui\":\"1\"},\"ids\":{\"dev_eui\":\"0004a30b001c0530\"}},{\"devEui\":\"70b3d57ed0000001\",\"device\":\"x\"}]",
            Format::Json,
        );
    }

    #[test]
    fn a_quote_that_is_not_closed_costs_its_own_row() {
        let (_, devices, rejects) = parse("n,dev_eui\n\"a\nb\",0004a30b001c0530\n\"oops,1\nx,70b3d57ed0000001\n");
        assert_eq!(devices, TWO);
        assert_eq!(rejects, [(4, "\"oops,1".to_owned())]);
        let rows = "x,0004a30b001c0530\n".repeat(100);
        let (_, devices, rejects) = parse(&format!("n,dev_eui\n\"oops,1\n{rows}\"late,70b3d57ed0000001\n"));
        assert_eq!((devices.len(), rejects.len()), (100, 2));
    }

    #[test]
    fn a_first_row_with_a_slip_is_not_taken_for_a_head() {
        let (format, devices, rejects) = parse("0004a30b001c053,roof\n0004a30b001c0530,a\n70b3d57ed0000001,b\n");
        assert_eq!((format, devices), (Format::Csv, TWO.map(str::to_owned).to_vec()));
        assert_eq!(rejects, [(1, "0004a30b001c053,roof".to_owned())]);
    }

    #[test]
    fn a_document_cannot_ask_for_memory() {
        for (text, what) in [
            (format!("[\"{}\"]", "x".repeat(MAX_LINE + 1)), "string"),
            (format!("{{\"a\":{}", "[".repeat(1_000)), "levels"),
            (format!("{{\"{}\":1}}", "k".repeat(MAX_LINE + 1)), "string"),
        ] {
            let error = read(text.as_bytes(), None, &mut |_| {}).expect_err("is refused");
            assert!(matches!(error, ListError::Bound(found) if found.contains(what)), "{error}");
        }
    }

    #[test]
    fn other_text_in_another_encoding_does_no_harm() {
        let (mut devices, mut rejects) = (0, 0);
        for (octets, format) in [
            (&b"name;dev_eui\nK\xfcche;0004a30b001c0530\n"[..], Format::Csv),
            (b"0004a30b001c0530 K\xfcche\n\xfc\n", Format::Plain),
        ] {
            let summary = read(octets, None, &mut |item| match item {
                Item::Device(_) => devices += 1,
                Item::Reject(_) => rejects += 1,
            });
            assert_eq!(summary.expect("reads").format, format);
        }
        assert_eq!((devices, rejects), (2, 1));
    }

    #[test]
    fn a_long_line_is_one_reject() {
        let long = "x".repeat(MAX_LINE + 10);
        let (_, devices, rejects) = parse(&format!("0004a30b001c0530\n{long}\n70b3d57ed0000001\n"));
        assert_eq!(devices, TWO);
        assert_eq!(rejects.len(), 1);
        assert_eq!(rejects[0].0, 2);
        assert!(rejects[0].1.chars().count() <= SHOWN);
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        let (_, _, rejects) = parse(&format!("\u{1b}[2J{}\n{}\n", "\u{202e}".repeat(90), "é".repeat(80)));
        assert!(rejects[0].1.starts_with("\\u{1b}[2J\\u{202e}") && rejects[0].1.ends_with('…'), "{rejects:?}");
        assert_eq!(rejects[0].1.chars().count(), SHOWN);
        assert_eq!(rejects[1].1, "é".repeat(80));
    }

    #[test]
    fn what_is_no_text_is_said_to_be_so() {
        for (octets, what) in
            [(&b"\x1f\x8b\x08"[..], "gzip"), (b"\xff\xfe0\0", "UTF-16"), (b"PK\x03\x04", "ZIP"), (b"00\0", "binary")]
        {
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
